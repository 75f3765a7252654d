"""What was asked, decided and done, told from entries in whatever order they come."""

from __future__ import annotations

import random
from collections.abc import Iterable

from tests.vectors.ledger.scene import Scene
from ubcp_p2p.ledger.activity import Activity, Work
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.decisions import told_twice
from ubcp_p2p.ledger.entry import Allot, Close, Heal, OpenNode, Request
from ubcp_p2p.ledger.leases import Lease, Leases
from ubcp_p2p.ledger.wire import Signed


def _fed(entries: Iterable[Signed]) -> Activity:
    activity = Activity()
    for signed in entries:
        activity.add(signed.entry)
    return activity


def _orders(scene: Scene) -> list[Activity]:
    """The same entries as they were written, backwards, and mixed with doubles."""
    mixed = [*scene.entries, *scene.entries[::2]]
    random.Random(1).shuffle(mixed)
    return [_fed(scene.entries), _fed(reversed(scene.entries)), _fed(mixed)]


def _paid() -> tuple[Scene, Author, Author, Author, Signed]:
    """A REQUEST of `a` for at most 600 until slice 10, a paymaster, and a node of `b`."""
    s = Scene(1)
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, node = s.node(p, "pay"), s.node(b, "node")
    return s, b, pay, node, s.request(a, pay, 600)


def test_requests_and_leases() -> None:
    s, _, _, node, request = _paid()
    other = s.node(s.names["p"], "other")
    late = s.decide(other, [request], slice_=3)
    early = s.decide(node, [request], slice_=1)
    id_ = request.entry.id
    for activity in _orders(s):
        leases = Leases(activity, s.ledger)
        assert activity.requests[id_].body == request.entry.body
        assert leases.of(id_) == [Lease(id_, node.public, 1), Lease(id_, other.public, 3)]
        assert activity.decisions.keys() == {early.entry.id, late.entry.id}
        assert leases.of(bytes(32)) == []
        assert Leases(activity, s.ledger, since=2).of(id_) == leases.of(id_)[1:]


def test_the_first_decision_on_a_slice_counts_in_all_its_parts() -> None:
    """The first of the chain, whatever its id and whenever it comes."""
    s, _, pay, node, request = _paid()
    second, third = s.request(s.names["a"], pay, 100), s.request(s.names["b"], pay, 100)
    first = s.decide(node, [request], slice_=1, refused={"full": 2})
    again = s.decide(node, [third], slice_=1, budget=5)
    part = s.decide(node, [second], slice_=1, refused={"full": 2})
    on_another = s.decide(node, [third], slice_=2)
    for activity in _orders(s):
        leases = Leases(activity, s.ledger)
        assert [one.id for one in leases.decided] == [signed.entry.id for signed in (first, part, on_another)]
        for signed, slices in ((request, [1]), (second, [1]), (third, [2])):
            assert [lease.slice for lease in leases.of(signed.entry.id)] == slices
        (found,) = told_twice(activity.decisions.values(), s.ledger)
        assert found[:3] == ("decision-twice", again.entry.id, node.public)
        assert first.entry.id.hex()[:16] in found.message


def test_decisions_count_of_nodes_whose_owner_is_enrolled_in_that_slice() -> None:
    s, _, pay, node, _ = _paid()
    s.now = 5
    stranger, late = s.account("stranger", enrol=False), s.account("late", enrol=False)
    nodes = [s.node(stranger, "strange"), s.node(late, "later")]
    s.enrol(late, "late", first=1, periods=1)
    long = s.request(s.names["a"], pay, 100, slices=20)
    for slice_ in (9, 10, 19, 20):
        s.now = max(s.now, slice_ - 9)
        for author in (node, *nodes):
            s.decide(author, [long], slice_=slice_)
    enrolled = [Lease(long.entry.id, nodes[1].public, slice_) for slice_ in (10, 19)]
    for activity in _orders(s):
        leases = Leases(activity, s.ledger)
        assert [lease for lease in leases.of(long.entry.id) if lease.node != node.public] == enrolled
        assert len(leases.of(long.entry.id)) == 4 + len(enrolled)


def test_a_second_owner_takes_no_decision_back() -> None:
    """A node that is opened once more, for somebody who is not enrolled, has charged what it has charged."""
    s, _, _, node, request = _paid()
    s.decide(node, [request], slice_=1)
    stranger = s.account("stranger", enrol=False)
    twin = Author(node.network, node.key)
    assert stranger.head is not None
    s.write(twin, OpenNode(stranger.head), [stranger.key])
    for activity in _orders(s):
        assert [lease.node for lease in Leases(activity, s.ledger).of(request.entry.id)] == [node.public]


def test_of_a_node_that_has_forked_all_decisions_count() -> None:
    """It is named for its fork, and takes nothing back that its first branch has charged to people."""
    s, _, _, node, request = _paid()
    twin = s.back(node, 0)
    for author, budget in ((node, 1), (node, 2), (twin, 3)):
        s.decide(author, [request], slice_=1, budget=budget)
    for activity in _orders(s):
        assert len(Leases(activity, s.ledger).decided) == 3
        assert list(told_twice(activity.decisions.values(), s.ledger)) == []


def test_work_is_what_a_receipt_adds() -> None:
    """An ALLOT that is raised is another entry; the vouchers under it go on from those before."""
    s, _, pay, node, request = _paid()
    allot = s.allot(pay, request, node, 200)
    s.now = 1
    s.write(node, s.pay(node, pay, allot, 120))
    raised = s.allot(pay, request, node, 400)
    s.now = 3
    s.write(node, s.pay(node, pay, raised, 300, device="gpu-24g"))
    id_ = request.entry.id
    for activity in _orders(s):
        assert sorted(activity.work()) == [
            Work(id_, node.public, 1, 120, "cpu-8"),
            Work(id_, node.public, 3, 180, "gpu-24g"),
        ]
        assert activity.done(id_) == 300
        assert activity.done(bytes(32)) == 0


def test_branches_of_a_contributor_are_paid_once() -> None:
    s, _, pay, node, request = _paid()
    allot = s.allot(pay, request, node, 400)
    s.now = 1
    fork, third = s.back(node, 0), s.back(node, 0)
    s.write(node, s.pay(node, pay, allot, 100))
    s.write(fork, s.pay(node, pay, allot, 150))
    s.now = 2
    s.write(node, s.pay(node, pay, allot, 130))
    s.write(third, s.pay(node, pay, allot, 150))
    id_ = request.entry.id
    for activity in _orders(s):
        assert sorted(activity.work()) == [
            Work(id_, node.public, 1, 50, "cpu-8"),
            Work(id_, node.public, 1, 100, "cpu-8"),
        ]
        assert activity.done(id_) == 150


def test_a_node_with_two_owners_is_paid_by_each_opening() -> None:
    """As the ledger has it: `paid` is by OPEN. Whose the node is does not depend on the order."""
    s, _, pay, node, request = _paid()
    c = s.account("c")
    twin = Author(node.network, node.key)
    assert c.head is not None
    reopened = s.write(twin, OpenNode(c.head), [c.key])
    openings = {signed.entry.id for signed in s.history(node.public) if isinstance(signed.entry.body, OpenNode)}
    assert len(openings) == 2
    allot = s.allot(pay, request, node, 200)
    second = s.write(pay, Allot(request.entry.id, reopened.entry.id, 90))
    s.now = 1
    s.write(node, s.pay(node, pay, allot, 150))
    s.write(twin, s.pay(node, pay, second, 70))
    id_ = request.entry.id
    owner = s.ledger.openings[min(openings)].owner
    for activity in _orders(s):
        assert activity.done(id_) == sum(s.ledger.paid[id_].values()) == 220
        assert sorted(work.units for work in activity.work()) == [70, 150]
        assert activity.owners[node.public] == owner


def test_the_first_close_counts() -> None:
    s, _, pay, _, request = _paid()
    id_ = request.entry.id
    s.now = 15
    s.write(pay, Close(id_, (), 600))
    s.now = 17
    s.write(s.names["a"], Close(id_, (), 600))
    assert all(activity.closed == {id_: 15} for activity in _orders(s))


# -- enrolments -------------------------------------------------------------------------------------------------------


def _asked(s: Scene, who: Author, pay: Author) -> bytes:
    return s.write(who, s.ask(pay, 10)).entry.id


def test_the_enrolment_of_a_request() -> None:
    """It is renewed before it ends, in another unit and class: what holds in the REQUEST's period counts."""
    s = Scene(2)
    pay = s.node(s.account("p"), "pay")
    a = s.account("a", enrol=False)
    s.enrol(a, "a", unit="lab", periods=2)
    s.now = 8
    s.enrol(a, "a", unit="village", newcomer=True, first=2, periods=2)
    s.now = 12
    before = [_asked(s, a, pay) for _ in range(3)]
    s.now = 20
    after = _asked(s, a, pay)
    for activity in _orders(s):
        for id_, period, unit in ((before[0], 1, "lab"), (before[2], 1, "lab"), (after, 2, "village")):
            enrolment = activity.enrolment(id_, period)
            assert enrolment is not None
            assert (enrolment.unit, enrolment.newcomer) == (unit, unit == "village")
        assert activity.enrolment(after, 4) is None


def test_each_branch_has_its_own_enrolment() -> None:
    s = Scene(3)
    pay = s.node(s.account("p"), "pay")
    a = s.account("a", enrol=False)
    twin = s.back(a, 0)
    s.enrol(a, "a", unit="lab")
    s.enrol(twin, "a", unit="village")
    found = {_asked(s, a, pay): "lab", _asked(s, twin, pay): "village"}
    for activity in _orders(s):
        for id_, unit in found.items():
            enrolment = activity.enrolment(id_, 0)
            assert enrolment is not None
            assert enrolment.unit == unit


def test_an_enrolment_that_a_heal_has_brought() -> None:
    """The branch that goes on was never enrolled itself; of two abandoned ones the first counts."""
    s = Scene(4)
    pay = s.node(s.account("p"), "pay")
    a = s.account("a", enrol=False)
    lab, village = s.back(a, 0), s.back(a, 0)
    s.enrol(lab, "a", unit="lab")
    s.now = 1
    s.enrol(village, "a", unit="village")
    heads = sorted((author.head.seq, author.head.id) for author in (lab, village) if author.head)
    s.write(a, Heal(tuple(heads), ()), s.stewards[:2])
    id_ = _asked(s, a, pay)
    for activity in _orders(s):
        assert isinstance(activity.requests[id_].body, Request)
        enrolment = activity.enrolment(id_, 0)
        assert enrolment is not None
        assert enrolment.unit == "lab"
