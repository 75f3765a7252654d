"""The knapsack: the optimum of HiGHS, and the one optimal set that the tie rule names."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from tests.support.slices import brute_force, made_up
from ubcp_p2p.allocator.allocation import allocate
from ubcp_p2p.allocator.bounds import Instance, instance_of, relax
from ubcp_p2p.allocator.solver import solve

SUM_MAX = 2**50 - 1


def correlated(rng: random.Random, count: int, capacity: int, kind: str) -> Instance:
    """Knapsacks from easy to hard. kind: how values follow costs."""
    costs = [rng.randint(1, max(2, 6 * capacity // count)) for _ in range(count)]
    top = max(costs)
    share = SUM_MAX // count
    values: dict[str, Callable[[int], int]] = {
        "uncorrelated": lambda cost: rng.randint(1, share),
        "weakly": lambda cost: max(1, int(share * 0.9 * cost / top * rng.uniform(0.9, 1.1))),
        "strongly": lambda cost: (cost + top // 10) * (share // (2 * top)) + 1,
        "inversely": lambda cost: (cost + 1) * (share // (2 * top)) - (cost > top // 2) * (share // (4 * top)),
        "proportional": lambda cost: cost * (share // top),
        "almost": lambda cost: cost * (share // (2 * top)) + rng.randint(0, 3),
        "small": lambda cost: rng.randint(1, 4),
    }
    return instance_of(costs, [max(1, values[kind](cost)) for cost in costs], capacity)


KINDS = ("uncorrelated", "weakly", "strongly", "inversely", "proportional", "almost", "small")


def scaled(instance: Instance, bits: int) -> Instance:
    """The same with values below 2^bits together."""
    shift = 50 - bits
    return instance_of(instance.costs.tolist(), np.maximum(instance.values >> shift, 1).tolist(), instance.capacity)


def optimum_of_highs(instance: Instance) -> int:
    costs, values, capacity = instance
    result = milp(
        -values.astype(float),
        constraints=LinearConstraint(costs.astype(float)[np.newaxis, :], ub=capacity),
        integrality=np.ones(len(costs)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0},
    )
    assert result.status == 0
    taken = np.round(result.x).astype(bool)
    assert costs[taken].sum() <= capacity
    return int(values[taken].sum())


@pytest.mark.slow
@pytest.mark.parametrize("eighth", range(8))
def test_the_value_of_200_lifelike_problems_is_that_of_highs(eighth: int) -> None:
    for seed in range(25 * eighth, 25 * eighth + 25):
        rng = random.Random(seed)
        allocation = allocate(
            made_up(seed, rng.randint(10, 100), budget=rng.randint(500, 10**6), load=rng.randint(1, 6))
        )
        assert allocation.solution.value == optimum_of_highs(allocation.instance)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_value_of_hard_instances_is_that_of_highs(kind: str) -> None:
    """In 36 bits: where values near 2^50 tie almost, HiGHS, which computes in doubles, ends below the optimum.

    The tests below have no such limit, and compare with integers.
    """
    rng = random.Random(kind)
    for _ in range(30):
        instance = scaled(correlated(rng, rng.randint(5, 60), rng.randint(20, 1000), kind), 36)
        assert solve(instance).value == optimum_of_highs(instance)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_highs_is_never_better(kind: str) -> None:
    rng = random.Random(kind)
    for _ in range(10):
        instance = correlated(rng, rng.randint(5, 60), rng.randint(20, 1000), kind)
        assert solve(instance).value >= optimum_of_highs(instance)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_set_is_the_first_of_all_optimal_ones(kind: str) -> None:
    rng = random.Random(kind)
    for _ in range(40):
        instance = correlated(rng, rng.randint(1, 10), rng.randint(1, 40), kind)
        solution = solve(instance)
        found = solution.value, tuple(map(bool, solution.taken))
        assert found == brute_force(instance.costs.tolist(), instance.values.tolist(), instance.capacity)


# costs, values, capacity, taken
TIES: list[tuple[list[int], list[int], int, list[int]]] = [
    ([1, 1, 1], [5, 5, 5], 2, [0, 1]),
    ([2, 1, 1], [2, 1, 1], 2, [0]),
    ([1, 2, 1], [1, 2, 1], 2, [0, 2]),
    ([3, 2, 2], [3, 2, 2], 4, [1, 2]),
    ([1, 1], [1, 1], 0, []),
    ([5], [9], 4, []),
    ([5], [9], 5, [0]),
    ([], [], 7, []),
    ([4, 3, 3, 2], [4, 3, 3, 2], 6, [0, 3]),
    ([10_001, 1], [2**49, 1], 10_000, [1]),
]


@pytest.mark.parametrize(("costs", "values", "capacity", "taken"), TIES)
def test_ties_by_hand(costs: list[int], values: list[int], capacity: int, taken: list[int]) -> None:
    assert solve(instance_of(costs, values, capacity)).taken.nonzero()[0].tolist() == taken


def _plain_table(instance: Instance) -> tuple[int, list[int]]:
    """The tie rule by a plain table in Python integers, without any reduction."""
    costs, values, capacity = instance.costs.tolist(), instance.values.tolist(), instance.capacity
    rows = [[0] * (capacity + 1)]
    for cost, value in zip(reversed(costs), reversed(values), strict=True):
        last = rows[-1]
        rows.append([max(last[w], value + last[w - cost]) if w >= cost else last[w] for w in range(capacity + 1)])
    rows.reverse()
    left, taken = capacity, []
    for item, (cost, value) in enumerate(zip(costs, values, strict=True)):
        if cost <= left and value + rows[item + 1][left - cost] == rows[item][left]:
            taken.append(item)
            left -= cost
    return rows[0][capacity], taken


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_reductions_change_nothing_on_larger_ones(kind: str) -> None:
    rng = random.Random(kind)
    for _ in range(6):
        instance = correlated(rng, rng.randint(100, 300), rng.randint(100, 600), kind)
        solution = solve(instance)
        assert (solution.value, solution.taken.nonzero()[0].tolist()) == _plain_table(instance)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_instances_fit_the_arithmetic(kind: str) -> None:
    instance = correlated(random.Random(kind), 10_000, 10_000, kind)
    solution = solve(instance)
    assert int(instance.costs[solution.taken].sum()) <= instance.capacity
    assert int(instance.values[solution.taken].sum()) == solution.value <= solution.relaxed.limit


def test_a_single_giant_has_the_largest_price() -> None:
    """λ is at its cap, costs at their largest: nothing overflows."""
    instance = instance_of([1, 10_000, 10_000], [2**50 - 3, 1, 1], 10_000)
    assert solve(instance).taken.tolist() == [True, False, False]
    instance = instance_of([10_000, 1, 1], [1, 2**49, 2**49 - 2], 1)
    assert relax(instance).price == 2**49 - 2
    assert solve(instance).taken.tolist() == [False, True, False]


@pytest.mark.parametrize(
    "make",
    [
        lambda: instance_of([1], [1, 2], 3),
        lambda: instance_of([0], [1], 3),
        lambda: instance_of([1], [0], 3),
        lambda: instance_of([1, 1], [2**49, 2**49], 3),
        lambda: instance_of([1], [1], 10_001),
        lambda: instance_of([1] * 10_001, [1] * 10_001, 1),
    ],
)
def test_what_the_arithmetic_was_not_made_for_is_our_mistake(make: Callable[[], Sequence[int]]) -> None:
    with pytest.raises(AssertionError):
        make()
