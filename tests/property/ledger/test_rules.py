"""What must hold whatever honest and dishonest people write, and in whatever order it arrives (SPEC §7, §8)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.support.ledger import Replica, picture, shuffled
from tests.support.story import STEPS, Story, numbers
from ubcp_p2p.ledger import balances, entry, parse, replay, rules, wire
from ubcp_p2p.ledger.chain import AccountChain, NodeChain
from ubcp_p2p.ledger.entry import Heal
from ubcp_p2p.ledger.faults import LedgerError, Pending
from ubcp_p2p.ledger.state import Ledger

pytestmark = pytest.mark.slow
SOME = settings(max_examples=settings().max_examples // 2)
LONG = 1024  # periods in which nothing that was earned expires


def _replica(story: Story, seed: int, *, everything: bool) -> Replica:
    """Another peer's ledger, from the same entries in another order."""
    replica = Replica(story.scene.charters)
    for part in shuffled(story.told if everything else story.scene.entries, seed):
        replica.take(part)
    if everything:
        replica.take([], story.proofs())
    return replica


@SOME
@given(STEPS, st.integers(0, 999), st.integers(0, 999))
def test_any_order_leads_to_the_same_ledger(steps: list[int], one: int, other: int) -> None:
    """Valid entries alone: forks, heals and debts too."""
    story = Story(steps)
    first = _replica(story, one, everything=False)
    assert first.summary() == _replica(story, other, everything=False).summary()
    assert first.pending == set()
    rows = balances.balances(story.scene.ledger, story.scene.history)
    assert first.summary()[:5] == (
        rows, balances.balances_root(rows), balances.entries_root(story.scene.ledger), *_forks(story),
    )  # fmt: skip


def _forks(story: Story) -> tuple[Any, Any]:
    """What a peer that got the valid entries alone says of forks."""
    replica = Replica(story.scene.charters)
    replica.take(story.scene.entries)
    return replica.ledger.frozen(), replica.ledger.findings()


@SOME
@given(STEPS, st.integers(0, 999), st.integers(0, 999))
def test_what_is_invalid_changes_nothing_for_anybody(steps: list[int], one: int, other: int) -> None:
    """Invalid entries mixed in, with proofs of every fork: the same verdicts in any order, the same balances."""
    story = Story(steps)
    first = _replica(story, one, everything=True)
    assert first.summary() == _replica(story, other, everything=True).summary()
    assert first.summary()[:3] == _replica(story, one, everything=False).summary()[:3]


@SOME
@given(STEPS)
def test_a_refusal_leaves_no_trace(steps: list[int]) -> None:
    story = Story(steps)
    ledger, before = story.scene.ledger, picture(story.scene.ledger)
    for signed in story.told:
        try:
            assert not rules.apply(ledger, signed, story.scene.history)
        except (LedgerError, Pending):
            pass
        assert picture(ledger) == before


@SOME
@given(STEPS)
def test_the_honest_are_never_framed(steps: list[int]) -> None:
    """Nobody without a key makes a proof against who has written one entry per number."""
    story = Story(steps)
    ledger = story.scene.ledger
    for proof in story.proofs():
        if proof.author in story.honest:
            swapped = proof.second._replace(signatures=proof.first.signatures)
            for attempt in (proof, wire.ForkProof(proof.first, swapped)):
                assert not _holds(story, attempt)
    assert not set(story.honest) & set(ledger.frozen())


def _holds(story: Story, proof: wire.ForkProof) -> bool:
    try:
        wire.verify_proof(wire.ForkProof.from_bytes(proof.to_bytes()))
        rules.check_proof(story.scene.ledger, proof)
    except (LedgerError, Pending):
        return False
    return True


STORY = Story(range(60))


@settings(max_examples=300)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 255))
def test_no_flipped_byte_is_taken(which: int, where: int, flip: int) -> None:
    signed = STORY.scene.entries[which % len(STORY.scene.entries)]
    data = bytearray(signed.to_bytes())
    data[where % len(data)] ^= flip
    try:
        other = wire.decode_signed(bytes(data))
        wire.verify(other)
    except LedgerError:
        return
    raise AssertionError(f"{bytes(data).hex()} holds")


@SOME
@given(STEPS)
def test_entries_survive_their_bytes(steps: list[int]) -> None:
    for signed in Story(steps).told:
        assert wire.decode_signed(signed.to_bytes()) == signed
        assert entry.encode(parse.decode(signed.data)) == signed.data


class Adversary(RuleBasedStateMachine):
    """Everybody colludes; what all of them have together is what the charter gave, whatever they write."""

    def __init__(self) -> None:
        super().__init__()
        self.story = Story(earned_periods=LONG)

    @rule(number=st.integers(0, 2**32 - 1))
    def act(self, number: int) -> None:
        self.story.step(number)

    @rule(seed=st.integers(0, 10**6))
    def act_often(self, seed: int) -> None:
        for number in numbers(seed, 15):
            self.story.step(number)

    @invariant()
    def nothing_is_made_or_lost(self) -> None:
        """What was earned is what was paid; what people have is what was issued less what burned (SPEC §8.1)."""
        ledger, history = self.story.scene.ledger, self.story.scene.history
        purses = {account: self._merged(account).purse for account in ledger.accounts()}
        rows = {row.account: row for row in balances.balances(ledger, history)}
        paid = sum(amount for by_node in ledger.paid.values() for amount in by_node.values())
        earned = sum(purse.earned for purse in purses.values())
        assert earned + sum(row.uncollected for row in rows.values()) == paid
        have = sum(row.available + row.reserved + row.uncollected - row.debt for row in rows.values())
        lost = sum(self._lost(account) for account in purses)
        issued, burned = sum(p.issued for p in purses.values()), sum(p.burned for p in purses.values())
        assert have + burned + lost == issued

    @invariant()
    def no_credit_appears_without_a_named_debt(self) -> None:
        """Whatever people have beyond what was issued is what others owe, by name (SPEC §8.7)."""
        ledger, history = self.story.scene.ledger, self.story.scene.history
        rows = balances.balances(ledger, history)
        issued = sum(self._merged(row.account).purse.issued for row in rows)
        named = {finding.author for finding in balances.debts(ledger, rows)}
        owed = sum(row.debt for row in rows if row.account in named)
        assert sum(row.available + row.reserved + row.uncollected for row in rows) <= issued + owed
        for row in rows:
            standing = balances.standing(ledger, row.account, history).standing
            assert (row.account in named) <= (standing in (balances.Standing.INDEBTED, balances.Standing.FROZEN))

    @invariant()
    def a_fork_gains_no_more_than_the_cap(self) -> None:
        """Debt is at most the exposure cap for each branch beyond the first and each period (SPEC §8.4)."""
        ledger, scene = self.story.scene.ledger, self.story.scene
        periods = ledger.period(ledger.slice) + 1
        for account in ledger.accounts():
            purse, branches = self._merged(account).purse, _branches(ledger, account)
            assert purse.debt <= (len(branches) - 1) * scene.charter.exposure_cap * periods
            for branch in branches:
                assert branch.purse.debt == 0 or ledger.forks.healings

    @invariant()
    def what_is_allotted_was_reserved(self) -> None:
        ledger = self.story.scene.ledger
        for id_, by_node in ledger.paid.items():
            request = ledger.requests[id_]
            branches = len(ledger.chains[request.paymaster])
            assert sum(by_node.values()) <= request.credits * branches

    def _merged(self, account: bytes) -> AccountChain:
        """As of the newest slice, all branches together."""
        ledger, history = self.story.scene.ledger, self.story.scene.history
        chain = replay.merge(ledger, account, [branch.head for branch in _branches(ledger, account)], history)
        replay.advance(ledger, chain, ledger.period(ledger.slice))
        return chain

    def _lost(self, account: bytes) -> int:
        """What CLOSEs gave to contributors above what these had been paid."""
        ledger = self.story.scene.ledger
        return sum(
            max(0, final - ledger.paid.get(request, {}).get(opening, 0))
            for request, rows in self._merged(account).closed.items()
            for opening, final in rows
        )


def _branches(ledger: Ledger, account: bytes) -> list[AccountChain]:
    """Those on which it is an account: one key can open chains of both forms."""
    return [branch for branch in ledger.chains[account] if isinstance(branch, AccountChain)]


TestAdversary = Adversary.TestCase
TestAdversary.settings = settings(max_examples=settings().max_examples // 10, stateful_step_count=20)


@SOME
@given(STEPS)
def test_every_branch_is_the_replay_of_its_past(steps: list[int]) -> None:
    """What a branch may spend is what §8.6 makes of its own past, and of what its HEALs have abandoned: all of it."""
    story = Story(steps)
    ledger = story.scene.ledger
    for account in ledger.accounts():
        for branch in _branches(ledger, account):
            ours, again = branch.purse, replay.merge(ledger, account, [branch.head], story.scene.history)
            assert ours.available - ours.debt == again.purse.available - again.purse.debt
            assert ours.reserves.keys() == again.purse.reserves.keys()
            for name in ("reserved", "issued", "earned", "released", "burned"):
                assert getattr(ours, name) == getattr(again.purse, name), name
            assert branch.credited == again.credited
            assert branch.closed == again.closed
            if not any(isinstance(signed.entry.body, Heal) for signed in story.scene.history(account)):
                assert (ours, branch.claimed) == (again.purse, again.claimed)


@settings(max_examples=settings().max_examples // 10)
@given(STEPS)
def test_every_branch_is_as_if_it_were_alone(steps: list[int]) -> None:
    """What branches share, and what is replayed when one is made, comes to the same as a ledger without the others."""
    story = Story(steps)
    ledger, scene = story.scene.ledger, story.scene
    by_id = {signed.entry.id: signed for signed in scene.entries}
    for author, chains in ledger.chains.items():
        for branch in chains if len(chains) > 1 else ():
            head = by_id[branch.head_id]
            alone = Replica(scene.charters)
            alone.take([*scene.past(head), head])
            (other,) = [chain for chain in alone.ledger.chains[author] if chain.head == head.entry.position]
            assert [branch.id_at(seq) for seq in range(len(branch) + 1)] == [
                other.id_at(seq) for seq in range(len(branch) + 1)
            ]
            for seq in range(len(branch)):
                assert (branch.slice_at(seq), branch.powers_at(seq)) == (other.slice_at(seq), other.powers_at(seq))
            assert (branch.opening, branch.slice, branch.powers) == (other.opening, other.slice, other.powers)
            if isinstance(branch, AccountChain) and isinstance(other, AccountChain):
                assert (branch.purse, branch.enrolments) == (other.purse, other.enrolments)
                assert (branch.outflow, branch.claimed) == (other.outflow, other.claimed)
                assert (branch.credited, branch.closed) == (other.credited, other.closed)
            elif isinstance(branch, NodeChain) and isinstance(other, NodeChain):
                assert (branch.owner, branch.paid, branch.closed) == (other.owner, other.paid, other.closed)
                assert (branch.allots, branch.checkpoint_size) == (other.allots, other.checkpoint_size)
                last = len(branch) - 1
                assert _earned(ledger, branch, last) == _earned(alone.ledger, other, last)
            else:
                raise AssertionError("another kind of chain")


def _earned(ledger: Ledger, chain: NodeChain, last: int) -> list[tuple[int, bytes, int]]:
    return [(period, ledger.request_ids[number], amount) for period, number, amount in chain.earned(-1, last)]


def test_the_story_is_worth_telling() -> None:
    """It has forks, heals, debts, claims, closes and refusals of many kinds, else the properties above say little."""
    codes: set[str] = set()
    kinds: set[int] = set()
    found: set[str] = set()
    healed = debts = 0
    for n in range(25):
        story = Story(numbers(n))
        replica = _replica(story, n, everything=True)
        codes |= set(replica.refused.values())
        kinds |= {signed.entry.kind for signed in story.scene.entries}
        found |= {finding.code for finding in replica.ledger.findings()}
        healed += sum(map(len, replica.ledger.forks.healings.values()))
        debts += sum(row.debt > 0 for row in balances.balances(replica.ledger, replica.history))
    assert kinds == set(range(1, 11))
    assert found == {"fork", "nullifier", "close-voucher"}
    assert healed
    assert debts
    assert len(codes) >= 20, codes


def test_all_pairs_are_tried() -> None:
    """`Story.proofs` lists each fork once."""
    proofs = Story(range(3000, 3080)).proofs()
    assert proofs
    assert len({proof.id for proof in proofs}) == len(proofs)
    for proof in itertools.islice(proofs, 20):
        assert proof.first.entry.id < proof.second.entry.id
