"""A store answers as a ledger in memory does, page by page, and pulls like one."""

from __future__ import annotations

import pytest

from tests.support.ledger import ids_of
from tests.support.ledgers import MemoryLedger, at, busy
from ubcp_p2p.codec import Value
from ubcp_p2p.ledger import sync
from ubcp_p2p.ledger.disk import Disk
from ubcp_p2p.ledger.entry import Decision
from ubcp_p2p.ledger.intake import Intake
from ubcp_p2p.ledger.pull import Ask, pull
from ubcp_p2p.ledger.shared import Shared
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.world import World

PAGE = 8


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ubcp_p2p.ledger.shared._PAGE", PAGE)


def store_of(world: World, size: int | None = None) -> Store:
    store = Store(Disk.in_memory(signed.to_bytes() for signed in world.charters.versions))
    store.append(world.entries[:size])
    return store


@pytest.fixture(scope="module")
def world() -> World:
    """Chains of several pages; at one place a chain has more branches than fit into a page."""
    world = busy(6, people=2, receipts=4 * PAGE, forks=[(3, 2)])
    owner = world.account("owner")
    node = world.node(owner, "node")
    world.now += 1
    for _ in range(3 * PAGE):
        world.write(node, Decision(world.now, 0, 1, (), (), bytes(32)))
    place = node.head
    for number in range(PAGE + 5):
        world.write(at(node, place), Decision(world.now, 0, 1, (), (), number.to_bytes(32, "big")))
    return world


def test_every_answer_is_that_of_a_ledger_in_memory(world: World) -> None:
    shared, memory = Shared(store_of(world)), MemoryLedger(world.charters.versions, world.entries)
    authors = sorted(memory.ledger.chains)
    proofs: list[Value] = sorted(set(shared.proof_ids()) & set(memory.proof_ids()))
    questions: list[Value] = [
        [sync.CHARTERS, [0, 1, 2]], [sync.PROOFS, proofs[:64]], [sync.LOG, 0], [sync.LOG, 100], [sync.LOG, 10**6],
        [sync.IDS, [*(signed.entry.id for signed in world.entries[:256])]], [sync.IDS, [bytes(32)]],
        [sync.BLOB, bytes(32)],
    ]  # fmt: skip
    questions += [[sync.HEADS, bucket, after] for bucket in range(256) for after in (bytes(32), b"\xff" * 32)]
    for author in authors:
        questions += [
            [sync.RANGES, [[author, first, last]]]
            for first, last in ((0, 2**32 - 1), (5, 5), (3 * PAGE - 1, 3 * PAGE + 2), (PAGE, 3), (9000, 9999))
        ]
    questions.append([sync.RANGES, [[author, 2, 40] for author in authors]])
    for question in questions:
        assert sync.answer(question, shared) == sync.answer(question, memory), question
    assert shared.heads().digests() == memory.heads().digests()


def test_heads_are_read_again_when_there_are_others(world: World) -> None:
    store = store_of(world, 10)
    shared = Shared(store)
    heads = shared.heads()
    assert shared.heads() is heads
    store.append(world.entries[10:11])
    assert shared.heads() is not heads
    assert sorted(shared.heads()) == sorted(store.ledger.heads())


@pytest.mark.parametrize("size", [0, 3, 50, 100])
def test_one_store_pulls_from_another(world: World, size: int) -> None:
    ours, theirs = store_of(world, size), Shared(store_of(world))
    intake = Intake(ours)
    steps, reply, new = pull(Shared(ours)), None, None
    while new is None:
        try:
            step = steps.send(reply)
        except StopIteration as done:
            new = done.value
            continue
        reply = None
        if isinstance(step, Ask):
            reply = sync.answer(step.question, theirs)
        else:
            taken = intake.take_pulled(step, b"p" * 32, 10**6)
            assert (taken.junk, taken.refused) == ([], [])
    assert new == len(world.entries) - size
    memory = MemoryLedger(world.charters.versions, world.entries)
    assert ids_of(ours.ledger) == ids_of(memory.ledger)
    assert ours.ledger.frozen() == memory.ledger.frozen()
