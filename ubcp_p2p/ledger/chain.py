"""What one branch of one author's chain has led to: the part of the state that only its author changes. Pure.

Branches of one author share what they have in common: a branch owns the entries after the place where it left another
one, and finds those before through that one, in a number of steps that grows with the logarithm of how often it forked.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
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
    """One branch: its ids and slices by sequence number. start: the first number that it owns."""

    def __init__(self, author: bytes) -> None:
        self.author = author
        self.opening = b""  # the id of its OPEN
        self.head_id = b""
        self.slice = 0  # that of the newest entry; 0 for an empty chain
        self.start = 0
        self.base: Chain | None = None  # owns the entry before `start`
        self._far: Chain | None = None  # further down, so that `holder` is quick
        self._depth = 0
        self._own = Powers(author, ZERO)
        self._ids = bytearray()
        self._slices = array("I")
        self._events = array("I")

    def __len__(self) -> int:
        return self.start + len(self._slices)

    def append(self, entry: Entry) -> None:
        """The next entry of this branch."""
        if not entry.seq:
            self.opening = entry.id
        self.head_id, self.slice = entry.id, entry.slice
        self._ids += entry.id
        self._slices.append(entry.slice)

    @property
    def is_new(self) -> bool:
        """Whether it owns no entry yet."""
        return not self._slices

    @property
    def powers(self) -> Powers:
        """Who can sign the next entry."""
        return self._own

    def powers_at(self, seq: int) -> Powers:
        """Who could sign what follows the entry `seq`."""
        return self._own

    def is_before(self, entry: Entry) -> bool:
        """Whether the entry follows the head of this branch."""
        return self.head_id == entry.prev and self.start + len(self._slices) == entry.seq

    def own_ids(self) -> Iterator[bytes]:
        """The ids of the entries that it owns, in order."""
        ids = self.own_ids_packed
        return (ids[i : i + ID_BYTES] for i in range(0, len(ids), ID_BYTES))

    @property
    def own_ids_packed(self) -> bytes:
        """The same, one after another."""
        return bytes(self._ids)

    @property
    def head(self) -> Position:
        return Position(self.author, len(self) - 1, self.head_id)

    def slice_at(self, seq: int) -> int:
        holder = self.holder(seq)
        return holder._slices[seq - holder.start]

    def id_at(self, seq: int) -> bytes | None:
        """The id with this sequence number, or None beyond the head."""
        if not 0 <= seq < len(self):
            return None
        holder = self if seq >= self.start else self.holder(seq)
        at = (seq - holder.start) * ID_BYTES
        return bytes(holder._ids[at : at + ID_BYTES])

    def has(self, position: Position) -> bool:
        """Whether this branch passes through `position`."""
        return position.author == self.author and self.id_at(position.seq) == position.id

    # -- what branches share ------------------------------------------------------------------------------------

    def holder(self, seq: int) -> Chain:
        """The branch that owns the entry `seq` of this one."""
        chain: Chain = self
        while chain.start > seq:
            far, base = chain._far, chain.base
            assert far is not None and base is not None
            chain = far if far.start > seq else base
        return chain

    def hang_on(self, base: Chain) -> None:
        """Share what comes before `start` with `base`, which owns the entry before it.

        `_far` skips as many branches as a skew binary number says: each step of `holder` then halves the way.
        """
        far = base._far or base
        further = far._far or far
        self.base, self._depth = base, base._depth + 1
        self._far = further if base._depth - far._depth == far._depth - further._depth else base

    def _leave(self, base: Chain, seq: int) -> None:
        """Begin after the entry `seq`, which `base` owns."""
        self.opening, self.head_id, self.slice = base.opening, base.id_at(seq) or b"", base.slice_at(seq)
        self.start = seq + 1
        self.hang_on(base)

    def fork(self, seq: int) -> Chain:
        """A branch that goes on from the entry `seq`, which this one owns; without what events have led to."""
        branch = Chain(self.author)
        branch._leave(self, seq)
        return branch

    def take_over(self, other: Chain) -> None:
        """Have what events have led to on `other`, copied."""

    def twin(self) -> Chain:
        """Of a branch that owns no entry yet: another one."""
        other = self.holder(self.start - 1).fork(self.start - 1)
        other.take_over(self)
        return other

    def note_event(self, seq: int) -> None:
        """The entry `seq` has an effect that cannot be looked up by number. Not of entries that another owns."""
        if seq >= self.start:
            self._events.append(seq)

    def own_events(self, first: int, last: int) -> array[int]:
        """The numbers of such entries among those that it owns, first ≤ seq ≤ last."""
        return self._events[bisect_left(self._events, first) : bisect_right(self._events, last)]

    def own_acts(self, first: int, last: int) -> list[int]:
        """The numbers of all entries whose effects a new branch has to be given, likewise."""
        return list(self.own_events(first, last))

    def stretches(self, first: int, last: int) -> Iterator[tuple[Chain, int, int]]:
        """Who owns the entries first ≤ seq ≤ last of this branch: (holder, first, last) each, the newest first."""
        while last >= first:
            holder = self.holder(last)
            yield holder, max(first, holder.start), last
            last = holder.start - 1


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
    """A person's or institution's chain. Its events: ENROL, REQUEST, CLOSE."""

    def __init__(self, author: bytes, recovery: bytes) -> None:
        super().__init__(author)
        self.enrolments: list[Enrolment] = []
        self.purse = Purse()
        self.claimed: dict[bytes, Position] = {}  # node → up to where its income was claimed
        self.credited: dict[tuple[bytes, bytes], int] = {}  # (OPEN id of node, REQUEST) → cumulative µcredits claimed
        self.outflow: tuple[int, int] = (0, 0)  # (period, µcredits reserved in it)
        self.closed: dict[bytes, tuple[tuple[bytes, int], ...]] = {}  # REQUEST → final per contributor (OPEN id)
        self._powers: list[tuple[int, Powers]] = [(0, Powers(author, recovery))]  # from which number on each holds
        self._heals: list[tuple[int, bytes]] = [(-1, b"")]  # the newest HEAL from this number on; empty: none

    @property
    def powers(self) -> Powers:
        """Who can sign the next entry."""
        return self._powers[-1][1]

    def powers_at(self, seq: int) -> Powers:
        powers = self._holder(seq)._powers
        return powers[bisect_right(powers, seq, key=lambda pair: pair[0]) - 1][1]

    def rotate(self, seq: int, powers: Powers) -> None:
        """These hold after the entry `seq`."""
        self._powers.append((seq, powers))

    def heal_at(self, seq: int) -> bytes:
        """The newest HEAL up to the entry `seq`; empty: none."""
        heals = self._holder(seq)._heals
        return heals[bisect_right(heals, seq, key=lambda pair: pair[0]) - 1][1]

    def note_heal(self, seq: int, id_: bytes) -> None:
        """The entry `seq` is a HEAL. Not of entries that another owns."""
        if seq >= self.start:
            self._heals.append((seq, id_))

    def own_heals(self, first: int, last: int) -> list[tuple[int, bytes]]:
        """(number, id) of the HEALs that it owns, first ≤ seq ≤ last."""
        return [(seq, id_) for seq, id_ in self._heals if max(first, self.start) <= seq <= last]

    def own_acts(self, first: int, last: int) -> list[int]:
        return [*super().own_acts(first, last), *(seq for seq, _ in self.own_heals(first, last))]

    def fork(self, seq: int) -> AccountChain:
        branch = AccountChain(self.author, ZERO)
        branch._powers, branch._heals = [(seq, self.powers_at(seq))], [(seq, self.heal_at(seq))]
        branch._leave(self, seq)
        return branch

    def _holder(self, seq: int) -> AccountChain:
        holder = self.holder(seq)
        assert isinstance(holder, AccountChain)
        return holder

    def take_over(self, other: Chain) -> None:
        assert isinstance(other, AccountChain)
        self.enrolments, self.purse, self.outflow = list(other.enrolments), other.purse.copy(), other.outflow
        self.claimed, self.credited, self.closed = dict(other.claimed), dict(other.credited), dict(other.closed)

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
    """All receipts that a branch of a node owns, in chain order, packed: 28 bytes each."""

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
    """A machine's chain. Its events: ALLOT, CLOSE; RECEIPTs are in its income."""

    def __init__(self, author: bytes, owner: bytes) -> None:
        super().__init__(author)
        self.owner = owner
        self.income = Income()
        self.paid: dict[bytes, Paid] = {}  # by REQUEST
        self.allots: dict[bytes, dict[bytes, int]] = {}  # as paymaster: REQUEST → OPEN id → most µcredits
        self.closed: set[bytes] = set()  # REQUESTs that it closed as their paymaster
        self._sizes: list[tuple[int, int]] = [(-1, 0)]  # of its newest CHECKPOINT, from this number on

    def own_acts(self, first: int, last: int) -> list[int]:
        receipts = self.income.seqs
        return [
            *super().own_acts(first, last), *receipts[bisect_left(receipts, first) : bisect_right(receipts, last)]
        ]  # fmt: skip

    def earned(self, after: int, to: int) -> Iterator[tuple[int, int, int]]:
        """(period, REQUEST number, cumulative µcredits) of the receipts of this branch with after < seq ≤ to."""
        for holder, first, last in reversed(list(self.stretches(after + 1, min(to, len(self) - 1)))):
            assert isinstance(holder, NodeChain)
            yield from holder.income.between(first - 1, last)

    @property
    def checkpoint_size(self) -> int:
        """Of its newest CHECKPOINT; 0 before the first."""
        return self._sizes[-1][1]

    def note_checkpoint(self, seq: int, size: int) -> None:
        self._sizes.append((seq, size))

    def fork(self, seq: int) -> NodeChain:
        branch = NodeChain(self.author, self.owner)
        branch._sizes = [(seq, self._sizes[bisect_right(self._sizes, seq, key=lambda pair: pair[0]) - 1][1])]
        branch._leave(self, seq)
        return branch

    def take_over(self, other: Chain) -> None:
        assert isinstance(other, NodeChain)
        self.paid, self.closed = dict(other.paid), set(other.closed)
        self.allots = {request: dict(rows) for request, rows in other.allots.items()}
