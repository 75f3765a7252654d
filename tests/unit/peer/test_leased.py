"""Whose leases count for a run that several REQUESTs pay for."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit.peer.test_admission import SLICE, Scene, scene
from ubcp_p2p.ledger.activity import Activity
from ubcp_p2p.ledger.entry import Request
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.peer.paying.leased import Leased, leased_of
from ubcp_p2p.units import MICROCREDITS


def leased(made: Scene, request: Signed, slice_: int = SLICE) -> Leased:
    activity = Activity()
    for signed in made.world.entries:
        activity.add(signed.entry)
    return leased_of(made.world.ledger, activity, request.entry.id, slice_)


def joint(slice_: int = SLICE, **changes: Any) -> tuple[Scene, Signed]:
    """Ben, Cid and Dan hold leases of Ann's REQUEST; Eve in `slice_` of a second one for the same run, by Ben."""
    made = scene()
    world, body = made.world, made.request.entry.body
    assert isinstance(body, Request)
    second = world.write(made.accounts["ben"], body._replace(paymaster=made.nodes["ben"].public, **changes))
    world.decide(made.nodes["eve"], [second], slice_=slice_)
    return made, second


def named(made: Scene, *names: str) -> frozenset[bytes]:
    return frozenset(made.nodes[name].public for name in names)


def test_leases_of_every_request_for_the_run_count_and_each_pays_its_own() -> None:
    made, second = joint()
    all_ = named(made, "ben", "cid", "dan", "eve")  # not Fay, who is not enrolled
    assert leased(made, made.request) == Leased(named(made, "ben", "cid", "dan"), all_)
    assert leased(made, second) == Leased(named(made, "eve"), all_)


def test_another_run_is_paid_for_by_itself() -> None:
    made, second = joint(run="another run")
    assert leased(made, made.request).run == named(made, "ben", "cid", "dan")
    assert leased(made, second) == Leased(named(made, "eve"), named(made, "eve"))


def test_leases_of_a_request_that_has_expired_count_for_nothing() -> None:
    made, _ = joint(SLICE + 1, expiry=SLICE + 1, deadline=SLICE + 1)
    assert named(made, "eve") <= leased(made, made.request, SLICE + 1).run
    assert not leased(made, made.request, SLICE + 2).run


@pytest.mark.parametrize("who", ["its author", "its node", "its node's owner"])
def test_what_is_frozen_counts_for_nothing(who: str) -> None:
    made, _ = joint()
    world = made.world
    author = {"its author": made.accounts["ben"], "its node": made.nodes["eve"]}.get(who, made.accounts["eve"])
    before = copy.copy(author)
    if who == "its node":
        one = world.decide(author, slice_=SLICE + 1)
    else:
        one = world.request(author, made.nodes["ann"], MICROCREDITS)
    world.take(before.write(world.now + 1, one.entry.body))
    assert not named(made, "eve") & leased(made, made.request).run
