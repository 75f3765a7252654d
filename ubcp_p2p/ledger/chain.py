"""What one branch of one author's chain has led to: the part of the state that only its author changes. Pure."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ubcp_p2p.ledger.entry import ZERO, Entry, Position
from ubcp_p2p.ledger.purse import Purse

ID_BYTES = 32


class Powers(NamedTuple):
    """Who can sign for an author: its key in force, and whoever has the recovery key with this hash (zeros: nobody)."""

    key: bytes
    recovery: bytes


class Chain:
    """One branch: its ids and slices by sequence number. Branches of one author share no memory."""

    def __init__(self, author: bytes) -> None:
        self.author = author
        self.opening = b""  # the id of its OPEN
        self.head_id = b""
        self.slice = 0  # that of the newest entry; 0 for an empty chain
        self._own = Powers(author, ZERO)
        self._ids = bytearray()
        self._slices = array("I")

    def __len__(self) -> int:
        return len(self._slices)

    def append(self, entry: Entry) -> None:
        """The next entry of this branch."""
        if not self._slices:
            self.opening = entry.id
        self.head_id, self.slice = entry.id, entry.slice
        self._ids += entry.id
        self._slices.append(entry.slice)

    @property
    def powers(self) -> Powers:
        """Who can sign the next entry."""
        return self._own

    def powers_at(self, seq: int) -> Powers:
        """Who could sign what follows the entry `seq`."""
        return self._own

    def is_before(self, entry: Entry) -> bool:
        """Whether the entry follows the head of this branch."""
        return self.head_id == entry.prev and len(self._slices) == entry.seq

    def ids(self) -> Iterator[bytes]:
        """All its ids in order."""
        ids = bytes(self._ids)
        return (ids[i : i + ID_BYTES] for i in range(0, len(ids), ID_BYTES))

    @property
    def head(self) -> Position:
        return Position(self.author, len(self) - 1, self.head_id)

    def slice_at(self, seq: int) -> int:
        return self._slices[seq]

    def id_at(self, seq: int) -> bytes | None:
        """The id with this sequence number, or None beyond the head."""
        return bytes(self._ids[seq * ID_BYTES : (seq + 1) * ID_BYTES]) if 0 <= seq < len(self) else None

    def has(self, position: Position) -> bool:
        """Whether this branch passes through `position`."""
        return position.author == self.author and self.id_at(position.seq) == position.id

    def seq_of(self, id_: bytes) -> int | None:
        """Where an id lies on this branch; a search through all of it."""
        start = 0
        while (found := self._ids.find(id_, start)) >= 0:
            if found % ID_BYTES == 0:
                return found // ID_BYTES
            start = found + 1
        return None


class Enrolment(NamedTuple):
    """Periods from `first` up to, not including, `until`; allowances were issued up to, not including, `issued`."""

    newcomer: bool
    unit: str
    first: int
    until: int
    issued: int

    def covers(self, period: int) -> bool:
        return self.first <= period < self.until


class AccountChain(Chain):
    """A person's or institution's chain."""

    def __init__(self, author: bytes, recovery: bytes) -> None:
        super().__init__(author)
        self.enrolments: list[Enrolment] = []
        self.purse = Purse()
        self.claimed: dict[bytes, Position] = {}  # node → up to where its income was claimed
        self.credited: dict[tuple[bytes, bytes], int] = {}  # (OPEN id of node, REQUEST) → cumulative µcredits claimed
        self.outflow: tuple[int, int] = (0, 0)  # (period, µcredits reserved in it)
        self.closed: dict[bytes, tuple[tuple[bytes, int], ...]] = {}  # REQUEST → final per contributor (OPEN id)
        self._powers: list[tuple[int, Powers]] = [(0, Powers(author, recovery))]  # from which number on each holds

    @property
    def powers(self) -> Powers:
        """Who can sign the next entry."""
        return self._powers[-1][1]

    def powers_at(self, seq: int) -> Powers:
        return self._powers[bisect_right(self._powers, seq, key=lambda pair: pair[0]) - 1][1]

    def rotate(self, seq: int, powers: Powers) -> None:
        """These hold after the entry `seq`."""
        self._powers.append((seq, powers))

    def enrolled(self, period: int) -> Enrolment | None:
        return next((e for e in reversed(self.enrolments) if e.covers(period)), None)


class Paid(NamedTuple):
    """The newest voucher for one REQUEST that a node has written a RECEIPT for."""

    units: int
    credits: int
    rounds: int
    seconds: int
    slice: int
    allot: bytes


@dataclass
class Income:
    """All receipts of a node in chain order, packed: 28 bytes each."""

    seqs: array[int] = field(default_factory=lambda: array("I"))
    periods: array[int] = field(default_factory=lambda: array("I"))
    requests: array[int] = field(default_factory=lambda: array("I"))  # numbers that the Ledger gave to REQUESTs
    credits: array[int] = field(default_factory=lambda: array("Q"))  # cumulative per REQUEST, µcredits

    def append(self, seq: int, period: int, request: int, credits_: int) -> None:
        self.seqs.append(seq)
        self.periods.append(period)
        self.requests.append(request)
        self.credits.append(credits_)

    def between(self, after: int, to: int) -> Iterator[tuple[int, int, int]]:
        """(period, REQUEST number, cumulative µcredits) of receipts with after < seq ≤ to."""
        for i in range(bisect_right(self.seqs, after), bisect_right(self.seqs, to)):
            yield self.periods[i], self.requests[i], self.credits[i]


class NodeChain(Chain):
    """A machine's chain."""

    def __init__(self, author: bytes, owner: bytes) -> None:
        super().__init__(author)
        self.owner = owner
        self.income = Income()
        self.paid: dict[bytes, Paid] = {}  # by REQUEST
        self.allots: dict[bytes, dict[bytes, int]] = {}  # as paymaster: REQUEST → OPEN id → most µcredits
        self.closed: set[bytes] = set()  # REQUESTs that it closed as their paymaster
        self.checkpoint_size = 0
