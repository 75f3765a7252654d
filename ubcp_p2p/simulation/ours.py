"""Our rule: the real allocator on the community's queue. And density-greedy: the same values, filled in by density.

What `allocator.allocation.allocate` does for one peer, in two parts, because the first is the same for all peers of a
slice: shares and values once (`worths`), then the newcomers' reserve and the rest for each peer (`grid`, `solve`). The
tests compare it with `allocate` itself. Requests ask for the same of every peer and fit into each, so that values do
not depend on the peer; they do not move while peers decide one after the other in one slice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from ubcp_p2p.allocator.bounds import Instance
from ubcp_p2p.allocator.problem import Ask, grid
from ubcp_p2p.allocator.shares import Share, Standing
from ubcp_p2p.allocator.solver import solve
from ubcp_p2p.allocator.utility import worths
from ubcp_p2p.simulation.rules import Done, Places, Queue
from ubcp_p2p.simulation.scenario import PURPOSE, URGENCY
from ubcp_p2p.simulation.world import Flags, Floats, Ids, Ints, World

Fill = Callable[[Instance], Flags]
_ID_BYTES: Final = 32


def exactly(instance: Instance) -> Flags:
    return solve(instance).taken


def greedily(instance: Instance) -> Flags:
    """By falling density, whatever still fits; equal ones by id."""
    costs, values, left = instance
    taken = np.zeros(len(costs), dtype=np.bool_)
    rest = np.argsort(-(values / costs), kind="stable")
    while len(rest):
        fits = costs[rest] <= left
        at = int(fits.argmax())
        if not fits[at]:
            break
        taken[rest[at]] = True
        left -= int(costs[rest[at]])
        rest = rest[at + 1 :]
    return taken


class Allocator:
    """Decayed use, fair shares of units and people, one knapsack for each peer and slice."""

    def __init__(self, world: World, fill: Fill = exactly) -> None:
        self._fill = fill
        self._unit, self._weight = world.unit, world.weight
        self._capacity = world.budget.sum(axis=1).tolist()
        self._rules = world.scenario.rules
        self._decay = 2 ** (-1 / self._rules.half_life_slices)
        # Kept up to date in place of a sum over all charges: a unit of work off at most, by rounding.
        self._use: Floats = np.zeros(world.users)
        self._stalled = _Fronts(world.users), _Fronts(len(world.weight))
        self._carried: Ints = np.zeros(world.peers, dtype=np.int64)
        self._costs: Ints = np.zeros(0, dtype=np.int64)
        self._values: Ints = self._costs
        self._newcomer: Flags = np.zeros(0, dtype=np.bool_)

    @property
    def use(self) -> Ints:
        """Û of each user, as the allocator takes it."""
        return self._use.astype(np.int64)

    @property
    def carried(self) -> Ints:
        """Of each peer: what newcomers left of the last slice's reserve."""
        return self._carried

    def stamp(self, users: Ints) -> Floats:
        return np.zeros(len(users))

    def price(self, queue: Queue) -> None:
        standings = self.standings(queue)
        columns = (queue.id.tolist(), queue.user.tolist(), queue.asks.tolist(), queue.waited.tolist())
        asks = [
            Ask(id_.to_bytes(_ID_BYTES, "big"), key_of(user), PURPOSE, units, units, waited, URGENCY)
            for id_, user, units, waited in zip(*columns, strict=True)
        ]
        found = worths(asks, columns[2], standings, self._rules.ageing_slices)
        self._values = np.array([worth.value for worth in found], dtype=np.int64)
        self._costs, self._newcomer = queue.asks, queue.newcomer

    def standings(self, queue: Queue) -> Mapping[bytes, Standing]:
        """As `allocator.shares.standings`, of those who have a request, over columns."""
        use, unit = self.use, self._unit
        first = np.lexsort((queue.id, -queue.waited))  # the allocator's order of a queue
        stalled_user = self._stalled[0].since(queue.slice, queue.user[first], queue.id[first])
        stalled_unit = self._stalled[1].since(queue.slice, unit[queue.user][first], queue.id[first])
        active = use > 0
        active[queue.user] = True
        people = np.bincount(unit[active], minlength=len(self._weight))
        use_of_units = np.bincount(unit, weights=use, minlength=len(self._weight)).astype(np.int64)
        weights = int(self._weight[people > 0].sum())
        basis = max(int(use_of_units.sum()), self._capacity[queue.slice])
        found = {}
        units: dict[int, Share] = {}
        for user in np.unique(queue.user).tolist():
            of = int(unit[user])
            whole = int(self._weight[of]) * basis
            if of not in units:
                units[of] = Share(int(use_of_units[of]), max(1, whole // weights), stalled_unit[of])
            part = max(1, whole // (weights * int(people[of])))
            found[key_of(user)] = Standing(Share(int(use[user]), part, stalled_user[user]), units[of], str(of))
        return found

    def choose(self, peer: int, budget: int, free: Flags) -> Places:
        slots = grid(budget, self._rules.newcomer_permille)
        assert slots.granule == 1, "the scenario keeps budgets small"
        carried = min(int(self._carried[peer]), slots.capacity - slots.reserve)
        first = self._pass(np.flatnonzero(free & self._newcomer), slots.reserve + carried)
        used = int(self._costs[first].sum())
        self._carried[peer] = slots.reserve - max(0, used - carried)
        if len(first):
            free = free.copy()
            free[first] = False
        second = self._pass(np.flatnonzero(free), slots.capacity - used)
        return np.concatenate((first, second))

    def settle(self, done: Done) -> None:
        # The lease was charged when it was made; at the slice's end the receipt puts what was used in its place.
        np.add.at(self._use, done.user, done.used.astype(np.float64))
        self._use *= self._decay

    def _pass(self, places: Places, capacity: int) -> Places:
        if not len(places):
            return places
        return places[
            self._fill(Instance(np.minimum(self._costs[places], capacity + 1), self._values[places], capacity))
        ]


def density_greedy(world: World) -> Allocator:
    return Allocator(world, greedily)


def key_of(user: int) -> bytes:
    return user.to_bytes(_ID_BYTES, "big")


class _Fronts:
    """The first request of each user, or unit, and since when it has been the first."""

    def __init__(self, count: int) -> None:
        self._front = np.zeros(count, dtype=np.uint64)
        self._since = np.full(count, -1, dtype=np.int64)

    def since(self, slice_: int, owners: Ints, ids: Ids) -> dict[int, int]:
        """Slices of each owner that has a request; `owners` and `ids` are the queue in the allocator's order."""
        owner, place = np.unique(owners, return_index=True)
        gone = np.ones(len(self._since), dtype=np.bool_)
        gone[owner] = False
        self._since[gone] = -1
        front = ids[place]
        new = (self._since[owner] < 0) | (self._front[owner] != front)
        self._front[owner], self._since[owner] = front, np.where(new, slice_, self._since[owner])
        return dict(zip(owner.tolist(), (slice_ - self._since[owner]).tolist(), strict=True))
