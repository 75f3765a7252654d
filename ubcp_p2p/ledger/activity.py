"""What was asked for, decided and done, by the entries alone: what allocators and statistics go by. Pure.

Whatever the order the entries come in, the same set of them gives the same answers. Payments are told as work: one unit
is 1 GFLOP, and costs 1 µcredit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ubcp_p2p.ledger.entry import Close, Decision, Entry, OpenNode, Receipt, Request


class Asked(NamedTuple):
    """One REQUEST. slice: when it was signed, by its author's word."""

    id: bytes
    author: bytes
    slice: int
    body: Request


class Decided(NamedTuple):
    """One DECISION of one node. told: the slice of the entry; body.slice: the one that it decides on."""

    id: bytes
    node: bytes
    told: int
    body: Decision


class Lease(NamedTuple):
    """One REQUEST accepted by one node for one slice. decision: the id of the entry."""

    request: bytes
    node: bytes
    slice: int
    decision: bytes


class Work(NamedTuple):
    """What one node was credited for one REQUEST, by one RECEIPT more than by those before. units: GFLOP."""

    request: bytes
    node: bytes
    slice: int
    units: int
    device: str


class _Paid(NamedTuple):
    """One RECEIPT as it stands: cumulative."""

    slice: int
    units: int
    device: str


@dataclass
class Activity:
    """Fed with valid entries; an entry that comes again changes nothing."""

    requests: dict[bytes, Asked] = field(default_factory=dict)
    decisions: dict[bytes, Decided] = field(default_factory=dict)
    owners: dict[bytes, bytes] = field(default_factory=dict)  # node → account
    closed: dict[bytes, int] = field(default_factory=dict)  # REQUEST → the slice of its first CLOSE
    _leases: dict[bytes, set[Lease]] = field(default_factory=lambda: defaultdict(set))  # by REQUEST
    _paid: dict[bytes, dict[bytes, set[_Paid]]] = field(default_factory=dict)  # REQUEST → node

    def add(self, entry: Entry) -> None:
        """Take one valid entry in."""
        match entry.body:
            case Request() as body:
                self.requests[entry.id] = Asked(entry.id, entry.author, entry.slice, body)
            case Decision() as body:
                self.decisions[entry.id] = Decided(entry.id, entry.author, entry.slice, body)
                for request in body.accepted:
                    self._leases[request].add(Lease(request, entry.author, body.slice, entry.id))
            case Receipt(voucher=voucher):
                row = _Paid(entry.slice, voucher.units, voucher.device)
                self._paid.setdefault(voucher.request, {}).setdefault(entry.author, set()).add(row)
            case Close() as body:
                self.closed[body.request] = min(self.closed.get(body.request, entry.slice), entry.slice)
            case OpenNode() as body:
                self.owners[entry.author] = body.owner.author

    def leases(self, request: bytes) -> list[Lease]:
        """All of one REQUEST, by (slice, node); of two decisions of one node on one slice both."""
        return sorted(self._leases.get(request, ()), key=lambda lease: (lease.slice, lease.node, lease.decision))

    def all_leases(self) -> Iterator[Lease]:
        """Of every REQUEST, in no order."""
        for leases in self._leases.values():
            yield from leases

    def work(self) -> Iterator[Work]:
        """What each RECEIPT adds to those before, by REQUEST and node; nothing for one that adds nothing."""
        for request, nodes in self._paid.items():
            for node, rows in nodes.items():
                before = 0
                for row in sorted(rows):
                    if row.units > before:
                        yield Work(request, node, row.slice, row.units - before, row.device)
                        before = row.units

    def done(self, request: bytes) -> int:
        """Units credited for one REQUEST, all nodes together."""
        return sum(max(row.units for row in rows) for rows in self._paid.get(request, {}).values())
