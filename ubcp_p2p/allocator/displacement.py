"""What each refused request would displace: V* − V*(x_j = 1), exact near the cut, proven bounds elsewhere.

Exact ones come from tables over the requests near the cut: the best values of all before one (with everything that is
not near the cut), and of all after it; the best split of what is left between the two is V*(x_j = 1) − U_j.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ubcp_p2p.allocator.bounds import Instance, Ints
from ubcp_p2p.allocator.solver import Solution, add_item, best_values

NEAR: Final = 200  # requests whose displacement is exact: a table of 80 kB each


class Displaced(NamedTuple):
    """Of each item: V* − V*(x_j = 1) is from least to most; both are 0 for what is accepted.

    The two are equal where it is exact. Where an item fits into no set, both are −1: there is no V*(x_j = 1).
    """

    least: Ints
    most: Ints


def displaced(instance: Instance, solution: Solution, near: int = NEAR) -> Displaced:
    """Exact for the `near` refused items closest to the cut by density (of equally close ones the lower ids)."""
    costs, capacity = instance.costs, instance.capacity
    least, most = _bounds(instance, solution)
    refused = np.flatnonzero(~solution.taken & (costs <= capacity))
    distance = -(solution.relaxed.reduced[refused] // costs[refused])
    chosen = refused[np.argsort(distance, kind="stable")[:near]]
    if len(chosen):
        exact = _exact(instance, solution, np.sort(chosen), most)
        least[np.sort(chosen)] = most[np.sort(chosen)] = exact
    return Displaced(least, most)


def _bounds(instance: Instance, solution: Solution) -> tuple[Ints, Ints]:
    """From below by the relaxation; from above by dropping accepted items of the lowest density until it fits."""
    costs, values, capacity = instance
    relaxed, taken = solution.relaxed, solution.taken
    least = np.maximum(0, solution.value - relaxed.limit + np.maximum(0, -relaxed.reduced))
    dropped = relaxed.order[::-1]
    dropped = dropped[taken[dropped]]
    freed = np.concatenate(([0], np.cumsum(costs[dropped])))
    lost = np.concatenate(([0], np.cumsum(values[dropped])))
    missing = np.maximum(0, costs - (capacity - int(costs[taken].sum())))
    drops = np.minimum(np.searchsorted(freed, missing, side="left"), len(lost) - 1)
    most = lost[drops] - values
    least[taken] = most[taken] = 0
    least[costs > capacity] = most[costs > capacity] = -1
    return least, most


def _exact(instance: Instance, solution: Solution, chosen: npt.NDArray[np.intp], most: Ints) -> Ints:
    """V* − V*(x_j = 1) of the `chosen`, in rising order."""
    costs, values, capacity = instance
    relaxed = solution.relaxed
    # An item far from the cut is the same in every set that V* or some V*(x_j = 1) comes from: as in solver.py, but for
    # the widest gap between what is proven and what a set at hand is worth.
    proven = relaxed.limit - np.maximum(0, -relaxed.reduced[chosen])
    gap = max(relaxed.limit - solution.value, int((proven - (solution.value - most[chosen])).max()))
    fixed = np.abs(relaxed.reduced) > gap
    fixed[chosen] = False
    always = fixed & (relaxed.reduced > 0)
    left = capacity - int(costs[always].sum())
    base = int(values[always].sum())
    free = ~fixed
    free[chosen] = False
    table = best_values(costs[free], values[free], left)
    before = [table.copy()]
    for item in chosen:
        add_item(table, int(costs[item]), int(values[item]))
        before.append(table.copy())
    assert base + int(table[-1]) == solution.value, "the tables and the solver disagree"
    after = np.zeros(left + 1, dtype=np.int64)
    losses = np.zeros(len(chosen), dtype=np.int64)
    for place in reversed(range(len(chosen))):
        cost, value = int(costs[chosen[place]]), int(values[chosen[place]])
        room = left - cost
        best = base + value + int((before[place][: room + 1] + after[room::-1]).max())
        losses[place] = solution.value - best
        add_item(after, cost, value)
    return losses
