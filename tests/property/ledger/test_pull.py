"""Two ledgers that ask each other end the same, whatever each had before."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.ledgers import MemoryLedger, busy, converge
from ubcp_p2p.ledger.entry import references
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import World

forks = st.lists(st.tuples(st.integers(0, 7), st.integers(1, 6)), max_size=3)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    return busy(
        draw(st.integers(0, 3)), people=draw(st.integers(2, 4)), receipts=draw(st.integers(0, 6)), forks=draw(forks)
    )


def closed(world: World, kept: set[int]) -> list[Signed]:
    """These entries, and all that they reach."""
    ids: set[bytes] = set()
    result = []
    for place in reversed(range(len(world.entries))):
        signed = world.entries[place]
        if place in kept or signed.entry.id in ids:
            ids |= {signed.entry.prev, *references(signed.entry)}
            result.append(signed)
    return result[::-1]


def whole(world: World) -> MemoryLedger:
    return MemoryLedger(world.charters.versions, world.entries)


@settings(max_examples=60)
@given(worlds(), st.data())
def test_closed_subsets_need_one_exchange(world: World, data: st.DataObject) -> None:
    places = st.sets(st.sampled_from(range(len(world.entries))))
    versions = world.charters.versions
    a = MemoryLedger(versions, closed(world, data.draw(places)))
    b = MemoryLedger(versions, closed(world, data.draw(places)))
    both = MemoryLedger(versions, [*a.order, *b.order])
    new = both.size - a.size
    assert a.pull(b) == new
    assert a.roots() == both.roots()
    b.pull(a)
    assert b.roots() == both.roots()
    assert a.pull(b) == b.pull(a) == 0


@settings(max_examples=60)
@given(worlds(), st.data())
def test_any_pieces_in_any_order_become_the_whole(world: World, data: st.DataObject) -> None:
    count = len(world.entries)
    owners = data.draw(st.lists(st.integers(1, 3), min_size=count, max_size=count))  # 1: a, 2: b, 3: both
    order = data.draw(st.permutations(range(count)))
    a, b = (
        MemoryLedger(world.charters.versions, [world.entries[n] for n in order if owners[n] & bit]) for bit in (1, 2)
    )
    converge(a, b)
    assert a.roots() == b.roots() == whole(world).roots()
    assert not a.pending
    assert not b.pending


@settings(max_examples=20)
@given(worlds(), st.data())
def test_three_that_meet_in_a_ring(world: World, data: st.DataObject) -> None:
    places = st.sets(st.sampled_from(range(len(world.entries))))
    rest = set(range(len(world.entries)))
    kept = [data.draw(places), data.draw(places), rest]
    ledgers = [MemoryLedger(world.charters.versions, closed(world, kept[n])) for n in range(3)]
    for _ in range(2):
        for n in range(3):
            ledgers[n].pull(ledgers[(n + 1) % 3])
    assert {ledger.roots() for ledger in ledgers} == {whole(world).roots()}
