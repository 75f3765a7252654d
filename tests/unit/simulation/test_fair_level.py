"""The curve's assumption against the allocator: everybody wants one project; who is through when it is spent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.communities import tiny
from ubcp_p2p.simulation.curve import level_of
from ubcp_p2p.simulation.engine import Life
from ubcp_p2p.simulation.ours import Allocator
from ubcp_p2p.simulation.world import Jobs, Kind, world_of

USERS, QUANTUM = 120, 160


@pytest.mark.slow
@pytest.mark.parametrize("part", [0.4, 0.6, 0.8])
def test_as_many_reach_their_aim_as_max_min_says(part: float) -> None:
    """Within 5 % of the people, at a part of the work that all need together."""
    scenario = tiny(
        days={"days": 10}, people={"users": USERS, "units": 4}, charter={"half_life_days": 365, "weight_spread": 0.0}
    )
    base = world_of(scenario, 1)
    draw = np.random.Generator(np.random.PCG64(5))
    slices = np.maximum(1, np.round(12 * np.exp(0.8 * draw.standard_normal(USERS)))).astype(np.int64)
    needs = QUANTUM * slices
    nothing = np.zeros(USERS, dtype=np.int64)
    world = replace(
        base, kind=nothing + Kind.STEADY, joined=nothing, arrives=nothing, wants=np.arange(USERS),
        arrivals=Jobs(nothing + QUANTUM, slices, nothing + 1),
    )  # fmt: skip
    life = Life(world, Allocator(world))
    spent = 0
    while spent < part * needs.sum():
        spent += int(life.step().used.sum())
    through = int((life.trace().done >= 0).sum())
    level = level_of(np.sort(needs).astype(np.float64), np.array([spent / USERS]))[0]
    assert 10 < through < USERS - 10
    assert abs(through - int((needs <= level).sum())) <= 0.05 * USERS
