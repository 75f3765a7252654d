"""Who is entitled to what: units by weight, and the people of a unit equally. Pure.

Only units and people with use or with a request in this slice have a share; what the others leave goes to them. A
million accounts of one unit share that unit's one part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from ubcp_p2p.allocator.problem import Problem


class Share(NamedTuple):
    """use: Û, in units of work. part: S = share · max(Û_total, capacity), the use that would be fair; at least 1.

    stalled: for how many slices the first request has been the first.
    """

    use: int
    part: int
    stalled: int


class Standing(NamedTuple):
    """One user's share, and its unit's, which is never smaller."""

    user: Share
    unit: Share
    unit_name: str


def standings(problem: Problem, queued: Collection[bytes]) -> Mapping[bytes, Standing]:
    """Of every user with use or in `queued` (ids of applicants whose requests compete in this slice)."""
    waiting = frozenset(queued)
    active = [user for user in problem.applicants if user.use or user.id in waiting]
    people = Counter(user.unit for user in active)
    units = {unit.name: unit for unit in problem.units if unit.use or people[unit.name]}
    weights = sum(unit.weight for unit in units.values())
    basis = max(problem.total_use, problem.capacity)
    found = {}
    for user in active:
        unit = units[user.unit]
        whole = unit.weight * basis
        of_user = Share(user.use, max(1, whole // (weights * people[user.unit])), user.stalled)
        found[user.id] = Standing(of_user, Share(unit.use, max(1, whole // weights), unit.stalled), user.unit)
    return found
