"""One rule in one world, slice by slice: jobs come, peers decide one after the other, work is done. Deterministic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ubcp_p2p.simulation.rules import Done, Queue, Rule
from ubcp_p2p.simulation.world import (
    JOBS_OF_A_ROW,
    Behaviour,
    Floats,
    Ids,
    Ints,
    Jobs,
    Kind,
    World,
    behaviour_of,
    ids_of,
)

_NONE: Final = -1
_ROOM: Final = 1024  # requests that a table begins with room for


@dataclass(frozen=True)
class Trace:
    """What happened, in units of work and in slices.

    Columns over requests: user; asks: of a slice; needs: in all; came, first, done: slices, −1 for never; served: in
    how many slices. leased, used: (slices, peers). got: of each user.
    """

    user: Ints
    asks: Ints
    needs: Ints
    came: Ints
    first: Ints
    done: Ints
    served: Ints
    leased: Ints
    used: Ints
    got: Ints


class _Table:
    """All requests so far, as columns that grow."""

    def __init__(self) -> None:
        self.count = 0
        self.user = np.zeros(_ROOM, dtype=np.int64)
        self.job = self.user.copy()
        self.asks = self.user.copy()
        self.each = self.user.copy()  # what a served slice really does
        self.left = self.user.copy()
        self.needs = self.user.copy()
        self.came = self.user.copy()
        self.first = self.user.copy()
        self.last = self.user.copy()
        self.done = self.user.copy()
        self.served = self.user.copy()
        self.id = np.zeros(_ROOM, dtype=np.uint64)
        self.stamp = np.zeros(_ROOM)

    def add(
        self, slice_: int, user: Ints, job: Ints, asks: Ints, each: Ints, needs: Ints, id_: Ids, stamp: Floats
    ) -> Ints:
        """The new rows."""
        begin, self.count = self.count, self.count + len(user)
        while self.count > len(self.user):
            for name, column in vars(self).items():
                if isinstance(column, np.ndarray):
                    setattr(self, name, np.concatenate((column, np.zeros_like(column))))
        rows = slice(begin, self.count)
        self.user[rows], self.job[rows], self.asks[rows], self.each[rows] = user, job, asks, each
        self.left[rows], self.needs[rows], self.came[rows] = needs, needs, slice_
        self.first[rows], self.done[rows], self.last[rows] = _NONE, _NONE, slice_ - 1
        self.id[rows], self.stamp[rows] = id_, stamp
        return np.arange(begin, self.count)


class Life:
    """A community under one rule. Call `step` once for each slice of the world."""

    def __init__(self, world: World, rule: Rule) -> None:
        self.slice = 0
        self.requests = _Table()
        self._world, self._rule = world, rule
        self._open = np.zeros(0, dtype=np.int64)  # rows of requests that are not done
        self._parts: list[int] = []  # of each job: its requests that are not done
        self._jobs_of = np.zeros(world.users, dtype=np.int64)  # so far, of each user
        self._jobs_open = np.zeros(world.users, dtype=np.int64)
        self._behaviours = _behaviours(world)
        self._starts = np.searchsorted(world.arrives, np.arange(world.slices + 1))
        self._leased = np.zeros(world.budget.shape, dtype=np.int64)
        self._used = np.zeros(world.budget.shape, dtype=np.int64)
        self._got = np.zeros(world.users, dtype=np.int64)
        shift = world.scenario.charter.newcomer_days * world.scenario.slices_a_day
        self._newcomer_until = np.where(world.kind == Kind.NEWCOMER, world.joined + shift, _NONE)

    def queue(self) -> Queue:
        """What competes now, after this slice's arrivals."""
        table = self.requests
        rows = self._open[np.argsort(table.id[self._open])]
        user = table.user[rows]
        return Queue(
            self.slice, rows, table.id[rows], user, table.asks[rows], table.came[rows],
            self.slice - 1 - table.last[rows], table.stamp[rows], self._newcomer_until[user] > self.slice,
        )  # fmt: skip

    def arrive(self) -> None:
        """Jobs that come in this slice: at fixed moments, and of people who always have some."""
        world = self._world
        new = slice(*self._starts[self.slice : self.slice + 2])
        fixed = world.wants[new]
        self._submit(fixed, Jobs(*(column[new] for column in world.arrivals)), Behaviour(0))
        for users, behaviour in self._behaviours:
            lacking = np.maximum(behaviour.jobs - self._jobs_open[users], 0)
            who = np.repeat(users, lacking)
            turn = np.arange(len(who)) - np.repeat(np.cumsum(lacking) - lacking, lacking) + self._jobs_of[who]
            self._submit(who, world.rows.at(who * JOBS_OF_A_ROW + turn % JOBS_OF_A_ROW), behaviour)

    def decide(self, queue: Queue) -> Done:
        """All peers that are there, in this slice's order."""
        self._rule.price(queue)
        free = np.ones(len(queue.request), dtype=np.bool_)
        places, peers = [], []
        budgets = self._world.budget[self.slice].tolist()
        for peer in self._world.order[self.slice].tolist():
            if not budgets[peer]:
                continue
            chosen = self._rule.choose(peer, budgets[peer], free)
            assert free[chosen].all(), "a rule gave one request to two peers"
            free[chosen] = False
            places.append(chosen)
            peers.append(np.full(len(chosen), peer, dtype=np.int64))
        place = np.concatenate(places) if places else np.zeros(0, dtype=np.intp)
        peer_of = np.concatenate(peers) if peers else np.zeros(0, dtype=np.int64)
        rows = queue.request[place]
        used = np.minimum(self.requests.each[rows], self.requests.left[rows])
        self._serve(rows, used)
        return Done(self.slice, queue.user[place], peer_of, queue.asks[place], used)

    def step(self) -> Done:
        """One slice."""
        self.arrive()
        done = self.decide(self.queue())
        self._rule.settle(done)
        np.add.at(self._leased[self.slice], done.peer, done.leased)
        np.add.at(self._used[self.slice], done.peer, done.used)
        np.add.at(self._got, done.user, done.used)
        assert (self._leased[self.slice] <= self._world.budget[self.slice]).all(), "more than a peer has"
        self.slice += 1
        return done

    def trace(self) -> Trace:
        table = self.requests
        rows = slice(table.count)
        return Trace(
            table.user[rows], table.asks[rows], table.needs[rows], table.came[rows], table.first[rows],
            table.done[rows], table.served[rows], self._leased, self._used, self._got,
        )  # fmt: skip

    def _submit(self, users: Ints, jobs: Jobs, behaviour: Behaviour) -> None:
        """One job for each of `users`, who may be named more than once, one after the other."""
        if not len(users):
            return
        number = self._jobs_of[users] + _turns(users)
        np.add.at(self._jobs_of, users, 1)
        np.add.at(self._jobs_open, users, 1)
        count = jobs.requests * behaviour.pieces
        first_job = len(self._parts)
        self._parts += count.tolist()
        of = np.repeat(np.arange(len(users)), count)
        request = np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)
        user, each = users[of], jobs.quantum[of] // behaviour.pieces
        needs = each * jobs.slices[of]
        asks = each * behaviour.asks_percent // 100
        ids = ids_of(self._world.seed, user, number[of], request)
        new = self.requests.add(
            self.slice, user, of + first_job, asks, np.minimum(each, asks), needs, ids, self._rule.stamp(user)
        )
        self._open = np.concatenate((self._open, new))

    def _serve(self, rows: Ints, used: Ints) -> None:
        table = self.requests
        table.left[rows] -= used
        table.served[rows] += 1
        table.last[rows] = self.slice
        fresh = rows[table.first[rows] == _NONE]
        table.first[fresh] = self.slice
        ended = rows[table.left[rows] == 0]
        table.done[ended] = self.slice
        for job, user in zip(table.job[ended].tolist(), table.user[ended].tolist(), strict=True):
            self._parts[job] -= 1
            if not self._parts[job]:
                self._jobs_open[user] -= 1
        self._open = self._open[table.left[self._open] > 0]


def live(world: World, rule: Rule) -> Trace:
    """All slices of the world under a rule."""
    life = Life(world, rule)
    for _ in range(world.slices):
        life.step()
    return life.trace()


def _behaviours(world: World) -> list[tuple[Ints, Behaviour]]:
    found = []
    for kind in Kind:
        behaviour = behaviour_of(kind, world.scenario.people.heavy_jobs, world.scenario.cheats)
        users = world.users_of(kind)
        if behaviour is not None and len(users):
            found.append((users, behaviour))
    return found


def _turns(users: Ints) -> Ints:
    """How often each was named before, in the same row."""
    order = np.argsort(users, kind="stable")
    ordered = users[order]
    begins = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    lengths = np.diff(np.concatenate((begins, [len(ordered)])))
    turn = np.empty(len(users), dtype=np.int64)
    turn[order] = np.arange(len(users)) - np.repeat(begins, lengths)
    return turn
