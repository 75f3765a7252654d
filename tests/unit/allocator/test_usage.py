"""Decayed use: what a lease charges, what a receipt corrects."""

from __future__ import annotations

import random

import pytest

from tests.support.slices import id_of
from ubcp_p2p.allocator.usage import Charge, Lease, Receipt, charged, charges, decayed, decayed_use
from ubcp_p2p.units import AMOUNT_MAX

USER, REQUEST, NODE = id_of(1), id_of(2), id_of(3)


def lease(slice_: int, units: int = 100, *, urgency: int = 1000, request: bytes = REQUEST) -> Lease:
    return Lease(USER, request, NODE, slice_, units, urgency)


def receipt(slice_: int, units: int) -> Receipt:
    return Receipt(REQUEST, NODE, slice_, units)


@pytest.mark.parametrize(
    ("age", "expected"), [(-5, 1000), (0, 1000), (10, 500), (20, 250), (5, 707), (100, 0), (640, 0), (10**9, 0)]
)
def test_use_halves_each_half_life(age: int, expected: int) -> None:
    assert decayed(1000, age, 10) == expected


def test_the_largest_amount_has_decayed_to_nothing_when_it_is_no_longer_looked_at() -> None:
    assert decayed(AMOUNT_MAX, 53 * 7, 7) == 0
    assert decayed(AMOUNT_MAX, 52 * 7, 7) == 1


def test_urgency_is_charged_and_rounded_up() -> None:
    assert [charged(100, 1000), charged(100, 2000), charged(1, 1001)] == [100, 200, 2]


def test_a_lease_is_charged_at_once_and_its_receipt_corrects_it() -> None:
    assert charges([lease(5)], [], now=5, grace=96) == [Charge(USER, 5, 100)]
    assert charges([lease(5)], [receipt(6, 40)], now=6, grace=96) == [Charge(USER, 5, 40)]
    assert charges([lease(5, urgency=1500)], [receipt(6, 40)], now=6, grace=96) == [Charge(USER, 5, 60)]


def test_a_receipt_stands_for_all_leases_before_it() -> None:
    leases = [lease(5), lease(6), lease(8)]
    assert charges(leases, [receipt(7, 150)], now=8, grace=96) == [Charge(USER, 6, 150), Charge(USER, 8, 100)]
    both = charges(leases, [receipt(8, 90), receipt(7, 150)], now=8, grace=96)
    assert both == [Charge(USER, 6, 150), Charge(USER, 8, 90)]


def test_receipts_without_a_lease_charge_nobody() -> None:
    assert charges([lease(9)], [receipt(8, 40)], now=9, grace=96) == [Charge(USER, 9, 100)]
    assert charges([], [receipt(8, 40)], now=9, grace=96) == []
    assert charges([lease(5)], [receipt(5, 10), receipt(6, 40)], now=9, grace=96) == [Charge(USER, 5, 10)]


def test_a_lease_without_a_receipt_is_charged_for_the_grace_alone() -> None:
    assert charges([lease(5)], [], now=101, grace=96) == [Charge(USER, 5, 100)]
    assert charges([lease(5)], [], now=102, grace=96) == []


def test_requests_and_nodes_are_told_apart() -> None:
    other = lease(5, request=id_of(9))
    found = charges([lease(5), other], [receipt(5, 1)], now=5, grace=9)
    assert sorted(charge.units for charge in found) == [1, 100]


def test_the_sum_is_the_same_in_any_order_and_grouping() -> None:
    rng = random.Random(2)
    rows = [Charge(id_of(rng.randrange(5)), rng.randrange(100), rng.randrange(10**6)) for _ in range(300)]
    whole = decayed_use(rows, now=100, half_life=13)
    parts = [decayed_use(rows[n::7], now=100, half_life=13) for n in range(7)]
    assert {key: sum(part.get(key, 0) for part in parts) for key in whole} == whole
    rng.shuffle(rows)
    assert decayed_use(rows, now=100, half_life=13) == whole
