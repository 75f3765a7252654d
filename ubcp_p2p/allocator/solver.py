"""The exact 0/1 knapsack: which requests together are worth most, and of equally good sets always the same one.

**The tie rule.** Of all optimal sets, the one that is first by request id: where two differ, at the lowest id on
which they differ, the one that accepts it. That is a property of the problem, not of the way to the answer, so any
exact solver can check it.

**Why the answer is that set.** (1) *Reduction.* `relax` gives for each item a proof of the form "a set that takes
(leaves) it is worth at most L". With a set of value z at hand, an item is fixed only where L < z, strictly: then no
optimal set does otherwise, so all optimal sets survive, and among them the first. (2) *Table.* What is left is solved
by dynamic programming over capacities, items from the highest id to the lowest: f_i[w] = max(f_{i+1}[w], U_i +
f_{i+1}[w − c_i]). (3) *Walk.* From the lowest id up, item i is taken iff U_i + f_{i+1}[w − c_i] ≥ f_{i+1}[w]: that
is, iff some optimal completion of the choices made so far takes it. By induction the choices so far are those of the
first optimal set. Fixed items are the same in all optimal sets, so leaving them out changes no comparison.

Where z = L, an optimal set deviates nowhere from the relaxation and fills the capacity to the last granule, so what
is left is which of the items at the very price do that: reachable sums, as bits of one integer, take the place of the
table. That is the common case of a queue of people who have all used equally little.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from ubcp_p2p.allocator.bounds import Flags, Instance, Ints, Relaxed, relax

# Half the width of the window around the break item in which a good set is looked for: a wider one only where the last
# one left too much undecided. The time is that of the table's rows.
WINDOWS: Final = (12, 50)
FEW: Final = 60  # undecided items: the final table is cheaper than a wider window
BLOCK: Final = 32  # items between two rows that are kept: 25 MB of them for 10,000 items and granules


class Solution(NamedTuple):
    """taken: of each item of the instance. value: the optimum."""

    taken: Flags
    value: int
    relaxed: Relaxed


def solve(instance: Instance) -> Solution:
    """The optimum that the tie rule names."""
    costs, values, capacity = instance
    relaxed = relax(instance)
    if relaxed.whole == len(costs):
        return Solution(np.ones(len(costs), dtype=np.bool_), int(values.sum()), relaxed)
    undecided = np.ones(len(costs), dtype=np.bool_)
    good = 0
    for half in WINDOWS:
        good = max(good, _value_in_window(instance, relaxed, half))
        undecided = relaxed.limit - np.abs(relaxed.reduced) >= good
        if np.count_nonzero(undecided) <= FEW:
            break
    taken = ~undecided & (relaxed.reduced > 0)
    left = capacity - int(costs[taken].sum())
    places = np.flatnonzero(undecided & (costs <= left))
    if good == relaxed.limit and relaxed.price:
        taken[places] = _first_filling(costs[places], left)
    else:
        taken[places] = _first_optimum(costs[places], values[places], left)
    return Solution(taken, int(values[taken].sum()), relaxed)


def best_values(costs: Ints, values: Ints, capacity: int) -> Ints:
    """f[w] for w = 0 … capacity: the most that items of at most w granules together are worth."""
    table = np.zeros(capacity + 1, dtype=np.int64)
    for cost, value in zip(costs.tolist(), values.tolist(), strict=True):
        add_item(table, cost, value)
    return table


def add_item(table: Ints, cost: int, value: int) -> None:
    """One more item into a table of `best_values`, in place."""
    if cost < len(table):
        with_it = table[: len(table) - cost] + value
        np.maximum(table[cost:], with_it, out=table[cost:])


def _value_in_window(instance: Instance, relaxed: Relaxed, half: int) -> int:
    """The value of a good set: all before the window by density, the best of the window, none after it."""
    costs, values, capacity = instance
    start = max(0, relaxed.whole - half)
    before, window = relaxed.order[:start], relaxed.order[start : relaxed.whole + half]
    left = capacity - int(costs[before].sum())
    return int(values[before].sum()) + int(best_values(costs[window], values[window], left)[-1])


def _first_optimum(costs: Ints, values: Ints, capacity: int) -> Flags:
    """Steps 2 and 3 of the proof above.

    The table keeps the row after every block of items alone. The walk makes the rows of a block again, only as wide
    as the block can cost: what it needs of them lies between what is left when it comes to the block, and that less
    all its costs.
    """
    count, cost_of, value_of = len(costs), costs.tolist(), values.tolist()
    before = [0, *np.cumsum(costs).tolist()]
    blocks = range(0, count, BLOCK)
    table, spare = np.zeros(capacity + 1, dtype=np.int64), np.zeros(capacity + 1, dtype=np.int64)
    after = {}
    for block in reversed(blocks):
        after[block] = table.copy()
        for item in reversed(range(block, min(block + BLOCK, count))):
            cost = cost_of[item]
            start = max(cost, capacity - before[item])  # no walk comes to this item with less left
            if start <= capacity:
                with_it = np.add(table[start - cost : capacity + 1 - cost], value_of[item], out=spare[start:])
                np.maximum(table[start:], with_it, out=table[start:])
    taken = np.zeros(count, dtype=np.bool_)
    left = capacity
    for block in blocks:
        end = min(block + BLOCK, count)
        low = max(0, left - (before[end] - before[block]))
        rows = [after[block][low : left + 1]]
        for item in reversed(range(block + 1, end)):
            rows.append(rows[-1].copy())
            add_item(rows[-1], cost_of[item], value_of[item])
        for item in range(block, end):
            row = rows.pop()
            place = left - low
            if cost_of[item] <= left and value_of[item] + row[place - cost_of[item]] >= row[place]:
                taken[item] = True
                left -= cost_of[item]
    return taken


def _first_filling(costs: Ints, capacity: int) -> Flags:
    """The first set by id that costs exactly `capacity`; there is one."""
    count, cost_of = len(costs), costs.tolist()
    inside = (1 << capacity + 1) - 1
    reachable = [1] * (count + 1)  # bit w of [i]: some of the items from i on cost w together
    for item in reversed(range(count)):
        reachable[item] = reachable[item + 1] | reachable[item + 1] << cost_of[item] & inside
    taken = np.zeros(count, dtype=np.bool_)
    left = capacity
    for item in range(count):
        if left >= cost_of[item] and reachable[item + 1] >> left - cost_of[item] & 1:
            taken[item] = True
            left -= cost_of[item]
    assert left == 0, "the set at hand filled the capacity, so some set does"
    return taken
