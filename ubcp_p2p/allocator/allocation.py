"""Who gets this slice: what is out before it is weighed, then the newcomers' reserve, then everybody. Pure.

This is all that an auditor replays; why each request got what it got is `decide`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ubcp_p2p.allocator.bounds import Instance, instance_of
from ubcp_p2p.allocator.problem import Ask, Grid, Problem, Reason, grid
from ubcp_p2p.allocator.shares import standings
from ubcp_p2p.allocator.solver import Solution, solve
from ubcp_p2p.allocator.utility import Worth, worths
from ubcp_p2p.carbon.choose import CLEANER_PERCENT


class Entry(NamedTuple):
    """A request that competes. cost: in granules."""

    ask: Ask
    quantum: int
    cost: int
    worth: Worth
    newcomer: bool


@dataclass(frozen=True)
class Allocation:
    """reasons: of each ask, in their order. entries: those that compete, in that order; accepted: places among them.

    open: places of the entries that the second pass chose from; `instance` and `solution` are that pass.
    """

    problem: Problem
    grid: Grid
    reasons: tuple[Reason, ...]
    entries: tuple[Entry, ...]
    accepted: frozenset[int]
    open: tuple[int, ...]
    instance: Instance
    solution: Solution
    reserve_unused: int

    @property
    def accepted_ids(self) -> tuple[bytes, ...]:
        """Rising, as a DECISION has them."""
        return tuple(self.entries[place].ask.id for place in sorted(self.accepted))

    @property
    def value(self) -> int:
        return sum(self.entries[place].worth.value for place in self.accepted)


def allocate(problem: Problem) -> Allocation:
    """The one allocation that the rules give."""
    rules = problem.rules
    slots = grid(problem.budget, rules.newcomer_permille)
    # The larger of both: a larger budget has coarser granules, and can lose more of itself to rounding.
    best = max(slots.fits, grid(problem.budget_max, rules.newcomer_permille).fits)
    before = [_before(problem, ask, slots, best) for ask in problem.asks]
    competing = [ask for ask, reason in zip(problem.asks, before, strict=True) if reason is None]
    quanta = [min(ask.units, slots.fits) for ask in competing]
    people = standings(problem, {ask.applicant for ask in competing})
    newcomers = {user.id for user in problem.applicants if user.newcomer}
    entries = tuple(
        Entry(ask, quantum, slots.cost(quantum), worth, ask.applicant in newcomers)
        for ask, quantum, worth in zip(
            competing, quanta, worths(competing, quanta, people, rules.ageing_slices), strict=True
        )
    )
    first, reserve_unused = _first_pass(problem, slots, entries)
    used = sum(entries[place].cost for place in first)
    rest = tuple(place for place in range(len(entries)) if place not in first)
    instance = _instance(entries, rest, slots.capacity - used)
    solution = solve(instance)
    accepted = first | {rest[place] for place in solution.taken.nonzero()[0].tolist()}
    ids = {entries[place].ask.id for place in accepted}
    reasons = tuple(
        reason or (Reason.ACCEPTED if ask.id in ids else Reason.FULL)
        for ask, reason in zip(problem.asks, before, strict=True)
    )
    return Allocation(problem, slots, reasons, entries, accepted, rest, instance, solution, reserve_unused)


def _before(problem: Problem, ask: Ask, slots: Grid, best: int) -> Reason | None:
    """Why a request is out before it is weighed; None where it competes. best: what fits into the best slice."""
    if ask.standing is not None:
        return ask.standing
    if ask.purpose not in problem.rules.purposes:
        return Reason.PURPOSE
    if ask.units_min > best:
        return Reason.TOO_LARGE
    if _is_worth_waiting(problem.carbon, ask):
        return Reason.HELD
    return Reason.SMALL_SLICE if ask.units_min > slots.fits else None


def _is_worth_waiting(carbon: int | None, ask: Ask) -> bool:
    if carbon is None or ask.cleaner is None:
        return False
    return ask.cleaner.g_per_kwh * 100 <= carbon * (100 - CLEANER_PERCENT) and carbon > 0


def _first_pass(problem: Problem, slots: Grid, entries: tuple[Entry, ...]) -> tuple[frozenset[int], int]:
    """Newcomers' requests that get the reserve; and what they left of this slice's own, in units."""
    carried = min(problem.reserve_carried // slots.granule, slots.capacity - slots.reserve)
    places = tuple(place for place, entry in enumerate(entries) if entry.newcomer)
    taken = solve(_instance(entries, places, slots.reserve + carried)).taken.nonzero()[0].tolist()
    first = frozenset(places[place] for place in taken)
    used = sum(entries[place].cost for place in first)
    return first, (slots.reserve - max(0, used - carried)) * slots.granule


def _instance(entries: tuple[Entry, ...], places: tuple[int, ...], capacity: int) -> Instance:
    return instance_of(
        [entries[place].cost for place in places], [entries[place].worth.value for place in places], capacity
    )
