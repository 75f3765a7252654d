"""A community as it will be, drawn from a seed before any rule decides: people, peers, budgets, and who wants what.

All rules meet the same world. What steady people want comes at fixed moments; people who always have jobs queued have
a fixed row of jobs, and the next one is queued when an earlier one is done, which depends on the rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ubcp_p2p.allocator.problem import grid
from ubcp_p2p.simulation.scenario import STEP, Cheats, Scenario

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.uint64]

JOBS_OF_A_ROW: Final = 64  # after so many a row of jobs begins anew: enough that no two people are in step
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)  # of splitmix64 (Steele, Lea, Flood 2014)
_MIX: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Kind(IntEnum):
    """What a user is like."""

    STEADY = 0
    NEWCOMER = 1
    HEAVY = 2
    FLOODING = 3
    SPLITTING = 4
    SYBIL = 5
    UNDERCLAIMING = 6
    OVERCLAIMING = 7
    NOBODY = 8  # an enrolment that is not made: of a person who could be several, and is not


TRICKS: Final = (Kind.FLOODING, Kind.SPLITTING, Kind.SYBIL, Kind.UNDERCLAIMING, Kind.OVERCLAIMING)


class Behaviour(NamedTuple):
    """Of those who always have jobs queued. jobs: how many at once; pieces: that each of their requests is cut into.

    asks_percent: what is asked for, of what a slice's work needs.
    """

    jobs: int
    pieces: int = 1
    asks_percent: int = 100


def behaviour_of(kind: Kind, heavy_jobs: int, cheats: Cheats) -> Behaviour | None:
    """None for those whose jobs come at fixed moments."""
    return {
        Kind.HEAVY: Behaviour(heavy_jobs),
        Kind.FLOODING: Behaviour(cheats.flooding_jobs),
        Kind.SPLITTING: Behaviour(heavy_jobs, pieces=cheats.splitting_pieces),
        Kind.SYBIL: Behaviour(heavy_jobs),
        Kind.UNDERCLAIMING: Behaviour(heavy_jobs, asks_percent=50),
        Kind.OVERCLAIMING: Behaviour(heavy_jobs, asks_percent=200),
    }.get(kind)


class Jobs(NamedTuple):
    """Columns of one length. quantum: the work of one request in one slice; slices, requests: how many of each."""

    quantum: Ints
    slices: Ints
    requests: Ints

    def at(self, rows: Ints) -> Jobs:
        return Jobs(self.quantum[rows], self.slices[rows], self.requests[rows])


@dataclass(frozen=True)
class World:
    """Columns over users, units, or peers; `budget` and `order` are (slices, peers).

    joined: the slice from which a user is there. order: in which peers decide in a slice. owner: of a peer.
    arrivals: jobs that come at fixed moments, by slice; `arrives` and `wants` are their slice and user.
    rows: the jobs of each user who always has some, JOBS_OF_A_ROW each. cheaters: those who were asked for, honest or
    not; enrolments beside a person's own are not among them.
    """

    scenario: Scenario
    seed: int
    unit: Ints
    weight: Ints
    kind: Ints
    joined: Ints
    budget: Ints
    order: Ints
    owner: Ints
    arrives: Ints
    wants: Ints
    arrivals: Jobs
    rows: Jobs
    cheaters: Ints

    @property
    def slices(self) -> int:
        return len(self.budget)

    @property
    def users(self) -> int:
        return len(self.unit)

    @property
    def peers(self) -> int:
        return int(self.budget.shape[1])

    def users_of(self, *kinds: Kind) -> Ints:
        return np.flatnonzero(np.isin(self.kind, kinds))


def world_of(
    scenario: Scenario, seed: int, trick: Kind | None = None, cheaters: int = 0, *, crowded: bool = False
) -> World:
    """The community of a seed. `cheaters` heavy users, each in another unit, do `trick`, or with None the honest thing.

    With and without the trick all else is the same, to the bit. `crowded`: all people of their units always have jobs
    queued, so that these units want all of their share.
    """
    people = scenario.people
    users = people.users
    draw = _streams(seed)
    unit = _units(draw["units"], users, people.units, people.unit_spread)
    kind = _kinds(draw["kinds"], scenario)
    chosen = _cheaters(unit, kind, cheaters)
    if crowded:
        kind = np.where(np.isin(unit, unit[chosen]) & (kind == Kind.STEADY), Kind.HEAVY, kind)
    unit, kind = _with_cheaters(unit, kind, chosen, trick, scenario.cheats.sybil_enrolments - 1)
    joined = np.zeros(len(unit), dtype=np.int64)
    newcomers = np.flatnonzero(kind == Kind.NEWCOMER)
    joined[newcomers] = draw["newcomers"].integers(0, scenario.slices, len(newcomers))
    budget = _budgets(draw["peers"], scenario)
    arrives, wants, arrivals = _arrivals(draw["arrivals"], scenario, kind[:users], joined, budget)
    return World(
        scenario=scenario,
        seed=seed,
        unit=unit,
        weight=_weights(draw["weights"], unit[:users], people.units, scenario.charter.weight_spread),
        kind=kind,
        joined=joined,
        budget=budget,
        order=np.argsort(draw["order"].random(budget.shape), axis=1),
        owner=draw["owners"].integers(0, users, scenario.peers.count),
        arrives=arrives,
        wants=wants,
        arrivals=arrivals,
        rows=_jobs(draw["rows"], scenario, len(unit) * JOBS_OF_A_ROW),
        cheaters=chosen,
    )


def ids_of(seed: int, user: Ints, job: Ints, request: Ints) -> Ids:
    """64 bits for each request, by what it is and not by when it came: the same under every rule."""
    word = np.full(len(user), np.uint64(seed % 2**64))
    for part in (user, job, request):
        word = word * _GOLDEN + part.astype(np.uint64) + _GOLDEN
        for shift, factor in zip((np.uint64(30), np.uint64(27)), _MIX, strict=True):
            word = (word ^ (word >> shift)) * factor
        word ^= word >> np.uint64(31)
    return word


# -- drawing ----------------------------------------------------------------------------------------------------------


_STREAMS: Final = ("units", "weights", "kinds", "newcomers", "peers", "order", "owners", "arrivals", "rows")


def _streams(seed: int) -> dict[str, np.random.Generator]:
    """A stream for each thing that is drawn, so that a change of one does not move the others."""
    children = np.random.SeedSequence(seed).spawn(len(_STREAMS))
    return {name: np.random.Generator(np.random.PCG64(child)) for name, child in zip(_STREAMS, children, strict=True)}


def _units(draw: np.random.Generator, users: int, units: int, spread: float) -> Ints:
    """Of each user; every unit has one at least."""
    sizes = draw.lognormal(0.0, spread, units)
    rest = draw.choice(units, size=users - units, p=sizes / sizes.sum())
    return np.concatenate((np.arange(units, dtype=np.int64), np.asarray(rest, dtype=np.int64)))


def _weights(draw: np.random.Generator, unit: Ints, units: int, spread: float) -> Ints:
    """As a charter has them: about the number of people, and fixed, whoever enrols later."""
    factor = 1 + spread * (2 * draw.random(units) - 1)
    weights: Ints = np.maximum(1, (np.bincount(unit, minlength=units) * factor).astype(np.int64))
    return weights


def _kinds(draw: np.random.Generator, scenario: Scenario) -> Ints:
    people, cheats = scenario.people, scenario.cheats
    counts = {
        Kind.HEAVY: people.heavy,
        Kind.NEWCOMER: people.newcomers,
        Kind.FLOODING: cheats.flooding,
        Kind.SPLITTING: cheats.splitting,
        Kind.UNDERCLAIMING: cheats.underclaiming,
        Kind.OVERCLAIMING: cheats.overclaiming,
        Kind.SYBIL: cheats.sybils * cheats.sybil_enrolments,
    }
    kinds = np.repeat(np.array(list(counts)), list(counts.values()))
    all_ = np.concatenate((kinds, np.zeros(people.users - len(kinds), dtype=np.int64))).astype(np.int64)
    return draw.permutation(all_)


def _cheaters(unit: Ints, kind: Ints, count: int) -> Ints:
    """The first heavy user of each of `count` units."""
    heavy = np.flatnonzero(kind == Kind.HEAVY)
    _, first = np.unique(unit[heavy], return_index=True)
    return np.asarray(heavy[np.sort(first)[:count]], dtype=np.int64)


def _with_cheaters(unit: Ints, kind: Ints, chosen: Ints, trick: Kind | None, more: int) -> tuple[Ints, Ints]:
    """The trick of the chosen, and the `more` enrolments that each could have beside its own, at the end."""
    kind = kind.copy()
    extra = np.full(len(chosen) * more, Kind.SYBIL if trick is Kind.SYBIL else Kind.NOBODY, dtype=np.int64)
    if trick is not None:
        kind[chosen] = trick
    return np.concatenate((unit, np.repeat(unit[chosen], more))), np.concatenate((kind, extra))


def _budgets(draw: np.random.Generator, scenario: Scenario) -> Ints:
    """(slices, peers): each peer has a size and a time of day of its own, and comes and goes."""
    peers, hours = scenario.peers, scenario.slice_seconds / 3600
    shape = scenario.slices, peers.count
    size = draw.integers(peers.budget_min, peers.budget_max + 1, peers.count)
    phase = draw.random(peers.count)
    day = (np.arange(shape[0]) / scenario.slices_a_day)[:, None]
    budget = size * (1 - peers.swing / 2 * (1 + np.sin(2 * np.pi * (day + phase))))
    comes, goes = min(1.0, hours / peers.hours_away), min(1.0, hours / peers.hours_there)
    there = draw.random(peers.count) < comes / (comes + goes)
    dice = draw.random(shape)
    # Below budget_min a quantum might not fit beside the reserve; a peer that has less is taken to be away.
    rows = np.zeros(shape, dtype=np.int64)
    for slice_ in range(shape[0]):
        there = np.where(there, dice[slice_] >= goes, dice[slice_] < comes)
        rows[slice_] = np.where(there, np.maximum(budget[slice_].astype(np.int64), peers.budget_min), 0)
    assert grid(peers.budget_min, scenario.charter.newcomer_permille).granule == 1
    return rows


def _jobs(draw: np.random.Generator, scenario: Scenario, count: int) -> Jobs:
    jobs = scenario.jobs
    return Jobs(
        STEP * draw.integers(jobs.quantum_min // STEP, jobs.quantum_max // STEP + 1, count),
        np.minimum(draw.geometric(1 / jobs.slices_mean, count), jobs.slices_max),
        np.minimum(draw.geometric(1 / jobs.requests_mean, count), jobs.requests_max),
    )


def _arrivals(
    draw: np.random.Generator, scenario: Scenario, kind: Ints, joined: Ints, budget: Ints
) -> tuple[Ints, Ints, Jobs]:
    """(slice, user, jobs) of steady people and newcomers: a newcomer's first comes as it joins, all else at random."""
    steady = np.flatnonzero(kind == Kind.STEADY)
    newcomers = np.flatnonzero(kind == Kind.NEWCOMER)
    people = np.concatenate((steady, newcomers))
    time_there = (scenario.slices - joined[people]).astype(np.float64)
    wanted = scenario.people.steady_load * float(budget.sum())
    sample = _jobs(draw, scenario, 4096)  # only the mean of a job is needed here, which the caps have moved
    mean = float((sample.quantum * sample.slices * sample.requests).mean())
    rate = draw.gamma(scenario.people.steady_shape, size=len(people)) * time_there
    jobs = max(0.0, wanted / mean - len(newcomers))  # each newcomer's first comes anyway
    counts = draw.poisson(rate * (jobs / rate.sum()))
    user = np.concatenate((np.repeat(people, counts), newcomers))
    first = joined[user]
    slice_ = first + (draw.random(len(user)) * (scenario.slices - first)).astype(np.int64)
    slice_[len(slice_) - len(newcomers) :] = joined[newcomers]
    order = np.lexsort((user, slice_))
    return slice_[order], user[order], _jobs(draw, scenario, len(user))
