"""A second, independent verifier of the credit ledger.

It was written from `ledger/SPEC.md` alone, without a look at the first one, to find out whether the text suffices
(but for the charter's fields from `languages` on, which came later, by a hand that knew both); they share no code. It
decodes charters, entries, vouchers, fork proofs and export files, verifies all of it, folds balances and both roots,
and names each fault with its code, entry and author. It is meant to be read beside the specification (each check says
its section), and does the obvious thing slowly: what has to do with forks is computed anew each time.

    python tests/support/second_verifier.py ledger.ubcp
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import string
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

OPEN, ENROL, REQUEST, DECISION, ALLOT, RECEIPT, CLOSE, CHECKPOINT, ROTATE, HEAL = range(1, 11)  # §6
ZEROS = bytes(32)
U32 = 2**32 - 1
AMOUNT = 2**53 - 1
ENTRY_BYTES, CHARTER_BYTES, BLOB_BYTES = 16 * 1024, 64 * 1024, 4 * 1024 * 1024  # §13


class Refused(Exception):
    """It breaks the rule with this code."""

    def __init__(self, code: str, why: str = "") -> None:
        super().__init__(f"{code}: {why}" if why else code)
        self.code = code


class Pending(Exception):
    """§7.1: an entry that it refers to is not known."""

    def __init__(self, missing: bytes) -> None:
        super().__init__(missing.hex())
        self.missing = missing


class Unreadable(Exception):
    """§10: the file is no export."""


def need(holds: bool, code: str, why: str = "") -> None:
    if not holds:
        raise Refused(code, why)


# §2.1 Values


def decode(data: bytes) -> Any:
    """The value that these bytes are the one encoding of."""
    value, end = _decode(data, 0, 0)
    need(end == len(data), "encoding", "bytes after the end")
    return value


LENGTHS = {0xD9: (1, 32), 0xDA: (2, 0x100), 0xDB: (4, 0x10000)}  # str: bytes of the length, the least that needs them
LENGTHS |= {0xC4: (1, 0), 0xC5: (2, 0x100), 0xC6: (4, 0x10000), 0xDC: (2, 16), 0xDD: (4, 0x10000)}  # bin and array
INTEGERS = {0xCC: (1, 0x80), 0xCD: (2, 0x100), 0xCE: (4, 0x10000), 0xCF: (8, 0x100000000)}


def _decode(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """The value that begins there, and where it ends."""
    need(at < len(data), "encoding", "it ends early")
    head = data[at]
    if head < 0x80:
        return head, at + 1
    if 0x90 <= head < 0xC0:
        number, start = head & (0x0F if head < 0xA0 else 0x1F), at + 1
    else:
        need(head in LENGTHS or head in INTEGERS, "encoding", "a type that is not of the model")
        size, least = LENGTHS.get(head) or INTEGERS[head]
        start = at + 1 + size
        need(start <= len(data), "encoding", "it ends early")
        number = int.from_bytes(data[at + 1 : start], "big")
        need(number >= least, "encoding", "not the shortest form")
    if head in INTEGERS:
        return number, start
    end = start + number  # an item of an array has at least one byte
    need(end <= len(data), "encoding", "it ends early")
    if 0x90 <= head < 0xA0 or head in (0xDC, 0xDD):
        need(depth < 8, "encoding", "more than 8 arrays deep")
        items, at = [], start
        for _ in range(number):
            item, at = _decode(data, at, depth + 1)
            items.append(item)
        return items, at
    if head in (0xC4, 0xC5, 0xC6):
        return data[start:end], end
    try:
        return data[start:end].decode("utf-8"), end
    except UnicodeDecodeError:
        raise Refused("encoding", "not UTF-8") from None


def encode(value: Any) -> bytes:
    return bytes(msgpack.packb(value, use_bin_type=True))


# §2.2 Common fields

Shape = Callable[[Any], bool]


def number(low: int, high: int) -> Shape:
    return lambda value: type(value) is int and low <= value <= high


def raw(size: int) -> Shape:
    return lambda value: type(value) is bytes and len(value) == size


def text(value: Any) -> bool:
    return type(value) is str and 1 <= len(value.encode()) <= 64 and all(c >= " " and c != "\x7f" for c in value)


def row(*shapes: Shape) -> Shape:
    return lambda value: (
        type(value) is list
        and len(value) == len(shapes)
        and all(shape(item) for shape, item in zip(shapes, value, strict=True))
    )


def rising(least: int, most: int, shape: Shape, key: Callable[[Any], Any] = lambda item: item) -> Shape:
    def fits(value: Any) -> bool:
        if type(value) is not list or not least <= len(value) <= most or not all(shape(item) for item in value):
            return False
        keys = [k.encode() if isinstance(k := key(item), str) else k for item in value]
        return all(a < b for a, b in itertools.pairwise(keys))

    return fits


def each(most: int, shape: Shape) -> Shape:
    return lambda value: type(value) is list and len(value) <= most and all(shape(item) for item in value)


HASH, SIGNATURE, SLICE, ANY_AMOUNT, SOME = raw(32), raw(64), number(0, U32), number(0, AMOUNT), number(1, AMOUNT)
POSITION = row(HASH, number(0, U32), HASH)
VOUCHER = row(HASH, HASH, HASH, HASH, HASH, ANY_AMOUNT, ANY_AMOUNT, number(0, U32), text, number(0, U32), HASH)
PAIRS = row(HASH, SIGNATURE)


def first(item: Any) -> Any:
    return item[0]


BODIES: dict[int, Shape] = {  # §6
    OPEN: lambda body: row(number(0, 0), HASH)(body) or row(number(1, 1), POSITION)(body),
    ENROL: row(number(0, 1), text, SLICE, SLICE, HASH),
    REQUEST: row(
        *(text, HASH, text, number(1, 65535), number(1, 65535), SOME, SOME, SLICE, SLICE, number(1000, 2000), HASH),
        rising(0, 64, POSITION, first),
        rising(0, 64, HASH),
    ),
    DECISION: row(
        *(SLICE, ANY_AMOUNT, SOME, rising(0, 256, HASH), rising(0, 32, row(text, SOME), first), HASH),
    ),
    ALLOT: row(HASH, HASH, SOME),
    RECEIPT: row(VOUCHER, SIGNATURE),
    CLOSE: row(HASH, rising(0, 256, row(HASH, ANY_AMOUNT), first), ANY_AMOUNT),
    CHECKPOINT: row(ANY_AMOUNT, HASH, HASH),
    ROTATE: row(HASH, HASH),
    HEAL: row(rising(0, 64, row(number(0, U32), HASH)), rising(0, 64, HASH)),
}


class Request(NamedTuple):
    run: str
    recipe: bytes
    purpose: str
    peers_min: int
    peers_max: int
    units: int
    credits: int
    expiry: int
    deadline: int
    urgency: int
    paymaster: bytes
    income: list[list[Any]]
    closes: list[bytes]


class Voucher(NamedTuple):
    network: bytes
    paymaster: bytes
    request: bytes
    allot: bytes
    contributor: bytes
    units: int
    credits: int
    rounds: int
    device: str
    seconds: int
    evidence: bytes


# §3 Identities and signatures


def digest(domain: str, data: bytes) -> bytes:
    return hashlib.sha256(domain.encode() + b"\0" + data).digest()


def signed_by(key: bytes, signature: bytes, role: str, what: bytes) -> bool:
    """§3.2, as libsodium does it."""
    try:
        VerifyKey(key).verify(f"ubcp/sign/{role}/1".encode() + b"\0" + what, signature)
    except BadSignatureError:
        return False
    return True


def wire_parts(wire: bytes, least: int, most: int) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The bytes and signatures of a signed charter (§4.2) or entry (§5.1)."""
    value = decode(wire)
    need(
        row(lambda b: type(b) is bytes, rising(least, most, PAIRS, first))(value), "encoding", "not [bytes, signatures]"
    )
    return value[0], [(key, signature) for key, signature in value[1]]


# §4 Charter


class Charter(NamedTuple):
    format: int
    number: int
    previous: bytes
    effective: int
    name: str
    epoch: int
    slice_seconds: int
    period_slices: int
    member: int
    newcomer: int
    allowance_periods: int
    earned_periods: int
    cap: int
    grace: int
    longest: int
    threshold: int
    stewards: list[bytes]
    units: list[list[Any]]
    devices: list[list[Any]]
    purposes: list[str]
    languages: list[str]
    reserve: int
    half_life: int
    ageing: int
    refused: list[str]
    cost: list[Any]


def letters(least: int, most: int, alphabet: str) -> Shape:
    return lambda value: type(value) is str and least <= len(value) <= most and set(value) <= set(alphabet)


TAG = letters(2, 35, string.ascii_letters + string.digits + "-")
DEVICE_COST = row(text, number(1, 10**12), number(1, 10**12), ANY_AMOUNT, number(1, 10**6))
COST = row(
    *(letters(3, 3, string.ascii_uppercase), number(0, 10**12), number(0, 10**6), rising(1, 1024, DEVICE_COST, first)),
)
CHARTER = row(  # §4.1
    *(number(1, 1), number(1, 1024), HASH, number(0, U32), text, number(0, 2**37), number(1, 86400), number(1, 2**20)),
    *(ANY_AMOUNT, ANY_AMOUNT, number(1, 1024), number(1, 1024), ANY_AMOUNT, number(0, 2**20), number(1, 1024)),
    *(number(0, 64), rising(0, 64, HASH), rising(1, 1024, row(text, number(1, 10**6)), first)),
    *(rising(1, 1024, row(text, number(1, 10**12)), first), rising(1, 1024, text)),
    *(rising(0, 64, TAG), number(0, 1000), number(1, 2**20), number(1, 2**20), rising(0, 1024, text)),
    lambda value: value == [] or COST(value),
)


def charter_from(data: bytes) -> Charter:
    need(len(data) <= CHARTER_BYTES, "charter-encoding", "too long")
    try:
        value = decode(data)
    except Refused as refused:
        raise Refused("charter-encoding", str(refused)) from None
    need(type(value) is list and len(value) == 26, "charter-encoding", "not an array of 26")
    need(value[0] == 1, "charter-format")
    need(CHARTER(value), "charter-field")
    charter = Charter(*value)
    period = charter.slice_seconds * charter.period_slices
    need(charter.longest <= max(1, min(1024, -(-366 * 86400 // period))), "charter-field", "longest enrolment")
    need(charter.threshold <= len(charter.stewards), "charter-field", "threshold")
    need(not set(charter.purposes) & set(charter.refused), "charter-field", "allowed and refused")
    peaks = dict(map(tuple, charter.devices))
    for name, sustained, *_ in charter.cost[3] if charter.cost else ():
        need(name in peaks and sustained <= peaks[name], "charter-field", "a device's cost")
    return charter


class Charters:
    """The versions of one network's charter, in order (§4.2)."""

    def __init__(self, wires: Iterable[bytes] = ()) -> None:
        self.versions: list[Charter] = []
        self.ids: list[bytes] = []
        self.wires: list[bytes] = []
        for wire in wires:
            self.take(wire)

    @property
    def network(self) -> bytes:
        return self.ids[0]

    def take(self, wire: bytes) -> None:
        try:
            data, signatures = wire_parts(wire, 0, 64)
        except Refused as refused:
            raise Refused("charter-encoding", str(refused)) from None
        charter, this = charter_from(data), digest("ubcp/charter/1", data)
        if this in self.ids:
            return
        need(charter.number <= len(self.ids) + 1, "charter-chain", "a version is left out")
        if charter.number == 1:
            need(charter.previous == ZEROS and charter.effective == 0, "charter-chain")
            judges = charter
        else:
            judges = self.versions[charter.number - 2]
            need(charter.previous == self.ids[charter.number - 2], "charter-chain", "previous")
            need(charter.effective > judges.effective, "charter-chain", "effective")
            need(charter[5:8] == judges[5:8], "charter-chain", "epoch, slice and period stay")
        for key, signature in signatures:
            need(key in judges.stewards, "charter-signature", "not a steward's")
            need(signed_by(key, signature, "charter", this), "charter-signature")
        need(len(signatures) >= judges.threshold, "charter-signature", "too few")
        need(charter.number > len(self.ids), "charter-conflict")  # §4.3
        self.versions.append(charter)
        self.ids.append(this)
        self.wires.append(wire)

    def period(self, at: int) -> int:
        return at // self.versions[0].period_slices

    def of_period(self, period: int) -> Charter:
        in_force: list[Charter] = [charter for charter in self.versions if charter.effective <= period]
        return in_force[-1]

    def of_slice(self, at: int) -> Charter:
        return self.of_period(self.period(at))


# §5.1 Envelope


@dataclass
class Entry:
    id: bytes
    network: bytes
    author: bytes
    seq: int
    prev: bytes
    slice: int
    kind: int
    body: list[Any]
    signers: set[bytes] = field(default_factory=set)
    wire: bytes = b""

    @property
    def request(self) -> Request:
        return Request(*self.body)

    @property
    def voucher(self) -> Voucher:
        return Voucher(*self.body[0])


def entry_from(data: bytes) -> Entry:
    need(len(data) <= ENTRY_BYTES, "length")
    value = decode(data)
    need(type(value) is list and len(value) == 8, "encoding", "not an array of 8")
    need(value[0] == 1, "version")
    need(row(number(1, 1), HASH, HASH, SLICE, HASH, SLICE, number(1, 10), lambda b: type(b) is list)(value), "field")
    need(BODIES[value[6]](value[7]), "field", "body")
    return Entry(digest("ubcp/entry/1", data), *value[1:])


def signed_entry_from(wire: bytes) -> Entry:
    data, signatures = wire_parts(wire, 1, 66)
    entry = entry_from(data)
    for key, signature in signatures:
        need(signed_by(key, signature, "entry", entry.id), "signature")
    entry.signers, entry.wire = {key for key, _ in signatures}, wire
    return entry


def voucher_from(data: bytes) -> tuple[Voucher, bytes]:
    """A voucher, and its digest."""
    value = decode(data)
    need(row(VOUCHER, SIGNATURE)(value), "field")
    return Voucher(*value[0]), check_voucher(value)


def check_voucher(value: list[Any]) -> bytes:
    what = digest("ubcp/voucher/1", encode(value[0]))
    need(signed_by(value[0][1], value[1], "voucher", what), "signature", "the voucher's")  # §6.6
    return what


# §8 Balances

Vintage = tuple[int, int, int]  # expires, period, source


@dataclass
class Purse:
    vintages: dict[Vintage, int] = field(default_factory=dict)
    reserves: dict[bytes, list[tuple[Vintage | None, int]]] = field(default_factory=dict)  # None: what was debt
    closed: dict[bytes, Entry] = field(default_factory=dict)  # the CLOSE that acted
    debt: int = 0
    issued: int = 0
    earned: int = 0
    released: int = 0
    burned: int = 0

    @property
    def total(self) -> int:
        return sum(self.vintages.values())

    def check(self) -> None:  # §8.1
        reserved = sum(amount for parts in self.reserves.values() for _, amount in parts)
        right = self.total + reserved + self.released + self.burned - self.debt
        need(self.issued + self.earned == right, "zero-sum", "of a purse")

    def add(self, vintage: Vintage, amount: int) -> None:
        self.vintages[vintage] = self.vintages.get(vintage, 0) + amount

    def take(self, amount: int) -> list[tuple[Vintage | None, int]]:  # §8.2
        parts: list[tuple[Vintage | None, int]] = []
        for vintage in sorted(self.vintages):
            part = min(amount, self.vintages[vintage])
            if part:
                parts.append((vintage, part))
                self.vintages[vintage] -= part
                amount -= part
        assert amount == 0
        return parts

    def repay(self) -> None:
        amount = min(self.debt, self.total)
        self.take(amount)
        self.debt -= amount

    def burn(self, now: int) -> None:  # §8.2
        for vintage in [v for v in self.vintages if v[0] <= now]:
            self.burned += self.vintages.pop(vintage)

    def close(self, request: bytes, returned: int, by: Entry) -> None:  # §8.5
        parts = self.reserves.pop(request)
        self.released += sum(amount for _, amount in parts) - returned
        for vintage, amount in reversed(parts):
            back = min(returned, amount)
            returned -= back
            if vintage is None:
                lowered = min(back, self.debt)
                self.debt -= lowered
                self.burned += back - lowered
            else:
                self.add(vintage, back)
        self.closed[request] = by


@dataclass
class State:
    """What a branch has come to."""

    opening: Entry
    key: bytes  # in force (§5.3)
    recovery: bytes = ZEROS
    # of an account
    enrolments: list[tuple[int, int, int]] = field(default_factory=list)  # first, until, class
    until: int = 0
    issued: set[int] = field(default_factory=set)
    purse: Purse = field(default_factory=Purse)
    claimed: dict[bytes, Entry] = field(default_factory=dict)
    counted: dict[tuple[bytes, bytes], int] = field(default_factory=dict)  # by OPEN of a node, and REQUEST
    spent: dict[int, int] = field(default_factory=dict)  # reserved, by period
    # of a node
    allots: dict[bytes, dict[bytes, int]] = field(default_factory=dict)
    receipts: dict[bytes, list[Entry]] = field(default_factory=dict)
    closes: set[bytes] = field(default_factory=set)
    size: int = 0

    @property
    def is_node(self) -> bool:
        return bool(self.opening.body[0] == 1)

    @property
    def owner(self) -> bytes:
        return bytes(self.opening.body[1][0])


# §9 Roots


def merkle_root(leaves: list[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + merkle_root(leaves[:half]) + merkle_root(leaves[half:])).digest()


def merkle_holds(root: bytes, size: int, leaf: bytes, index: int, proof: list[bytes]) -> bool:
    """RFC 6962 §2.1.1: the audit path from the leaf up."""

    def climb(low: int, high: int, path: list[bytes]) -> bytes | None:
        if high - low == 1:
            return None if path else hashlib.sha256(b"\0" + leaf).digest()
        if not path:
            return None
        half = low + (1 << ((high - low - 1).bit_length() - 1))
        inner = climb(low, half, path[:-1]) if index < half else climb(half, high, path[:-1])
        if inner is None:
            return None
        return hashlib.sha256(b"\1" + (inner + path[-1] if index < half else path[-1] + inner)).digest()

    return 0 <= index < size and climb(0, size, proof) == root


# The ledger


class Row(NamedTuple):
    account: bytes
    available: int
    reserved: int
    uncollected: int
    debt: int


class Fault(NamedTuple):
    code: str
    entry: bytes  # zeros: none
    author: bytes


class Ledger:
    def __init__(self, charters: Charters) -> None:
        self.charters = charters
        self.entries: dict[bytes, Entry] = {}  # the valid ones, in the order in which they came
        self.by_author: dict[bytes, list[Entry]] = {}
        self.receipts: dict[bytes, list[Entry]] = {}  # by REQUEST
        self.states: dict[bytes, State] = {}  # of some entries; the others' are computed anew
        self.siblings: dict[tuple[bytes, int, bytes], dict[bytes, Entry]] = {}  # §7.2, valid or not
        self.proved: list[tuple[Entry, Entry]] = []

    # Chains

    def known(self, this: bytes, author: bytes | None = None, seq: int | None = None) -> Entry:
        """The entry with this id, where it stands at this place (§2.2)."""
        entry = self.entries.get(this)
        if entry is None or author not in (None, entry.author) or seq not in (None, entry.seq):
            raise Pending(this)
        return entry

    def back(self, entry: Entry) -> Iterator[Entry]:
        """The entry and those before it on its branch, the newest first."""
        while True:
            yield entry
            if entry.kind == OPEN:
                return
            entry = self.entries[entry.prev]

    def opening(self, entry: Entry) -> Entry:
        return self.state(entry.id).opening if entry.id in self.states else [*self.back(entry)][-1]

    def on_one_branch(self, a: Entry, b: Entry) -> bool:
        low, high = (a, b) if a.seq <= b.seq else (b, a)
        return next(e for e in self.back(high) if e.seq == low.seq).id == low.id

    def state(self, this: bytes) -> State:
        """After this entry. Not to be changed."""
        if this not in self.states:
            path = [*self.back(self.entries[this])]
            state: State | None = None
            for entry in reversed(path):
                state = self.step(state, entry)
            assert state is not None
            self.states[this] = state
        return self.states[this]

    # One entry

    def take(self, entry: Entry) -> None:
        """Take a decoded entry whose signatures hold, or raise Refused or Pending."""
        if entry.id in self.entries:
            return
        need(entry.network == self.charters.network, "network")  # §5.1
        opens = (entry.kind == OPEN, entry.seq == 0, entry.prev == ZEROS)
        need(all(opens) or not any(opens[:2]), "opening")  # §5.2
        before: State | None = None
        if entry.kind != OPEN:
            prev = self.known(entry.prev)
            if prev.author != entry.author:  # §5.2: counts as not known
                raise Pending(entry.prev)
            need(prev.seq + 1 == entry.seq, "sequence")
            before = self.state(entry.prev)
        if self.may_fork(entry):
            self.siblings.setdefault((entry.author, entry.seq, entry.prev), {})[entry.id] = entry
        self.check_envelope(entry, before)
        self.states.pop(entry.prev, None)  # changed by what follows; where this refuses, it is computed anew
        state = self.step(before, entry)
        self.entries[entry.id] = entry
        self.by_author.setdefault(entry.author, []).append(entry)
        self.states[entry.id] = state
        if entry.kind == RECEIPT:
            self.receipts.setdefault(entry.voucher.request, []).append(entry)

    def references(self, entry: Entry) -> list[Entry]:
        """§7.1, but for prev."""
        body = entry.body
        match entry.kind:
            case 1 if body[0] == 1:  # OPEN of a node
                return [self.known(body[1][2], body[1][0], body[1][1])]
            case 3:  # REQUEST
                claims = [self.known(this, author, seq) for author, seq, this in entry.request.income]
                return claims + [self.known(this) for this in entry.request.closes]
            case 4:  # DECISION
                return [self.known(this) for this in body[3]]
            case 5:  # ALLOT
                return [self.known(body[0]), self.known(body[1])]
            case 6:  # RECEIPT
                return [self.known(entry.voucher.allot)]
            case 7:  # CLOSE
                return [self.known(body[0])]
            case 10:  # HEAL
                return [self.known(this, entry.author, seq) for seq, this in body[0]]
        return []

    def check_envelope(self, entry: Entry, before: State | None) -> None:
        references = self.references(entry)
        if before is not None:
            mine = (
                (DECISION, ALLOT, RECEIPT, CLOSE, CHECKPOINT)
                if before.is_node
                else (ENROL, REQUEST, CLOSE, ROTATE, HEAL)
            )
            need(entry.kind in mine, "author-kind")  # §5.2
            need(entry.slice >= self.entries[entry.prev].slice, "slice-falls")  # §5.4
        need(all(entry.slice + 1 >= other.slice for other in references), "slice-reference")  # §5.4
        self.check_signers(entry, before)

    def check_signers(self, entry: Entry, before: State | None) -> None:  # §5.3
        signers, charter = entry.signers, self.charters.of_slice(entry.slice)
        if before is None:
            keys = {entry.author}
            if entry.body[0] == 1:
                owner = self.state(entry.body[1][2])
                need(not owner.is_node, "reference", "its owner is no account")  # §6.1
                keys.add(owner.key)
            need(signers == keys, "signer")
        elif entry.kind in (ENROL, HEAL):
            need(before.key in signers, "signer", "not its author's")
            need(signers - {before.key} <= set(charter.stewards), "signer", "a stranger's")
            need(len(signers & set(charter.stewards)) >= charter.threshold, "stewards")
        elif entry.kind == ROTATE:  # §6.9
            new, recovery = entry.body
            need(len(signers) == 2 and new in signers, "rotation", "not by the new key and one more")
            (old,) = signers - {new}
            recovers = digest("ubcp/recovery/1", old) == before.recovery
            need(old == before.key or recovers, "signer")
            need(new != before.key, "rotation", "no new key")
            need(recovers or recovery == before.recovery, "rotation", "another recovery hash")
        else:
            need(signers == {before.key}, "signer")

    def step(self, state: State | None, entry: Entry) -> State:
        """The state after one more entry of a branch; `state` is used up."""
        match entry.kind:
            case 1:
                return State(entry, entry.author, entry.body[1] if entry.body[0] == 0 else ZEROS)
            case 9:
                assert state is not None
                state.key, state.recovery = entry.body
            case 10:
                assert state is not None
                return self.heal(state, entry)
            case _:
                assert state is not None
                steps = {
                    ENROL: self.enrol,
                    REQUEST: self.ask,
                    DECISION: self.decide,
                    ALLOT: self.allot,
                    RECEIPT: self.receive,
                    CLOSE: self.close,
                    CHECKPOINT: self.checkpoint,
                }
                steps[entry.kind](state, entry)
        return state

    # What accounts write. `strict` is False where branches are replayed together (§8.6).

    def enrol(self, state: State, entry: Entry, strict: bool = True) -> None:  # §6.2
        grade, unit, begin, until, _ = entry.body
        now, charter = self.charters.period(entry.slice), self.charters.of_slice(entry.slice)
        if strict:
            need(unit in [name for name, _ in charter.units], "enrolment", "unit")
            need(max(now, state.until) <= begin <= now + charter.longest, "enrolment", "first")
            need(begin < until <= begin + charter.longest, "enrolment", "until")
        begin = max(begin, state.until)
        if begin < until:
            state.enrolments.append((begin, until, grade))
            state.until = until

    def ask(self, state: State, entry: Entry, strict: bool = True) -> None:
        request, purse = entry.request, state.purse
        now, charter = self.charters.period(entry.slice), self.charters.of_slice(entry.slice)
        if strict:  # §6.3
            need(request.peers_min <= request.peers_max, "request", "peers")
            need(entry.slice <= request.deadline <= request.expiry, "request", "deadline")
            latest = entry.slice + charter.allowance_periods * charter.period_slices
            need(request.expiry <= latest, "request", "expiry")
            need(request.purpose in charter.purposes, "request", "purpose")
            need(any(begin <= now < until for begin, until, _ in state.enrolments), "not-enrolled")
        self.issue(state, now)  # §8.3 a
        for author, _, this in request.income:  # b
            self.claim(state, author, self.entries[this], strict)
        for this in request.closes:  # c
            self.claim_close(state, self.entries[this], strict)
        purse.repay()
        before = purse.total
        purse.burn(now)  # d
        if strict:  # §8.4
            need(purse.total >= request.credits, "overdraft" if before < request.credits else "expired")
            need(state.spent.get(now, 0) + request.credits <= charter.cap, "exposure")
        state.spent[now] = state.spent.get(now, 0) + request.credits
        covered = min(request.credits, purse.total)
        parts = purse.take(covered)
        if covered < request.credits:  # §8.6, 1
            purse.debt += request.credits - covered
            parts.append((None, request.credits - covered))
        purse.reserves[entry.id] = parts
        purse.check()

    def issue(self, state: State, now: int) -> None:  # §8.3 a
        for begin, until, grade in state.enrolments:
            for period in range(begin, min(until, now + 1)):
                if period not in state.issued:
                    charter = self.charters.of_period(period)
                    amount = charter.newcomer if grade else charter.member
                    state.issued.add(period)
                    state.purse.issued += amount
                    state.purse.add((period + charter.allowance_periods, period, 0), amount)

    def claim(self, state: State, node: bytes, place: Entry, strict: bool) -> None:  # §8.3 b, §7.3
        opening = self.opening(place)
        last = state.claimed.get(node)
        if strict:
            need(opening.body[0] == 1 and opening.body[1][0] == state.opening.author, "claim", "not its node")
            if last is not None:
                need(place.seq > last.seq, "claim", "not after what was claimed")
                need(self.on_one_branch(place, last), "two-branches")
        new = [e for e in self.back(place) if not strict or last is None or e.seq > last.seq]
        for receipt in reversed(new):
            if receipt.kind == RECEIPT:
                key = opening.id, receipt.voucher.request
                more = receipt.voucher.credits - state.counted.get(key, 0)
                if more > 0:
                    period = self.charters.period(receipt.slice)
                    expires = period + self.charters.of_period(period).earned_periods
                    state.counted[key] = receipt.voucher.credits
                    state.purse.earned += more
                    state.purse.add((expires, period, 1), more)
        state.claimed[node] = place  # where branches are replayed together: the last in that order

    def claim_close(self, state: State, close: Entry, strict: bool) -> None:  # §8.5
        if strict:
            need(close.kind == CLOSE and self.opening(close).body[0] == 1, "reference", "no paymaster's CLOSE")
            need(self.entries[close.body[0]].author == state.opening.author, "reference", "another's REQUEST")
            need(close.body[0] in state.purse.reserves, "close-again")
        if close.body[0] in state.purse.reserves:
            state.purse.close(close.body[0], close.body[2], close)
            state.purse.check()

    def heal(self, state: State, entry: Entry) -> State:  # §6.10, §7.4
        need(bool(entry.body[0] or entry.body[1]), "heal", "it names nothing")
        branch = {e.id for e in self.back(self.entries[entry.prev])}
        need(not any(this in branch for _, this in entry.body[0]), "heal", "its own branch")
        healed = self.replay(state.opening, [self.entries[entry.prev], *(self.entries[i] for _, i in entry.body[0])])
        healed.key, healed.recovery = state.key, state.recovery
        return healed

    def replay(self, opening: Entry, heads: list[Entry]) -> State:
        """§8.6, 1: the branches up to these entries together, and those that HEALs on them abandon.

        §7.4 leaves open whether what an earlier HEAL abandoned still counts after a later one. Here it does: otherwise
        a second HEAL would give back what was reserved twice.
        """
        together: dict[bytes, Entry] = {}
        while heads:
            head = heads.pop()
            for entry in self.back(head):
                if entry.id in together or self.opening(head).body[0] == 1:  # of one key's chains, those of an account
                    break
                together[entry.id] = entry
                if entry.kind == HEAL:
                    heads += [self.entries[this] for _, this in entry.body[0]]
        state = State(opening, opening.author)
        for entry in sorted(together.values(), key=lambda e: (e.slice, e.seq, e.id)):
            if entry.kind == ENROL:
                self.enrol(state, entry, strict=False)
            elif entry.kind == REQUEST:
                self.ask(state, entry, strict=False)
            elif entry.kind == CLOSE and entry.body[0] in state.purse.reserves:
                state.purse.close(entry.body[0], entry.body[2], entry)
        return state

    # What nodes write, and CLOSE

    def decide(self, state: State, entry: Entry) -> None:  # §6.4
        about, period = entry.body[0], self.charters.of_slice(entry.slice).period_slices
        accepted = [self.entries[this] for this in entry.body[3]]
        need(all(e.kind == REQUEST for e in accepted), "reference")
        need(entry.slice <= about <= entry.slice + period, "decision", "slice")
        need(all(e.request.expiry >= about for e in accepted), "decision", "expired")

    def allot(self, state: State, entry: Entry) -> None:  # §6.5
        request, contributor, amount = self.entries[entry.body[0]], self.entries[entry.body[1]], entry.body[2]
        need(request.kind == REQUEST, "reference")
        need(contributor.kind == OPEN and contributor.body[0] == 1, "reference", "no node's OPEN")
        need(request.request.paymaster == entry.author, "allot", "not the paymaster")
        need(entry.slice <= request.request.expiry, "allot", "expired")
        need(request.id not in state.closes, "allot", "closed")
        allots = state.allots.setdefault(request.id, {})
        need(amount > allots.get(contributor.id, 0), "allot", "not more than before")
        allots[contributor.id] = amount
        need(len(allots) <= 256, "allot", "too many contributors")
        need(sum(allots.values()) <= request.request.credits, "allot-sum")

    def receive(self, state: State, entry: Entry) -> None:  # §6.6
        voucher, allot = entry.voucher, self.entries[entry.voucher.allot]
        need(allot.kind == ALLOT, "reference")
        check_voucher(entry.body)
        request = self.entries[allot.body[0]]
        belongs = (voucher.network, voucher.request, voucher.paymaster) == (allot.network, request.id, allot.author)
        need(belongs and voucher.contributor == entry.author, "receipt-allot")
        need(allot.body[1] == state.opening.id, "receipt-allot", "of another OPEN")
        need(state.owner not in (self.opening(allot).body[1][0], request.author), "receipt-self")
        charter = self.charters.of_slice(request.slice)
        need(entry.slice <= request.request.expiry + charter.grace, "receipt-late")
        need(voucher.credits == voucher.units, "price")
        peak = dict(map(tuple, charter.devices)).get(voucher.device)
        need(peak is not None and voucher.units <= peak * voucher.seconds, "device")
        need(voucher.credits <= allot.body[2], "receipt-limit")
        earlier = state.receipts.setdefault(request.id, [])
        if earlier:
            last = earlier[-1]
            need(entry.slice > last.slice, "receipt-slice")
            need(voucher.credits > last.voucher.credits, "receipt-grows")
            need(voucher.rounds >= last.voucher.rounds and voucher.seconds >= last.voucher.seconds, "receipt-grows")
            for other in earlier:  # §7.3
                need(self.on_one_branch(allot, self.entries[other.voucher.allot]), "two-branches")
        need(voucher.credits >= 1, "receipt-grows")
        earlier.append(entry)

    def close(self, state: State, entry: Entry) -> None:  # §6.7
        request, (_, final, returned) = self.entries[entry.body[0]], entry.body
        need(request.kind == REQUEST, "reference")
        charter = self.charters.of_slice(request.slice)
        need(entry.slice > request.request.expiry + charter.grace, "close", "too early")
        need(sum(amount for _, amount in final) + returned == request.request.credits, "zero-sum")
        if state.is_node:
            allots = state.allots.get(request.id, {})
            need(request.request.paymaster == entry.author, "close", "not the paymaster")
            need(request.id not in state.closes, "close-again")
            need({c for c, _ in final} == set(allots), "close", "other contributors")
            need(all(amount <= allots[c] for c, amount in final), "close", "above an ALLOT")
            state.closes.add(request.id)
        else:
            need(request.author == entry.author, "close", "another's REQUEST")
            need(request.id in state.purse.reserves, "close-again")
            state.purse.close(request.id, returned, entry)
            state.purse.check()

    def checkpoint(self, state: State, entry: Entry) -> None:  # §6.8
        need(entry.body[0] > state.size, "checkpoint-falls")
        state.size = entry.body[0]

    # §7.2 Forks

    def may_fork(self, entry: Entry) -> bool:
        """Signed by the key in force after its prev, which is known; whatever else is wrong with it."""
        if entry.kind == OPEN or entry.seq == 0:
            opens = entry.kind == OPEN and entry.seq == 0 and entry.prev == ZEROS
            return opens and entry.author in entry.signers
        prev = self.known(entry.prev)
        if prev.author != entry.author or prev.seq + 1 != entry.seq:
            return False
        state = self.state(prev.id)
        recovers = entry.kind == ROTATE and any(digest("ubcp/recovery/1", k) == state.recovery for k in entry.signers)
        return state.key in entry.signers or recovers

    def take_proof(self, data: bytes) -> None:
        value = decode(data)
        need(row(lambda b: type(b) is bytes, lambda b: type(b) is bytes)(value), "field")
        a, b = signed_entry_from(value[0]), signed_entry_from(value[1])
        need(a.network == b.network, "freeze")
        need(a.network == self.charters.network, "network")
        need(a.id < b.id, "freeze", "ids do not rise")
        need((a.author, a.seq, a.prev) == (b.author, b.seq, b.prev), "freeze", "no fork")
        need(self.may_fork(a) and self.may_fork(b), "freeze", "not signed by the key in force")
        self.proved.append((a, b))

    def places(self) -> dict[tuple[bytes, int, bytes], dict[bytes, Entry]]:
        """All entries that stand beside others, by author, number and prev: noticed, proved, or valid."""
        places = {place: dict(group) for place, group in self.siblings.items()}
        for pair in self.proved:
            for entry in pair:
                places.setdefault((entry.author, entry.seq, entry.prev), {})[entry.id] = entry
        return {place: group for place, group in places.items() if len(group) > 1}

    def pairs(self, group: dict[bytes, Entry]) -> list[tuple[Entry, Entry]]:
        """The entry with the least id, with every other one."""
        least, *others = sorted(group.values(), key=lambda e: e.id)
        return [(least, other) for other in others]

    def covered(self, entry: Entry, heal: Entry, known: set[bytes] | None = None) -> bool:  # §7.4
        """By this HEAL, or by one on a branch that it continues or abandons."""
        known = set() if known is None else known
        if heal.id in known:
            return False
        known.add(heal.id)
        heads = [heal.prev, *(this for _, this in heal.body[0])]
        past = {e.id: e for head in heads for e in self.back(self.entries[head])}
        if entry.id in past or (entry.id in heal.body[1] and entry.id not in self.entries):
            return True
        if self.outdated(entry, heal):
            return True
        return any(self.covered(entry, other, known) for other in past.values() if other.kind == HEAL)

    def outdated(self, entry: Entry, heal: Entry) -> bool:
        """Whether it is beyond a place of the HEAL's branch that another key was in force at than at the HEAL."""
        ours = {e.id for e in self.back(heal)}
        before = self.entries.get(entry.prev)
        while before is not None and before.id not in ours:
            before = self.entries.get(before.prev)
        if entry.id in ours or (before is not None and before.id == heal.id):
            return False
        then = self.key_after(before) if before is not None else entry.author
        return then != self.key_after(self.entries[heal.prev])

    def key_after(self, entry: Entry) -> bytes:  # §5.3
        return next((bytes(e.body[0]) for e in self.back(entry) if e.kind == ROTATE), entry.author)

    def settled(self, group: dict[bytes, Entry]) -> bool:  # §7.4
        (author,) = {entry.author for entry in group.values()}
        heals = [entry for entry in self.by_author.get(author, []) if entry.kind == HEAL]
        return any(all(self.covered(entry, heal) for entry in group.values()) for heal in heals)

    def open_forks(self) -> list[tuple[Entry, Entry]]:
        return [pair for group in self.places().values() if not self.settled(group) for pair in self.pairs(group)]

    def frozen(self) -> list[bytes]:
        return sorted({a.author for a, _ in self.open_forks()})

    # §8.6 The fold

    def rows(self, at: int) -> list[Row]:
        nodes: dict[bytes, list[Entry]] = {}  # the OPENs of nodes by owner
        for entry in self.entries.values():
            if entry.kind == OPEN and entry.body[0] == 1:
                nodes.setdefault(entry.body[1][0], []).append(entry)
        accounts = {e.author for e in self.entries.values() if e.kind == OPEN and e.body[0] == 0}
        return [self.row(account, at, nodes.get(account, [])) for account in sorted(accounts)]

    def row(self, account: bytes, at: int, nodes: list[Entry]) -> Row:
        chain, now = self.by_author[account], self.charters.period(at)
        state = self.state(max(chain, key=lambda e: e.seq).id)
        if len({e.seq for e in chain}) < len(chain):  # 1: several branches
            followed = {e.prev for e in chain}
            state = self.replay(state.opening, [e for e in chain if e.id not in followed])
        state = copy.copy(state)
        state.purse, state.issued = copy.deepcopy(state.purse), set(state.issued)
        purse = state.purse
        self.issue(state, now)  # 2
        purse.repay()
        purse.burn(now)
        purse.check()
        debt, reserved = purse.debt, 0  # 3
        for this, parts in purse.reserves.items():
            rest = sum(amount for _, amount in parts) - sum(self.paid(this).values())
            reserved += max(rest, 0)
            debt += max(-rest, 0)
        for this, close in purse.closed.items():
            final = dict(map(tuple, close.body[1]))
            debt += sum(max(paid - final.get(c, 0), 0) for c, paid in self.paid(this).items())
        against = min(debt, purse.total)  # 4
        uncollected = sum(self.uncollected(state, opening, now) for opening in nodes)
        return Row(account, purse.total - against, reserved, uncollected, debt - against)

    def paid(self, request: bytes) -> dict[bytes, int]:
        """§8.6, 3: by contributor, the greatest credits of any RECEIPT for it."""
        paid: dict[bytes, int] = {}
        for receipt in self.receipts.get(request, []):
            contributor = self.entries[receipt.voucher.allot].body[1]
            paid[contributor] = max(paid.get(contributor, 0), receipt.voucher.credits)
        return paid

    def uncollected(self, state: State, opening: Entry, now: int) -> int:  # 5
        receipts = [e for e in self.by_author[opening.author] if e.kind == RECEIPT]
        mine = [
            (e.voucher.request, self.charters.period(e.slice), e.voucher.credits)
            for e in receipts
            if self.pays(e, opening)
        ]
        total, counted = 0, dict(state.counted)
        for request, period, amount in sorted(mine):
            more = amount - counted.get((opening.id, request), 0)
            if more > 0:
                counted[opening.id, request] = amount
                if period + self.charters.of_period(period).earned_periods > now:
                    total += more
        return total

    def pays(self, receipt: Entry, opening: Entry) -> bool:
        return bool(self.entries[receipt.voucher.allot].body[1] == opening.id)  # as `receipt-allot` ensures

    # §9

    @property
    def newest(self) -> int:
        return max((e.slice for e in self.entries.values()), default=0)

    def entries_root(self) -> bytes:
        return merkle_root(sorted(self.entries))

    def balances_root(self, at: int | None = None) -> bytes:
        return merkle_root([encode(list(r)) for r in self.rows(self.newest if at is None else at)])

    # What is wrong without making an entry invalid

    def findings(self, at: int | None = None) -> list[Fault]:
        found = [Fault("fork", b.id, b.author) for _, b in self.open_forks()]
        rows = self.rows(self.newest if at is None else at)
        found += [Fault("debt", ZEROS, row.account) for row in rows if row.debt]  # §8.7
        for close in self.entries.values():  # §6.7
            if close.kind == CLOSE:
                final = dict(map(tuple, close.body[1]))
                if any(paid > final.get(c, 0) for c, paid in self.paid(close.body[0]).items()):
                    found.append(Fault("close-voucher", close.id, close.author))
        decided: dict[tuple[bytes, int], list[Entry]] = {}
        for entry in self.entries.values():
            if entry.kind == DECISION:
                decided.setdefault((entry.author, entry.body[0]), []).append(entry)
        for (author, _), told in decided.items():  # §6.4
            numbers = [entry.seq for entry in self.by_author[author]]
            if len(set(numbers)) == len(numbers):  # no fork
                first, *others = sorted(told, key=lambda e: e.seq)
                rest = [e for e in others if [*e.body[:3], *e.body[4:]] != [*first.body[:3], *first.body[4:]]]
                found += [Fault("decision-twice", e.id, e.author) for e in rest]
        enrolled: dict[bytes, list[Entry]] = {}
        for entry in self.entries.values():
            if entry.kind == ENROL:
                enrolled.setdefault(entry.body[4], []).append(entry)
        for enrols in enrolled.values():  # §6.2
            earliest: dict[bytes, Entry] = {}  # of each account
            for enrol in sorted(enrols, key=lambda e: (e.slice, e.author, e.id)):
                earliest.setdefault(enrol.author, enrol)
            found += [Fault("nullifier", e.id, e.author) for e in list(earliest.values())[1:]]
        return found


# §10, §12 Audit of an export


@dataclass
class Audit:
    network: bytes
    entries: int = 0
    duplicate: int = 0
    dependent: int = 0
    faults: list[Fault] = field(default_factory=list)
    frozen: list[bytes] = field(default_factory=list)
    valid: int = 0
    entries_root: bytes = b""
    balances_root: bytes = b""
    end: tuple[int, bytes, bytes] = (0, b"", b"")  # what the file says of the three


MAGIC = b"ubcp-ledger/1\n"
HEADER, CHARTER_RECORD, PROOF, FROZEN, ENTRY, BLOB, END = range(7)
RECORDS = {HEADER: 1, CHARTER_RECORD: 1024, PROOF: 65536, FROZEN: 65536, END: 1}  # how many at most


def records(data: bytes) -> Iterator[tuple[int, bytes]]:
    if not data.startswith(MAGIC):
        raise Unreadable("no export of a ledger")
    at, last, counts = len(MAGIC), -1, dict.fromkeys(range(7), 0)
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 4 + length > len(data) or not 1 <= length <= BLOB_BYTES + 1:
            raise Unreadable("a record is truncated or too long")
        kind, payload = data[at + 4], data[at + 5 : at + 4 + length]
        if kind > END or kind < last or last == END or (last == -1 and kind != HEADER):
            raise Unreadable("a record out of order")
        counts[kind] += 1
        if counts[kind] > RECORDS.get(kind, len(data)):
            raise Unreadable("too many records of a type")
        yield kind, payload
        at, last = at + 4 + length, kind
    if last != END or not counts[CHARTER_RECORD]:
        raise Unreadable("no charter, or no end")


def blame(wire: bytes) -> tuple[bytes, bytes]:
    """The id and the author of an entry that is not as it should be, as far as they can be made out."""
    try:
        data = msgpack.unpackb(wire, raw=False, strict_map_key=False)[0]
        author = msgpack.unpackb(data, raw=False, strict_map_key=False)[2]
        return digest("ubcp/entry/1", data), author if HASH(author) else ZEROS
    except (ValueError, TypeError, IndexError, KeyError, msgpack.UnpackException):
        return digest("ubcp/entry/1", wire), ZEROS


def at_fault(ledger: Ledger, wire: bytes, code: str, author: bytes, log: bytes) -> bytes:
    """§12: the author where its key in force has signed what is wrong, else whoever has made the export."""
    if code in ("network", "signer", "stewards"):
        return log
    try:
        data, pairs = msgpack.unpackb(wire, raw=False, strict_map_key=False)[:2]
        seq, prev = msgpack.unpackb(data, raw=False, strict_map_key=False)[3:5]
        signed = {key: signed_by(key, signature, "entry", digest("ubcp/entry/1", data)) for key, signature in pairs}
    except (ValueError, TypeError, IndexError, KeyError, msgpack.UnpackException):
        return log
    is_malformed = False
    try:
        entry_from(data)
    except Refused:
        is_malformed = True
    if (not is_malformed and not all(signed.values())) or type(seq) is not int or not HASH(prev):
        return log  # the copy is wrong
    if seq == 0 or prev == ZEROS:
        key = author
    elif prev in ledger.entries and ledger.entries[prev].author == author:
        key = ledger.state(prev).key
    else:
        return log
    if not is_malformed and code == "encoding":
        return log
    if code == "rotation":
        return author if set(signed) == {key, entry_from(data).body[0]} else log
    return author if signed.get(key) else log


def audit(data: bytes, clock: float | None = None) -> Audit:
    by_type: dict[int, list[bytes]] = {kind: [] for kind in range(7)}
    for kind, payload in records(data):
        by_type[kind].append(payload)
    try:
        header, end = decode(by_type[HEADER][0]), decode(by_type[END][0])
        charters = Charters(by_type[CHARTER_RECORD])
    except Refused as refused:
        raise Unreadable(str(refused)) from None
    if not all(HASH(key) for key in by_type[FROZEN]):
        raise Unreadable("a FROZEN record that is no key")
    if not row(HASH, HASH)(header) or header[0] != charters.network or not row(ANY_AMOUNT, HASH, HASH)(end):
        raise Unreadable("a header or an end that does not fit")
    ledger, result = Ledger(charters), Audit(charters.network, end=(end[0], end[1], end[2]))
    now = time.time() if clock is None else clock
    latest = int(now - charters.versions[0].epoch) // charters.versions[0].slice_seconds + 1  # §5.4
    bad: set[bytes] = set()  # what is faulty, and what depends on it
    for wire in by_type[ENTRY]:
        result.entries += 1
        this, author = blame(wire)
        try:
            entry = signed_entry_from(wire)
            if entry.id in ledger.entries:
                result.duplicate += 1
                continue
            if entry.slice > latest:  # §5.4: early, and outside all roots and balances
                bad.add(this)
                result.faults.append(Fault("slice-ahead", this, at_fault(ledger, wire, "", author, header[1])))
                continue
            ledger.take(entry)
        except Refused as refused:
            bad.add(this)
            result.faults.append(Fault(refused.code, this, at_fault(ledger, wire, refused.code, author, header[1])))
        except Pending as pending:
            bad.add(this)
            if pending.missing in bad:
                result.dependent += 1  # §12
            else:
                result.faults.append(Fault("unknown-reference", this, header[1]))  # §7.1, §12
        else:
            if entry.kind == CHECKPOINT and author == header[1] and (found := check_checkpoint(ledger, entry)):
                if bad:  # §12: it may be right about an order that is not whole here
                    result.dependent += 1
                else:
                    result.faults.append(found)
    for payload in by_type[PROOF]:
        try:
            ledger.take_proof(payload)
        except Refused:
            result.faults.append(Fault("freeze", shown(payload), header[1]))  # §7.2: of who shows it
        except Pending as pending:
            if pending.missing in bad:
                result.dependent += 1
            else:
                result.faults.append(Fault("freeze", shown(payload), header[1]))
    result.faults += ledger.findings()
    forked = set(ledger.frozen())
    result.faults += [Fault("freeze", ZEROS, header[1]) for key in by_type[FROZEN] if key not in forked]  # §12, 15
    result.valid, result.frozen = len(ledger.entries), ledger.frozen()
    result.entries_root, result.balances_root = ledger.entries_root(), ledger.balances_root()
    return result


def shown(proof: bytes) -> bytes:
    """The greater id of the two entries that a fork proof shows."""
    try:
        return max(blame(wire)[0] for wire in decode(proof))
    except (Refused, TypeError, ValueError):
        return ZEROS


def check_checkpoint(ledger: Ledger, checkpoint: Entry) -> Fault | None:  # §9.3
    before = [this for this in ledger.entries if this != checkpoint.id]
    if checkpoint.body[0] != len(before) or merkle_root(before) != checkpoint.body[1]:
        return Fault("checkpoint-root", checkpoint.id, checkpoint.author)
    then = copy.copy(ledger)
    then.entries = {this: ledger.entries[this] for this in before}
    then.by_author = {**ledger.by_author, checkpoint.author: ledger.by_author[checkpoint.author][:-1]}
    if then.balances_root() != checkpoint.body[2]:
        return Fault("checkpoint-state", checkpoint.id, checkpoint.author)
    return None


# §11 Sync: what a question is answered with

QUESTIONS = [
    row(number(0, 0), HASH, number(0, U32)),  # HELLO
    row(number(1, 1), each(64, number(0, 1024))),  # CHARTERS; 0 is in no range of the text, but in a vector
    row(number(2, 2), each(64, HASH)),  # PROOFS
    row(number(3, 3), number(0, 255), HASH),  # HEADS
    row(number(4, 4), each(256, row(HASH, number(0, U32), number(0, U32)))),  # RANGES
    row(number(5, 5), each(256, HASH)),  # IDS
    row(number(6, 6), HASH),  # BLOB
    row(number(7, 7), ANY_AMOUNT),  # LOG
]


def answer(ledger: Ledger, question: bytes) -> bytes:
    """Of a ledger without blobs. Refused where the question is malformed."""
    asked, charters = decode(question), ledger.charters
    need(any(shape(asked) for shape in QUESTIONS), "field")
    pairs = [pair for group in ledger.places().values() for pair in itertools.combinations(group.values(), 2)]
    ordered = [sorted(pair, key=lambda e: e.id) for pair in pairs]
    proofs = {digest("ubcp/fork/1", a.id + b.id): encode([a.wire, b.wire]) for a, b in ordered}
    match asked:
        case [0, _, _]:
            digests = [bucket_digest(ledger, bucket) for bucket in range(256)]
            return encode([0, charters.network, charters.ids, sorted(proofs)[:4096], digests, len(ledger.entries)])
        case [1, numbers]:
            return encode([1, [charters.wires[n - 1] for n in numbers if 0 < n <= len(charters.wires)]])
        case [2, ids]:
            return encode([2, [proofs[this] for this in ids if this in proofs]])
        case [3, bucket, after]:
            authors = [a for a in sorted(ledger.by_author) if a[0] == bucket and a > after]
            return encode([3, [[a, heads_of(ledger, a)[:64]] for a in authors[:1024]]])
        case [4, ranges]:
            found: list[Entry] = []
            for author, low, high in ranges:
                chain = sorted(ledger.by_author.get(author, []), key=lambda e: (e.seq, e.id))
                found += [e for e in chain if low <= e.seq <= high]
            return encode([4, as_many(found, 512)])
        case [5, ids]:
            return encode([5, as_many([ledger.entries[this] for this in ids if this in ledger.entries], 512)])
        case [6, _]:
            return encode([6, b""])
    wires = as_many(list(ledger.entries.values())[asked[1] :], 2048)
    return encode([7, asked[1] + len(wires), wires])


def as_many(entries: list[Entry], most: int) -> list[bytes]:
    total = list(itertools.accumulate(len(entry.wire) for entry in entries[:most]))
    return [entry.wire for entry, size in zip(entries[:most], total, strict=True) if size <= 900 * 1024]


def heads_of(ledger: Ledger, author: bytes) -> list[list[Any]]:
    chain = ledger.by_author[author]
    followed = {entry.prev for entry in chain}
    return sorted([entry.seq, entry.id] for entry in chain if entry.id not in followed)


def bucket_digest(ledger: Ledger, bucket: int) -> bytes:
    authors = [author for author in sorted(ledger.by_author) if author[0] == bucket]
    heads = [(author, seq, this) for author in authors for seq, this in heads_of(ledger, author)]
    joined = b"".join(author + seq.to_bytes(4, "big") + this for author, seq, this in heads)
    return hashlib.sha256(joined).digest() if heads else ZEROS


def main() -> int:
    try:
        result = audit(Path(sys.argv[1]).read_bytes())
    except Unreadable as unreadable:
        print(f"unreadable: {unreadable}", file=sys.stderr)
        return 2
    print(f"entries {result.entries}, valid {result.valid}, dependent {result.dependent}, duplicate {result.duplicate}")
    for fault in result.faults:
        print(f"fault {fault.code} entry {fault.entry.hex()} author {fault.author.hex()}")
    if result.end != (result.entries, result.entries_root, result.balances_root):
        print("the END record says something else")
    print(f"entries_root {result.entries_root.hex()}\nbalances_root {result.balances_root.hex()}")
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
