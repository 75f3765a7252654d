"""What a follower makes of a node's ledger: the same roots, every fault once and with its author, blame for lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.ledgers import MemoryLedger, at
from tests.support.town import EPOCH, Town
from ubcp_p2p.charter.values import SignedCharter
from ubcp_p2p.codec import MalformedMessage, Value
from ubcp_p2p.ledger import sync
from ubcp_p2p.ledger.disk import Disk
from ubcp_p2p.ledger.entry import Checkpoint, Decision, Kind, OpenAccount
from ubcp_p2p.ledger.merkle import root_of
from ubcp_p2p.ledger.pull import Ask, Take, pull
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.wire import ForkProof, Signed, verify_proof
from ubcp_p2p.light.replica import REFUSED_MAX, Replica
from ubcp_p2p.units import MICROCREDITS

Lie = Callable[[list[Any]], "Value | None"]  # another answer to a question, or None: the honest one


class Watch:
    """A Replica and what it has said."""

    def __init__(self, town: Town, store: Store | None = None) -> None:
        charters = [signed.to_bytes() for signed in town.world.charters.versions]
        self.town = town
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.sizes: list[int] = []  # of the ledger when something was said
        self.store = store or Store(Disk.in_memory(charters))
        self.replica = Replica(self.store, self._hear)

    def _hear(self, kind: str, values: dict[str, Any]) -> None:
        self.said.append((kind, values))
        self.sizes.append(self.store.ledger.entries)

    def exchange(self, lie: Lie = lambda question: None, ledger: MemoryLedger | None = None) -> list[int]:
        """One, with the town's node; returns which questions were asked."""
        replica = self.replica
        asked: list[int] = []
        replica.begin(self.town.node.public)
        steps = pull(replica.local, log_after=replica.log_after(self.town.node.public))
        reply: Value | None = None
        try:
            while True:
                try:
                    step = steps.send(reply)
                except StopIteration:
                    return asked
                reply = None
                if isinstance(step, Ask):
                    assert isinstance(step.question, list)
                    asked.append(int(step.question[0]))  # type: ignore[arg-type]
                    reply = lie(step.question)
                    reply = (ledger or self.town.ledger).answer(step.question) if reply is None else reply
                else:
                    replica.take(step)
        finally:
            replica.finish()

    def faults(self) -> list[tuple[str, str]]:
        """(code, account) of all that were told."""
        return [(values["code"], values["account"]) for kind, values in self.said if kind == "fault"]

    def roots(self) -> tuple[str, str]:
        summary = self.replica.summary(1.0)
        return summary["entries_root"], summary["balances_root"]


@pytest.fixture
def town() -> Town:
    return Town(5)


@pytest.fixture
def watch(town: Town) -> Iterator[Watch]:
    made = Watch(town)
    yield made
    made.replica.store.close()


def roots_of(ledger: MemoryLedger) -> tuple[str, str]:
    entries, state, _ = ledger.roots()
    return entries.hex(), state.hex()


def with_more(town: Town, *more: Signed) -> Lie:
    """The node's log goes on with these, which its own ledger has not taken in."""

    def lie(question: list[Any]) -> Value | None:
        if question[0] == sync.HELLO:
            honest = town.ledger.answer(question)
            assert isinstance(honest, list)
            return [*honest[:5], town.ledger.size + len(more)]
        if question[0] == sync.LOG:
            rows = [*town.ledger.order, *more][question[1] :]
            return [sync.LOG, town.ledger.size + len(more), [signed.to_bytes() for signed in rows]]
        return None

    return lie


# -- an honest node ---------------------------------------------------------------------------------------------------


def test_it_ends_with_the_same_roots_and_asks_little_when_nothing_is_new(town: Town, watch: Watch) -> None:
    watch.exchange()
    assert watch.roots() == roots_of(town.ledger)
    assert watch.exchange() == [sync.HELLO]
    town.receipt()
    assert watch.exchange() == [sync.HELLO, sync.LOG]
    assert watch.roots() == roots_of(town.ledger)
    assert watch.said == []


def test_what_is_new_is_told_once(town: Town, watch: Watch) -> None:
    watch.exchange()
    first = watch.replica.state()
    assert (first["entries"], first["added"]) == (town.ledger.size, town.ledger.size)
    author = town.receipt()
    watch.exchange()
    state = watch.replica.state()
    assert (state["added"], state["kinds"]) == (1, {"RECEIPT": 1})
    assert state["new"][0]["author"] == author.hex()
    assert state["new"][0]["credits"] == 2 * MICROCREDITS
    assert watch.replica.state()["added"] == 0


def test_the_summary_has_all_that_an_audit_prints(town: Town, watch: Watch) -> None:
    town.fork()
    watch.exchange()
    summary = watch.replica.summary(2.0)
    assert summary["entries"] == summary["valid"] == town.ledger.size
    assert [sorted(fault) for fault in summary["faults"]] == [
        ["account", "code", "entry", "invariant", "message", "section"]
    ]
    assert {"accounts", "seconds", "verified_per_s", "balances_root", "entries_root"} <= summary.keys()
    assert summary["signatures"] == sum(
        len(signed.signatures) + (signed.entry.kind == 6) for signed in town.world.entries
    )


# -- CHECKPOINTs ------------------------------------------------------------------------------------------------------


def test_right_checkpoints_are_recomputed(town: Town, watch: Watch) -> None:
    town.checkpoint()
    town.receipt()
    watch.exchange()
    town.receipt()
    town.checkpoint()
    watch.exchange()
    assert watch.replica.summary(1.0)["checkpoints"] == {"checked": 2, "not_checkable_here": 0}
    assert watch.faults() == []


def in_threes(town: Town) -> Lie:
    """No lie: the log in small answers."""

    def answer(question: list[Any]) -> Value | None:
        if question[0] != sync.LOG:
            return None
        rows = town.ledger.order[question[1] : question[1] + 3]
        return [sync.LOG, question[1] + len(rows), [signed.to_bytes() for signed in rows]]

    return answer


def test_a_log_that_comes_in_many_answers_is_one_log(town: Town, watch: Watch) -> None:
    for _ in range(3):
        town.checkpoint()
        town.receipt()
        assert watch.exchange(in_threes(town)).count(sync.LOG) >= 1
    assert watch.replica.summary(1.0)["checkpoints"] == {"checked": 3, "not_checkable_here": 0}
    town.orders()["bad root"]()
    watch.exchange(in_threes(town))
    watch.exchange(in_threes(town))
    assert watch.faults() == [("checkpoint-root", town.node.public.hex())]


@pytest.mark.parametrize(("order", "code"), [("bad root", "checkpoint-root"), ("bad state", "checkpoint-state")])
def test_a_wrong_checkpoint_is_a_fault_of_the_node(town: Town, watch: Watch, order: str, code: str) -> None:
    town.orders()[order]()
    town.receipt()
    watch.exchange()
    watch.exchange()
    assert watch.faults() == [(code, town.node.public.hex())]
    assert watch.roots() == roots_of(town.ledger)  # it makes nothing invalid


def test_a_ledger_that_was_begun_elsewhere_checks_no_checkpoint(town: Town, tmp_path: Path) -> None:
    store = Store.create(tmp_path / "ledger", town.world.charters)
    store.append(town.world.entries[:3])
    watch = Watch(town, store)
    town.orders()["bad root"]()
    assert sync.LOG not in watch.exchange()
    assert watch.replica.summary(1.0)["checkpoints"] == {"checked": 0, "not_checkable_here": 1}
    assert watch.faults() == []
    assert watch.roots() == roots_of(town.ledger)
    store.close()


def test_a_node_that_has_begun_anew_is_not_accused(town: Town, watch: Watch) -> None:
    watch.exchange()
    town.receipt()
    causal = sorted(town.world.entries, key=lambda signed: (signed.entry.slice, signed.entry.seq, signed.entry.id))
    again = MemoryLedger(town.world.charters.versions, causal[:-1])  # the same entries, not in the same order
    again.add(causal[-1:])
    assert [signed.entry.id for signed in again.order] != [signed.entry.id for signed in town.ledger.order]
    town.ledger = again
    town.checkpoint()
    watch.exchange()
    watch.exchange()
    assert watch.said == []
    assert watch.roots() == roots_of(again)


def test_a_lie_about_a_log_read_in_parts_is_seen_when_it_is_read_again(town: Town, watch: Watch) -> None:
    watch.exchange()
    town.orders()["bad root"]()
    watch.exchange()
    assert watch.faults() == []
    watch.exchange()
    assert watch.faults() == [("checkpoint-root", town.node.public.hex())]


def test_a_log_with_an_invalid_entry_says_nothing_of_our_balances(town: Town, watch: Watch) -> None:
    """Although our ledger has as many entries as that log."""
    bad = town.asker.draft(town.world.now, OpenAccount(bytes(32)))
    watch.exchange(with_more(town, bad))
    ids = [signed.entry.id for signed in (*town.ledger.order, bad)]
    checkpoint = town.node.draft(town.world.now, Checkpoint(len(ids), root_of(ids), bytes(32)))
    extra = town.other.draft(town.world.now, Decision(town.world.now, 0, 1, (), (), bytes(32)))
    watch.replica.take(Take(sync.IDS, entries=[extra]))
    watch.exchange(with_more(town, bad, checkpoint))
    assert [code for code, _ in watch.faults()] == ["opening"]
    assert watch.replica.summary(1.0)["checkpoints"] == {"checked": 0, "not_checkable_here": 1}


def test_only_the_log_of_the_first_node_is_read(town: Town, watch: Watch) -> None:
    watch.exchange()
    assert watch.replica.log_after(town.other.public) is None
    assert watch.replica.log_after(town.node.public) == town.ledger.size


# -- frauds -----------------------------------------------------------------------------------------------------------


def test_a_fork_is_told_once_with_a_proof(town: Town, watch: Watch) -> None:
    watch.exchange()
    forker = town.fork()
    watch.exchange()
    watch.exchange()
    assert watch.faults() == [("fork", forker.hex())]
    (_, told) = watch.said[0]
    proof = ForkProof.from_bytes(bytes.fromhex(told["proof"]))
    verify_proof(proof)
    assert proof.author == forker
    assert [entry["id"] for entry in told["entries"]] == [proof.first.entry.id.hex(), proof.second.entry.id.hex()]
    assert watch.replica.summary(1.0)["frozen"] == [forker.hex()]


def test_a_fork_is_told_before_the_rest_has_come(town: Town, watch: Watch) -> None:
    town.fork()
    for _ in range(6):
        town.node.head = town.world.write(town.node, Decision(town.world.now, 0, 1, (), (), bytes(32))).entry.position
    town.share()
    town.ledger.proofs.clear()  # so that only the entries show it
    watch.exchange(in_threes(town))
    assert [code for code, _ in watch.faults()] == ["fork"]
    assert watch.sizes[0] < town.ledger.size


def test_a_fork_shows_by_its_proof_alone(town: Town, watch: Watch) -> None:
    """The node has one branch and the proof; whoever follows it never sees the other branch as an entry."""
    watch.exchange()
    head, world = town.other.head, town.world
    one, other = (
        at(town.other, head).draft(world.now, Decision(world.now, 0, 1, (), (), bytes([n]) * 32)) for n in (1, 2)
    )
    town.ledger.add([one])
    proof = ForkProof.of(one, other)
    town.ledger.proofs[proof.id] = proof
    asked = watch.exchange()
    assert asked[:2] == [sync.HELLO, sync.PROOFS]
    assert watch.faults() == [("fork", town.other.public.hex())]


def test_a_fork_in_a_kept_ledger_is_told_again(town: Town, tmp_path: Path) -> None:
    town.fork()
    with Store.create(tmp_path / "ledger", town.world.charters) as store:
        Watch(town, store).exchange()
    with Store.open(tmp_path / "ledger") as store:
        assert [code for code, _ in Watch(town, store).faults()] == ["fork"]


def test_an_invalid_entry_is_a_fault_of_its_author(town: Town, watch: Watch) -> None:
    bad = town.asker.draft(town.world.now, OpenAccount(bytes(32)))
    watch.exchange(with_more(town, bad))
    assert watch.faults() == [("opening", town.asker.public.hex())]
    (_, told) = watch.said[0]
    assert (told["section"], told["entry"]) == ("5.2", bad.entry.id.hex())
    summary = watch.replica.summary(1.0)
    assert (summary["entries"], summary["valid"]) == (town.ledger.size + 1, town.ledger.size)
    watch.exchange()
    assert len(watch.said) == 1


def test_a_node_that_serves_many_invalid_entries_is_left(town: Town, watch: Watch) -> None:
    bad = [town.asker.draft(town.world.now, OpenAccount(bytes([n]) * 32)) for n in range(REFUSED_MAX + 1)]
    with pytest.raises(MalformedMessage, match="break the rules"):
        watch.exchange(with_more(town, *bad))
    assert len(watch.faults()) == REFUSED_MAX + 1


def test_some_invalid_entries_in_each_exchange_are_borne(town: Town, watch: Watch) -> None:
    half = REFUSED_MAX // 2 + 1
    bad = [town.asker.draft(town.world.now, OpenAccount(bytes([n]) * 32)) for n in range(2 * half)]
    watch.exchange(with_more(town, *bad[:half]))
    watch.exchange(with_more(town, *bad))
    assert len(watch.faults()) == 2 * half


def test_a_person_enrolled_twice_is_told(town: Town, watch: Watch) -> None:
    second = town.world.account("another name", enrol=False)
    town.world.enrol(second, "asker")
    town.share()
    watch.exchange()
    assert watch.faults() == [("nullifier", second.public.hex())]


def test_an_early_entry_is_told_held_back_and_taken_in_later(
    town: Town, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    slice_s = town.world.charter.slice_s
    monkeypatch.setattr("ubcp_p2p.light.replica.time.time", lambda: EPOCH + 3.0 * slice_s)
    town.world.now = 4
    town.receipt()  # in slice 5
    watch.exchange()
    assert watch.faults() == [("slice-ahead", town.other.public.hex())]
    assert watch.replica.local.size == town.ledger.size - 1
    monkeypatch.setattr("ubcp_p2p.light.replica.time.time", lambda: EPOCH + 4.0 * slice_s)
    watch.exchange()
    assert watch.roots() == roots_of(town.ledger)
    assert len(watch.said) == 1


def test_one_slice_ahead_is_not_early(town: Town, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ubcp_p2p.light.replica.time.time", lambda: float(EPOCH))
    assert max(signed.entry.slice for signed in town.world.entries) == 1
    watch.exchange()
    assert watch.said == []
    assert watch.roots() == roots_of(town.ledger)


# -- lies -------------------------------------------------------------------------------------------------------------


def test_a_bad_signature_is_the_nodes_lie_and_nobodys_fault(town: Town, watch: Watch) -> None:
    good = town.other.draft(town.world.now + 1, Decision(town.world.now + 1, 0, 1, (), (), bytes(32)))
    forged = good._replace(signatures=((good.signatures[0][0], bytes(64)),))
    with pytest.raises(MalformedMessage, match="does not hold"):
        watch.exchange(with_more(town, forged))
    assert watch.said == []
    watch.exchange()
    assert watch.roots() == roots_of(town.ledger)


def test_a_copy_with_a_strangers_signature_is_the_nodes_doing_until_a_good_one_comes(town: Town, watch: Watch) -> None:
    receipt = next(signed for signed in town.world.entries if signed.entry.kind == Kind.RECEIPT)
    stranger = town.asker.key
    both = sorted([*receipt.signatures, (stranger.public, stranger.sign("entry", receipt.entry.id))])
    spoiled = receipt._replace(signatures=tuple(both))
    watch.replica.begin(town.node.public)
    watch.replica.take(Take(sync.IDS, entries=[s for s in town.world.entries if s != receipt] + [spoiled]))
    watch.replica.finish()
    assert watch.faults() == [("signer", town.node.public.hex())]
    summary = watch.replica.summary(1.0)
    assert (len(summary["faults"]), summary["entries"] - summary["valid"]) == (1, 1)
    assert summary["faults"][0]["message"].endswith(f"claimed author {town.other.public.hex()}")
    watch.replica.take(Take(sync.IDS, entries=[receipt]))
    assert watch.said[-1] == ("mended", {"code": "signer", "entry": receipt.entry.id.hex()})
    summary = watch.replica.summary(1.0)
    assert (summary["faults"], summary["entries"]) == ([], town.ledger.size)


def test_an_early_entry_in_a_strangers_hand_accuses_nobody_but_the_node(
    town: Town, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ubcp_p2p.light.replica.time.time", lambda: float(EPOCH))
    watch.exchange()
    impostor = at(town.other, town.other.head)
    impostor.key = town.node.key
    watch.exchange(with_more(town, impostor.draft(9, Decision(9, 0, 1, (), (), bytes(32)))))
    assert watch.faults() == [("slice-ahead", town.node.public.hex())]
    forged = at(town.other, town.other.head).draft(9, Decision(9, 0, 2, (), (), bytes(32)))
    unsigned = forged._replace(signatures=((forged.signatures[0][0], bytes(64)),))
    with pytest.raises(MalformedMessage, match="does not hold"):
        watch.replica.take(Take(sync.IDS, entries=[unsigned]))
    assert len(watch.faults()) == 1


def test_after_a_lie_the_log_is_read_again(town: Town, watch: Watch) -> None:
    good = town.other.draft(town.world.now + 1, Decision(town.world.now + 1, 0, 1, (), (), bytes(32)))
    forged = good._replace(signatures=((good.signatures[0][0], bytes(64)),))
    with pytest.raises(MalformedMessage):
        watch.exchange(with_more(town, forged))
    town.checkpoint()
    watch.exchange()
    assert watch.faults() == []
    assert watch.replica.summary(1.0)["checkpoints"] == {"checked": 1, "not_checkable_here": 0}


def test_a_forged_fork_proof_is_the_nodes_lie(town: Town, watch: Watch) -> None:
    watch.exchange()
    forged = forged_proof(town)
    town.ledger.proofs[forged.id] = forged
    with pytest.raises(MalformedMessage, match="fork proof"):
        watch.exchange()
    assert watch.said == []


def forged_proof(town: Town) -> ForkProof:
    """A "proof" against the other node, signed by somebody else's key."""
    now, impostor = town.world.now, at(town.other, town.other.head)
    impostor.key = town.node.key
    one, other = (impostor.draft(now, Decision(now, 0, 1, (), (), bytes([n]) * 32)) for n in (1, 2))
    return ForkProof.of(one, other)


# -- charters ---------------------------------------------------------------------------------------------------------


def version_two(town: Town, name: str) -> SignedCharter:
    first = town.world.charter
    charter = replace(first, number=2, previous=first.id, effective=50, name=name)
    return SignedCharter(charter).signed((key.public, key.sign("charter", charter.id)) for key in town.world.stewards)


def test_a_new_charter_is_told_and_a_conflicting_one_is_not_taken(town: Town, watch: Watch) -> None:
    ledgers = []
    for name in ("ours", "theirs"):
        ledger = MemoryLedger([*town.world.charters.versions, version_two(town, name)])
        ledger.add(town.world.entries)
        ledgers.append(ledger)
    watch.exchange(ledger=ledgers[0])
    assert watch.said == [("charter", {"number": 2, "effective_period": 50})]
    watch.exchange(ledger=ledgers[1])
    watch.exchange(ledger=ledgers[1])
    assert [kind for kind, _ in watch.said] == ["charter", "conflict"]
    assert watch.replica.store.ledger.charters.newest.name == "ours"
