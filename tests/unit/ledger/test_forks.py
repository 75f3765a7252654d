"""Forks in numbers: what many entries at one place cost, what branches share, and whom a HEAL frees."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.ledger import ids_of
from tests.vectors.ledger.scene import Scene
from ubcp_p2p.ledger import rules
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.balances import Standing, balances, debts, standing, statement
from ubcp_p2p.ledger.chain import NodeChain
from ubcp_p2p.ledger.entry import ZERO, Allot, Body, Checkpoint, Close, Decision, Heal, Position, Rotate
from ubcp_p2p.ledger.faults import RuleViolation
from ubcp_p2p.ledger.forks import Fork, Place, _last_in_common
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.wire import ForkProof, Signed
from ubcp_p2p.ledger.world import World
from ubcp_p2p.units import MICROCREDITS

MANY = 300


def _stranger(length: int = 10) -> tuple[Scene, Author]:
    """A node whose account is not enrolled, and what it has written."""
    s = Scene()
    s.trusting = True
    node = s.node(s.account("stranger", enrol=False), "node")
    for size in range(1, length + 1):
        s.write(node, Checkpoint(size, ZERO, ZERO))
    return s, node


def _crowd(s: Scene, writer: Author, count: int = MANY) -> list[Signed]:
    """`count` entries after the one that the writer has written last."""
    return [s.write(copy.copy(writer), Checkpoint(1000, bytes(28) + n.to_bytes(4, "big"), ZERO)) for n in range(count)]


def test_many_entries_at_one_place_are_one_fault_each_but_one() -> None:
    s, node = _stranger()
    ids = sorted(signed.entry.id for signed in _crowd(s, node))
    assert s.ledger.frozen() == [node.public]
    assert s.ledger.open_forks(node.public) == [Fork(11, ids[0], other) for other in ids[1:]]
    assert len(s.ledger.findings()) == MANY - 1
    (place,) = s.ledger.forks.places[node.public]
    assert len(s.ledger.forks.ids_at(node.public, place)) == MANY  # ids, not pairs


def test_a_branch_owns_what_it_adds_and_no_more() -> None:
    s, node = _stranger(200)
    _crowd(s, node)
    first, *others = s.ledger.chains[node.public]
    assert len(list(first.own_ids())) == 202
    assert all(len(chain) == 202 and len(list(chain.own_ids())) == 1 for chain in others)
    assert ids_of(s.ledger) == sorted(signed.entry.id for signed in s.entries)


def test_a_stranger_who_forks_makes_nobody_read_its_chain_again() -> None:
    """Wherever on its chain: a free account must not make others replay what it has written."""
    s, node = _stranger(50)
    ledger = s.ledger

    def history(author: bytes, wanted: Collection[bytes] | None = None) -> Iterable[Signed]:
        raise AssertionError("asked for")

    for seq in range(1, 51):
        twin = s.back(node, seq)
        assert rules.apply(ledger, s.draft(twin, Decision(0, 0, 1, (), (), ZERO)), history)
        assert rules.apply(ledger, s.draft(twin, Checkpoint(seq + 1, bytes([7]) * 32, ZERO)), history)
        assert ledger.chains[node.public][-1].start == seq + 1
    with pytest.raises(RuleViolation, match="CHECKPOINT"):  # each branch knows the size before it
        rules.apply(ledger, s.draft(s.back(node, 40), Checkpoint(39, ZERO, ZERO)), history)
    stranger = s.names["stranger"]
    for name in ("one", "two"):
        s.write(copy.copy(stranger), Rotate(s.key(name).public, ZERO), [s.key(name)])
    assert len(ledger.chains[stranger.public]) == 2
    assert balances(ledger, history)


def test_a_branch_of_a_branch_of_a_branch() -> None:
    """Each new branch leaves the newest one at its head: the way back is as long as there are branches."""
    s, node = _stranger(3)
    path = [signed.entry.id for signed in s.history(node.public)]
    writer = node
    for n in range(100):
        s.write(copy.copy(writer), Decision(0, n, 1, (), (), ZERO))
        path.append(s.write(writer, Decision(0, n, 2, (), (), ZERO)).entry.id)
    assert node.head is not None
    branch = s.ledger.branch_through(node.head)
    assert branch is not None and [branch.id_at(seq) for seq in range(len(path))] == path
    assert [branch.slice_at(seq) for seq in range(len(path))] == [0] * len(path)
    steps, chain = 0, branch
    while chain.start:
        steps, chain = steps + 1, chain.holder(chain.start - 1)
    assert steps == 100
    assert isinstance(branch, NodeChain)
    assert branch.checkpoint_size == 3


def test_a_replay_begins_at_the_nearest_place_that_was_forked_at() -> None:
    s = Scene()
    a, p = s.account("a"), s.account("p")
    pay = s.node(p, "pay")
    for _ in range(20):
        s.request(a, pay, 1)
    asked: list[int] = []

    def history(author: bytes, wanted: Collection[bytes] | None = None) -> Iterable[Signed]:
        assert wanted is not None
        asked.append(len(wanted))
        return s.history(author)

    for seq, credits_ in ((10, 2), (10, 3), (15, 4), (12, 5), (5, 6), (16, 7)):
        assert rules.apply(s.ledger, s.draft(s.back(a, seq), s.ask(pay, credits_)), history)
    assert asked == [10, 5, 2, 5, 1]  # the ENROL and 9 REQUESTs; nothing; 5 more; 2 more; the first 5; 1 more
    branches = s.ledger.chains[a.public]
    assert sorted(c.purse.reserved for c in branches) == [10, 11, 12, 16, 18, 20, 22]  # type: ignore[attr-defined]


def test_what_is_kept_of_one_branch_is_not_of_another() -> None:
    s = Scene()
    a, p = s.account("a"), s.account("p")
    pay, other = s.node(p, "pay"), s.back(a, 1)
    for writer, credits_ in ((a, 1), (other, 100)):
        for _ in range(4):
            s.request(writer, pay, credits_)
    for writer, credits_ in ((other, 200), (a, 2)):  # at the third REQUEST of one, and then at the last of the other
        twin = copy.copy(writer)
        branch = next(c for c in s.ledger.chains[a.public] if writer.head is not None and c.has(writer.head))
        seq = 4 if writer is other else 5
        twin.head = Position(a.public, seq, branch.id_at(seq) or b"")
        s.request(writer, pay, 1)
        s.request(twin, pay, credits_)
    amounts = [c.purse.reserved for c in s.ledger.chains[a.public]]  # type: ignore[attr-defined]
    assert amounts == [5, 401, 500, 6]


def test_a_branch_of_a_node_knows_what_was_allotted_received_and_closed() -> None:
    s = Scene()
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, node = s.node(p, "pay"), s.node(b, "node")
    request = s.request(a, pay, 100, slices=1)
    allot = s.allot(pay, request, node, 100)
    s.write(node, s.pay(node, pay, allot, 50))
    for writer in (pay, node):
        s.write(writer, Checkpoint(1, ZERO, ZERO))
    other_pay, other = s.back(pay, 2), s.back(node, 2)
    for writer in (pay, node):
        s.write(writer, Checkpoint(2, ZERO, ZERO))
    second = s.node(b, "second")
    s.now = 1

    def refused(writer: Author, body: Body) -> str:
        with pytest.raises(RuleViolation) as error:
            s.take(s.draft(writer, body))
        return error.value.code

    assert refused(other_pay, Allot(request.entry.id, s.opening(second), 1)) == "allot-sum"
    assert refused(other, s.pay(node, pay, allot, 50)) == "receipt-grows"
    s.write(other, s.pay(node, pay, allot, 60))
    branch = s.ledger.branch_through(other.head) if other.head is not None else None
    assert isinstance(branch, NodeChain)
    assert [credits_ for _, _, credits_ in branch.earned(-1, 9)] == [50, 60]
    assert [credits_ for _, _, credits_ in branch.earned(1, 9)] == [60]
    assert list(branch.earned(1, 2)) == []
    s.now = 6
    close = Close(request.entry.id, ((s.opening(node), 60),), 40)
    s.write(other_pay, close)
    s.write(other_pay, Checkpoint(2, ZERO, ZERO))
    third = copy.copy(other_pay)
    s.write(other_pay, Checkpoint(3, ZERO, ZERO))
    assert refused(third, close) == "close-again"


def test_so_many_places_are_kept_of_one_author() -> None:
    s = Scene()
    a, p = s.account("a"), s.account("p")
    pay = s.node(p, "pay")
    for _ in range(rules.KEPT_MAX + 2):
        s.request(a, pay, 1)
    places = range(1, rules.KEPT_MAX + 3)
    for seq in places:
        s.request(s.back(a, seq), pay, 2)
    first = s.ledger.chains[a.public][0]
    assert list(s.ledger.kept[a.public]) == [first.id_at(seq) for seq in places][2:]


def test_two_hundred_places_are_judged_once() -> None:
    s, node = _stranger(0)
    for n in range(200):
        s.write(copy.copy(node), Decision(0, n, 1, (), (), ZERO))
        s.write(node, Decision(0, n, 2, (), (), ZERO))
    found = s.ledger.open_forks(node.public)
    assert [fork.seq for fork in found] == [*range(1, 201)]
    assert s.ledger.frozen() == [node.public]


def test_nothing_is_judged_again_that_has_not_changed() -> None:
    s = Scene()
    a, p = s.account("a"), s.account("p")
    pay, twin = s.node(p, "pay"), copy.copy(a)
    forks, before = s.ledger.forks, s.ledger.forks.changes
    first, other = s.request(a, pay, 1), s.request(twin, pay, 2)
    assert forks.changes > before
    s.write(a, Heal(((other.entry.seq, other.entry.id),), ()), s.stewards[:2])
    assert s.ledger.frozen() == []
    asked: list[Position] = []

    def find(position: Position) -> None:
        asked.append(position)

    before = forks.changes
    forks.note(a.public, Place(2, first.entry.prev), (first.entry.id, other.entry.id))  # as it was known
    assert forks.frozen(find) == [] and not forks.is_frozen(a.public, find)
    assert (forks.changes, asked) == (before, [])


def test_what_stands_at_a_place() -> None:
    """An entry that comes to where two refused ones were proved is one more; others are none."""
    s = Scene()
    a, p = s.account("a"), s.account("p")
    pay = s.node(p, "pay")
    pair = [s.draft(a, s.ask(pay, credits_)) for credits_ in (5000, 6000)]
    rules.check_proof(s.ledger, ForkProof.of(*pair))
    assert len(s.ledger.open_forks(a.public)) == 1
    good = s.request(a, pay, 1)
    ids = sorted(signed.entry.id for signed in (*pair, good))
    assert s.ledger.open_forks(a.public) == [Fork(2, ids[0], other) for other in ids[1:]]
    next_ = s.request(a, pay, 1)
    assert [s.ledger.forks.has(signed.entry) for signed in (*pair, good, next_)] == [True, True, True, False]


# -- whom a HEAL frees ------------------------------------------------------------------------------------------------


def test_a_leaked_key_freezes_until_the_heal_and_never_again() -> None:
    """As often as the thief likes, by whatever entry, right after OPEN too."""
    s = Scene()
    a = s.account("a", enrol=False)
    thief = copy.copy(a)
    s.write(a, Rotate(s.key("new").public, ZERO), [s.key("new")])
    s.write(copy.copy(thief), Rotate(s.key("x").public, ZERO), [s.key("x")])
    assert s.ledger.frozen() == [a.public]
    (other,) = [c.head for c in s.ledger.chains[a.public] if a.head is not None and not c.has(a.head)]
    s.write(a, Heal(((other.seq, other.id),), ()), s.stewards[:2])
    assert s.ledger.frozen() == []
    for n in range(5):
        s.write(copy.copy(thief), Rotate(s.key(str(n)).public, ZERO), [s.key(str(n))])
        assert s.ledger.frozen() == []


def test_in_an_open_network_who_forks_frees_itself() -> None:
    s = Scene(stewards=1, threshold=0)
    a, p = s.account("a"), s.account("p")
    pay, twin = s.node(p, "pay"), copy.copy(a)
    s.request(a, pay, 1)
    other = s.request(twin, pay, 2)
    assert s.ledger.frozen() == [a.public]
    s.write(a, Heal(((other.entry.seq, other.entry.id),), ()))
    assert s.ledger.frozen() == []


def test_a_refused_fork_that_becomes_valid_is_open_again() -> None:
    """A HEAL that refuses an id speaks of what is in no ledger."""
    s = Scene()
    a, p = s.account("a"), s.account("p")
    pay = s.node(p, "pay")
    other = s.back(a, 1)
    first, second = s.request(a, pay, 1), s.draft(other, s.ask(pay, 2))
    rules.check_proof(s.ledger, ForkProof.of(first, second))
    s.write(a, Heal((), (second.entry.id,)), s.stewards[:2])
    assert s.ledger.frozen() == []
    s.take(second)
    assert s.ledger.frozen() == [a.public]


def test_two_entries_with_number_0_that_are_no_open_prove_nothing() -> None:
    s = Scene()
    key = s.key("x")
    pair = [s.raw(key.public, 0, bytes([5]) * 32, Checkpoint(n, ZERO, ZERO), [key]) for n in (1, 2)]
    with pytest.raises(RuleViolation) as error:
        rules.check_proof(s.ledger, ForkProof.of(*pair))
    assert error.value.code == "freeze"
    assert s.ledger.frozen() == []


def test_a_place_that_no_entry_stands_at() -> None:
    ledger = Ledger(Scene().charters)
    assert ledger.first_after(ZERO, Place(0, ZERO)) is ledger.first_after(ZERO, Place(3, ZERO)) is None
    assert not ledger.is_frozen(ZERO) and ledger.open_forks(ZERO) == []


# -- debts ------------------------------------------------------------------------------------------------------------


def test_a_forked_paymaster_leaves_a_debt_with_a_name() -> None:
    world = World(1)
    amount = world.charter.allowance.member
    a, b = world.account("a"), world.account("b")
    pay, nodes = world.node(a, "pay"), [world.node(b, str(n)) for n in range(5)]
    request = world.request(a, pay, amount)
    for node in nodes:
        twin = copy.copy(pay)
        world.receipt(node, twin, world.allot(twin, request, node, amount), amount)
    assert world.ledger.frozen() == [pay.public]  # and not the account
    said = standing(world.ledger, a.public, world.history)
    assert said == (Standing.INDEBTED, "it owes 40,000 credits, which are repaid first")
    (found,) = debts(world.ledger, balances(world.ledger, world.history))
    assert (found.code, found.entry, found.author) == ("debt", b"", a.public)
    assert found.message.startswith("owes 40,000 credits; ")
    assert request.entry.id.hex()[:16] in found.message
    forks = [finding.message for finding in world.ledger.findings()]
    assert len(forks) == 4
    for message in forks:
        assert f"; of {a.public.hex()[:16]}…; paymaster of {a.public.hex()[:16]}…" in message
    assert standing(world.ledger, b.public, world.history).standing is Standing.GOOD
    assert standing(world.ledger, nodes[0].public, world.history).standing is Standing.GOOD
    assert standing(world.ledger, bytes(32), world.history).standing is Standing.UNKNOWN
    said = standing(world.ledger, pay.public, world.history)
    assert said.standing is Standing.FROZEN and said.words.endswith("and 3 more; a node is not healed, but replaced")


def test_a_lying_close_leaves_a_debt_with_a_name() -> None:
    """What comes back by it can be spent again: what is spent is owed."""
    world = World(1)
    amount = world.charter.allowance.member
    a, b = world.account("a"), world.account("b")
    pay, node = world.node(a, "pay"), world.node(b, "node")
    for round_ in range(1, 4):
        request = world.request(a, pay, amount, slices=1)
        world.receipt(node, pay, world.allot(pay, request, node, amount), amount)
        world.now += 98
        world.write(a, Close(request.entry.id, (), amount))
        row = statement(world.ledger, a.public, world.history).balance
        assert (row.available, row.debt) == (0, (round_ - 1) * amount)
    (found,) = debts(world.ledger, balances(world.ledger, world.history))
    assert found.author == a.public
    assert standing(world.ledger, a.public, world.history).standing is Standing.INDEBTED
    later = world.now + world.charter.period_slices * 2
    assert statement(world.ledger, a.public, world.history, later).balance.debt == 0  # repaid by two allowances


def test_more_requests_and_accounts_than_a_message_names() -> None:
    s = Scene(exposure_cap=10**9)
    people = [s.account(f"person {n}") for n in range(6)]
    b = s.account("b")
    pay, nodes = s.node(people[0], "pay"), [s.node(b, str(n)) for n in range(2)]
    for person in people:
        for _ in range(6 if person is people[1] else 1):
            request = s.request(person, pay, 100)
            for node in nodes:
                twin = s.back(pay, 0)
                s.write(node, s.pay(node, twin, s.allot(twin, request, node, 100), 100))
                s.now += 1
    message = s.ledger.findings()[0].message
    assert message.count("…") == 2 + 1 + 4 and message.endswith(" and 2 more")
    s.now = 0
    rows = [row._replace(debt=1) for row in balances(s.ledger, s.history) if row.account == people[1].public]
    (found,) = debts(s.ledger, rows)
    assert found.message.count("…") == 4 and found.message.endswith(" and 2 more")


def test_a_debt_that_nobody_was_paid_for() -> None:
    s = Scene()
    a, p = s.account("a"), s.account("p")
    pay, twin = s.node(p, "pay"), copy.copy(a)
    s.request(a, pay, 800)
    s.request(twin, pay, 700)
    (found,) = debts(s.ledger, balances(s.ledger, s.history))
    assert found.message == "owes 0.0005 credits; it reserved twice"
    said = standing(s.ledger, a.public, s.history)
    assert said == (Standing.FROZEN, "its chain has forked at number 2; its stewards' HEAL frees it")
    s.request(s.back(a, 1), pay, 1)
    assert standing(s.ledger, a.public, s.history).words.startswith("its chain has forked at number 2, and 1 more;")


# -- backdating -------------------------------------------------------------------------------------------------------


def test_a_request_of_an_old_slice_cannot_be_paid_today() -> None:
    """The allowance of period 3 has expired by period 40; a REQUEST that spends it has then, too."""
    world = World(1)
    a = world.account("a")
    pay = world.node(a, "pay")
    slices = world.charter.period_slices
    world.now, today = 3 * slices + 1, 40 * slices
    longest = world.charter.allowance_periods * slices
    with pytest.raises(RuleViolation) as error:
        world.request(a, pay, MICROCREDITS, slices=today - world.now)
    assert error.value.code == "request"
    a.head = world.history(a.public)[-1].entry.position
    with pytest.raises(RuleViolation):
        world.request(copy.copy(a), pay, 1, slices=longest + 1)
    request = world.request(a, pay, 1, slices=longest)
    fact = world.ledger.requests[request.entry.id]
    last = fact.expiry + world.charter.grace_slices  # of a RECEIPT: the vintage was of the last 2 × 4 periods then
    assert world.ledger.period(last) - 2 * world.charter.allowance_periods <= world.ledger.period(fact.slice)


@dataclass(frozen=True)
class Line:
    """The ids of a chain by number; from `leaves` on those of another branch."""

    leaves: int
    name: str

    def id_at(self, seq: int) -> bytes:
        return hashlib.sha256(f"{self.name if seq >= self.leaves else 'trunk'} {seq}".encode()).digest()


@pytest.mark.parametrize("most", range(9))
def test_the_last_entry_in_common_is_found_wherever_two_branches_part(most: int) -> None:
    for leaves in range(12):
        one: Any = Line(leaves, "one")
        other: Any = Line(leaves, "other")
        assert _last_in_common(one, other, most) == max(0, min(most, leaves - 1))
