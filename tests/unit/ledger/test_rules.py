"""Applying entries, beyond the vectors: what happens twice, what a refusal leaves behind, and who can freeze whom."""

from __future__ import annotations

import pytest

from tests.support.ledger import picture
from tests.vectors.ledger.scene import Scene
from ubcp_p2p.ledger import rules
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import CONTRIBUTORS_MAX, ZERO, Allot, Close, Heal, OpenAccount, Rotate
from ubcp_p2p.ledger.faults import LedgerError, MalformedEntry, Overdraft, Pending, RuleViolation
from ubcp_p2p.ledger.forks import Fork
from ubcp_p2p.ledger.wire import ForkProof, Signed
from ubcp_p2p.ledger.world import World
from ubcp_p2p.units import MICROCREDITS


def _code(scene: Scene, signed: Signed) -> str:
    """What the rules say of it; a refusal leaves everything as it was."""
    before = picture(scene.ledger)
    try:
        rules.apply(scene.ledger, signed, scene.history)
    except (LedgerError, Pending) as error:
        assert picture(scene.ledger) == before
        return error.code if isinstance(error, LedgerError) else "pending"
    return "ok"


def test_an_entry_counts_once() -> None:
    s = Scene()
    a = s.account("a")
    signed = s.history(a.public)[1]
    before = picture(s.ledger)
    assert not rules.apply(s.ledger, signed, s.history)
    assert not rules.apply(s.ledger, s.history(a.public)[0], s.history)
    assert picture(s.ledger) == before
    assert s.ledger.entries == len(s.entries) == 2


def test_what_is_pending_is_named() -> None:
    s = Scene()
    a, p = s.account("a"), s.account("p")
    missing = bytes([9]) * 32
    for signed in (
        s.draft(a, s.ask(p, 1, closes=(missing,))),
        s.draft(a, Close(missing, (), 1)),
        s.raw(a.public, 5, missing, s.ask(p, 1), [a.key]),
    ):
        with pytest.raises(Pending) as pending:
            rules.apply(s.ledger, signed, s.history)
        assert pending.value.missing == (missing,)
    unknown = [(1, missing), (2, missing)]
    with pytest.raises(Pending) as pending:
        rules.apply(s.ledger, s.draft(a, Heal(tuple(unknown), ()), s.stewards), s.history)
    assert len(pending.value.missing) == 2  # all of them are asked for at once


def test_a_refused_entry_of_another_network_names_it() -> None:
    s = Scene()
    signed = s.raw(s.key("x").public, 0, ZERO, OpenAccount(ZERO), [s.key("x")], network=bytes([7]) * 32)
    with pytest.raises(MalformedEntry, match="0707070707070707"):
        rules.apply(s.ledger, signed, s.history)


def test_nobody_signs_beside_the_author_whoever_comes_first() -> None:
    s = Scene()
    a, p = s.account("a"), s.account("p")
    others = [s.key(f"other {i}") for i in range(9)]
    assert min(other.public for other in others) < a.public < max(other.public for other in others)
    for other in others:
        signed = s.draft(a, s.ask(p, 1), [other])
        assert len(signed.signatures) == 2
        assert _code(s, signed) == "signer"


def test_as_many_contributors_as_a_close_can_name() -> None:
    s = Scene()
    s.trusting = True
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay = s.node(p, "pay")
    request = s.request(a, pay, 1000)
    nodes = [s.node(b, str(n)) for n in range(CONTRIBUTORS_MAX + 1)]
    for node in nodes[:-1]:
        s.allot(pay, request, node, 1)
    assert _code(s, s.draft(pay, Allot(request.entry.id, s.opening(nodes[-1]), 1))) == "allot"
    assert _code(s, s.draft(pay, Allot(request.entry.id, s.opening(nodes[0]), 2))) == "ok"


def _fork(s: Scene) -> tuple[Author, Author, Signed]:
    a, p = s.account("a"), s.account("p")
    pay = s.node(p, "pay")
    return s.back(a, 1), pay, s.request(a, pay, 100)


def test_an_entry_that_forks_is_noted_though_it_is_refused() -> None:
    s = Scene()
    fork, pay, first = _fork(s)
    bad = s.draft(fork, s.ask(pay, 5000))
    with pytest.raises(RuleViolation):
        rules.apply(s.ledger, bad, s.history)
    assert s.ledger.open_forks(fork.public) == [Fork(2, *sorted((first.entry.id, bad.entry.id)))]
    assert s.ledger.frozen() == [fork.public]
    assert len(s.ledger.chains[fork.public]) == 1


def test_a_stranger_cannot_freeze() -> None:
    """Entries in another's name after its older entries, in every kind that is not signed by one key alone."""
    s = Scene()
    _, pay, _ = _fork(s)
    a = s.names["a"]
    head, thief, other = s.id_at(a, 1), s.key("thief"), s.key("other")
    for signed in (
        s.raw(a.public, 2, head, s.ask(pay, 1), [thief]),
        s.raw(a.public, 2, head, Rotate(thief.public, ZERO), [thief, other]),
        s.raw(a.public, 2, head, Rotate(thief.public, ZERO), [thief]),
        s.raw(a.public, 0, ZERO, OpenAccount(thief.public), [thief]),
        s.raw(a.public, 2, head, s.ask(pay, 1), [a.key, thief]),
    ):
        assert _code(s, signed) == "signer"
        first = s.history(a.public)[signed.entry.seq]
        with pytest.raises(RuleViolation) as error:
            rules.check_proof(s.ledger, ForkProof.of(first, signed._replace(signatures=((thief.public, bytes(64)),))))
        assert error.value.code == "freeze"
    assert s.ledger.forks.places == {}


def test_copies_with_other_signatures_are_the_same_entry() -> None:
    s = Scene()
    a = s.account("a", enrol=False)
    drafts = [a.draft(0, s.history(s.account("b").public)[1].entry.body, s.stewards[n : n + 2]) for n in (0, 1)]
    assert drafts[0].entry.id == drafts[1].entry.id
    assert rules.apply(s.ledger, drafts[0], s.history)
    assert not rules.apply(s.ledger, drafts[1], s.history)


def test_the_newest_slice_of_all_chains_counts() -> None:
    s = Scene()
    s.now = 8
    s.account("a")
    s.now = 3
    s.account("b")
    assert s.ledger.slice == 8


def test_a_third_branch_from_the_middle_is_a_branch_of_its_own() -> None:
    s = Scene()
    fork, pay, first = _fork(s)
    a = s.names["a"]
    third = s.back(a, 1)
    s.write(fork, s.ask(pay, 200))
    s.write(third, s.ask(pay, 300))
    s.write(fork, s.ask(pay, 20))
    s.write(a, s.ask(pay, 10))
    s.write(s.back(a, 2), s.ask(pay, 5))  # its past has a REQUEST, which is replayed
    chains = s.ledger.chains[a.public]
    assert sorted(len(chain) for chain in chains) == [3, 4, 4, 4]
    assert [len(ids) for ids in s.ledger.forks.places[a.public].values()] == [3, 2]
    amounts = sorted(chain.purse.reserved for chain in chains)  # type: ignore[attr-defined]
    assert amounts == [105, 110, 220, 300]
    assert first.entry.id in s.ledger.requests
    assert sorted(s.ledger.request_ids) == sorted(s.ledger.requests)  # replaying a branch numbers nothing again


def test_a_second_heal_forgets_nothing_that_the_first_has_counted() -> None:
    world = World()
    a = world.account("a")
    node, before = world.node(a, "n"), a.head
    world.request(a, node, 8_000 * MICROCREDITS)
    twin = Author(a.network, a.key, head=before)
    other = world.request(twin, node, 7_000 * MICROCREDITS)
    world.now += 1
    world.write(a, Heal(((other.entry.seq, other.entry.id),), ()), world.stewards[:2])
    for _ in range(2):
        head = a.head
        with pytest.raises(Overdraft):
            world.request(a, node, 1)
        a.head = head
        world.write(a, Heal((), (bytes([9]) * 32,)), world.stewards[:2])
