"""The budget curve against what is known of it: its slope is the hazard rate of needs, its ends, its monotony."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.simulation.assumptions import Assumptions, load, shipped_assumptions
from ubcp_p2p.simulation.curve import SENSITIVITY_SEEDS, curve_of, inflection_of, level_of, needs_of, work_of
from ubcp_p2p.simulation.measures import water_fill
from ubcp_p2p.simulation.world import Floats

SHIPPED = load(shipped_assumptions())
NEEDS = st.lists(st.floats(0.01, 1e6), min_size=1, max_size=30).map(lambda rows: np.sort(np.array(rows)))


def one_project(*, spread: float, learning: float = 0.0, users: int = 1000) -> Assumptions:
    """Everybody's median need is 1 credit, and the budget's work is 1 credit for a PFLOP/s-day and a user of 1000."""
    document = SHIPPED.model_dump(by_alias=True)
    document |= {
        "users": users,
        "hardware": {"utilisation": 1000 / 86_400, "lost": 0.0},
        "learning": {"credits": learning, "spread": 0.0},
        "project": [
            {"name": "x", "part": 1.0, "parameters": 1e9, "tokens": 1e6, "flop_per_parameter_and_token": 1.0,
             "attempts": 1.0, "spread": spread}
        ],
    }  # fmt: skip
    return Assumptions.model_validate(document)


@given(NEEDS, st.floats(0, 1.2))
def test_the_level_uses_up_the_work_and_is_what_water_filling_gives(needs: Floats, part: float) -> None:
    work = np.array([part * float(needs.mean())])
    level = float(level_of(needs, work)[0])
    filled = water_fill(float(work[0]) * len(needs), needs, np.ones(len(needs)))
    assert np.allclose(np.minimum(needs, level), filled, rtol=1e-9, atol=1e-9)


@given(NEEDS)
def test_more_work_for_more_level(needs: Floats) -> None:
    levels = np.linspace(0, 1.1 * needs[-1], 50)
    work = work_of(needs, levels)
    assert (np.diff(work) >= -1e-9).all()
    assert work[0] == 0
    assert work[-1] == pytest.approx(needs.mean())


@pytest.mark.parametrize("spread", [0.5, 0.8, 1.0])
def test_the_inflection_is_where_the_hazard_rate_is_largest(spread: float) -> None:
    """Of a log-normal need it is known: f ∕ (1 − F), looked for on a fine grid with the error function."""
    from scipy.stats import lognorm

    grid = np.geomspace(0.01, 20, 200_000)
    hazard = lognorm.pdf(grid, spread) / lognorm.sf(grid, spread)
    expected = grid[hazard.argmax()]
    assumptions = one_project(spread=spread)
    levels = [inflection_of(assumptions, needs_of(assumptions, seed)).level for seed in range(20)]
    assert np.mean(levels) == pytest.approx(expected, rel=0.1)


def test_the_curve_begins_flat_is_steep_and_ends_flat() -> None:
    curve = curve_of(SHIPPED, 1, seeds=3)
    users = curve.useful.mean(axis=0)
    assert (np.diff(users) >= 0).all()
    assert users[0] < 0.001 * SHIPPED.users
    assert users[-1] == SHIPPED.users
    at = np.mean([one.budget for one in curve.inflections])
    slope = np.diff(users) / np.diff(curve.budgets)
    steepest = curve.budgets[slope.argmax()], curve.budgets[slope.argmax() + 1]
    assert steepest[0] / 1.25 < at < steepest[1] * 1.25  # a step of the table is 17 %


def test_a_budget_for_everybody_is_the_sum_of_all_needs() -> None:
    assumptions = one_project(spread=0.8)
    needs = needs_of(assumptions, 1)
    at_most = float(work_of(needs, needs[-1:])[0])
    assert level_of(needs, np.array([at_most * 1.000001]))[0] == np.inf
    assert at_most == pytest.approx(needs.mean())


def test_half_the_people_need_half_the_budget() -> None:
    half = SHIPPED.scaled("users", 0.5)
    assert half is not None
    for one, other in zip(
        curve_of(SHIPPED, 1, seeds=2).inflections, curve_of(half, 1, seeds=2).inflections, strict=True
    ):
        assert other.budget == pytest.approx(one.budget / 2)


def test_learning_moves_the_flat_part() -> None:
    first = {}
    for learning in (0.0, 2.0):
        needs = needs_of(one_project(spread=0.8, learning=learning), 1)
        first[learning] = needs[0]
    assert first[2.0] == pytest.approx(first[0.0] + 2.0)


def test_an_impossible_change_is_none() -> None:
    assert one_project(spread=0.8).scaled("hardware.utilisation", 2.0) is not None
    assert SHIPPED.scaled("hardware.utilisation", 4.0) is None
    assert SHIPPED.scaled("project.0.attempts", 0.01) is None
    assert SENSITIVITY_SEEDS >= 2
