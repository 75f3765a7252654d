"""The knapsack problem of a slice, and what its relaxation proves before anything is solved exactly.

For any price λ ≥ 0 of a granule no set is worth more than limit = λK + Σ max(0, U − λc), and one that differs from
the signs of U − λc at item j no more than limit − |U_j − λ c_j| (Lagrange; Dantzig's λ is the density at which the
greedy filling breaks off). Everything is int64: U below 2^50 together, λ at most 2^49, costs and K at most 10,000.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ubcp_p2p.allocator.problem import ASKS_MAX, GRANULES_MAX
from ubcp_p2p.allocator.utility import SUM_BITS

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

PRICE_MAX: Final = 2**49
_DENSITY_BITS: Final = 12  # values below 2^50 leave room for them


class Instance(NamedTuple):
    """Items in rising order of request id. costs: 1 or more granules each. values: 1 or more, below 2^50 together."""

    costs: Ints
    values: Ints
    capacity: int


class Relaxed(NamedTuple):
    """order: items by falling density. whole: how many of them fit before the first that does not.

    price: λ. reduced: U − λc of each item. limit: no set is worth more.
    """

    order: npt.NDArray[np.intp]
    whole: int
    price: int
    reduced: Ints
    limit: int


def instance_of(costs: list[int], values: list[int], capacity: int) -> Instance:
    """Checked: it is a mistake of ours to hand in what the arithmetic was not made for."""
    assert len(costs) == len(values) <= ASKS_MAX
    assert 0 <= capacity <= GRANULES_MAX
    assert all(cost >= 1 for cost in costs)
    assert all(value >= 1 for value in values)
    assert sum(values) < 2**SUM_BITS
    # What costs more than fits is cut to one granule more: it fits no better, and sums of costs cannot overflow.
    cut = [min(cost, capacity + 1) for cost in costs]
    return Instance(np.array(cut, dtype=np.int64), np.array(values, dtype=np.int64), capacity)


def relax(instance: Instance) -> Relaxed:
    """The relaxation at Dantzig's price, rounded down to an integer; 0 when everything fits."""
    costs, values, capacity = instance
    densities = (values << _DENSITY_BITS) // costs
    order = np.argsort(-densities, kind="stable")
    whole = int(np.searchsorted(np.cumsum(costs[order]), capacity, side="right"))
    price = 0
    if whole < len(order):
        broken = order[whole]
        price = min(int(values[broken] // costs[broken]), PRICE_MAX)
    reduced = values - price * costs
    limit = price * capacity + int(np.maximum(reduced, 0).sum())
    return Relaxed(order, whole, price, reduced, limit)
