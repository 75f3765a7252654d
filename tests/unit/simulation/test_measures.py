"""Figures from traces, by hand; fair parts by max-min."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.communities import tiny
from ubcp_p2p.simulation.engine import Trace
from ubcp_p2p.simulation.measures import flat_entitlement, measure, unit_entitlement, water_fill
from ubcp_p2p.simulation.world import Ints, Kind, World, world_of


def ints(*values: int) -> Ints:
    return np.array(values, dtype=np.int64)


def world(kinds: list[Kind], units: list[int], weights: list[int]) -> World:
    base = world_of(tiny(), 1)
    return replace(
        base, kind=ints(*kinds), unit=ints(*units), weight=ints(*weights), joined=np.zeros(len(kinds), dtype=np.int64),
        budget=np.full((24, 1), 100), order=np.zeros((24, 1), dtype=np.int64),
    )  # fmt: skip


def trace(user: Ints, needs: Ints, got: Ints, *, first: Ints | None = None, came: Ints | None = None) -> Trace:
    zeros = np.zeros(len(user), dtype=np.int64)
    used = np.zeros((24, 1), dtype=np.int64)
    used[0] = got.sum()
    return Trace(
        user, needs, needs, zeros if came is None else came, zeros if first is None else first, zeros, zeros + 1, used,
        used, got,
    )  # fmt: skip


def test_water_filling_by_hand() -> None:
    one = np.ones(3)
    assert water_fill(9, np.array([1.0, 5.0, 9.0]), one).tolist() == [1, 4, 4]
    assert water_fill(9, np.array([1.0, 1.0, 1.0]), one).tolist() == [1, 1, 1]
    assert water_fill(9, np.array([np.inf, 1.0, np.inf]), np.array([3.0, 1.0, 1.0])).tolist() == [6, 1, 2]


def test_what_some_leave_goes_to_all_or_to_their_unit_first() -> None:
    """Two units of equal weight: one with a modest and a heavy person, one with two heavy ones."""
    kinds, units = [Kind.STEADY, Kind.HEAVY, Kind.HEAVY, Kind.HEAVY], [0, 0, 1, 1]
    place, done = world(kinds, units, [1, 1]), trace(ints(0), ints(10), ints(10, 30, 30, 30))
    assert flat_entitlement(place, done).tolist() == [10, 30, 30, 30]
    assert unit_entitlement(place, done).tolist() == [10, 40, 25, 25]
    error = measure(place, done)
    assert error.flat == (0.0, 0.0, 0.0)
    assert error.by_unit.misplaced == 0.1
    assert error.by_unit.unit == 0.1
    assert error.by_unit.person == 0.25


def test_waits_are_to_the_first_slice_served_and_never_is_to_the_end() -> None:
    place = world([Kind.STEADY, Kind.STEADY, Kind.NEWCOMER], [0, 0, 0], [1])
    place = replace(place, joined=ints(0, 0, 5))
    # A third of all budgets, of 24 · 100, is a part: user 0 asked for that, user 1 for more.
    done = trace(ints(0, 0, 1, 2), ints(0, 800, 801, 1), ints(1, 1, 1), first=ints(3, 9, -1, 7), came=ints(3, 1, 4, 5))
    found = measure(place, done)
    assert found.steady.requests == 2
    assert found.steady.max == 8
    assert found.eager.max == 20  # 24 slices of an hour, less 4
    assert found.newcomers == (2.0, 2.0, 2.0, 1)
    assert found.at_once == {"steady": pytest.approx(1 / 3, abs=1e-4), "newcomer": 0.0}


def test_utilisation() -> None:
    place = world([Kind.STEADY], [0], [1])
    found = measure(place, trace(ints(0), ints(240), ints(240)))
    assert found.used == found.leased == 0.1
