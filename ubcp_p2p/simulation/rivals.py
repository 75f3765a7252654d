"""Other rules: first come first served, AI Horde's, Slurm's Fair Tree. What does not fit is passed over by all three.

AI Horde (Haidra-Org/AI-Horde, horde/classes/base/waiting_prompt.py and horde/database/threads.py): a request's
priority is its user's kudos at the moment when it comes, and 50 more for every 10 s in the queue; equal ones by age.
Work costs its user kudos and earns its owner as many; a registered user never has less than 25.

Fair Tree (slurm.schedmd.com/fair_tree.html): of siblings, level fairshare is shares ∕ usage, both as parts of the
siblings' sums; units are sorted by it, people within a unit likewise, units with equal ones are merged; then the jobs
of the first person come first, by age. Usage has a half-life of 7 days, Slurm's default.
"""

from __future__ import annotations

import numpy as np

from ubcp_p2p.simulation.rules import Done, Places, Queue, first_fit
from ubcp_p2p.simulation.world import Flags, Floats, Ints, World


class Fifo:
    """The oldest request first."""

    def __init__(self, world: World) -> None:
        self._order: Places = np.zeros(0, dtype=np.intp)
        self._asks: Ints = np.zeros(0, dtype=np.int64)

    def stamp(self, users: Ints) -> Floats:
        return np.zeros(len(users))

    def price(self, queue: Queue) -> None:
        self._order, self._asks = np.lexsort((queue.id, queue.came)), queue.asks

    def choose(self, peer: int, budget: int, free: Flags) -> Places:
        return first_fit(self._order, self._asks, budget, free)

    def settle(self, done: Done) -> None:
        pass


class Horde:
    """Kudos, and waiting."""

    def __init__(self, world: World) -> None:
        horde = world.scenario.horde
        self._owner = world.owner
        self._kudos_per_unit, self._least = horde.kudos_per_unit, horde.kudos_least
        self._per_slice = horde.kudos_per_10_s * world.scenario.slice_seconds / 10
        self._kudos: Floats = np.full(world.users, float(self._least))
        self._order: Places = np.zeros(0, dtype=np.intp)
        self._asks: Ints = np.zeros(0, dtype=np.int64)

    def stamp(self, users: Ints) -> Floats:
        return self._kudos[users]

    def price(self, queue: Queue) -> None:
        priority = queue.stamp + self._per_slice * (queue.slice - queue.came)
        self._order, self._asks = np.lexsort((queue.id, queue.came, -priority)), queue.asks

    def choose(self, peer: int, budget: int, free: Flags) -> Places:
        return first_fit(self._order, self._asks, budget, free)

    def settle(self, done: Done) -> None:
        kudos = done.leased * float(self._kudos_per_unit)
        np.add.at(self._kudos, self._owner[done.peer], kudos)
        np.subtract.at(self._kudos, done.user, kudos)
        np.maximum(self._kudos, self._least, out=self._kudos)


class FairTree:
    """Units by shares and usage, then people, then age."""

    def __init__(self, world: World) -> None:
        self._unit, self._weight = world.unit, world.weight
        self._decay = 2 ** (-1 / world.scenario.rules.half_life_slices)
        self._use: Floats = np.zeros(world.users)
        self._order: Places = np.zeros(0, dtype=np.intp)
        self._asks: Ints = np.zeros(0, dtype=np.int64)

    def stamp(self, users: Ints) -> Floats:
        return np.zeros(len(users))

    def price(self, queue: Queue) -> None:
        of_units = np.bincount(self._unit, weights=self._use, minlength=len(self._weight))
        # Sums of siblings are the same for all siblings, and so do not change their order.
        with np.errstate(divide="ignore"):
            level_unit = self._weight / of_units  # infinite without use
            level_user = 1 / self._use[queue.user]
        # Equal units are one key here: that merges their people, as the rule wants it.
        keys = (queue.id, queue.came, -level_user, -level_unit[self._unit[queue.user]])
        self._order, self._asks = np.lexsort(keys), queue.asks

    def choose(self, peer: int, budget: int, free: Flags) -> Places:
        return first_fit(self._order, self._asks, budget, free)

    def settle(self, done: Done) -> None:
        np.add.at(self._use, done.user, done.leased.astype(np.float64))  # what was allocated is billed, used or not
        self._use *= self._decay
