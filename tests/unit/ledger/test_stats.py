"""Figures of small ledgers, at the edges of each definition (SPEC §14)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from tests.vectors.ledger.scene import Scene
from ubcp_p2p.charter.values import CostBasis, DeviceCost
from ubcp_p2p.ledger.activity import Activity
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.stats import Others, Span, Statistics, Waits, statistics, waits_of
from ubcp_p2p.ledger.stats_document import document, lines
from ubcp_p2p.ledger.wire import Signed

COSTS = CostBasis("EUR", 300_000, 400, (DeviceCost("cpu-8", 250, 90_000, 400_000_000, 40_000),))


def _stats(s: Scene, first: int = 0, last: int | None = None) -> Statistics:
    activity = Activity()
    for signed in s.entries:
        activity.add(signed.entry)
    return statistics(activity, s.ledger, Span(first, first if last is None else last))


class Town:
    """A paymaster and two machines of one owner, and as many people as are wanted."""

    def __init__(self, seed: int, **changes: Any) -> None:
        self.s = Scene(seed, **changes)
        self.pay = self.s.node(self.s.account("p"), "pay")
        owner = self.s.account("owner")
        self.one, self.two = self.s.node(owner, "one"), self.s.node(owner, "two")
        self.people: list[Author] = []

    def person(self, unit: str = "lab", *, newcomer: bool = False) -> Author:
        name = f"person {len(self.people)}"
        author = self.s.account(name, enrol=False)
        self.s.enrol(author, name, unit=unit, newcomer=newcomer)
        self.people.append(author)
        return author

    def ask(self, who: Author, **changes: Any) -> Signed:
        return self.s.write(who, self.s.ask(self.pay, 20, **changes))

    def tick(self, slice_: int) -> None:
        """The ledger goes on to this slice: something is written in it."""
        self.s.now = slice_
        self.s.account(f"at {slice_}", enrol=False)


# -- waits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        ([], Waits(0, 0, 0, 0, 0)),
        ([7], Waits(1, 7, 7, 7, 7)),
        ([4, 1], Waits(2, 1, 4, 4, 4)),
        (list(range(1, 11)), Waits(10, 5, 9, 10, 10)),
        (list(range(1, 12)), Waits(11, 6, 10, 11, 11)),
        (list(range(1, 101)), Waits(100, 50, 90, 99, 100)),
        (list(range(1, 102)), Waits(101, 51, 91, 100, 101)),
        ([0] * 99 + [5], Waits(100, 0, 0, 0, 5)),
    ],
)
def test_nearest_ranks(slices: list[int], expected: Waits) -> None:
    assert waits_of(reversed(slices)) == expected


def test_peers_min_is_counted_in_nodes_of_one_slice() -> None:
    t = Town(1)
    t.ask(who := t.person(), peers_min=2, expiry=9)
    request = t.s.history(who.public)[-1]
    t.s.decide(t.one, [request], slice_=1)
    t.s.decide(t.one, [request], slice_=1, budget=7)
    t.s.decide(t.two, [request], slice_=2)
    assert _stats(t.s).total.waiting.requests == 1
    t.s.decide(t.one, [request], slice_=4)
    t.s.decide(t.two, [request], slice_=4)
    t.s.decide(t.two, [request], slice_=5)
    total = _stats(t.s).total
    assert (total.served, total.waiting.requests, total.leases) == (Waits(1, 4, 4, 4, 4), 0, 5)


def test_a_decision_on_the_slice_before_is_no_negative_wait() -> None:
    """A DECISION may lie one slice before the REQUEST that it accepts (SPEC §5.4)."""
    t = Town(2)
    who = t.person()
    t.s.now = 5
    request = t.ask(who)
    t.s.now = 4
    t.s.decide(t.one, [request])
    assert _stats(t.s).total.served == Waits(1, 0, 0, 0, 0)


def test_waiting_ends_after_the_expiry() -> None:
    t = Town(3)
    t.ask(t.person(), expiry=6, deadline=3)
    t.tick(6)
    total = _stats(t.s).total
    assert (total.waiting, total.unserved, total.accepted_of) == (Waits(1, 6, 6, 6, 6), 0, 0)
    t.tick(7)
    total = _stats(t.s).total
    assert (total.waiting, total.unserved, total.accepted_of) == (Waits(0), 1, 1)


def test_a_newcomers_request_counts_whatever_became_of_it() -> None:
    t = Town(16)
    served, _, _ = (t.ask(t.person(newcomer=True), expiry=expiry, deadline=0) for expiry in (9, 9, 3))
    t.s.decide(t.one, [served])
    t.tick(5)
    total = _stats(t.s).total
    assert (total.served.requests, total.waiting.requests, total.unserved) == (1, 1, 1)
    assert total.newcomers == (3, 1, 0)


def test_who_waits_for_longer_than_the_ageing_counts_against_acceptance() -> None:
    t = Town(4, ageing_slices=3)
    t.ask(t.person(), expiry=9)
    t.tick(3)
    assert (_stats(t.s).total.overdue, _stats(t.s).total.accepted_of) == (0, 0)
    t.tick(4)
    assert (_stats(t.s).total.overdue, _stats(t.s).total.accepted_of) == (1, 1)


def test_a_request_counts_in_its_own_period_and_a_lease_in_that_of_its_slice() -> None:
    t = Town(5)
    who = t.person()
    t.s.now = 9
    request = t.ask(who, expiry=20)
    t.s.decide(t.one, [request], slice_=10)
    asked, leased = _stats(t.s, 0), _stats(t.s, 1)
    assert (asked.total.requests, asked.total.served.longest, asked.total.leases) == (1, 1, 0)
    assert (leased.total.requests, leased.total.leases, leased.total.accounts) == (0, 1, 1)
    assert (asked.nodes.decisions, leased.nodes.decisions) == (0, 1)


# -- rows -------------------------------------------------------------------------------------------------------------


def test_a_row_needs_five_accounts() -> None:
    t = Town(6)
    for _ in range(5):
        t.ask(t.person("lab"))
    for _ in range(4):
        t.ask(t.person("village"), purpose="research")
    t.ask(t.people[-1], purpose="research")
    for table, names in ((_stats(t.s).by_community, ["lab"]), (_stats(t.s).by_purpose, ["education"])):
        assert [name for name, _ in table.rows] == names
        assert table.rows[0][1].accounts == 5
        assert table.others == Others(1, 4, None)
    t.ask(t.person("village"), purpose="research")
    for table, names in (
        (_stats(t.s).by_community, ["lab", "village"]),
        (_stats(t.s).by_purpose, ["education", "research"]),
    ):
        assert [name for name, _ in table.rows] == names
        assert table.others is None


def test_rows_are_by_name_whatever_the_order_of_entries() -> None:
    t = Town(17)
    for unit, purpose in (("village", "research"), ("lab", "education")):
        for _ in range(5):
            t.ask(t.person(unit), purpose=purpose)
    stats = _stats(t.s)
    assert [name for name, _ in stats.by_community.rows] == ["lab", "village"]
    assert [name for name, _ in stats.by_purpose.rows] == ["education", "research"]
    t.s.entries.reverse()
    assert _stats(t.s) == stats


def test_several_small_rows_together_have_figures() -> None:
    t = Town(7)
    for unit in ("lab", "lab", "lab", "village", "village"):
        t.ask(t.person(unit))
    table = _stats(t.s).by_community
    assert table.rows == ()
    assert table.others == Others(2, 5, _stats(t.s).total)


def test_newcomers_are_those_of_the_request() -> None:
    t = Town(8)
    new, old = t.person(newcomer=True), t.person()
    first, second = t.ask(new), t.ask(old)
    t.s.decide(t.one, [first, second])
    t.s.decide(t.two, [first])
    allot = t.s.allot(t.pay, first, t.one, 9)
    t.s.now = 1
    t.s.write(t.one, t.s.pay(t.one, t.pay, allot, 9))
    total = _stats(t.s).total
    assert (total.requests, total.leases, total.units) == (2, 3, 9)
    assert total.newcomers == (1, 2, 9)


# -- carbon -----------------------------------------------------------------------------------------------------------


def _worked(cost: CostBasis | None, *devices: str) -> Town:
    """Of each class in turn, 50 units."""
    t = Town(9, cost=cost)
    request = t.s.write(t.person(), t.s.ask(t.pay, 600, expiry=9))
    allot = t.s.allot(t.pay, request, t.one, 600)
    for number, device in enumerate(devices, 1):
        t.s.now = number
        t.s.write(t.one, t.s.pay(t.one, t.pay, allot, 50 * number, device=device))
    return t


def test_carbon_is_known_or_unknown_never_guessed() -> None:
    """A credit (10^6 units) takes 4000 s of the cpu-8 at 90 W and 400 g a kWh: 40 g."""
    for devices, grams, unknown, milligrams in (
        (("cpu-8",), Fraction(2, 1000), 0, 2),
        (("cpu-8", "gpu-24g", "cpu-8"), Fraction(4, 1000), 50, 4),
        (("gpu-24g",), Fraction(0), 50, None),
        ((), Fraction(0), 0, 0),
    ):
        t = _worked(COSTS, *devices)
        total = _stats(t.s).total
        assert (total.gco2, total.units_unknown) == (grams, unknown)
        assert document(_stats(t.s), t.s.charters)["total"]["gco2_mg"] == milligrams
    without = _worked(None, "cpu-8")
    assert _stats(without.s).total.units_unknown == 50
    assert document(_stats(without.s), without.s.charters)["total"]["gco2_mg"] is None


def test_milligrams_are_rounded_down_once() -> None:
    """Two thirds of a milligram each, of two people: 1, not 0 and not 2."""
    costs = CostBasis("EUR", 0, 1, (DeviceCost("cpu-8", 1, 3_600_000_000, 0, 1), DeviceCost("gpu-24g", 3, 1, 0, 1)))
    t = Town(10, cost=costs)
    for device, who in (("gpu-24g", t.person()), ("gpu-24g", t.person())):
        request = t.ask(who)
        allot = t.s.allot(t.pay, request, t.one, 20)
        t.s.now += 1
        t.s.write(t.one, t.s.pay(t.one, t.pay, allot, 20, device=device))
    assert _stats(t.s).total.gco2 == Fraction(40, 3 * 3600 * 10**6)
    assert document(_stats(t.s), t.s.charters)["total"]["gco2_mg"] == 0
    fast = _worked(CostBasis("EUR", 0, 1, (DeviceCost("cpu-8", 3, 129_600_000, 0, 1),)), "cpu-8")
    assert _stats(fast.s).total.gco2 == Fraction(3, 5)
    assert document(_stats(fast.s), fast.s.charters)["total"]["gco2_mg"] == 600


# -- decisions --------------------------------------------------------------------------------------------------------


def test_parts_of_one_decision_are_one_offer_and_a_second_decision_is_none() -> None:
    t = Town(11)
    first, second = t.ask(t.person(), units=30), t.ask(t.person(), units=50)
    t.s.decide(t.one, [first], budget=60, refused={"full": 3})
    t.s.decide(t.one, [second], budget=60, refused={"full": 3})
    t.s.decide(t.one, [second], budget=70, refused={"full": 9})
    t.s.decide(t.two, [second], budget=45)
    stats = _stats(t.s)
    assert stats.nodes == (3, 2, 1, 60 + 45, 60 + 45)
    assert stats.refusals == (("full", 3, 1),)
    t.s.decide(t.two, [first], slice_=1, budget=100)
    assert _stats(t.s).nodes == (4, 2, 1, 205, 105 + 30)


def test_both_branches_of_a_node_that_has_forked_count() -> None:
    t = Town(19)
    first, second = t.ask(t.person(), units=30), t.ask(t.person(), units=50)
    twin = t.s.back(t.one, 0)
    t.s.decide(t.one, [first], budget=60)
    t.s.decide(twin, [second], budget=40)
    assert _stats(t.s).nodes == (2, 1, 1, 60, 60)
    assert _stats(t.s).total.leases == 2


def test_a_budget_of_nothing_is_an_offer_of_nothing() -> None:
    t = Town(18)
    t.s.decide(t.one, budget=0)
    assert _stats(t.s).nodes == (1, 1, 1, 0, 0)


def test_reasons_of_refusal() -> None:
    t = Town(12)
    t.s.decide(t.one, refused={"full": 3, "é": 1, "frozen": 2})
    t.s.decide(t.two, refused={"full": 1, "purpose": 1})
    t.s.decide(t.two, slice_=10, refused={"full": 100})
    assert _stats(t.s).refusals == (("full", 4, 2), ("frozen", 2, 1), ("purpose", 1, 1), ("é", 1, 1))


def test_reasons_that_nobody_can_read_are_summed() -> None:
    t = Town(13)
    for node, start in ((t.one, 0), (t.two, 32)):
        t.s.decide(node, refused={f"reason {n:03}": 200 - n for n in range(start, start + 32)})
    stats = _stats(t.s)
    assert [row.reason for row in stats.refusals] == [f"reason {n:03}" for n in range(32)]
    assert stats.other_refusals == sum(200 - n for n in range(32, 64))


# -- words ------------------------------------------------------------------------------------------------------------


def test_an_empty_period_in_words() -> None:
    t = Town(14)
    t.tick(30)
    assert lines(_stats(t.s, 1, 2), t.s.charters) == [
        "small, periods 1 to 2: from 2026-01-11 00:00 UTC until 2026-01-31 00:00 UTC",
        "by the entries up to slice 30 (2026-01-31 00:00 UTC)",
        "requests         0 asked for; 0 served, 0 ended without, 0 waiting; of 0 accounts",
        "accepted         nothing to tell yet",
        "waited           nobody was served",
        "work             0 credits, by 0 leases",
        "carbon           about 0 g CO2, by the charter's figures",
        "newcomers        0 of 0 requests, 0 of 0 leases, 0 credits of work",
        "decisions        0 by 0 nodes of 0 accounts; 0 credits of computing offered, at most 0 leased",
        "refused          nothing, by what the decisions say",
    ]


def test_a_period_in_words() -> None:
    t = _worked(COSTS, "cpu-8", "gpu-24g")
    for _ in range(5):
        t.ask(t.person("village", newcomer=True), expiry=9)
    first = t.s.history(t.people[0].public)[-1]
    t.s.decide(t.one, [first], slice_=4, budget=3, refused={"full": 5})
    said = lines(_stats(t.s), t.s.charters)
    assert said[0] == "small, period 0: from 2026-01-01 00:00 UTC until 2026-01-11 00:00 UTC"
    assert said[2:] == [
        "requests         6 asked for; 1 served, 0 ended without, 5 waiting; of 6 accounts",
        "accepted         1 of 1 (100 %): served, of these and all that ended or wait for over 10 days",
        "waited           until served: half at most 4 days, 90 % 4 days, 99 % 4 days, the longest 4 days",
        "still waiting    so far: half at most no time, 90 % no time, 99 % no time, the longest no time",
        "work             0.0001 credits, by 1 lease",
        "carbon           about 0.002 g CO2, by the charter's figures; unknown for 0.00005 credits of the work",
        "newcomers        5 of 6 requests (83.3 %), 0 of 1 lease (0 %), 0 credits of work (0 %)",
        (
            "decisions        1 by 1 node of 1 account; 0.000003 credits of computing offered, at most 0.000001 leased "
            "(33.3 %)"
        ),
        "refused          full 5",
        "by purpose",
        (
            "  education      6 requests of 6 accounts; 1 of 1 accepted; half within 4 days, 99 % 4 days; "
            "0.0001 credits of work; 0.002 g CO2; of some work unknown"
        ),
        "by community",
        "  village        5 requests of 5 accounts; 0 credits of work",
        "  (others)       1 row of 1 account: too few to tell of",
    ]


def test_what_is_beyond_all_calendars() -> None:
    t = Town(15, epoch=2**37)
    t.tick(2**32 - 1)
    stats = _stats(t.s, t.s.ledger.period(t.s.ledger.slice))
    assert document(stats, t.s.charters)["periods"]["begins"] is None
    assert lines(stats, t.s.charters)[1] == f"by the entries up to slice {2**32 - 1} (the start of slice {2**32 - 1})"
