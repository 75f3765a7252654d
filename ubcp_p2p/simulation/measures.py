"""What a rule did to a community: waits, shares, acceptance, use of the budgets. From a trace alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from ubcp_p2p.simulation.engine import Trace
from ubcp_p2p.simulation.world import Flags, Floats, Ints, Kind, World

DIGITS: Final = 4  # of every figure: more would be noise
_ALWAYS: Final = (Kind.HEAVY, Kind.FLOODING, Kind.SPLITTING, Kind.SYBIL, Kind.UNDERCLAIMING, Kind.OVERCLAIMING)


class Waits(NamedTuple):
    """Hours from coming to the first slice served; what was never served has waited to the end."""

    p50: float
    p99: float
    max: float
    requests: int


class ShareError(NamedTuple):
    """Work in the wrong hands. misplaced: of all work, the part that others were entitled to. unit: the largest
    |got − entitled| of a unit, as a part of all work. person: the largest one of somebody who always wants more, as a
    part of what it is entitled to.
    """

    misplaced: float
    unit: float
    person: float


class Measures(NamedTuple):
    """steady: of those who ask for no more than their part of the budgets; eager: of those who ask for more, but not
    always.

    flat: entitled to an equal part of one's unit's part; what some leave goes to all who want more. by_unit: it goes to
    their unit first. at_once, done: parts of requests by kind. used, leased: of all budgets.
    """

    steady: Waits
    eager: Waits
    newcomers: Waits
    flat: ShareError
    by_unit: ShareError
    at_once: Mapping[str, float]
    done: Mapping[str, float]
    used: float
    leased: float


def measure(world: World, trace: Trace) -> Measures:
    end = world.slices
    hours = world.scenario.slice_seconds / 3600
    began = np.where(trace.first < 0, end, trace.first)
    wait = (began - trace.came) * hours
    modest = _modest(world, trace)
    is_steady = world.kind[trace.user] == Kind.STEADY
    kinds = [kind for kind in Kind if np.any(world.kind[trace.user] == kind)]
    rows = {kind: world.kind[trace.user] == kind for kind in kinds}
    budget = float(world.budget.sum())
    return Measures(
        steady=_waits(wait[is_steady & modest[trace.user]]),
        eager=_waits(wait[is_steady & ~modest[trace.user]]),
        newcomers=_waits(_newcomers(world, trace, began) * hours),
        flat=_share_error(world, trace, flat_entitlement(world, trace)),
        by_unit=_share_error(world, trace, unit_entitlement(world, trace)),
        at_once={kind.name.lower(): _part(trace.first[rows[kind]] == trace.came[rows[kind]]) for kind in kinds},
        done={kind.name.lower(): _part(trace.done[rows[kind]] >= 0) for kind in kinds},
        used=round(float(trace.used.sum()) / budget, DIGITS),
        leased=round(float(trace.leased.sum()) / budget, DIGITS),
    )


# -- entitlement ------------------------------------------------------------------------------------------------------


def water_fill(total: float, demand: Floats, weight: Floats) -> Floats:
    """Max-min fair parts of `total`: level · weight, but no more than demanded; the level uses up all that it can."""
    order = np.argsort(demand / weight, kind="stable")
    wants, weights = demand[order], weight[order]
    before = np.concatenate(([0.0], np.cumsum(np.where(np.isinf(wants), 0.0, wants))[:-1]))
    behind = np.cumsum(weights[::-1])[::-1]  # of all that are not satisfied before this one
    level = (total - before) / behind
    unsatisfied = np.flatnonzero(wants > level * weights)
    if not len(unsatisfied):
        return demand.copy()
    at = level[unsatisfied[0]]
    filled: Floats = np.minimum(demand, at * weight)
    return filled


def flat_entitlement(world: World, trace: Trace) -> Floats:
    """What some leave of their part goes to all who want more, in proportion to their parts."""
    return water_fill(float(trace.got.sum()), _demand(world, trace), _part_of_person(world))


def unit_entitlement(world: World, trace: Trace) -> Floats:
    """What some leave of their part goes to their unit's people first, and what a unit leaves to the other units."""
    demand, units = _demand(world, trace), len(world.weight)
    # Without infinities, which bincount cannot sum up: nobody can have more than everything.
    bounded = np.minimum(demand, float(trace.got.sum()))
    wanted = np.bincount(world.unit, weights=bounded, minlength=units).astype(np.float64)
    of_units = water_fill(float(trace.got.sum()), wanted, world.weight.astype(np.float64))
    found = np.zeros(world.users)
    for unit in range(units):
        people = np.flatnonzero(world.unit == unit)
        found[people] = water_fill(float(of_units[unit]), bounded[people], np.ones(len(people)))
    return found


def _demand(world: World, trace: Trace) -> Floats:
    """Work that each user asked for; of those who always have jobs queued: no end of it."""
    demand = np.bincount(trace.user, weights=trace.needs, minlength=world.users).astype(np.float64)
    demand[world.users_of(*_ALWAYS)] = np.inf
    return demand


def _part_of_person(world: World) -> Floats:
    """Of all work: its unit's weight, divided by the people there; of nobody a very small one, since none may be 0."""
    there = world.kind != Kind.NOBODY
    people = np.bincount(world.unit[there], minlength=len(world.weight))
    part = (world.weight / np.maximum(people, 1) / world.weight.sum())[world.unit]
    return np.where(there, part, np.finfo(np.float64).tiny)


def _modest(world: World, trace: Trace) -> Flags:
    """Who asks for no more than its part of all budgets: the same people under every rule."""
    asked = np.bincount(trace.user, weights=trace.needs, minlength=world.users)
    modest: Flags = asked <= _part_of_person(world) * float(world.budget.sum())
    return modest


def _share_error(world: World, trace: Trace, entitled: Floats) -> ShareError:
    difference = trace.got - entitled
    total = float(trace.got.sum())
    units = np.bincount(world.unit, weights=difference, minlength=len(world.weight))
    always = world.users_of(*_ALWAYS)
    return ShareError(
        round(float(np.abs(difference).sum()) / 2 / total, DIGITS),
        round(float(np.abs(units).max()) / total, DIGITS),
        round(float((np.abs(difference[always]) / entitled[always]).max()), DIGITS) if len(always) else 0.0,
    )


# -- waits ------------------------------------------------------------------------------------------------------------


def _waits(hours: Floats) -> Waits:
    if not len(hours):
        return Waits(0.0, 0.0, 0.0, 0)
    p50, p99 = np.percentile(hours, (50, 99))
    return Waits(round(float(p50), DIGITS), round(float(p99), DIGITS), round(float(hours.max()), DIGITS), len(hours))


def _newcomers(world: World, trace: Trace, began: Ints) -> Floats:
    """Slices from joining to the first one served, of each newcomer."""
    people = world.users_of(Kind.NEWCOMER)
    first = np.full(world.users, world.slices)
    np.minimum.at(first, trace.user, began)
    return (first[people] - world.joined[people]).astype(np.float64)


def _part(flags: Flags) -> float:
    return round(float(flags.mean()), DIGITS)
