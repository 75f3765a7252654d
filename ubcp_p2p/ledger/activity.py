"""What was asked for, decided and done, by the entries alone: what allocators and statistics go by. Pure.

Whatever the order the entries come in, the same set of them gives the same answers. Payments are told as work: one unit
is 1 GFLOP, and costs 1 µcredit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ubcp_p2p.ledger.decisions import Decided
from ubcp_p2p.ledger.entry import (
    Allot,
    Close,
    Decision,
    Enrol,
    Entry,
    Heal,
    OpenAccount,
    OpenNode,
    Receipt,
    Request,
    Rotate,
)


class Asked(NamedTuple):
    """One REQUEST. slice: when it was signed, by its author's word."""

    id: bytes
    author: bytes
    slice: int
    body: Request


class Work(NamedTuple):
    """What one node was credited for one REQUEST, by one RECEIPT more than by those before. units: GFLOP.

    Of a node that has several OPENs each counts for itself, as in `Ledger.paid`.
    """

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
    owners: dict[bytes, bytes] = field(default_factory=dict)  # node → account; of several OPENs that of the least id
    closed: dict[bytes, int] = field(default_factory=dict)  # REQUEST → the slice of its first CLOSE
    _paid: dict[bytes, dict[tuple[bytes, bytes], set[_Paid]]] = field(default_factory=dict)  # REQUEST → (node, ALLOT)
    _contributors: dict[bytes, bytes] = field(default_factory=dict)  # ALLOT → OPEN of the contributor
    _openings: dict[bytes, bytes] = field(default_factory=dict)  # node → the least id of its OPENs
    _before: dict[bytes, bytes] = field(default_factory=dict)  # entry of an account → prev, or an ENROL further back
    _enrols: dict[bytes, tuple[int, int, bytes, Enrol]] = field(default_factory=dict)  # ENROL → slice, seq, author

    def add(self, entry: Entry) -> None:
        """Take one valid entry in."""
        if isinstance(entry.body, _BY_ACCOUNTS):
            self._before.setdefault(entry.id, entry.prev)
        match entry.body:
            case Request() as body:
                self.requests[entry.id] = Asked(entry.id, entry.author, entry.slice, body)
            case Decision() as body:
                self.decisions[entry.id] = Decided.of(entry, body)
            case Receipt(voucher=voucher):
                row = _Paid(entry.slice, voucher.units, voucher.device)
                self._paid.setdefault(voucher.request, {}).setdefault((entry.author, voucher.allot), set()).add(row)
            case Allot() as body:
                self._contributors[entry.id] = body.contributor
            case Enrol() as body:
                self._enrols[entry.id] = (entry.slice, entry.seq, entry.author, body)
            case Close() as body:
                self.closed[body.request] = min(self.closed.get(body.request, entry.slice), entry.slice)
            case OpenNode() as body:
                if entry.id <= self._openings.get(entry.author, entry.id):
                    self._openings[entry.author], self.owners[entry.author] = entry.id, body.owner.author

    def work(self) -> Iterator[Work]:
        """What each RECEIPT adds to those before, in no order of REQUESTs; nothing for one that adds nothing."""
        for request in self._paid:
            yield from self.work_of(request)

    def work_of(self, request: bytes) -> Iterator[Work]:
        """The same for one REQUEST; of each node by slice."""
        for node, rows in self._receipts(request):
            before = 0
            for row in sorted(rows):
                if row.units > before:
                    yield Work(request, node, row.slice, row.units - before, row.device)
                    before = row.units

    def done(self, request: bytes) -> int:
        """Units credited for one REQUEST, all nodes together."""
        return sum(max(row.units for row in rows) for _, rows in self._receipts(request))

    def enrolment(self, request: bytes, period: int) -> Enrol | None:
        """The ENROL by which the author of a REQUEST was enrolled in the period of that REQUEST.

        The nearest before it on its own branch; where that branch has none, because a HEAL brought it from another,
        the first of the author by (slice, seq, id).
        """
        if (on_branch := self.enrolled_before(request, period)) is not None:
            return on_branch
        author = self.requests[request].author
        others = ((*row[:2], id_) for id_, row in self._enrols.items() if row[2] == author)
        found = [self._enrols[id_][-1] for _, _, id_ in sorted(others)]
        return next((body for body in found if body.first <= period < body.until), None)

    def enrolled_before(self, request: bytes, period: int) -> Enrol | None:
        """The nearest ENROL before a REQUEST on its own branch that covers the period, whatever else is known."""
        place = self._enrol_before(request)
        while place is not None:
            body = self._enrols[place][-1]
            if body.first <= period < body.until:
                return body
            place = self._enrol_before(self._before[place])
        return None

    def _receipts(self, request: bytes) -> Iterator[tuple[bytes, set[_Paid]]]:
        """(node, RECEIPTs) of one REQUEST, by OPEN: an ALLOT that was raised has another id."""
        merged: dict[tuple[bytes, bytes], set[_Paid]] = defaultdict(set)
        for (node, allot), rows in self._paid.get(request, {}).items():
            merged[node, self._contributors.get(allot, b"")] |= rows
        for (node, _), rows in merged.items():
            yield node, rows

    def _enrol_before(self, id_: bytes) -> bytes | None:
        """The nearest ENROL at an entry of an account or before it; what was walked is shorter the next time."""
        passed = []
        while id_ not in self._enrols:
            if id_ not in self._before:
                return None
            passed.append(id_)
            id_ = self._before[id_]
        for entry in passed:
            self._before[entry] = id_
        return id_


_BY_ACCOUNTS = (OpenAccount, Enrol, Request, Close, Rotate, Heal)  # of a node's CLOSE the line leads nowhere
