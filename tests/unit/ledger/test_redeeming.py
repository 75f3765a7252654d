"""A voucher is worth something when a RECEIPT over it would be taken, now or in a later slice."""

from __future__ import annotations

import pytest

from tests.vectors.ledger.scene import Scene
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import Receipt
from ubcp_p2p.ledger.faults import Pending, RuleViolation
from ubcp_p2p.ledger.redeeming import check_redeemable
from ubcp_p2p.ledger.wire import Signed


def _allotted() -> tuple[Scene, Author, Author, Signed, Signed]:
    """(scene, paymaster, contributor, REQUEST, its ALLOT over 500)."""
    s = Scene()
    a, b, p = s.account("a"), s.account("b"), s.account("p")
    pay, node = s.node(p, "pay"), s.node(b, "node")
    request = s.request(a, pay, 1000)
    return s, pay, node, request, s.allot(pay, request, node, 500)


def _check(s: Scene, node: Author, receipt: Receipt) -> None:
    check_redeemable(s.ledger, node.public, s.now, receipt)


def test_a_voucher_that_a_receipt_can_hold() -> None:
    s, pay, node, request, allot = _allotted()
    _check(s, node, s.pay(node, pay, allot, 500))
    s.now = 1
    s.write(node, s.pay(node, pay, allot, 100))
    for credits_ in (100, 200):  # whether it grows, and that one slice takes one, is not asked here
        _check(s, node, s.pay(node, pay, allot, credits_))
    _check(s, node, s.pay(node, pay, s.allot(pay, request, node, 600), 600))  # raised, on the same branch


def test_a_voucher_that_comes_before_what_it_refers_to_waits() -> None:
    s, pay, node, _, allot = _allotted()
    receipt = s.pay(node, pay, allot, 100)
    other = s.account("c")
    for stranger in (s.key("nobody").public, other.public):  # no chain yet, and no node's
        with pytest.raises(Pending) as pending:
            check_redeemable(s.ledger, stranger, s.now, receipt)
        assert pending.value.missing == (allot.entry.id,)
    unknown = bytes([9]) * 32
    with pytest.raises(Pending) as pending:
        _check(s, node, Receipt(receipt.voucher._replace(allot=unknown), receipt.signature))
    assert pending.value.missing == (unknown,)


@pytest.mark.parametrize(
    ("code", "credits_", "changes"),
    [
        ("receipt-limit", 501, {}), ("price", 100, {"units": 99}), ("device", 100, {"device": "gpu-none"}),
        ("receipt-allot", 100, {"contributor": bytes(32)}),
    ],
)  # fmt: skip
def test_a_voucher_that_no_receipt_can_hold(code: str, credits_: int, changes: dict[str, bytes | int | str]) -> None:
    s, pay, node, _, allot = _allotted()
    with pytest.raises(RuleViolation) as refused:
        _check(s, node, s.pay(node, pay, allot, credits_, **changes))
    assert refused.value.code == code


def test_it_is_the_slice_now_that_counts() -> None:
    s, pay, node, request, allot = _allotted()
    receipt = s.pay(node, pay, allot, 100)
    last = s.ledger.requests[request.entry.id].expiry + s.charter.grace_slices
    check_redeemable(s.ledger, node.public, last, receipt)
    with pytest.raises(RuleViolation) as refused:
        check_redeemable(s.ledger, node.public, last + 1, receipt)
    assert refused.value.code == "receipt-late"


def test_a_voucher_from_the_other_branch_of_a_paymaster_that_has_forked() -> None:
    s, pay, node, request, allot = _allotted()
    fork = s.back(pay, 0)
    s.now = 1
    twin = s.allot(fork, request, node, 900)
    _check(s, node, s.pay(node, pay, twin, 200))  # of the two, whichever is taken first
    s.write(node, s.pay(node, pay, allot, 100))
    _check(s, node, s.pay(node, pay, allot, 200))
    with pytest.raises(RuleViolation) as refused:
        _check(s, node, s.pay(node, pay, twin, 200))
    assert refused.value.code == "two-branches"
