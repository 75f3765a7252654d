"""Decayed use: what users have had lately, Û = Σ charge · 2^(−age ∕ half-life). Pure.

A lease is charged at once, at what it promises: without that, one user floods between two receipts. The receipt then
puts what was really done in its place. Each charge is rounded down by itself, so sums are the same in every order and
grouping: a unit's use is exactly that of its people.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from ubcp_p2p.allocator.fixed import exponent, times_exp2_neg

HALF_LIVES_MAX: Final = 64  # beyond, even the largest amount of 2^53 has decayed to nothing


class Lease(NamedTuple):
    """A request accepted for one slice by one node. units: its quantum; urgency: per mille."""

    user: bytes
    request: bytes
    node: bytes
    slice: int
    units: int
    urgency: int


class Receipt(NamedTuple):
    """What a node was credited for a request since its last receipt for it."""

    request: bytes
    node: bytes
    slice: int
    units: int


class Charge(NamedTuple):
    """units: the work times its urgency."""

    user: bytes
    slice: int
    units: int


def charged(units: int, urgency: int) -> int:
    """Urgency multiplies value and charge alike; rounded up, so that none is free."""
    return -(-units * urgency // 1000)


def charges(leases: Iterable[Lease], receipts: Iterable[Receipt], *, now: int, grace: int) -> list[Charge]:
    """What every user is charged at slice `now`.

    A receipt stands for all leases of its request and node up to its slice that no earlier receipt stood for; a lease
    without one is charged as it stands for `grace` slices, and then no longer: nobody was credited for it. A receipt
    without a lease charges nobody here: another peer's decision, or a mistake that the ledger's audit finds.
    """
    open_leases: dict[tuple[bytes, bytes], list[Lease]] = defaultdict(list)
    for lease in sorted(leases, key=lambda lease: (lease.slice, lease.request, lease.node)):
        open_leases[lease.request, lease.node].append(lease)
    found = []
    for receipt in sorted(receipts, key=lambda receipt: (receipt.slice, receipt.request, receipt.node, receipt.units)):
        waiting = open_leases[receipt.request, receipt.node]
        covered = [lease for lease in waiting if lease.slice <= receipt.slice]
        if covered:
            last = covered[-1]
            found.append(Charge(last.user, last.slice, charged(receipt.units, last.urgency)))
            open_leases[receipt.request, receipt.node] = waiting[len(covered) :]
    for waiting in open_leases.values():
        found += [
            Charge(lease.user, lease.slice, charged(lease.units, lease.urgency))
            for lease in waiting
            if now - lease.slice <= grace
        ]
    return found


def decayed(units: int, age: int, half_life: int) -> int:
    """units · 2^(−age ∕ half_life), rounded down; age and half-life in slices, a charge of the future has age 0."""
    if age <= 0:
        return units
    if age >= HALF_LIVES_MAX * half_life:
        return 0
    return times_exp2_neg(units, exponent(age, half_life))


def decayed_use(charges: Iterable[Charge], *, now: int, half_life: int) -> Mapping[bytes, int]:
    """Û of each user who has been charged, in units."""
    use: dict[bytes, int] = defaultdict(int)
    for charge in charges:
        use[charge.user] += decayed(charge.units, now - charge.slice, half_life)
    return dict(use)
