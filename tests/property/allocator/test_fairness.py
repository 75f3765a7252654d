"""What holds over many slices: nobody waits for ever, and neither invented people nor cut jobs gain anything."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.slice_life import Member, SliceLife
from tests.support.slices import RULES, id_of
from ubcp_p2p.allocator.allocation import allocate
from ubcp_p2p.allocator.problem import Applicant, Ask, UnitUse, problem_of
from ubcp_p2p.allocator.usage import Charge

AGEING = 4
QUEUE_MAX = 250  # of the adversary's: beyond, it is only slower to decide


def ask_of(number: int, user: bytes, units: int, *, waited: int = 0, urgency: int = 1000) -> Ask:
    return Ask(id_of(number), user, "research", units, units, waited, urgency)


# -- nobody waits for ever --------------------------------------------------------------------------------------------


def wait_bound(units_: int, mates: int, quantum: int, budget: int, reserve: int, part: int, ahead: int) -> int:
    """Slices after which a request is accepted, whatever the others do: docs/allocator.md derives it.

    units_: other units; mates: people of its own unit, itself included; part: the least S of its user; ahead:
    requests of its unit that were there before it. Doubled where there is a reserve, which may take twice its size
    every second slice.
    """
    share = (units_ + 1) * mates  # 1/share of the user, all weights being equal
    exponent = 2 * share + -(-quantum // part)
    grown = AGEING * (exponent + 2 + (1 + budget).bit_length())
    return (ahead + 1) * (grown + (2 if reserve else 1) * (units_ + 1))


@pytest.mark.slow
@settings(max_examples=30)
@given(st.data())
def test_no_request_waits_for_ever(data: st.DataObject) -> None:
    """Though units flood, and people of its own unit, with urgency, and its user used much that does not decay."""
    budget = data.draw(st.integers(8, 30), "budget")
    permille = data.draw(st.sampled_from((0, 0, 200)), "reserve")
    reserve = budget * permille // 1000
    others, mates = data.draw(st.integers(1, 3), "units"), data.draw(st.integers(1, 2), "mates")
    quantum = data.draw(st.integers(1, budget - reserve), "quantum")
    ahead = data.draw(st.integers(0, 2), "ahead")
    life = SliceLife(RULES._replace(half_life_slices=2**20, ageing_slices=AGEING, newcomer_permille=permille), budget)
    numbers = count(1)
    me, mate = id_of(10**6), id_of(10**6 + 1)
    life.members = {me: Member("mine"), mate: Member("mine")}
    life.charges = [Charge(me, 0, data.draw(st.sampled_from((0, 10, 10**6)), "use") * budget)]
    queue = [ask_of(next(numbers), me, data.draw(st.integers(1, budget - reserve)), waited=9) for _ in range(ahead)]
    waiting = ask_of(10**9, me, quantum)
    arrivals = st.lists(
        st.tuples(
            st.integers(0, others), st.booleans(), st.integers(1, budget - reserve), st.sampled_from((1000, 2000))
        ),
        min_size=1,
        max_size=4,
    )
    pattern = data.draw(st.lists(arrivals, min_size=1, max_size=4), "load")  # again and again
    part = max(1, budget // ((others + 1) * mates))
    bound = wait_bound(others, mates, quantum, budget, reserve, part, ahead)
    while life.slice == 0 or waiting.id in life.queue:
        assert life.slice <= bound
        new = [*queue, waiting] if life.slice == 0 else []
        for unit, fresh, units, urgency in pattern[life.slice % len(pattern)]:
            if len(life.queue) > QUEUE_MAX or (unit == others and (mates == 1 or life.slice == 0)):
                continue
            number = next(numbers)
            user = mate if unit == others else id_of(2 * 10**6 + (number if fresh else 0) * 4 + unit)
            life.members.setdefault(user, Member(f"unit {unit}", newcomer=fresh))
            new.append(ask_of(number, user, units, urgency=urgency))
        life.step(new)


# -- invented people --------------------------------------------------------------------------------------------------


def share_of_the_many(people: int, quantum: int, weights: tuple[int, int], half_lives: int = 4) -> float:
    """What a unit of `people` gets beside a unit of one in the last half-life; all of them always want everything."""
    budget, half_life = 1000, 24
    rules = RULES._replace(half_life_slices=half_life, ageing_slices=12)
    life = SliceLife(rules, budget, weights={"one": weights[0], "many": weights[1]})
    one = id_of(10**6)
    life.members = {one: Member("one")} | {id_of(10**6 + n): Member("many") for n in range(1, people + 1)}
    numbers = count(1)
    before: dict[bytes, int] = {}
    for _ in range(half_lives * half_life):
        if life.slice == (half_lives - 1) * half_life:
            before = dict(life.served)
        queued = {user: sum(ask.units for ask in life.queue.values() if ask.applicant == user) for user in life.members}
        new = [
            ask_of(next(numbers), user, quantum)
            for user, units in queued.items()
            for _ in range(-(-(budget - units) // quantum))
        ]
        life.step(new)
    got = {user: units - before.get(user, 0) for user, units in life.served.items()}
    return 1 - got.get(one, 0) / sum(got.values())


@pytest.mark.slow
@settings(max_examples=10)
@given(st.integers(1, 20), st.sampled_from((100, 240, 250, 500)), st.sampled_from(((1, 1), (1, 2), (3, 1))))
def test_invented_people_add_nothing_to_their_units_share(people: int, quantum: int, weights: tuple[int, int]) -> None:
    """Tolerance: 2 % of the capacity, in the last of four half-lives from an empty ledger."""
    entitled = weights[1] / sum(weights)
    assert share_of_the_many(people, quantum, weights) <= entitled + 0.02


# -- cut jobs ---------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 2**30), min_size=1, max_size=12),
    st.integers(0, 2**32),
    st.integers(0, 2**32),
    st.integers(0, 3),
    st.integers(0, 200),
)
def test_the_pieces_of_a_job_are_together_worth_the_job(
    pieces: list[int], use: int, mates_use: int, mates: int, waited: int
) -> None:
    """To one part in 2^30 for what has just come; never more than that for what has waited."""
    me, other = id_of(100), id_of(101)
    budget = 2**34  # one granule is 2^21 units: what is cut is not rounded here, but in its cost
    users = [Applicant(me, "mine", False, use), Applicant(other, "other", False, 0)]
    users += [Applicant(id_of(200 + n), "mine", False, mates_use) for n in range(mates)]

    def worth(cut: list[int]) -> tuple[int, int, int]:
        asks = [ask_of(n + 1, me, units, waited=waited) for n, units in enumerate(cut)]
        asks.append(ask_of(99, other, 2**33))
        found = allocate(
            problem_of(slice=0, rules=RULES, budget=budget, applicants=users, asks=asks,
                       units=[UnitUse("mine", 1, use + mates * mates_use), UnitUse("other", 1, 0)])
        )  # fmt: skip
        mine = [entry for entry in found.entries if entry.ask.applicant == me]
        yardstick = next(entry.worth.value for entry in found.entries if entry.ask.applicant == other)
        return sum(entry.worth.value for entry in mine), yardstick, sum(entry.cost for entry in mine)

    whole, yardstick, cost = worth([sum(pieces)])
    cut, cut_yardstick, cut_cost = worth(pieces)
    slack = (len(pieces) + 1) * max(yardstick, cut_yardstick) + (whole * cut_yardstick >> 30)
    assert cut * yardstick <= whole * cut_yardstick + slack
    assert waited or cut * yardstick >= whole * cut_yardstick - slack
    assert cut_cost >= cost


@pytest.mark.slow
@pytest.mark.parametrize("quantum", [160, 400, 800])
@pytest.mark.parametrize("pieces", [2, 8])
def test_a_cut_job_gets_no_more_than_its_share(quantum: int, pieces: int) -> None:
    """Two people who always want everything, one with whole jobs, one with cut ones. Tolerance: 2 % of the capacity."""
    budget, half_life = 1000, 24
    life = SliceLife(RULES._replace(half_life_slices=half_life, ageing_slices=12), budget)
    whole, cut = id_of(10**6), id_of(10**6 + 1)
    life.members = {whole: Member("a"), cut: Member("b")}
    numbers = count(1)
    for _ in range(6 * half_life):
        queued = {user: sum(ask.units for ask in life.queue.values() if ask.applicant == user) for user in life.members}
        new = []
        while queued[whole] < budget:
            new.append(ask_of(next(numbers), whole, quantum))
            queued[whole] += quantum
        while queued[cut] < budget:
            new += [ask_of(next(numbers), cut, quantum // pieces) for _ in range(pieces)]
            queued[cut] += quantum
        life.step(new)
    total = 6 * half_life * budget
    assert life.served[cut] <= total * 52 // 100
