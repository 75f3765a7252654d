"""What a peer's things go through on their way into the store."""

from __future__ import annotations

import pytest

from tests.support.ledgers import MemoryLedger, busy
from ubcp_p2p.charter.values import SignedCharter
from ubcp_p2p.codec import encode
from ubcp_p2p.ledger import intake as intake_module
from ubcp_p2p.ledger import sync
from ubcp_p2p.ledger.disk import Disk
from ubcp_p2p.ledger.intake import NOBODY, Intake, Item
from ubcp_p2p.ledger.pull import Take
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.wire import ForkProof, Signed, sign
from ubcp_p2p.ledger.world import World

PEER = b"p" * 32
NOW = 1000


def made(world: World) -> tuple[Store, Intake]:
    store = Store(Disk.in_memory(signed.to_bytes() for signed in world.charters.versions))
    return store, Intake(store)


def items(*entries: Signed) -> list[Item]:
    return [Item(PEER, signed) for signed in entries]


def spoiled(signed: Signed) -> Signed:
    """A copy whose last signature does not hold."""
    *others, (key, signature) = signed.signatures
    return signed._replace(signatures=(*others, (key, signature[:8] + bytes([signature[8] ^ 1]) + signature[9:])))


def test_entries_are_added_and_known_the_next_time() -> None:
    world = busy(1)
    store, intake = made(world)
    taken = intake.take(items(*world.entries), NOW)
    assert taken.added == world.entries
    assert (taken.junk, taken.refused, taken.known) == ([], [], 0)
    again = intake.take(items(*world.entries), NOW)
    assert again.added == []
    assert again.known == len(world.entries)
    assert store.ledger.entries == len(world.entries)


def test_what_waits_is_added_with_what_it_waited_for() -> None:
    world = busy(1)
    _, intake = made(world)
    first, *rest = world.entries
    taken = intake.take(items(*rest), NOW)
    assert taken.waiting == {PEER}
    done = intake.take(items(first), NOW)
    assert {signed.entry.id for signed in [*taken.added, *done.added]} == {s.entry.id for s in world.entries}


def test_a_bad_signature_is_junk_and_not_remembered_against_the_entry() -> None:
    world = busy(1)
    store, intake = made(world)
    first = world.entries[0]
    taken = intake.take([*items(spoiled(first)), Item(NOBODY, first)], NOW)
    assert [junk.sender for junk in taken.junk] == [PEER]
    assert taken.added == [first]
    assert store.ledger.entries == 1


def test_another_communitys_entry_is_junk() -> None:
    _, intake = made(busy(1))
    taken = intake.take(items(busy(2).entries[0]), NOW)
    assert [junk.error.code for junk in taken.junk] == ["network"]


def test_an_entry_that_breaks_a_rule_is_its_authors_fault() -> None:
    world = busy(1)
    _, intake = made(world)
    intake.take(items(*world.entries), NOW)
    author = world.account("late")
    world.now -= 1
    early = author.draft(0, world.entries[-1].entry.body)  # an ENROL again, of a slice before
    taken = intake.take(items(*world.entries[-2:], early), NOW)
    assert [(sender, error.code) for sender, _, error in taken.refused] == [(PEER, "slice-falls")]
    assert taken.junk == []


def test_an_early_entry_is_held_back_until_its_time() -> None:
    world = World(1)
    world.now = NOW + 2
    world.account("early", enrol=False)
    store, intake = made(world)
    taken = intake.take(items(*world.entries), NOW)
    assert taken.early == {world.entries[0].entry.id}
    assert (taken.added, store.ledger.entries, intake.early_count) == ([], 0, 1)
    assert intake.take(items(*world.entries), NOW).known == 1  # not held twice
    done = intake.take([], NOW + 1)
    assert done.added == world.entries
    assert intake.early_count == 0


def test_an_early_copy_by_a_stranger_keeps_no_good_one_out() -> None:
    world = World(1)
    world.now = NOW + 2
    world.account("early", enrol=False)
    (good,) = world.entries
    stranger = sign(good.entry, good.data, [world.stewards[0]])
    _, intake = made(world)
    assert intake.take(items(stranger, good), NOW).early == {good.entry.id}
    assert intake.early_count == 2
    assert intake.take([], NOW + 1).added == [good]


def test_what_is_held_back_is_bounded_and_the_furthest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "EARLY_MAX", 5)
    world = World(1)
    for n in (9, 3, 8, 1, 7, 2, 6, 4, 5):
        world.now = NOW + 10 * n
        world.account(f"person {n}", enrol=False)
    _, intake = made(world)
    intake.take(items(*world.entries), NOW)
    assert intake.early_count == 5
    assert [s.entry.slice for s in intake.take([], NOW + 1000).added] == [NOW + 10 * n for n in (1, 2, 3, 4, 5)]


def test_a_clock_in_2099_is_only_early() -> None:
    world = World(1)
    world.now = 2**32 - 1
    world.account("from 2099", enrol=False)
    _, intake = made(world)
    taken = intake.take(items(*world.entries), NOW)
    assert (taken.junk, taken.refused, len(taken.early)) == ([], [], 1)


def test_a_fork_is_told_with_its_proof_by_entries_or_by_proof() -> None:
    world = busy(3, forks=[(1, 1)])
    forker = world.ledger.frozen()
    whole = MemoryLedger(world.charters.versions, world.entries)
    (proof,) = whole.proofs.values()
    _, intake = made(world)
    taken = intake.take(items(*world.entries), NOW)
    assert taken.frozen == forker
    assert [ForkProof.from_bytes(data).id for data in taken.proofs] == [proof.id]
    assert intake.take([Item(PEER, proof)], NOW).proofs == []

    store, intake = made(world)
    known = [s for s in world.entries if s.entry.id not in (proof.first.entry.id, proof.second.entry.id)]
    intake.take(items(*known), NOW)
    taken = intake.take([Item(PEER, proof), *items(proof.first)], NOW)
    assert taken.frozen == forker == store.ledger.frozen()
    bad = ForkProof(spoiled(proof.first), proof.second)
    _, intake = made(world)
    assert [junk.sender for junk in intake.take([Item(PEER, bad)], NOW).junk] == [PEER]


def test_pulled_charters_and_proofs_that_are_none() -> None:
    world = busy(3, forks=[(1, 1)])
    store, intake = made(world)
    taken = intake.take_pulled(Take(sync.CHARTERS, data=[b"junk", encode([b"x", []])]), PEER, NOW)
    assert [junk.sender for junk in taken.junk] == [PEER, PEER]
    taken = intake.take_pulled(Take(sync.PROOFS, data=[b"junk"]), PEER, NOW)
    assert [junk.sender for junk in taken.junk] == [PEER]
    assert len(store.ledger.charters) == 1


def test_a_charter_that_conflicts_is_told_and_not_taken() -> None:
    world = World(1)
    store, intake = made(world)

    def second(cap: int) -> SignedCharter:
        charter = type(world.charter)(
            **{**vars(world.charter), "number": 2, "previous": world.charter.id, "effective": 9, "exposure_cap": cap}
        )
        return SignedCharter(charter).signed((k.public, k.sign("charter", charter.id)) for k in world.stewards)

    assert intake.take_pulled(Take(sync.CHARTERS, data=[second(1).to_bytes()]), PEER, NOW).conflict is None
    taken = intake.take_pulled(Take(sync.CHARTERS, data=[second(2).to_bytes()]), PEER, NOW)
    assert taken.conflict is not None
    assert taken.junk == []
    assert store.ledger.charters.newest.exposure_cap == 1
