"""A community is drawn from its seed alone, and each kind of people does what its name says."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.communities import SMALL, tiny
from ubcp_p2p.simulation.engine import Life, live
from ubcp_p2p.simulation.rivals import Fifo
from ubcp_p2p.simulation.scenario import pair_network
from ubcp_p2p.simulation.world import TRICKS, Kind, World, ids_of, world_of


def same(one: World, other: World) -> bool:
    columns = ("unit", "weight", "kind", "joined", "budget", "order", "owner", "arrives", "wants", "cheaters")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in columns)


def begun(world: World) -> tuple[Life, World]:
    """After the first arrivals, before any decision."""
    life = Life(world, Fifo(world))
    life.arrive()
    return life, world


def test_a_seed_is_a_world() -> None:
    assert same(world_of(SMALL, 3), world_of(SMALL, 3))
    assert not same(world_of(SMALL, 3), world_of(SMALL, 4))


def test_as_many_of_each_kind_as_the_scenario_says() -> None:
    world, cheats = world_of(SMALL, 1), SMALL.cheats
    counts = {kind: len(world.users_of(kind)) for kind in Kind}
    assert counts[Kind.HEAVY] == SMALL.people.heavy
    assert counts[Kind.NEWCOMER] == SMALL.people.newcomers
    assert counts[Kind.FLOODING] == cheats.flooding
    assert counts[Kind.SYBIL] == cheats.sybils * cheats.sybil_enrolments
    assert sum(counts.values()) == SMALL.people.users
    assert set(world.unit.tolist()) == set(range(SMALL.people.units))


def test_peers_come_and_go_and_have_budgets_between_the_bounds() -> None:
    world = world_of(SMALL, 1)
    there = world.budget > 0
    assert there.any(axis=0).all()
    assert not there.all(axis=0).any()  # each is away sometimes
    budgets = world.budget[there]
    assert budgets.min() >= SMALL.peers.budget_min
    assert budgets.max() <= SMALL.peers.budget_max
    assert len(set(budgets.tolist())) > 10
    assert (np.sort(world.order, axis=1) == np.arange(world.peers)).all()


def test_steady_people_ask_for_about_the_load_that_the_scenario_says() -> None:
    jobs = [world_of(SMALL, seed) for seed in range(20)]
    asked = sum(int((world.arrivals.quantum * world.arrivals.slices * world.arrivals.requests).sum()) for world in jobs)
    assert asked == pytest.approx(SMALL.people.steady_load * sum(int(world.budget.sum()) for world in jobs), rel=0.1)


def test_newcomers_come_later_with_a_job_in_hand() -> None:
    world = world_of(SMALL, 1)
    newcomers = world.users_of(Kind.NEWCOMER)
    first = {user: int(world.arrives[world.wants == user].min()) for user in newcomers.tolist()}
    assert [first[user] for user in newcomers.tolist()] == world.joined[newcomers].tolist()
    assert len(set(first.values())) > 5


@pytest.mark.parametrize("trick", TRICKS)
def test_with_and_without_a_trick_all_else_is_the_same(trick: Kind) -> None:
    network = pair_network(SMALL)
    honest, cheating = world_of(network, 1, None, 2), world_of(network, 1, trick, 2)
    changed = np.flatnonzero(honest.kind != cheating.kind)
    extra = np.arange(network.people.users, honest.users)
    assert np.array_equal(honest.cheaters, cheating.cheaters)
    assert len(set(honest.unit[honest.cheaters].tolist())) == 2
    assert set(honest.kind[honest.cheaters].tolist()) == {Kind.HEAVY}
    assert set(cheating.kind[cheating.cheaters].tolist()) == {trick}
    assert set(changed.tolist()) == {*honest.cheaters.tolist(), *(extra.tolist() if trick is Kind.SYBIL else ())}
    for name in ("unit", "weight", "joined", "budget", "order", "owner", "arrives", "wants"):
        assert np.array_equal(getattr(honest, name), getattr(cheating, name)), name
    for column in zip((*honest.arrivals, *honest.rows), (*cheating.arrivals, *cheating.rows), strict=True):
        assert np.array_equal(*column)


def test_a_crowded_unit_always_wants_more() -> None:
    world = world_of(pair_network(SMALL), 1, None, 1, crowded=True)
    members = world.unit == world.unit[world.cheaters[0]]
    assert set(world.kind[members].tolist()) <= {Kind.HEAVY, Kind.NOBODY}
    assert (world.kind == Kind.STEADY).any()


# -- what each kind does ----------------------------------------------------------------------------------------------


def queued(trick: Kind | None) -> tuple[int, int, set[int]]:
    """Of the first cheater, at the beginning: requests, work in all, and what each asks for of a slice."""
    life, world = begun(world_of(pair_network(SMALL), 1, trick, 1))
    table = life.requests
    mine = np.flatnonzero(table.user[: table.count] == world.cheaters[0])
    return len(mine), int(table.needs[mine].sum()), set(table.asks[mine].tolist())


def test_a_flooder_has_many_more_jobs_queued() -> None:
    assert queued(Kind.FLOODING)[0] >= SMALL.cheats.flooding_jobs > 5 * queued(None)[0] / 2


def test_a_splitter_asks_for_the_same_work_in_pieces() -> None:
    pieces = SMALL.cheats.splitting_pieces
    requests, work, asks = queued(None)
    assert queued(Kind.SPLITTING) == (pieces * requests, work, {units // pieces for units in asks})


def test_liars_ask_for_half_or_twice_and_want_the_same_work() -> None:
    requests, work, asks = queued(None)
    assert queued(Kind.UNDERCLAIMING) == (requests, work, {units // 2 for units in asks})
    assert queued(Kind.OVERCLAIMING) == (requests, work, {2 * units for units in asks})


def test_a_sybil_is_several_people_of_one_unit_with_jobs_each() -> None:
    life, world = begun(world_of(pair_network(SMALL), 1, Kind.SYBIL, 1))
    many = world.users_of(Kind.SYBIL)
    assert len(many) == SMALL.cheats.sybil_enrolments
    assert len(set(world.unit[many].tolist())) == 1
    assert set(many.tolist()) <= set(life.requests.user[: life.requests.count].tolist())


def test_nobody_asks_for_nothing() -> None:
    world = world_of(pair_network(SMALL), 1, None, 1)
    trace = live(world, Fifo(world))
    assert not np.isin(trace.user, world.users_of(Kind.NOBODY)).any()


def test_who_asks_for_too_much_wastes_it_and_who_asks_for_less_takes_longer() -> None:
    traces = {}
    for trick in (None, Kind.UNDERCLAIMING, Kind.OVERCLAIMING):
        world = world_of(pair_network(SMALL), 1, trick, 1)
        trace = live(world, Fifo(world))
        mine = (trace.user == world.cheaters[0]) & (trace.done >= 0)
        traces[trick] = trace, mine
    trace, mine = traces[Kind.OVERCLAIMING]
    assert trace.used.sum() < trace.leased.sum()
    assert (trace.needs[mine] * 2 == trace.asks[mine] * trace.served[mine]).all()
    trace, mine = traces[Kind.UNDERCLAIMING]
    assert (trace.needs[mine] == trace.asks[mine] * trace.served[mine]).all()
    trace, _ = traces[None]
    assert (trace.used == trace.leased).all()


def test_the_ids_of_many_requests_differ() -> None:
    users, jobs, requests = (grid.ravel() for grid in np.meshgrid(np.arange(50), np.arange(50), np.arange(8)))
    ids = ids_of(1, users, jobs, requests)
    assert len(set(ids.tolist())) == len(users)
    assert not np.array_equal(ids, ids_of(2, users, jobs, requests))


def test_a_tiny_world_has_everybody() -> None:
    assert {Kind(kind) for kind in world_of(tiny(), 1).kind.tolist()} == set(Kind) - {Kind.NOBODY}
