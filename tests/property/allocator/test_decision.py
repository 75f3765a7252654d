"""What holds for every slice: the optimum, the tie rule, exact displacement, replay; the order of rows says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.slices import RULES, brute_force, id_of
from ubcp_p2p.allocator.allocation import allocate
from ubcp_p2p.allocator.blob import MalformedProblem, decode_problem, encode_problem, inputs_hash
from ubcp_p2p.allocator.bounds import Instance, instance_of
from ubcp_p2p.allocator.decide import decide
from ubcp_p2p.allocator.displacement import displaced
from ubcp_p2p.allocator.problem import Applicant, Ask, Cleaner, Problem, Reason, UnitUse, problem_of
from ubcp_p2p.allocator.replay import Claim, replayed
from ubcp_p2p.allocator.solver import solve
from ubcp_p2p.units import AMOUNT_MAX

NAMES = ("a", "b", "c")


def amounts(low: int = 0, high: int = AMOUNT_MAX // 64) -> st.SearchStrategy[int]:
    return st.one_of(st.integers(low, min(high, low + 50)), st.integers(low, high))


@st.composite
def problems(draw: st.DrawFn, *, asks_max: int = 8, high: int = AMOUNT_MAX // 64) -> Problem:
    """Small in rows, of any size in amounts."""
    users = [
        Applicant(id_of(1000 + n), draw(st.sampled_from(NAMES)), draw(st.booleans()), draw(amounts(high=high)),
                  draw(st.integers(0, 300)))
        for n in range(draw(st.integers(1, 4)))
    ]  # fmt: skip
    budget = draw(amounts(high=high))
    rules = RULES._replace(
        newcomer_permille=draw(st.integers(0, 500)), half_life_slices=draw(st.integers(1, 1000)),
        ageing_slices=draw(st.integers(1, 1000)), purposes=("education", "research"),
    )  # fmt: skip
    asks = []
    for number in draw(st.lists(st.integers(0, 2**256 - 1), max_size=asks_max, unique=True)):
        units = draw(amounts(1, max(1, min(high, 2 * budget))))
        cleaner = draw(st.none() | st.builds(Cleaner, st.integers(0, 1000), st.integers(1, 100)))
        asks.append(
            Ask(id_of(number), draw(st.sampled_from(users)).id, draw(st.sampled_from(("research", "education", "x"))),
                units, draw(st.integers(1, units)), draw(st.integers(0, 500)), draw(st.integers(1000, 2000)),
                draw(st.integers(1, 1000)), cleaner, draw(st.none() | st.just(Reason.FROZEN)))
        )  # fmt: skip
    used = {name: sum(user.use for user in users if user.unit == name) for name in NAMES}
    return problem_of(
        slice=draw(st.integers(0, 2**32 - 1)), rules=rules, budget=budget, budget_max=draw(amounts(budget, high)),
        capacity=draw(amounts(high=high)), carbon=draw(st.none() | st.integers(0, 1000)),
        reserve_carried=draw(st.integers(0, budget * rules.newcomer_permille // 1000)), applicants=users, asks=asks,
        units=[UnitUse(name, draw(st.integers(1, 9)), use, draw(st.integers(0, 300))) for name, use in used.items()],
    )  # fmt: skip


def knapsacks(count_max: int) -> st.SearchStrategy[Instance]:
    """Many ties among them."""
    values = st.one_of(st.integers(1, 4), st.integers(1, 2**50 // count_max - 1))
    items = st.lists(st.tuples(st.integers(1, 12), values), max_size=count_max)
    proportional = items.map(lambda rows: [(cost, cost) for cost, _ in rows])
    return st.builds(
        lambda rows, capacity: instance_of([cost for cost, _ in rows], [value for _, value in rows], capacity),
        items | proportional,
        st.integers(0, 40),
    )


@pytest.mark.slow
@given(knapsacks(9))
def test_the_set_is_the_first_optimum(instance: Instance) -> None:
    solution = solve(instance)
    found = solution.value, tuple(map(bool, solution.taken))
    assert found == brute_force(instance.costs.tolist(), instance.values.tolist(), instance.capacity)


@pytest.mark.slow
@given(knapsacks(8), st.integers(0, 8))
def test_displacement_is_between_its_bounds_and_exact_near_the_cut(instance: Instance, near: int) -> None:
    solution = solve(instance)
    costs, values, capacity = instance.costs.tolist(), instance.values.tolist(), instance.capacity
    some, all_ = displaced(instance, solution, near), displaced(instance, solution)
    for place in range(len(costs)):
        if solution.taken[place]:
            continue
        forced = brute_force(costs, values, capacity, forced=place)
        true = -1 if forced is None else solution.value - forced[0]
        assert all_.least[place] == all_.most[place] == true
        assert some.least[place] <= true <= some.most[place]


@pytest.mark.slow
@given(problems())
def test_the_limits_of_a_decision(problem: Problem) -> None:
    allocation, decision = allocate(problem), decide(problem)
    assert decision.accepted == allocation.accepted_ids
    assert decision.used <= problem.budget
    assert sum(entry.worth.value for entry in allocation.entries) < 2**50
    assert 0 <= decision.reserve_unused <= problem.budget * problem.rules.newcomer_permille // 1000
    asks = {ask.id: ask for ask in problem.asks}
    for one in decision.outcomes:
        ask = asks[one.id]
        assert not one.accepted or (ask.units_min <= one.units <= ask.units and ask.standing is None)
        assert (one.queue > 0) == (one.reason is Reason.FULL)
        assert one.reason is not Reason.TOO_LARGE or ask.units_min * 1000 > problem.budget_max * 499 - 10**4


@pytest.mark.slow
@given(problems())
def test_no_request_is_left_out_that_still_fits(problem: Problem) -> None:
    """An optimum leaves nothing of value beside idle capacity; so nobody starves there."""
    allocation = allocate(problem)
    free = allocation.grid.capacity - sum(allocation.entries[place].cost for place in allocation.accepted)
    assert free >= 0
    for place, entry in enumerate(allocation.entries):
        assert place in allocation.accepted or entry.cost > free


@pytest.mark.slow
@settings(max_examples=50)
@given(problems(asks_max=12), st.data())
def test_the_order_of_rows_says_nothing(problem: Problem, data: st.DataObject) -> None:
    other = problem_of(
        slice=problem.slice, rules=problem.rules, budget=problem.budget, budget_max=problem.budget_max,
        capacity=problem.capacity, reserve_carried=problem.reserve_carried, carbon=problem.carbon,
        units=data.draw(st.permutations(problem.units)), applicants=data.draw(st.permutations(problem.applicants)),
        asks=data.draw(st.permutations(problem.asks)),
    )  # fmt: skip
    assert other == problem
    assert decide(other).to_bytes() == decide(problem).to_bytes()


@pytest.mark.slow
@settings(max_examples=50)
@given(problems(asks_max=12))
def test_a_decision_is_replayed_from_its_bytes(problem: Problem) -> None:
    blob = encode_problem(problem)
    again = decode_problem(blob)
    decision = decide(problem)
    assert encode_problem(again) == blob
    assert decide(again).to_bytes() == decision.to_bytes()
    claim = Claim(problem.slice, decision.budget, decision.granule, decision.accepted, decision.refused,
                  inputs_hash(blob))  # fmt: skip
    assert replayed(blob, claim).disagreements == ()
    if decision.accepted:
        assert replayed(blob, claim._replace(accepted=decision.accepted[1:])).disagreements


@pytest.mark.slow
@given(problems(asks_max=3), st.data())
def test_changed_bytes_are_refused_or_another_problem(problem: Problem, data: st.DataObject) -> None:
    blob = bytearray(encode_problem(problem))
    for _ in range(data.draw(st.integers(1, 3))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode_problem(bytes(blob))
    except MalformedProblem:
        return
    assert encode_problem(found) == bytes(blob)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_words(data: bytes) -> None:
    try:
        decode_problem(data)
    except MalformedProblem:
        return
    raise AssertionError("random bytes are no problem")
