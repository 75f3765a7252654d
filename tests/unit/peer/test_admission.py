"""Whom a paid run lets in: lease holders train, who pays may fetch, and all who read one ledger say the same."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.swarm.made import digest
from ubcp_p2p.ledger.activity import Activity
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import Request
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import CHARTER, World
from ubcp_p2p.models.cost import UNIT_FLOP
from ubcp_p2p.models.recipe import load_recipe, run_id
from ubcp_p2p.peer.admission import (
    NO_LEASE,
    NO_NODE,
    NODE_FROZEN,
    NOT_ENROLLED,
    OWNER_FROZEN,
    WORK_SLICES,
    Roll,
    roll_of,
)
from ubcp_p2p.peer.doorkeeper import Door, Doorkeeper
from ubcp_p2p.peer.serving.book import Book
from ubcp_p2p.swarm.admission import NO_LIMIT
from ubcp_p2p.units import MICROCREDITS

SLICE = 10
FLOP = 10**9
STRANGER = digest("a stranger")


class Scene(NamedTuple):
    """Ann asks; the machines of Ben, Cid, Dan and Eve serve, and Fay is not enrolled."""

    world: World
    run: bytes
    request: Signed
    nodes: dict[str, Author]
    accounts: dict[str, Author]

    def roll(self, slice_: int = SLICE, *, of: str = "ben") -> Roll | None:
        return roll_among(self, self.world.entries, slice_, self.nodes[of].public)

    def why(self, name: str, slice_: int = SLICE) -> tuple[str, str]:
        """(why it may not train, why it gets no state)"""
        roll = self.roll(slice_)
        assert roll is not None
        node = self.nodes[name].public
        return roll.why_no_group(node), roll.why_no_state(node)


def roll_among(scene: Scene, entries: list[Signed], slice_: int, node: bytes) -> Roll | None:
    activity = Activity()
    for signed in entries:
        activity.add(signed.entry)
    return roll_of(scene.world.ledger, activity, scene.run, slice_, node=node, flop_per_sample=FLOP)


def scene(slice_: int = SLICE, **charter: Any) -> Scene:
    world = World(7, charter=replace(CHARTER, **charter))
    accounts = {name: world.account(name, enrol=name != "fay") for name in ("ann", "ben", "cid", "dan", "eve", "fay")}
    nodes = {name: world.node(author, name) for name, author in accounts.items()}
    world.now = slice_
    request = world.request(accounts["ann"], nodes["ann"], 1000 * MICROCREDITS)
    for name in ("ben", "cid", "dan", "fay"):
        world.decide(nodes[name], [request])
    body = request.entry.body
    assert isinstance(body, Request)
    return Scene(world, run_id(body.run, body.recipe), request, nodes, accounts)


def test_who_holds_a_lease_trains_and_who_pays_fetches() -> None:
    made = scene()
    for name in ("ben", "cid", "dan"):
        assert made.why(name) == ("", "")
    assert made.why("ann") == (NO_LEASE, "")
    assert made.why("eve") == (NO_LEASE, NO_LEASE)
    assert made.why("fay") == (NOT_ENROLLED, NOT_ENROLLED)  # her lease does not count
    roll = made.roll()
    assert roll is not None
    assert roll.why_no_group(STRANGER) == roll.why_no_state(STRANGER) == NO_NODE


def test_a_lease_of_the_slice_before_counts_and_an_older_one_does_not() -> None:
    made = scene()
    made.world.now = SLICE + 2
    made.world.decide(made.nodes["cid"], [made.request])
    assert made.why("ben", SLICE + 1) == ("", "")
    roll = made.roll(SLICE + 2, of="cid")
    assert roll is not None
    assert roll.holders == {made.nodes["cid"].public}


def test_a_frozen_node_and_the_nodes_of_a_frozen_account_are_out() -> None:
    made = scene()
    world = made.world
    for author in (made.nodes["cid"], made.accounts["dan"], made.accounts["ann"]):
        before = copy.copy(author)
        if author is made.nodes["cid"]:
            one = world.decide(author, slice_=SLICE + 1)
        else:
            one = world.request(author, made.nodes["ann"], MICROCREDITS)
        world.take(before.write(world.now + 1, one.entry.body))
    assert made.why("ben") == ("", "")
    assert made.why("cid") == (NODE_FROZEN, NODE_FROZEN)
    assert made.why("dan") == (OWNER_FROZEN, OWNER_FROZEN)
    assert made.why("ann") == (OWNER_FROZEN, OWNER_FROZEN)


def test_an_enrolment_that_has_ended_lets_its_node_out_at_the_period() -> None:
    made = scene(199, period_slices=200, enrolment_periods_max=1)
    assert made.why("ben", 199) == ("", "")
    roll = roll_among(made, made.world.entries, 200, made.nodes["ben"].public)
    assert roll is not None
    assert roll.why_no_group(made.nodes["ben"].public) == NOT_ENROLLED
    assert roll.why_no_state(made.nodes["ann"].public) == ""  # what is paid for may be fetched


@pytest.mark.parametrize("of", ["eve", "fay"])
def test_a_volunteer_keeps_nobody_out(of: str) -> None:
    """Else anybody could close a run that others train for nothing, by asking for it with one credit."""
    assert scene().roll(of=of) is None


def test_a_run_that_nobody_asks_for_is_open() -> None:
    made = scene()
    assert roll_among(made._replace(run=digest("another run")), made.world.entries, SLICE,
                      made.nodes["ben"].public) is None  # fmt: skip
    assert made.roll(SLICE + 200) is None  # the deadline has passed


@settings(max_examples=20)
@given(st.randoms(use_true_random=False))
def test_it_does_not_matter_in_which_order_the_entries_came(rng: random.Random) -> None:
    made = PAID
    entries = list(made.world.entries)
    rng.shuffle(entries)
    assert roll_among(made, entries, SLICE + 3, made.nodes["ben"].public) == made.roll(SLICE + 3)


def paid() -> Scene:
    """Ben and Cid have RECEIPTs, in the slices 11 and 12; all hold leases on."""
    made = scene()
    world, ann = made.world, made.nodes["ann"]
    allots = {name: world.allot(ann, made.request, made.nodes[name], 100 * MICROCREDITS) for name in ("ben", "cid")}
    for slice_, rows in ((SLICE + 1, {"ben": 300}), (SLICE + 2, {"ben": 50, "cid": 200}), (SLICE + 3, {"cid": 7})):
        world.now = slice_
        for name in ("ben", "cid"):
            world.decide(made.nodes[name], [made.request])
        for name, credits_ in rows.items():
            world.receipt(made.nodes[name], ann, allots[name], credits_)
    return made


PAID = paid()


def test_work_that_was_paid_in_the_last_slices_counts_for_a_seat() -> None:
    ben, cid = PAID.nodes["ben"].public, PAID.nodes["cid"].public
    roll = PAID.roll(SLICE + 3)
    assert roll is not None
    assert roll.units == {ben: 350, cid: 200}  # what is of this very slice is still on its way to others
    PAID.world.now = SLICE + 3
    assert WORK_SLICES == 4
    later = roll_among(PAID, PAID.world.entries, SLICE + 4, ben)
    assert later is not None
    assert later.units == {ben: 350, cid: 207}


def test_the_seat_goes_to_who_has_done_the_work() -> None:
    door = Door(PAID.run, FLOP, lambda peer: "")
    ben, cid, dan = (PAID.nodes[name].public for name in ("ben", "cid", "dan"))
    door.roll = PAID.roll(SLICE + 3)
    for round_ in range(20):
        assert door.seats(round_, [dan, cid, ben], 2).seated == (ben, cid)
    door.roll = None
    assert {door.seats(round_, [dan, cid, ben], 1).seated for round_ in range(20)} == {(ben,), (cid,), (dan,)}


def test_no_weight_is_above_what_the_device_class_can_do() -> None:
    roll = PAID.roll(SLICE + 3)
    assert roll is not None
    charter = PAID.world.charter
    peak = charter.peak_of("gpu-24g")
    assert peak is not None
    assert roll.weighs(PAID.nodes["ben"].public) == peak * charter.slice_s * UNIT_FLOP // FLOP
    assert roll.weighs(PAID.nodes["dan"].public) == NO_LIMIT  # no RECEIPT has named its class


# -- the door --------------------------------------------------------------------------------------------------------


class Books:
    """What the doorkeeper needs of a LiveLedger, over a World."""

    def __init__(self, made: Scene) -> None:
        self.charters = made.world.charters
        self.banned: dict[bytes, str] = {}
        self.reads = 0
        self._store = StoreOf(made.world)

    async def read(self, function: Any) -> Any:
        self.reads += 1
        return function(self._store)

    def why_banned(self, peer: bytes) -> str:
        return self.banned.get(peer, "")


class StoreOf:
    """The parts of a Store that a Book reads."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.ledger = world.ledger

    def after(self, position: int, count: int) -> list[Any]:
        rows = self._world.entries[position : position + count]
        return [Row(position + number, signed.to_bytes()) for number, signed in enumerate(rows, 1)]


class Row(NamedTuple):
    position: int
    data: bytes


@pytest.mark.asyncio
async def test_the_door_follows_the_ledger_and_the_clock() -> None:
    made = scene()
    recipe = load_recipe("digits-tiny")
    body = made.request.entry.body
    assert isinstance(body, Request)
    made.world.now += 1
    asked = made.world.write(made.accounts["ann"], replace_request(body, recipe.hash()))
    books: Any = Books(made)
    now = [float(CHARTER.epoch + (SLICE + 1) * CHARTER.slice_s)]
    keeper = Doorkeeper(books, Book(made.nodes["ben"].public), made.nodes["ben"].public, clock=lambda: now[0])
    ben, cid = made.nodes["ben"].public, made.nodes["cid"].public
    door = await keeper.open(run_id(body.run, recipe.hash()), recipe)
    assert door.roll is None
    assert door.admission.to_group(STRANGER) == door.admission.to_state(STRANGER) == ""
    made.world.decide(made.nodes["ben"], [asked], slice_=SLICE + 1)
    await keeper.look()
    assert door.admission.to_group(ben) == ""
    assert door.admission.to_group(cid) == NO_LEASE
    assert door.admission.to_state(STRANGER) == NO_NODE
    books.banned[ben] = "junk"
    assert door.admission.to_group(ben) == door.admission.to_state(ben) == "junk"
    assert door.admission.trains(ben) == ""  # a ban is one's own, and changes no group
    reads = books.reads
    await keeper.look()
    assert books.reads == reads + 1  # nothing has changed: no roll is made
    now[0] += 3 * CHARTER.slice_s
    await keeper.look()
    assert door.roll is None  # no lease of its own any more
    assert door.admission.to_group(STRANGER) == ""
    keeper.close(door.run)


def replace_request(body: Request, recipe: bytes) -> Request:
    return body._replace(recipe=recipe)
