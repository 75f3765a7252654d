"""Whether a voucher can be redeemed, before a RECEIPT is written: what the rule of RECEIPTs itself says, each time."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from tests.unit.peer.test_admission import SLICE, STRANGER, Scene, scene
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import Allot, Receipt, Voucher
from ubcp_p2p.ledger.faults import LedgerError, Pending, RuleViolation
from ubcp_p2p.ledger.redeeming import check_redeemable
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import DEVICE, PEAK
from ubcp_p2p.units import MICROCREDITS

ALLOTTED = 500 * MICROCREDITS
PAID = 100 * MICROCREDITS


def voucher(made: Scene, allot: Signed, **changes: object) -> Receipt:
    """Ann's voucher for Ben, signed."""
    plain = Voucher(
        network=made.world.charters.network, paymaster=made.nodes["ann"].public, request=made.request.entry.id,
        allot=allot.entry.id, contributor=made.nodes["ben"].public, units=PAID, credits=PAID, rounds=1, device=DEVICE,
        seconds=-(-PAID // PEAK), evidence=bytes(32),
    )  # fmt: skip
    body = plain._replace(**changes)  # type: ignore[arg-type]
    return Receipt(body, made.nodes["ann"].voucher(body).signature)


def allotted(made: Scene, to: str = "ben") -> Signed:
    made.world.now = SLICE + 1
    return made.world.allot(made.nodes["ann"], made.request, made.nodes[to], ALLOTTED)


def says(made: Scene, node: Author, slice_: int, body: Receipt) -> str:
    """Code of what it is refused with, or ""; the ledger must say the same of the RECEIPT itself."""
    world = made.world
    try:
        check_redeemable(world.ledger, node.public, slice_, body)
        found = ""
    except Pending:
        found = "pending"
    except RuleViolation as error:
        found = error.code
    world.now = slice_
    try:
        world.write(copy.copy(node), body)
        taken = ""
    except Pending:
        taken = "pending"
    except LedgerError as error:
        taken = error.code
    assert found == taken
    return found


def test_what_the_ledger_takes() -> None:
    made = scene()
    assert says(made, made.nodes["ben"], SLICE + 1, voucher(made, allotted(made))) == ""


def test_an_allot_or_a_chain_that_is_not_here_yet_is_waited_for() -> None:
    made = scene()
    allot = allotted(made)
    body = voucher(made, allot)
    elsewhere = scene()  # a ledger in which that ALLOT has not arrived
    assert says(elsewhere, elsewhere.nodes["ben"], SLICE + 1, body) == "pending"
    with pytest.raises(Pending):
        check_redeemable(made.world.ledger, STRANGER, SLICE + 1, body)
    with pytest.raises(Pending):  # an account is no node
        check_redeemable(made.world.ledger, made.accounts["ben"].public, SLICE + 1, body)


REFUSED: dict[str, Callable[[Scene, Signed], tuple[str, int, Receipt]]] = {
    "receipt-allot": lambda made, allot: ("cid", SLICE + 1, voucher(made, allot)),
    "receipt-late": lambda made, allot: ("ben", SLICE + 10**3, voucher(made, allot)),
    "price": lambda made, allot: ("ben", SLICE + 1, voucher(made, allot, credits=PAID - 1)),
    "device": lambda made, allot: ("ben", SLICE + 1, voucher(made, allot, seconds=PAID // PEAK - 1)),
    "receipt-limit": lambda made, allot: (
        "ben", SLICE + 1, voucher(made, allot, units=ALLOTTED + 1, credits=ALLOTTED + 1, seconds=ALLOTTED)
    ),
}  # fmt: skip


@pytest.mark.parametrize("code", REFUSED)
def test_what_no_receipt_can_hold(code: str) -> None:
    made = scene()
    node, slice_, body = REFUSED[code](made, allotted(made))
    assert says(made, made.nodes[node], slice_, body) == code


def test_a_device_class_that_the_charter_lacks() -> None:
    made = scene()
    assert says(made, made.nodes["ben"], SLICE + 1, voucher(made, allotted(made), device="abacus")) == "device"


def test_nobody_redeems_what_his_own_node_has_promised() -> None:
    made = scene()
    own = made.world.node(made.accounts["ann"], "ann's second")
    made.nodes["own"] = own
    body = voucher(made, allotted(made, "own"), contributor=own.public)
    assert says(made, own, SLICE + 1, body) == "receipt-self"


def test_before_the_allot_was_written_it_was_not_there() -> None:
    made = scene()
    made.world.now = SLICE + 5
    allot = made.world.allot(made.nodes["ann"], made.request, made.nodes["ben"], ALLOTTED)
    assert says(made, made.nodes["ben"], SLICE + 3, voucher(made, allot)) == "slice-reference"
    assert says(made, made.nodes["ben"], SLICE + 4, voucher(made, allot)) == ""  # two clocks


def test_vouchers_of_two_branches_of_a_paymaster_do_not_go_together() -> None:
    made = scene()
    world, ann, ben = made.world, made.nodes["ann"], made.nodes["ben"]
    twin = copy.copy(ann)
    first = allotted(made)
    world.write(ben, voucher(made, first))
    other = world.take(twin.write(world.now, Allot(made.request.entry.id, world.opening(ben), ALLOTTED + MICROCREDITS)))
    more = {"units": 2 * PAID, "credits": 2 * PAID, "rounds": 2, "seconds": -(-2 * PAID // PEAK)}
    assert says(made, ben, SLICE + 2, voucher(made, other, **more)) == "two-branches"
    assert says(made, ben, SLICE + 2, voucher(made, first, **more)) == ""
