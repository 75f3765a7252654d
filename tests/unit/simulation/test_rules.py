"""Each rule by hand-made queues: what comes first, and why; and the fast path against the allocator itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.communities import MAKERS, SMALL, tiny
from ubcp_p2p.allocator.allocation import allocate
from ubcp_p2p.allocator.bounds import instance_of
from ubcp_p2p.allocator.problem import Applicant, Ask, Problem, UnitUse, problem_of
from ubcp_p2p.allocator.shares import standings
from ubcp_p2p.simulation.engine import Life
from ubcp_p2p.simulation.ours import Allocator, greedily, key_of
from ubcp_p2p.simulation.rivals import FairTree, Fifo, Horde
from ubcp_p2p.simulation.rules import Done, Queue, Rule, first_fit
from ubcp_p2p.simulation.scenario import PURPOSE
from ubcp_p2p.simulation.world import Ints, World, world_of

WORLD = world_of(tiny(), 1)


def ints(*values: int) -> Ints:
    return np.array(values, dtype=np.int64)


def queue_of(rule: Rule, users: Ints, *, slice: int = 0, came: Ints | None = None, asks: Ints | None = None) -> Queue:
    count = len(users)
    came = np.full(count, slice) if came is None else came
    asks = np.full(count, 10) if asks is None else asks
    return Queue(
        slice, np.arange(count), np.arange(count, dtype=np.uint64), users, asks,
        came, slice - came, rule.stamp(users), np.zeros(count, dtype=np.bool_),
    )  # fmt: skip


def chosen(rule: Rule, queue: Queue, budget: int) -> list[int]:
    rule.price(queue)
    return [int(place) for place in rule.choose(0, budget, np.ones(len(queue.user), dtype=np.bool_))]


def work(user: int, units: int, *, peer: int = 0) -> Done:
    return Done(0, ints(user), ints(peer), ints(units), ints(units))


# -- rivals -----------------------------------------------------------------------------------------------------------


def test_first_fit_passes_over_what_does_not_fit() -> None:
    order = np.array([0, 1, 2, 3])
    free = np.array([True, True, True, False])
    assert first_fit(order, ints(6, 5, 4, 1), 10, free).tolist() == [0, 2]
    assert first_fit(order, ints(6, 5, 4, 1), 3, free).tolist() == []


def test_first_come_first_served() -> None:
    rule = Fifo(WORLD)
    assert chosen(rule, queue_of(rule, ints(1, 2, 3), slice=9, came=ints(7, 5, 6)), 20) == [1, 2]


def test_horde_goes_by_kudos_and_an_owner_of_a_peer_earns_them() -> None:
    world = replace(WORLD, owner=ints(2, 2, 2))
    rule = Horde(world)
    rule.settle(work(user=1, units=100))
    assert rule.stamp(ints(1, 2, 3)).tolist() == [25, 25 + 100 * 14, 25]  # nobody has less than 25
    assert chosen(rule, queue_of(rule, ints(1, 2, 3)), 10) == [1]


def test_horde_waiting_is_worth_50_kudos_for_10_seconds() -> None:
    world = replace(WORLD, owner=ints(2, 2, 2))
    rule = Horde(world)
    slice_kudos = 50 * 3600 // 10  # a slice of the tiny world is an hour
    rule.settle(work(user=1, units=slice_kudos // 14))
    queue = queue_of(rule, ints(1, 2), slice=1, came=ints(0, 1))
    assert slice_kudos > queue.stamp[1] - 25 > slice_kudos - 14  # nearly as much as the other has waited
    assert chosen(rule, queue, 10) == [0]
    assert chosen(rule, queue_of(rule, ints(1, 2), slice=1), 10) == [1]


def test_fair_tree_units_come_before_people() -> None:
    world = replace(WORLD, unit=ints(0, 0, 1, 1), weight=ints(1, 1))
    rule = FairTree(world)
    rule.settle(work(0, 100))  # unit 0 has used more, its user 1 nothing
    rule.settle(work(2, 10))
    queue = queue_of(rule, ints(0, 1, 2, 3))
    assert chosen(rule, queue, 40) == [3, 2, 1, 0]  # all of unit 1 before any of unit 0


def test_fair_tree_weights_divide_usage() -> None:
    world = replace(WORLD, unit=ints(0, 1), weight=ints(10, 1))
    rule = FairTree(world)
    rule.settle(work(0, 50))
    rule.settle(work(1, 10))
    assert chosen(rule, queue_of(rule, ints(0, 1)), 10) == [0]


def test_fair_tree_units_with_equal_use_are_merged() -> None:
    world = replace(WORLD, unit=ints(0, 0, 1, 1), weight=ints(1, 1))
    rule = FairTree(world)
    rule.settle(Done(0, ints(0, 1, 2, 3), ints(0, 0, 0, 0), ints(70, 30, 30, 70), ints(70, 30, 30, 70)))
    assert chosen(rule, queue_of(rule, ints(0, 1, 2, 3)), 40) == [1, 2, 0, 3]  # and not unit by unit


def test_greedy_fills_by_density() -> None:
    assert greedily(instance_of([4, 6, 5], [8, 18, 10], 9)).tolist() == [False, True, False]
    assert greedily(instance_of([3, 6, 5], [8, 18, 10], 9)).tolist() == [True, True, False]


# -- all rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_a_rule_takes_only_what_is_free_and_fits(name: str) -> None:
    rule = MAKERS[name](WORLD)
    queue = queue_of(rule, ints(1, 2, 3, 4, 5), asks=ints(400, 300, 300, 200, 100))
    rule.price(queue)
    free = np.array([True, True, False, True, True])
    places = rule.choose(0, 720, free)
    assert free[places].all()
    assert 0 < queue.asks[places].sum() <= 720
    assert len(set(places.tolist())) == len(places)


@pytest.mark.parametrize("name", MAKERS)
def test_a_rule_does_nothing_with_an_empty_queue(name: str) -> None:
    rule = MAKERS[name](WORLD)
    queue = queue_of(rule, ints())
    rule.price(queue)
    assert not len(rule.choose(0, 720, np.zeros(0, dtype=np.bool_)))


# -- ours is the allocator --------------------------------------------------------------------------------------------


def full_problem(world: World, rule: Allocator, queue: Queue, peer: int, budget: int) -> Problem:
    """The whole problem of one peer's slice, as a node would make it."""
    people = rule.standings(queue)
    use, units = rule.use, world.unit
    waiting = set(queue.user.tolist())
    rows = [
        Applicant(key_of(user), str(int(units[user])), bool(queue.newcomer[queue.user == user].any()), int(use[user]),
                  people[key_of(user)].user.stalled if user in waiting else 0)
        for user in range(world.users) if use[user] or user in waiting
    ]  # fmt: skip
    stalled = {standing.unit_name: standing.unit.stalled for standing in people.values()}
    asks = [
        Ask(id_.to_bytes(32, "big"), key_of(user), PURPOSE, units_, units_, waited)
        for id_, user, units_, waited in zip(
            queue.id.tolist(), queue.user.tolist(), queue.asks.tolist(), queue.waited.tolist(), strict=True
        )
    ]
    return problem_of(
        slice=queue.slice, rules=world.scenario.rules, budget=budget, budget_max=world.scenario.peers.budget_max,
        capacity=int(world.budget[queue.slice].sum()), reserve_carried=int(rule.carried[peer]), applicants=rows,
        asks=asks,
        units=[
            UnitUse(str(unit), int(world.weight[unit]), int(use[units == unit].sum()), stalled.get(str(unit), 0))
            for unit in range(len(world.weight))
        ],
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_first_peer_of_each_slice_gets_what_allocate_gives(seed: int) -> None:
    """Shares, values, the newcomers' reserve with what was carried over, and the set: to the bit, slice after slice."""
    scenario = SMALL.with_changes(days={"days": 2})
    world = world_of(scenario, seed)
    rule = Allocator(world)
    life = Life(world, rule)
    contested = newcomers = 0
    for _ in range(world.slices):
        life.arrive()
        queue = life.queue()
        rule.price(queue)
        here = [peer for peer in world.order[queue.slice].tolist() if world.budget[queue.slice, peer]]
        if here:
            problem = full_problem(world, rule, queue, here[0], int(world.budget[queue.slice, here[0]]))
            expected = allocate(problem)
            assert standings(problem, {ask.applicant for ask in problem.asks}).items() >= rule.standings(queue).items()
            places = rule.choose(here[0], problem.budget, np.ones(len(queue.id), dtype=np.bool_))
            assert sorted(int(one) for one in queue.id[places]) == [
                int.from_bytes(id_, "big") for id_ in expected.accepted_ids
            ]
            assert rule.carried[here[0]] == expected.reserve_unused
            contested += len(places) < len(queue.id)
            newcomers += bool(queue.newcomer[places].any())
        rule.settle(life.decide(queue))
        life.slice += 1
    assert contested > world.slices // 2
    assert newcomers
