"""Which runs are paid for, who earns with them, and how often what is left of one has halved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.peer.test_asking import RECIPE, Scene
from ubcp_p2p.models.recipe import run_id
from ubcp_p2p.peer.asking.paid import HALVINGS_MAX, PaidRun, halvings, paid_runs
from ubcp_p2p.peer.asking.values import begins_s

RUN = PaidRun("plays", RECIPE.hash(), (b"r" * 32,), frozenset(), 1000, 2000, 400, 0)


def test_requests_for_one_run_are_one_and_all_who_earn_with_it_count() -> None:
    scene = Scene()
    world = scene.world
    first = scene.asks(scene.ann, scene.ann_pc, credits=1000)
    world.now = 42
    other = scene.asks(scene.ben, scene.ben_pc, credits=500)  # pays for the same run
    second = scene.asks(scene.ann, scene.ann_pc, credits=300, deadline=500, expiry=500)
    scene.asks(scene.ann, scene.ann_pc, "else", credits=7)
    allot = world.allot(scene.ann_pc, first, scene.cid_pc, 900)
    world.receipt(scene.cid_pc, scene.ann_pc, allot, 250)
    world.allot(scene.ben_pc, other, scene.ann_pc, 400)
    activity = scene.activity()
    mine = [asked for asked in activity.requests.values() if asked.author == scene.ann.public]
    plays, rest = paid_runs(world.ledger, activity, mine)
    assert (plays.name, plays.credits, plays.paid) == ("plays", 1300, 250)
    assert set(plays.requests) == {first.entry.id, second.entry.id}
    assert plays.earners == {scene.cid_pc.public, scene.ann_pc.public}
    charter = world.charter
    assert (plays.began_s, plays.end_s) == (begins_s(charter, 40), begins_s(charter, 501))
    assert (rest.name, rest.earners, rest.paid) == ("else", frozenset(), 0)
    assert run_id(plays.name, plays.recipe) == run_id("plays", RECIPE.hash())
    assert paid_runs(world.ledger, activity, []) == []


@pytest.mark.parametrize(
    ("now_s", "promised", "count"),
    [
        (1000, 0, 0), (1499, 0, 0), (1500, 0, 1), (1750, 0, 2), (1999, 0, 9), (2000, 0, HALVINGS_MAX),
        (9000, 0, HALVINGS_MAX), (0, 0, 0), (1000, 199, 0), (1000, 200, 1), (1000, 399, 8), (1000, 400, HALVINGS_MAX),
        (1500, 300, 2), (1000, 500, HALVINGS_MAX),
    ],
)  # fmt: skip
def test_halvings(now_s: int, promised: int, count: int) -> None:
    assert halvings(RUN, now_s, promised) == count
    assert halvings(RUN._replace(paid=promised), now_s, 0) == count


@given(st.integers(1, 10**9), st.integers(1, 10**15), st.data())
def test_they_only_rise_and_are_few(seconds: int, credits_: int, data: st.DataObject) -> None:
    run = RUN._replace(began_s=0, end_s=seconds, credits=credits_)
    moments = sorted(data.draw(st.lists(st.integers(-10, seconds + 10), min_size=2)))
    promised = sorted(data.draw(st.lists(st.integers(0, credits_), min_size=len(moments), max_size=len(moments))))
    found = [halvings(run, now_s, units) for now_s, units in zip(moments, promised, strict=True)]
    assert found == sorted(found)
    assert all(0 <= count <= HALVINGS_MAX for count in found)
    for now_s, units, count in zip(moments, promised, found, strict=True):
        if count < HALVINGS_MAX:  # less than half of what was left at that halving has gone since
            assert 2 ** (count + 1) * (seconds - max(0, now_s)) > seconds
            assert 2 ** (count + 1) * (credits_ - units) > credits_
