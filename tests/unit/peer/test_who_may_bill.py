"""Whom a paymaster takes bills from, by its ledger: each refusal, and what is just allowed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.peer.test_admission import SLICE, STRANGER, Scene, scene
from tests.unit.swarm.made import Wires
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.ledger.entry import Request
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.world import DEVICE, PEAK
from ubcp_p2p.peer.config import TrainingConfig
from ubcp_p2p.peer.paying.paymaster import Paymaster
from ubcp_p2p.peer.paying.tab import BillRefused
from ubcp_p2p.peer.serving.book import Book
from ubcp_p2p.units import MICROCREDITS


class Office:
    """Ann's node pays for Ann's REQUEST; who asks is looked up in a real store of the scene's ledger."""

    def __init__(self, folder: Path, made: Scene, *, slice_: int = SLICE) -> None:
        key = made.nodes["ann"].key
        assert isinstance(key, NodeKey)
        self.made, self.folder = made, folder
        charter = made.world.charter
        ledger: Any = SimpleNamespace(charters=made.world.charters)
        self.paymaster = Paymaster(
            Wires().node(key), ledger, Book(key.public), key, folder / "paying", TrainingConfig(),
            clock=lambda: float(charter.epoch + slice_ * charter.slice_s),
        )  # fmt: skip

    def look_up(self, peer: bytes, device: str = DEVICE) -> Any:
        job: Any = SimpleNamespace(request=self.made.request.entry.id, allots=self.allots())
        with Store.create(self.folder / "store", self.made.world.charters) as store:
            store.append(self.made.world.entries)
            return self.paymaster._look_up(store, job, peer, device)

    def allots(self) -> dict[bytes, tuple[bytes, int]]:
        rows = self.made.world.ledger.allots.values()
        return {row.contributor: (row.id, row.credits) for row in rows}


def test_who_holds_a_lease_may_bill(tmp_path: Path) -> None:
    made = scene()
    world = made.world
    second = world.node(made.accounts["ben"], "ben's second")
    world.allot(made.nodes["ann"], made.request, second, MICROCREDITS)
    world.allot(made.nodes["ann"], made.request, made.nodes["cid"], MICROCREDITS)
    found = Office(tmp_path, made).look_up(made.nodes["ben"].public)
    assert found.opening == world.opening(made.nodes["ben"])
    assert found.kin == {world.opening(second)}  # of Ben's nodes those that have an ALLOT, and nobody else's
    assert found.leased == {made.nodes[name].public for name in ("ben", "cid", "dan")}
    assert found.peak == PEAK


def test_a_device_class_that_the_charter_lacks_does_nothing(tmp_path: Path) -> None:
    made = scene()
    assert Office(tmp_path, made).look_up(made.nodes["ben"].public, "abacus").peak == 0


@pytest.mark.parametrize("who", ["a stranger", "an account"])
def test_who_has_no_node_in_the_ledger(tmp_path: Path, who: str) -> None:
    made = scene()
    peer = STRANGER if who == "a stranger" else made.accounts["ben"].public
    with pytest.raises(BillRefused, match="no OPEN of this node yet"):
        Office(tmp_path, made).look_up(peer)


FORKS: dict[str, Callable[[Scene], Any]] = {
    "the node": lambda made: made.nodes["ben"],
    "its account": lambda made: made.accounts["ben"],
    "the asker": lambda made: made.accounts["ann"],
    "the paymaster": lambda made: made.nodes["ann"],
}


@pytest.mark.parametrize("who", FORKS)
def test_nobody_is_paid_where_somebody_has_forked(tmp_path: Path, who: str) -> None:
    made = scene()
    author = FORKS[who](made)
    before = copy.copy(author)
    if who in ("the node", "the paymaster"):
        one = made.world.decide(author, slice_=SLICE + 1)
    else:
        one = made.world.request(author, made.nodes["ann"], MICROCREDITS)
    made.world.take(before.write(made.world.now + 1, one.entry.body))
    with pytest.raises(BillRefused, match="frozen by a fork"):
        Office(tmp_path, made).look_up(made.nodes["ben"].public)


def test_a_fork_of_another_contributor_is_its_own(tmp_path: Path) -> None:
    made = scene()
    before = copy.copy(made.nodes["cid"])
    one = made.world.decide(made.nodes["cid"], slice_=SLICE + 1)
    made.world.take(before.write(made.world.now + 1, one.entry.body))
    found = Office(tmp_path, made).look_up(made.nodes["ben"].public)
    assert found.leased == {made.nodes[name].public for name in ("ben", "dan")}


def test_nobody_is_paid_by_his_own_request(tmp_path: Path) -> None:
    made = scene()
    own = made.world.node(made.accounts["ann"], "ann's second")
    made.world.decide(own, [made.request])
    with pytest.raises(BillRefused, match="owner's own request or node"):
        Office(tmp_path, made).look_up(own.public)


def test_nobody_is_paid_by_his_own_node(tmp_path: Path) -> None:
    """Eve asks, and Ann's node pays for her: nothing to Ann's other nodes."""
    made = scene()
    body = made.request.entry.body
    assert isinstance(body, Request)
    request = made.world.write(made.accounts["eve"], body)
    own = made.world.node(made.accounts["ann"], "ann's second")
    made.world.decide(own, [request])
    with pytest.raises(BillRefused, match="owner's own request or node"):
        Office(tmp_path, made._replace(request=request)).look_up(own.public)


@pytest.mark.parametrize("late", [False, True])
def test_nothing_is_paid_after_expiry(tmp_path: Path, late: bool) -> None:
    made = scene()
    fact = made.world.ledger.requests[made.request.entry.id]
    made.world.now = fact.expiry
    made.world.decide(made.nodes["ben"], [made.request])
    office = Office(tmp_path, made, slice_=fact.expiry + late)
    if late:
        with pytest.raises(BillRefused, match=f"expired in slice {fact.expiry}"):
            office.look_up(made.nodes["ben"].public)
    else:
        assert office.look_up(made.nodes["ben"].public).peak == PEAK


@pytest.mark.parametrize(("name", "slice_"), [("eve", SLICE), ("fay", SLICE), ("ben", SLICE + 2)])
def test_who_holds_no_lease_now(tmp_path: Path, name: str, slice_: int) -> None:
    """One that never asked for it, one that is not enrolled, one whose lease was two slices ago."""
    made = scene()
    with pytest.raises(BillRefused, match="no lease of this node"):
        Office(tmp_path, made, slice_=slice_).look_up(made.nodes[name].public)


def test_a_lease_of_the_slice_before_counts(tmp_path: Path) -> None:
    made = scene()
    assert Office(tmp_path, made, slice_=SLICE + 1).look_up(made.nodes["ben"].public).leased
