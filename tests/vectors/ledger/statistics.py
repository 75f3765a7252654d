"""stats.json: what two small ledgers say of how their communities fare (SPEC §14). The numbers are written by hand."""

from __future__ import annotations

from typing import Any

from tests.vectors.ledger.files import Vectors
from tests.vectors.ledger.scene import Scene
from ubcp_p2p.charter.values import CostBasis, DeviceCost
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.wire import Signed

Json = dict[str, Any]
# A credit takes 4000 s of a cpu-8 at 90 W: 0.1 kWh, hence 40 g. Nothing is said of the gpu-24g.
COSTS = CostBasis("EUR", 300_000, 400, (DeviceCost("cpu-8", 250, 90_000, 400_000_000, 40_000),))


def vectors() -> Vectors:
    file = Vectors("stats")
    _waits(file)
    _changes(file)
    _counting(file)
    return file


def _row(accounts: int, waits: list[int], waiting: list[int], **other: Any) -> Json:
    """waits, waiting: p50, p90, p99 and the longest of how many, which comes first; nothing for none."""
    served, still = (row[0] if row else 0 for row in (waits, waiting))
    unserved, overdue = other.pop("unserved", 0), other.pop("overdue", 0)
    new, units = other.pop("new", (0, 0, 0)), other.pop("units", 0)
    return {
        "accounts": accounts, "requests": served + still + unserved,
        "served": served, "wait_slices": _ranks(waits), "waiting": still, "waiting_slices": _ranks(waiting),
        "overdue": overdue, "unserved": unserved, "accepted_of": served + unserved + overdue,
        "units": units, "credits": units, "newcomers": dict(zip(("requests", "leases", "units"), new, strict=True)),
        "leases": 0, "gco2_mg": 0, "gco2_units_unknown": 0, **other,
    }  # fmt: skip


def _ranks(row: list[int]) -> Json | None:
    return dict(zip(("p50", "p90", "p99", "max"), row[1:], strict=True)) if row else None


def _table(rows: dict[str, Json], others: tuple[int, int, Json | None] | None = None) -> Json:
    said = dict(zip(("rows", "accounts", "figures"), others, strict=True)) if others else None
    return {"rows": [{"name": name, **row} for name, row in rows.items()], "others": said}


def _nodes(*figures: int) -> Json:
    names = ("decisions", "nodes", "owners", "budget_offered", "budget_leased")
    return dict(zip(names, figures, strict=True))


def _waits(file: Vectors) -> None:
    s = Scene(91, cost=COSTS, ageing_slices=3)
    people = [_enrolled(s, f"a{n}", "lab") for n in range(5)]
    village, b, p = _enrolled(s, "a5", "village", newcomer=True), s.account("b"), s.account("p")
    pay, one, two = s.node(p, "pay"), s.node(b, "one"), s.node(b, "two")

    def ask(who: Author, units: int, *, purpose: str = "education", **changes: Any) -> Signed:
        return s.write(who, s.ask(pay, 400, units=units, purpose=purpose, **changes))

    r0, r1 = ask(people[0], 30, expiry=8), ask(people[1], 40, peers_min=2, expiry=8)
    s.decide(one, [r0], budget=100, refused={"full": 1})
    s.now = 1
    r2 = ask(people[2], 200)
    s.decide(one, [r1], budget=100)
    s.decide(one, [r1], budget=80)
    first = s.allot(pay, r0, one, 400)
    s.write(one, s.pay(one, pay, first, 100))
    s.now = 2
    ask(people[3], 10, expiry=4)
    ask(people[4], 10, expiry=12)
    s.decide(one, [r2], budget=100)
    s.write(one, s.pay(one, pay, first, 250))
    s.decide(one, [r1], slice_=3, budget=100)
    s.decide(two, [r1], slice_=3, budget=50)
    s.now = 4
    r5 = ask(village, 60, purpose="research", expiry=9)
    s.decide(two, [r5], slice_=5, budget=50, refused={"full": 2, "frozen": 1})
    second = s.allot(pay, r5, two, 300)
    s.now = 6
    s.write(two, s.pay(two, pay, second, 300, device="gpu-24g"))
    s.now = 9
    ask(people[0], 10, expiry=11)
    s.decide(two, slice_=10, budget=50)
    s.now = 10
    ask(people[1], 10)
    s.write(one, s.pay(one, pay, first, 400))

    lab = _row(5, [3, 1, 3, 3, 3], [2, 1, 8, 8, 8], overdue=1, unserved=1, leases=5, units=250, gco2_mg=10)
    file.stats(
        "a period", "peers-min, waits by nearest rank, who still waits at slice 10, a row of fewer than 5 accounts",
        s, (0, 0),
        {
            "slice": 10,
            "total": _row(6, [4, 1, 3, 3, 3], [2, 1, 8, 8, 8], overdue=1, unserved=1, leases=6, units=550,
                          new=(1, 1, 300), gco2_mg=10, gco2_units_unknown=300),
            "by_purpose": _table({"education": lab}, (1, 1, None)),
            "by_community": _table({"lab": lab}, (1, 1, None)),
            "nodes": _nodes(6, 2, 1, 500, 300),
            "refusals": [{"reason": "full", "times": 3, "decisions": 2},
                         {"reason": "frozen", "times": 1, "decisions": 1}],
            "other_refusals": 0,
        },
    )  # fmt: skip
    file.stats(
        "the next period", "work for a REQUEST of the period before, and a DECISION about a slice of this one",
        s, (1, 1),
        {
            "slice": 10, "total": _row(2, [], [1, 0, 0, 0, 0], units=150, gco2_mg=6),
            "by_purpose": _table({}, (1, 2, None)), "by_community": _table({}, (1, 2, None)),
            "nodes": _nodes(1, 1, 1, 50, 0), "refusals": [], "other_refusals": 0,
        },
    )  # fmt: skip
    lab = _row(5, [3, 1, 3, 3, 3], [3, 1, 8, 8, 8], overdue=1, unserved=1, leases=5, units=400, gco2_mg=16)
    file.stats(
        "both periods", "not the sum of two: ranks are of all together", s, (0, 1),
        {
            "slice": 10,
            "total": _row(6, [4, 1, 3, 3, 3], [3, 1, 8, 8, 8], overdue=1, unserved=1, leases=6, units=700,
                          new=(1, 1, 300), gco2_mg=16, gco2_units_unknown=300),
            "by_purpose": _table({"education": lab}, (1, 1, None)),
            "by_community": _table({"lab": lab}, (1, 1, None)),
            "nodes": _nodes(7, 2, 1, 550, 300),
            "refusals": [{"reason": "full", "times": 3, "decisions": 2},
                         {"reason": "frozen", "times": 1, "decisions": 1}],
            "other_refusals": 0,
        },
    )  # fmt: skip


def _changes(file: Vectors) -> None:
    s = Scene(92, cost=COSTS)
    s.amend(1, cost=None)
    people = []
    for n in range(5):
        people.append(_enrolled(s, f"a{n}", "lab", periods=1))
        s.enrol(people[-1], f"a{n}", unit="village", newcomer=True, first=1, periods=2)
    b, p = s.account("b"), s.account("p")
    pay, node = s.node(p, "pay"), s.node(b, "node")
    s.now = 9
    fork = s.back(people[0], 2)
    old = [s.write(who, s.ask(pay, 100, units=10, expiry=15)) for who in people]
    old.append(s.write(fork, s.ask(pay, 100, units=20, expiry=15)))
    s.now = 11
    new = [s.write(who, s.ask(pay, 100, units=10, purpose="research", expiry=30)) for who in people]
    s.decide(node, old, budget=1000)
    first, other = s.allot(pay, old[0], node, 60), s.allot(pay, new[0], node, 50)
    s.now = 12
    s.decide(node, new[:4], budget=1000)
    s.write(node, s.pay(node, pay, first, 50))
    s.now = 13
    raised = s.allot(pay, old[0], node, 90)
    s.write(node, s.pay(node, pay, raised, 80))
    s.write(node, s.pay(node, pay, other, 30))

    row = _row(5, [6, 2, 2, 2, 2], [])
    file.stats(
        "asked at the end of a period", "REQUESTs on both branches of a fork; the leases are of the next period",
        s, (0, 0),
        {
            "slice": 13, "total": row, "by_purpose": _table({"education": row}), "by_community": _table({"lab": row}),
            "nodes": _nodes(0, 0, 0, 0, 0), "refusals": [], "other_refusals": 0,
        },
    )  # fmt: skip
    before = _row(5, [], [], leases=6, units=80, gco2_mg=3)
    after = _row(5, [4, 1, 1, 1, 1], [1, 2, 2, 2, 2], leases=4, units=30, new=(5, 4, 30), gco2_mg=None,
                 gco2_units_unknown=30)  # fmt: skip
    file.stats(
        "community, class and costs at the REQUEST", "all moved, and the charter in force now has no costs", s, (1, 1),
        {
            "slice": 13,
            "total": _row(5, [4, 1, 1, 1, 1], [1, 2, 2, 2, 2], leases=10, units=110, new=(5, 4, 30), gco2_mg=3,
                          gco2_units_unknown=30),
            "by_purpose": _table({"education": before, "research": after}),
            "by_community": _table({"lab": before, "village": after}),
            "nodes": _nodes(2, 1, 1, 2000, 110), "refusals": [], "other_refusals": 0,
        },
    )  # fmt: skip


def _counting(file: Vectors) -> None:
    s = Scene(93)
    people = [_enrolled(s, f"a{n}", "lab") for n in range(5)]
    b, stranger, short = s.account("b"), s.account("stranger", enrol=False), _enrolled(s, "short", "lab", periods=1)
    node, strange, shorter = s.node(b, "node"), s.node(stranger, "strange"), s.node(short, "shorter")
    asked = [s.write(who, s.ask(node, 100, units=10, expiry=20, deadline=20)) for who in people]
    s.decide(strange, asked, budget=100, refused={"full": 7})
    s.decide(node, asked[:1], budget=100, refused={"full": 2})
    s.decide(node, asked[1:2], budget=100, refused={"full": 2})
    s.decide(node, asked, budget=999, refused={"full": 9})
    s.now = 5
    s.decide(shorter, asked[2:3], slice_=9, budget=50)
    s.decide(shorter, asked[3:4], slice_=10, budget=50)
    s.now = 12
    s.decide(strange, asked[4:], budget=100)
    row = _row(5, [3, 0, 9, 9, 9], [2, 12, 12, 12, 12], leases=3, overdue=2)
    file.stats(
        "decisions that count",
        "not of a node whose owner is not enrolled, or no more; of a node's own, not the second; parts together", s,
        (0, 1),
        {
            "slice": 12, "total": row, "by_purpose": _table({"education": row}), "by_community": _table({"lab": row}),
            "nodes": _nodes(3, 2, 2, 150, 30), "refusals": [{"reason": "full", "times": 2, "decisions": 1}],
            "other_refusals": 0,
        },
    )  # fmt: skip


def _enrolled(s: Scene, name: str, unit: str, *, newcomer: bool = False, periods: int | None = None) -> Author:
    author = s.account(name, enrol=False)
    s.enrol(author, name, unit=unit, newcomer=newcomer, periods=periods)
    return author
