"""What was asked for and how it stands, and the CLOSE that ends a request: what the ledger takes, and not earlier."""

from __future__ import annotations

import pytest

from tests.unit.peer.test_asking import CREDIT, RECIPE, Scene
from ubcp_p2p.api.problems import NotFound
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import Close
from ubcp_p2p.ledger.leases import Leases
from ubcp_p2p.models.recipe import run_id
from ubcp_p2p.peer.asking.listing import closing, listed, of_name, row, with_waits
from ubcp_p2p.peer.asking.prospect import Prospect
from ubcp_p2p.peer.asking.values import Refused


@pytest.fixture
def scene() -> Scene:
    return Scene()


def runs(scene: Scene, now: int) -> list[tuple[str, str, bool]]:
    ledger, activity, me = scene.world.ledger, scene.activity(), scene.ann.public
    found = [
        row(ledger, activity, Leases(activity, ledger), asked, me, now) for asked in listed(ledger, activity, me, now)
    ]
    return [(one["run"], one["state"], one["mine"]) for one in found]


def test_own_requests_stay_listed_until_closed_others_while_they_are_open(scene: Scene) -> None:
    scene.asks(scene.ben, scene.ben_pc, "bens", deadline=60, expiry=60)
    scene.world.now = 41
    first = scene.asks(scene.ann, scene.ann_pc, "mine", deadline=60, expiry=60)
    assert runs(scene, 41) == [("mine", "waiting", True), ("bens", "waiting", False)]
    assert runs(scene, 60)[1:] == [("bens", "waiting", False)]
    assert runs(scene, 61) == [("mine", "over", True)]
    scene.world.now = 61 + scene.world.charter.grace_slices
    scene.world.write(scene.ann_pc, Close(first.entry.id, (), 100))
    assert runs(scene, scene.world.now) == [("mine", "closed", True)]  # its account has not taken the rest back
    scene.world.write(scene.ann, Close(first.entry.id, (), 100))
    assert runs(scene, scene.world.now) == []


def test_leases_and_payments_of_a_request(scene: Scene) -> None:
    world = scene.world
    asked = scene.asks(scene.ann, scene.ann_pc, "mine", credits=1000, units=50)
    world.now = 42
    world.decide(scene.ben_pc, [asked])
    allot = world.allot(scene.ann_pc, asked, scene.ben_pc, 1000)
    world.receipt(scene.ben_pc, scene.ann_pc, allot, 300)
    ledger, activity, me = world.ledger, scene.activity(), scene.ann.public
    found = row(ledger, activity, Leases(activity, ledger), listed(ledger, activity, me, 42)[0], me, 42)
    assert (found["state"], found["paid"], found["reserved"]) == ("served", 300, 1000)
    assert found["leases"] == {"slice": 42, "nodes": [scene.ben_pc.public.hex()]}
    assert found["run_id"] == run_id("mine", RECIPE.hash()).hex()
    assert runs(scene, 44) == [("mine", "waiting", True)]  # the lease was for one slice
    world.now = 43
    world.receipt(scene.ben_pc, scene.ann_pc, allot, 700)
    assert runs(scene, 43) == [("mine", "done", True)]
    said = with_waits([found, found | {"state": "done"}], {found["request"]: Prospect(2, 900, "full")})
    assert [(one["queue"], one["expected_wait_s"], one["words"]) for one in said] == [
        (2, 900, "full"), (None, None, None)
    ]  # fmt: skip


def test_a_close_pays_what_was_received_and_returns_the_rest(scene: Scene) -> None:
    world = scene.world
    asked = scene.asks(scene.ann, scene.ann_pc, "mine", credits=10 * CREDIT, deadline=50, expiry=50)
    second = scene.asks(scene.ann, scene.ann_pc, "mine", credits=CREDIT, deadline=50, expiry=50)
    allot = world.allot(scene.ann_pc, asked, scene.ben_pc, 4 * CREDIT)
    world.allot(scene.ann_pc, asked, scene.cid_pc, CREDIT)  # who got nothing
    world.receipt(scene.ben_pc, scene.ann_pc, allot, 3 * CREDIT)
    first = 51 + world.charter.grace_slices

    def close(now: int, run: str = "mine") -> tuple[Close, int]:
        return closing(world.ledger, scene.activity(), scene.ann.public, run, now)

    for now, run, reason in ((first - 1, "mine", "too-early"), (first, "other", "nothing-to-close")):
        with pytest.raises(Refused) as caught:
            close(now, run)
        assert caught.value.reason == reason
    world.now = first
    paid = {asked.entry.id: 3 * CREDIT, second.entry.id: 0}
    while True:
        body, more = close(first)
        assert (sum(amount for _, amount in body.final), body.returned) == (
            paid[body.request], world.ledger.requests[body.request].credits - paid.pop(body.request)
        )  # fmt: skip
        world.write(scene.ann, body)
        if not more:
            break
    assert not paid
    assert scene.funds().available == 10_000 * CREDIT - 3 * CREDIT
    assert not world.ledger.frozen()


def test_no_close_of_what_was_overpaid_adds_up(scene: Scene) -> None:
    """A paymaster that has forked can pay the same credits twice; both who earned them keep them."""
    world = scene.world
    asked = scene.asks(scene.ann, scene.ann_pc, "mine", credits=100, deadline=50, expiry=50)
    twin = Author(world.charters.network, scene.ann_pc.key, head=scene.ann_pc.head)
    for paymaster, contributor in ((scene.ann_pc, scene.ben_pc), (twin, scene.cid_pc)):
        world.receipt(contributor, paymaster, world.allot(paymaster, asked, contributor, 100), 100)
    with pytest.raises(Refused) as caught:
        closing(world.ledger, scene.activity(), scene.ann.public, "mine", 51 + world.charter.grace_slices)
    assert caught.value.reason == "overpaid"


def test_what_is_known_of_one_name() -> None:
    found = {"own": [{"name": "a"}], "requests": [{"run": "a"}, {"run": "b"}], "troubles": {"c": ["x"], "a": ["y"]}}
    assert of_name(found, "a") == {"own": [{"name": "a"}], "requests": [{"run": "a"}], "troubles": ["y"]}
    assert of_name(found, "c") == {"own": [], "requests": [], "troubles": ["x"]}
    with pytest.raises(NotFound) as missing:
        of_name(found, "d")
    assert missing.value.hint == "known: a, b"
