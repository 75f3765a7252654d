"""From a ledger to the allocator's problem, on a small community: who asks, who has used what, who is out and why."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.serving import CREDIT, SLICE, Scene
from ubcp_p2p.allocator.blob import decode_problem, encode_problem
from ubcp_p2p.allocator.decide import decide
from ubcp_p2p.allocator.problem import Reason
from ubcp_p2p.carbon.values import Slot
from ubcp_p2p.charter.draft import COSTS
from ubcp_p2p.charter.values import CostBasis
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.ledger.activity import Activity
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import Decision, Request
from ubcp_p2p.ledger.leases import Lease, holders, rank, turn_permille
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.world import World
from ubcp_p2p.owner.hours import parse_window
from ubcp_p2p.owner.values import Readings, Rules
from ubcp_p2p.owner.verdict import verdict
from ubcp_p2p.peer.config import ServingConfig
from ubcp_p2p.peer.serving import problem as serving_problem
from ubcp_p2p.peer.serving.book import Book
from ubcp_p2p.peer.serving.savings import CarbonBook, joules_of
from ubcp_p2p.peer.serving.service import given, speed_of


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_what_is_open_is_asked_and_what_is_not_is_not(scene: Scene) -> None:
    early = scene.asks(scene.ann, scene.ann_pc, at=10, deadline=SLICE - 1)
    mine = scene.asks(scene.cid, scene.cid_pc, at=11)
    good = scene.asks(scene.ben, scene.ben_pc, at=12)
    late = scene.asks(scene.ann, scene.ann_pc, at=SLICE + 1)
    assert [ask.id for ask in scene.problem().asks] == [good.entry.id]
    assert scene.ask_of(late, SLICE + 1) is not None
    assert scene.ask_of(early, SLICE - 1) is not None
    assert scene.ask_of(mine, 20) is None  # a node cannot be paid by its owner
    (ask,) = scene.problem().asks
    assert (ask.units, ask.units_min, ask.waited, ask.slices_left) == (100 * CREDIT, 1, SLICE - 12, 10)
    assert scene.ask_of(good, first_seen={good.entry.id: 30}) == ask._replace(waited=10)
    forgotten = {good.entry.id: 13 + scene.world.charter.period_slices}
    assert scene.ask_of(good, first_seen=forgotten) is None


def test_an_open_network_keeps_nothing_for_newcomers(scene: Scene) -> None:
    assert scene.problem().rules.newcomer_permille == scene.world.charter.newcomer_permille > 0
    world = World(7, stewards=0, threshold=0)
    assert world.charter.newcomer_permille > 0
    pay = world.account("pay")
    for number in range(10):  # one person, who has enrolled itself ten times
        account = world.account(f"sybil {number}", enrol=False)
        world.enrol(account, f"sybil {number}", newcomer=True)
        world.request(account, pay, CREDIT)
    activity = Activity()
    for signed in world.entries:
        activity.add(signed.entry)
    problem = serving_problem.assemble(world.ledger, activity, 4, replace(scene.offer, reserve_carried=CREDIT))
    assert sum(user.newcomer for user in problem.applicants) == 10
    assert (problem.rules.newcomer_permille, problem.reserve_carried) == (0, 0)


def test_whoever_is_out_of_standing_is_told_why(scene: Scene) -> None:
    request = scene.asks(scene.ben, scene.ben_pc)
    for changes, reason in (
        ({"refuse_purposes": {"education"}}, Reason.OWNER_REFUSED),
        ({"refuse_runs": {f"run of {scene.ben.public.hex()[:4]}"}}, Reason.OWNER_REFUSED),
        ({"indebted": {scene.ben.public}}, Reason.INDEBTED),
    ):
        ask = scene.ask_of(request, **changes)
        assert ask is not None and ask.standing is reason
    scene.world.now = 60
    head = scene.ben_pc.head
    for mark in (b"1", b"2"):  # the paymaster forks
        branch = Author(scene.world.charters.network, scene.ben_pc.key, head=head)
        scene.world.write(branch, Decision(60, 0, 1, (), (), mark * 32))
    frozen = scene.ask_of(request, 61)
    assert frozen is not None and frozen.standing is Reason.FROZEN


def test_a_run_whose_name_is_none_gets_no_lease(scene: Scene) -> None:
    """The ledger takes any text: the next node must not make a folder of it."""
    for at, (run, reason) in enumerate((("../x", Reason.OWNER_REFUSED), (".x", Reason.OWNER_REFUSED), ("a.x", None))):
        ask = scene.ask_of(scene.asks(scene.ben, scene.ben_pc, run=run, at=at))
        assert ask is not None and ask.standing is reason


def test_who_is_not_enrolled_any_more_is_refused(scene: Scene) -> None:
    scene.world.now = 1
    eve = scene.world.account("eve", enrol=False)
    scene.world.enrol(eve, "eve", periods=1)
    pc = scene.world.node(eve, "eve")
    length = scene.world.charter.period_slices
    request = scene.asks(eve, pc, at=length - 10, deadline=length + 10)
    before, after = scene.ask_of(request, length - 1), scene.ask_of(request, length)
    assert before is not None and before.standing is None
    assert after is not None and after.standing is Reason.NOT_ENROLLED


def test_use_is_charged_to_those_whose_leases_held(scene: Scene) -> None:
    served = scene.asks(scene.ann, scene.ann_pc, at=1)
    lonely = scene.asks(scene.ben, scene.ben_pc, at=2, peers=(2, 2))
    scene.decides(scene.cid_pc, 5, served, lonely)  # of two peers that Ben needs, one has come
    found = {user.id: user for user in scene.problem(6).applicants}
    assert found[scene.ann.public].use > 0
    assert found[scene.ben.public].use == 0
    ask = scene.ask_of(served, 9)
    assert ask is not None and ask.waited == 3  # since it was last served
    assert scene.problem(6).capacity == 1000 * CREDIT  # its own offer counts as it is now
    scene.decides(scene.ann_pc, 7)
    assert scene.problem(9).capacity == 1000 * CREDIT + 80_000 * 900  # no device of the charter does more
    assert scene.problem(20).capacity == 1000 * CREDIT


def test_enough_peers_are_enough(scene: Scene) -> None:
    request = scene.asks(scene.ann, scene.ann_pc, peers=(1, 1))
    scene.decides(scene.ben_pc, SLICE, request)
    assert scene.ask_of(request) is None
    assert scene.ask_of(request, SLICE + 1) is not None


def test_nodes_of_strangers_take_up_no_places_and_are_no_peers(scene: Scene) -> None:
    request = scene.asks(scene.ann, scene.ann_pc, peers=(1, 1))
    several = scene.asks(scene.ann, scene.ann_pc, peers=(2, 2))
    eve = scene.world.account("eve", enrol=False)
    eve_pc = scene.world.node(eve, "eve")
    scene.decides(eve_pc, SLICE, request, several)
    problem = scene.problem()
    assert problem.capacity == 1000 * CREDIT
    assert [ask.standing for ask in problem.asks if ask.id == request.entry.id] == [None]
    assert [ask.standing for ask in problem.asks if ask.id == several.entry.id] == [Reason.TOO_FEW_PEERS]
    after = scene.problem(SLICE + 1)
    assert all(user.use == 0 for user in after.applicants)
    assert {ask.waited for ask in after.asks} == {SLICE + 1}
    scene.world.enrol(eve, "eve")
    assert scene.ask_of(request) is None
    assert scene.problem(SLICE + 1).capacity > 1000 * CREDIT


def test_frozen_nodes_hold_nothing_in_the_slice_under_way(scene: Scene, tmp_path: Path) -> None:
    request = scene.asks(scene.ann, scene.ann_pc, peers=(2, 2))
    scene.decides(scene.cid_pc, SLICE, request)
    scene.decides(scene.ben_pc, SLICE, request)
    book = Book(scene.cid_pc.public)
    with Store.create(tmp_path / "store", scene.world.charters) as store:
        store.append(scene.world.entries)
        assert book.held(store, SLICE) == [request.entry.id]
        twin = copy.copy(scene.ben_pc)
        assert scene.ben_pc.head is not None
        for inputs in (b"1", b"2"):
            scene.world.write(copy.copy(twin), Decision(SLICE + 1, 0, 1, (), (), inputs * 32))
        store.append(scene.world.entries[-2:])
        assert store.ledger.frozen() == [scene.ben_pc.public]
        assert book.held(store, SLICE) == []  # it is one peer, where two are needed
    found = {user.id: user for user in scene.problem(SLICE + 1).applicants}
    assert found[scene.ann.public].use > 0  # what was charged stays charged


def test_a_request_for_more_peers_than_there_are_is_out(scene: Scene) -> None:
    request = scene.asks(scene.ann, scene.ann_pc, peers=(3, 3))
    for others in (0, 1):
        ask = scene.ask_of(request, 6)
        assert ask is not None and ask.standing is Reason.TOO_FEW_PEERS, others
        scene.decides((scene.ann_pc, scene.ben_pc)[others], 5)
    ask = scene.ask_of(request, 6)
    assert ask is not None and ask.standing is None
    scene.decides(scene.ben_pc, 8, request)  # alone: it is freed
    ask = scene.ask_of(request, 9)
    assert ask is not None and ask.waited == 0  # it does not grow on what it has wasted


def test_everybodys_first_request_comes_before_anybodys_second(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_problem, "ASKS_MAX", 2)
    flood = [scene.asks(scene.ann, scene.ann_pc, at=at) for at in range(3)]
    late = scene.asks(scene.ben, scene.ben_pc, at=20)
    assert {ask.id for ask in scene.problem().asks} == {flood[0].entry.id, late.entry.id}


def test_work_that_does_not_fit_at_once_is_not_held_too_long(scene: Scene) -> None:
    scene.asks(scene.ann, scene.ann_pc, units=1000 * CREDIT)
    (ask,) = scene.problem(budget=100 * CREDIT, budget_max=100 * CREDIT).asks
    assert ask.slices_left == 12  # 85 credits a slice: the rest is the newcomers'


def test_a_book_counts_as_new_only_what_comes_while_it_runs(scene: Scene, tmp_path: Path) -> None:
    old = scene.asks(scene.ann, scene.ann_pc)
    book = Book(scene.cid_pc.public)
    with Store.create(tmp_path / "store", scene.world.charters) as store:
        book.read(store, 10)  # before it has caught up with others
        store.append(scene.world.entries)
        book.read(store, 11)
        new = scene.asks(scene.ben, scene.ben_pc, at=5)
        store.append([new])
        book.problem(store, 21, scene.offer, ahead=1)  # what the next slice would bring, for who asks in this one
        assert book.first_seen == {new.entry.id: 20}
        assert old.entry.id in book.activity.requests
    with Store.open(tmp_path / "store") as store:  # read again, as after a disk that was full
        book.read(store, 30)
        assert book.first_seen == {new.entry.id: 20}
        book.read(store, 201)
        assert book.first_seen == {}  # past its deadline


def test_inputs_are_kept_for_a_period_and_the_grace(scene: Scene, tmp_path: Path) -> None:
    charter, book = scene.world.charter, Book(scene.cid_pc.public)
    with Store.create(tmp_path / "store", scene.world.charters) as store:
        hashes = [store.put_blob(bytes([n])) for n in range(3)]
        for slice_, inputs in zip((1, 2, 600), hashes, strict=True):
            scene.world.now = slice_
            scene.world.write(scene.cid_pc, Decision(slice_, 0, 1, (), (), inputs))
        store.append(scene.world.entries)
        book.read(store, 601)
        now = 2 + charter.period_slices + charter.grace_slices
        assert book.outdated(store, now) == [hashes[0]]
        store.drop_blobs([*book.outdated(store, now), b"not here" * 4])
        assert [store.blob(hash_) for hash_ in hashes] == [None, b"\1", b"\2"]


def test_what_is_spent_asks_no_more(scene: Scene) -> None:
    request = scene.asks(scene.ann, scene.ann_pc)
    allot = scene.world.allot(scene.ann_pc, request, scene.ben_pc, 1000 * CREDIT)
    scene.world.now = 3
    scene.world.receipt(scene.ben_pc, scene.ann_pc, allot, 950 * CREDIT)
    ask = scene.ask_of(request)
    assert ask is not None and (ask.units, ask.slices_left) == (50 * CREDIT, 1)
    scene.world.now = 4
    scene.world.receipt(scene.ben_pc, scene.ann_pc, allot, 50 * CREDIT)
    assert scene.ask_of(request) is None


def test_clean_power_is_waited_for_while_there_is_time(scene: Scene) -> None:
    patient = scene.asks(scene.ann, scene.ann_pc)
    charter = scene.world.charter
    begin = charter.epoch + SLICE * charter.slice_s
    slots = (
        Slot(begin, begin + 4 * charter.slice_s, 400),
        Slot(begin + 4 * charter.slice_s, begin + 9 * charter.slice_s, 90),
    )
    problem = scene.problem(carbon=400, forecast=slots)
    (ask,) = problem.asks
    assert ask.cleaner is not None and (ask.cleaner.g_per_kwh, ask.cleaner.slices_ahead) == (90, 4)
    (outcome,) = decide(problem).outcomes
    assert outcome.reason is Reason.HELD
    assert scene.ask_of(patient, 192, carbon=400, forecast=slots) is not None
    urgent = scene.ask_of(patient, 195, carbon=400, forecast=slots)
    assert urgent is not None and urgent.cleaner is None  # ten slices of work, six left


def test_what_waiting_for_clean_power_saves_is_an_estimate(scene: Scene) -> None:
    scene.asks(scene.ann, scene.ann_pc)
    charter = scene.world.charter
    begin = charter.epoch + SLICE * charter.slice_s
    slots = (Slot(begin, begin + charter.slice_s, 400), Slot(begin + charter.slice_s, begin + 9 * charter.slice_s, 100))
    basis = CostBasis("EUR", 1, 1, (COSTS[0]._replace(name="cpu-8", sustained=500, power_mw=65_000),))
    costed, book = replace(charter, cost=basis), CarbonBook("cpu-8")
    for slice_, carbon in ((SLICE, 400), (SLICE + 1, 100)):
        problem = scene.problem(slice_, carbon=carbon, forecast=slots)
        book.note(costed, problem, decide(problem))
    assert joules_of(costed, "cpu-8", 100 * CREDIT) == 13_000_000  # 10^8 GFLOP at 500 a second and 65 W
    kwh_times_mg = 13_000_000 * 1000 / 3_600_000
    assert book.savings.emitted_mg == int(kwh_times_mg * 100)
    assert book.savings.unmoved_mg == int(kwh_times_mg * 400)
    assert "75 %" in book.savings.words and "estimate" in book.savings.words
    unknown = CarbonBook("cpu-8")
    unknown.note(charter, problem, decide(problem))
    assert unknown.savings.emitted_mg == 0  # the charter says nothing of what this device takes


@pytest.mark.parametrize(("holds", "without"), [([500], 500 + 9 * 100), ([500, 400], 500 + 400 + 8 * 100)])
def test_what_waited_once_has_not_saved_in_every_later_slice(scene: Scene, holds: list[int], without: int) -> None:
    scene.asks(scene.ann, scene.ann_pc)
    charter = scene.world.charter
    begin = charter.epoch + SLICE * charter.slice_s
    clean = begin + len(holds) * charter.slice_s
    slots = (*(Slot(begin + n * charter.slice_s, begin + (n + 1) * charter.slice_s, g) for n, g in enumerate(holds)),
             Slot(clean, clean + 99 * charter.slice_s, 100))  # fmt: skip
    basis = CostBasis("EUR", 1, 1, (COSTS[0]._replace(name="cpu-8", sustained=500, power_mw=18_000),))
    costed, book = replace(charter, cost=basis), CarbonBook("cpu-8")
    for number in range(len(holds) + 10):
        problem = scene.problem(SLICE + number, carbon=[*holds, *[100] * 10][number], forecast=slots)
        decision = decide(problem)
        assert decision.outcomes[0].reason is Reason.HELD or number >= len(holds)
        book.note(costed, problem, decision)
    # a slice's work takes 3.6 MJ, a kWh: without waiting the ten slices of work had run in the first ten slices
    assert (book.savings.emitted_mg, book.savings.unmoved_mg) == (10 * 100 * 1000, without * 1000)


def test_a_problem_is_the_same_for_whoever_has_the_same_entries(scene: Scene) -> None:
    for at, (author, node) in enumerate([(scene.ann, scene.ann_pc), (scene.ben, scene.ben_pc)]):
        scene.asks(author, node, at=at)
    scene.decides(scene.cid_pc, 5, scene.world.entries[-1])
    problem = scene.problem(9)
    scene.world.entries.reverse()
    assert encode_problem(scene.problem(9)) == encode_problem(problem)
    assert decode_problem(encode_problem(problem)) == problem


def test_leases_hold_by_rank_alone() -> None:
    world = World(6)
    ann = world.account("ann")
    pc = world.node(ann, "ann")
    signed = world.request(ann, pc, CREDIT)
    activity = Activity()
    activity.add(signed.entry)
    asked = activity.requests[signed.entry.id]
    assert isinstance(signed.entry.body, Request)
    asked = asked._replace(body=signed.entry.body._replace(peers_min=2, peers_max=3))
    nodes = [bytes([n]) * 32 for n in range(5)]
    leases = [Lease(asked.id, node, 7) for node in nodes]
    assert holders(asked, 7, leases[:1]) == ()
    assert holders(asked, 8, leases) == ()
    chosen = holders(asked, 7, reversed(leases))
    assert list(chosen) == sorted(nodes, key=lambda node: rank(asked.id, 7, node))[:3]
    assert set(holders(asked, 7, leases[:2])) == set(nodes[:2])
    assert rank(asked.id, 7, nodes[0]).hex() != rank(asked.id, 8, nodes[0]).hex()


def test_nodes_decide_one_after_the_other_and_take_turns_at_being_first() -> None:
    nodes = [bytes([n]) * 32 for n in range(10)]
    orders = {tuple(sorted(nodes, key=lambda node: turn_permille(slice_, node))) for slice_ in range(20)}
    assert len(orders) == 20
    turns = [turn_permille(slice_, node) for slice_ in range(200) for node in nodes]
    assert 0 <= min(turns) < 10 and 990 <= max(turns) < 1000


@pytest.mark.parametrize(
    ("hours", "share", "budget"),
    [
        ("00:00-06:02", 1000, 120_000), ("00:00-06:02", 250, 30_000), ("00:00-06:15", 1000, 900_000),
        ("00:00-07:00", 1000, 900_000), ("00:00-24:00", 500, 450_000), ("06:00-06:01", 1000, 60_000),
        ("00:00-06:00", 1000, 0), ("12:00-13:00", 1000, 0),
    ],
)  # fmt: skip
def test_no_more_of_a_slice_is_given_than_the_owners_hours_have(hours: str, share: int, budget: int) -> None:
    begins = 365 * 86_400 + 6 * 3600  # six o'clock, UTC
    rules = Rules(windows=(parse_window(hours),), on_battery=True, share_permille=share)
    assert given(900_000, begins, 900, verdict(begins + 20, Readings(), rules, None)) == budget
    before = verdict(begins - 20, Readings(), rules, None)  # looked at a little earlier
    if before.works:
        assert given(900_000, begins, 900, before) == budget


def test_the_speed_is_what_the_charter_or_the_owner_says() -> None:
    charter = World(1).charter
    assert speed_of(ServingConfig(device_class="cpu-8"), charter) == 500  # without a cost basis: the peak
    assert speed_of(ServingConfig(device_class="cpu-8", gflops=99), charter) == 99
    assert speed_of(ServingConfig(device_class="cpu-8", gflops=10**9), charter) == 500
    basis = CostBasis("EUR", 1, 1, (COSTS[0]._replace(name="cpu-8", sustained=123),))
    assert speed_of(ServingConfig(device_class="cpu-8"), replace(charter, cost=basis)) == 123
    with pytest.raises(ConfigError, match="no device class") as caught:
        speed_of(ServingConfig(device_class="toaster"), charter)
    assert "cpu-8, gpu-24g" in (caught.value.hint or "")
