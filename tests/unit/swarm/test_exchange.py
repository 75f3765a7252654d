"""The all-gather between real streams: who gets what, and what a lying, mute or dripping member costs."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.swarm.made import KEYS, RUN, Wires, digest
from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.errors import RoundFailed
from ubcp_p2p.swarm.exchange import HAVE, HAVE_NOT, LINK_BYTES_PER_S_MIN, OFFER_DOMAIN, AllGather, Pace
from ubcp_p2p.swarm.frames import Stream
from ubcp_p2p.swarm.quorum import Group, Seat

SIZE = 3000
A, B, C = KEYS[:3]
STALL_S = 0.3
LONG_S = 20.0

Serve = Callable[[Stream], Awaitable[None]]


def offer_of(number: int) -> bytes:
    return bytes((number * 31 + n) % 256 for n in range(SIZE))


def hash_of(offer: bytes) -> bytes:
    return hashlib.sha256(OFFER_DOMAIN + offer).digest()


class Table:
    """Three members around a table, each with its offer."""

    def __init__(self) -> None:
        self.wires = Wires()
        rows = sorted(Seat(key.public, 8, hash_of(offer_of(n)), bytes(32)) for n, key in enumerate(KEYS[:3]))
        self.group = Group(RUN, 3, digest("base"), tuple(rows))
        self.exchanges = [AllGather(self.wires.node(key), RUN, SIZE) for key in KEYS[:3]]
        self.buffers: list[SharedBuffer] = []
        for n in range(3):
            buffer = SharedBuffer.create(SIZE)
            with buffer.view as view:
                view[:] = offer_of(n)
            self.buffers.append(buffer)
        self.protocol = f"/ubcp/exchange/1/{RUN.hex()[:32]}"

    async def gather(self, number: int, seconds: float = LONG_S, stall_s: float = LONG_S) -> dict[bytes, bytes]:
        offers = await self.exchanges[number].gather(
            self.group, self.buffers[number], deadline_s=time.monotonic() + seconds, stall_s=stall_s
        )
        return {peer: bytes(buffer.view) for peer, buffer in offers.items()}

    async def open(self, *numbers: int) -> None:
        for number in numbers:
            await self.exchanges[number].open()

    def serve(self, number: int, handler: Serve) -> None:
        """This member answers by `handler` instead."""
        self.wires.node(KEYS[number]).handlers[self.protocol] = handler


@pytest.fixture
def table() -> Iterator[Table]:
    made = Table()
    yield made
    for exchange in made.exchanges:
        exchange.release()
    for buffer in made.buffers:
        buffer.close()


ALL = {key.public: offer_of(n) for n, key in enumerate(KEYS[:3])}


@pytest.mark.asyncio
async def test_every_member_ends_with_every_offer(table: Table) -> None:
    await table.open(0, 1, 2)
    assert await asyncio.gather(*(table.gather(n) for n in range(3))) == [ALL, ALL, ALL]


@pytest.mark.asyncio
async def test_a_group_of_one_needs_nobody(table: Table) -> None:
    table.group = Group(RUN, 3, digest("base"), (Seat(A.public, 8, hash_of(offer_of(0)), bytes(32)),))
    assert await table.gather(0) == {A.public: offer_of(0)}


@pytest.mark.asyncio
async def test_the_missing_are_named(table: Table) -> None:
    await table.open(0, 1)
    results = await asyncio.gather(table.gather(0, 3.0, STALL_S), table.gather(1, 3.0, STALL_S), return_exceptions=True)
    for result in results:
        assert isinstance(result, RoundFailed)
        assert result.missing == (C.public,)


@pytest.mark.asyncio
async def test_the_offer_of_one_who_died_comes_from_a_member_that_has_it(table: Table) -> None:
    await table.open(0, 1, 2)
    await asyncio.gather(*(table.gather(n) for n in range(3)))
    await table.exchanges[2].close()  # C is gone; A asks anew
    assert await table.gather(0) == ALL


async def _ask(stream: Stream) -> None:
    await stream.receive(timeout_s=LONG_S)
    await stream.send([HAVE], timeout_s=LONG_S)


async def other_bytes(stream: Stream) -> None:
    await _ask(stream)
    await stream.send_block(memoryview(b"\xff" * SIZE), stall_s=LONG_S)


async def too_few(stream: Stream) -> None:
    await _ask(stream)
    await stream.send_block(memoryview(b"\xff" * 4), stall_s=LONG_S)
    stream.close()


async def refuses(stream: Stream) -> None:
    await stream.receive(timeout_s=LONG_S)
    await stream.send([HAVE_NOT], timeout_s=LONG_S)


async def nonsense(stream: Stream) -> None:
    await stream.receive(timeout_s=LONG_S)
    await stream.send([[b"what"], 2], timeout_s=LONG_S)


async def hangs_up(stream: Stream) -> None:
    stream.close()


async def mute(stream: Stream) -> None:
    await stream.receive(timeout_s=LONG_S)
    await stream.wait_closed_by_peer(timeout_s=LONG_S)


async def drips(stream: Stream) -> None:
    await _ask(stream)
    for byte in offer_of(2):  # the right bytes, one in each third of the silence that is allowed
        await stream.send_block(memoryview(bytes([byte])), stall_s=LONG_S)
        await stream.wait_closed_by_peer(timeout_s=STALL_S / 3)


@pytest.mark.asyncio
@pytest.mark.parametrize("lie", [other_bytes, too_few, refuses, nonsense, hangs_up, mute])
async def test_what_is_not_the_signed_offer_is_never_taken(table: Table, lie: Serve) -> None:
    await table.open(0, 1)
    table.serve(2, lie)
    with pytest.raises(RoundFailed) as failed:
        await asyncio.gather(table.gather(0, 3.0, STALL_S), table.gather(1, 3.0, STALL_S))
    assert failed.value.missing == (C.public,)


@pytest.mark.asyncio
async def test_who_says_that_it_has_not_is_not_waited_for(table: Table) -> None:
    await table.open(0, 1, 2)
    await asyncio.gather(*(table.gather(n) for n in range(3)))
    table.serve(2, refuses)
    started_s = time.monotonic()
    assert await table.gather(0) == ALL
    assert time.monotonic() - started_s < 3.0


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_dripping_owner_leaves_time_to_ask_those_who_have_its_offer(table: Table) -> None:
    await table.open(0, 1, 2)
    await asyncio.gather(*(table.gather(n) for n in range(3)))
    table.serve(2, drips)
    started_s = time.monotonic()
    assert await table.gather(0, seconds=2.0, stall_s=STALL_S) == ALL
    assert time.monotonic() - started_s < 2.0


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_member_that_drips_to_all_ends_at_the_deadline(table: Table) -> None:
    await table.open(0, 1)
    table.serve(2, drips)
    started_s = time.monotonic()
    with pytest.raises(RoundFailed):
        await table.gather(0, seconds=0.5, stall_s=STALL_S)
    assert time.monotonic() - started_s < 5.0


@pytest.mark.asyncio
async def test_only_members_are_served_and_only_this_group(table: Table) -> None:
    await table.open(0, 1, 2)
    await asyncio.gather(*(table.gather(n) for n in range(3)))
    stranger = table.wires.node(KEYS[5])
    ask = table.group.digest, C.public
    assert await stranger.request(A.public, table.protocol, [*ask], timeout_s=LONG_S) == [HAVE_NOT]
    member = table.wires.node(B)
    assert await member.request(A.public, table.protocol, [*ask], timeout_s=LONG_S) == [HAVE]
    wrong = [table.group.digest, digest("nobody")]
    assert await member.request(A.public, table.protocol, wrong, timeout_s=LONG_S) == [HAVE_NOT]


@pytest.mark.asyncio
async def test_a_request_that_comes_before_we_know_the_group_waits_for_it(table: Table) -> None:
    await table.open(0, 1, 2)
    early = asyncio.ensure_future(
        table.wires.node(B).request(A.public, table.protocol, [table.group.digest, A.public], timeout_s=LONG_S)
    )
    await table.wires.asked.wait()
    others = [asyncio.ensure_future(table.gather(n)) for n in range(3)]
    assert await early == [HAVE]
    await asyncio.gather(*others)


# -- pace --------------------------------------------------------------------------------------------------------

sizes = st.integers(1, 10**10)
observations = st.lists(st.tuples(sizes, st.floats(0.0, 1e4)), max_size=8)


def paced(seen: list[tuple[int, float]]) -> Pace:
    pace = Pace()
    for total, seconds in seen:
        pace.observe(total, seconds)
    return pace


@given(observations, sizes, sizes, st.floats(0.0, 10.0))
def test_a_deadline_grows_with_the_bytes_and_is_never_below_the_silence_allowed(
    seen: list[tuple[int, float]], total: int, more: int, grace_s: float
) -> None:
    pace = paced(seen)
    assert grace_s <= pace.exchange_s(total, grace_s) <= pace.exchange_s(total + more, grace_s)


@given(observations, sizes, st.floats(1e-3, 100.0))
def test_a_deadline_shrinks_after_faster_exchanges_and_grows_after_slower_ones(
    seen: list[tuple[int, float]], total: int, seconds: float
) -> None:
    quick, slow = paced([*seen, (total, seconds)]), paced([*seen, (total, 2 * seconds)])
    assert quick.exchange_s(total, 1.0) <= slow.exchange_s(total, 1.0)


@given(sizes, st.floats(1e-3, 100.0))
def test_an_exchange_at_its_own_pace_is_within_its_deadline(total: int, seconds: float) -> None:
    assert paced([(total, seconds)]).exchange_s(total, 0.0) >= min(3.99 * seconds, total / LINK_BYTES_PER_S_MIN)


def test_slow_exchanges_never_stretch_a_deadline_beyond_the_slowest_link() -> None:
    pace = Pace()
    for _ in range(50):
        pace.observe(4_000_000, pace.exchange_s(4_000_000, 2.0))
    assert pace.exchange_s(4_000_000, 2.0) <= 2.0 + 4_000_000 / LINK_BYTES_PER_S_MIN


def test_before_anything_was_measured_the_slowest_link_is_waited_for() -> None:
    assert Pace().exchange_s(LINK_BYTES_PER_S_MIN * 7, 2.0) == 9.0
