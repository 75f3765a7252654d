"""The export file: charters, proofs and entries of one ledger in causal order, as a stream (SPEC §10).

Magic line, then records: u32 big-endian length of what follows, one type byte, payload. Reading and writing need the
memory of one record. Whether what the records say is true is for audit.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from typing import BinaryIO, Final, NamedTuple

from ubcp_p2p.charter.values import CHARTER_BYTES_MAX, VERSIONS_MAX
from ubcp_p2p.codec import MalformedMessage, decode, encode
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.ledger.entry import ZERO
from ubcp_p2p.ledger.merkle import SIZE_MAX
from ubcp_p2p.ledger.wire import PROOF_BYTES_MAX, SIGNED_BYTES_MAX

MAGIC: Final = b"ubcp-ledger/1\n"
BLOB_BYTES_MAX: Final = 4 * 1024 * 1024  # the inputs of one decision, or the evidence behind one voucher
PROOFS_MAX: Final = 2**16
FROZEN_MAX: Final = 2**16
_FAMILY: Final = b"ubcp-ledger/"
_FRAME: Final = struct.Struct(">IB")
_HINT: Final = "export it again, or fetch the file again"


class RecordKind(IntEnum):
    """In the order in which a file has them."""

    HEADER = 0
    CHARTER = 1
    PROOF = 2
    FROZEN = 3
    ENTRY = 4
    BLOB = 5
    END = 6


class _Limit(NamedTuple):
    """Of one kind of record. least, most: records in a file."""

    bytes_max: int
    least: int
    most: int


_END: Final = RecordKind.END  # looked up once: on an Enum that takes longer than all else that a record needs

_LIMITS: Final = (
    _Limit(128, 1, 1),
    _Limit(CHARTER_BYTES_MAX + 16 * 1024, 1, VERSIONS_MAX),
    _Limit(PROOF_BYTES_MAX, 0, PROOFS_MAX),
    _Limit(32, 0, FROZEN_MAX),
    _Limit(SIGNED_BYTES_MAX, 0, SIZE_MAX),
    _Limit(BLOB_BYTES_MAX, 0, 2**32),
    _Limit(128, 1, 1),
)


class UnreadableExport(ConfigError):
    """A file that is no whole export; `offset` is the byte at which that shows."""

    def __init__(self, what: str, offset: int, *, hint: str | None = _HINT) -> None:
        super().__init__(f"not a readable ledger export: {what} (at byte {offset})", hint=hint)
        self.offset = offset


class Record(NamedTuple):
    """One record; offset: where its frame begins in the file."""

    kind: RecordKind
    payload: bytes
    offset: int

    @property
    def end(self) -> int:
        """Where the next frame begins."""
        return self.offset + _FRAME.size + len(self.payload)


class Header(NamedTuple):
    """network: the id of the community. log: public key of the node whose append order this is, or None."""

    network: bytes
    log: bytes | None


class Roots(NamedTuple):
    """What the exporter says its entries lead to (SPEC §9)."""

    entries: bytes
    balances: bytes


class Place(NamedTuple):
    """A place among the ENTRYs of a file, for going on there. entries: how many come before it."""

    offset: int
    entries: int


def write_export(
    file: BinaryIO,
    charters: Iterable[bytes],
    proofs: Iterable[bytes],
    frozen: Iterable[bytes],
    entries: Iterable[bytes],
    blobs: Iterable[bytes],
    *,
    network: bytes,
    roots: Callable[[], Roots],
    log: bytes | None = None,
) -> int:
    """Write one export; returns the number of entries.

    charters, proofs, entries: wire forms (of SignedCharter, ForkProof, Signed), entries in causal order. frozen:
    accounts. roots: asked for when all entries are written; of those that are valid. Use it on files.open_atomic.
    Raises ConfigError for more of a kind than a file may have.
    """
    file.write(MAGIC)

    def put(kind: RecordKind, payloads: Iterable[bytes]) -> int:
        count = 0
        limit = _LIMITS[kind]
        for payload in payloads:
            assert len(payload) <= limit.bytes_max, kind
            if count == limit.most:
                raise ConfigError(
                    f"more than {limit.most} {kind.name} records: an export holds no more",
                    hint="`ubcp ledger export` leaves the rest of them out",
                )
            file.write(_FRAME.pack(len(payload) + 1, kind) + payload)
            count += 1
        assert limit.least <= count, kind
        return count

    put(RecordKind.HEADER, [encode([network, log or ZERO])])
    put(RecordKind.CHARTER, charters)
    put(RecordKind.PROOF, proofs)
    put(RecordKind.FROZEN, frozen)
    count = put(RecordKind.ENTRY, entries)
    put(RecordKind.BLOB, blobs)
    put(RecordKind.END, [encode([count, *roots()])])
    return count


def read_export(file: BinaryIO, start: Place | None = None) -> Iterator[Record]:
    """All records from HEADER to END, or those from `start` on. Raises UnreadableExport."""
    if start is None:
        _check_magic(file.read(len(MAGIC)))
        offset, last, count = len(MAGIC), RecordKind.HEADER, 0
    else:
        file.seek(start.offset)
        offset, last, count = start.offset, RecordKind.ENTRY, start.entries
    frame_of, frame_bytes, read = _FRAME.unpack, _FRAME.size, file.read
    bytes_max, _, most = _LIMITS[last]
    while True:
        frame = read(frame_bytes)
        if len(frame) != frame_bytes:
            raise UnreadableExport("the file ends before its END record", offset + len(frame))
        length, number = frame_of(frame)
        if number != last or count == most:
            last = _next_kind(last, count, number, offset)
            bytes_max, _, most = _LIMITS[last]
            count = 0
        if not 0 < length <= bytes_max + 1:
            raise UnreadableExport(f"{_a(last)} record of {length} bytes; at most {bytes_max + 1} are allowed",
                                   offset)  # fmt: skip
        payload = read(length - 1)
        if len(payload) != length - 1:
            raise UnreadableExport(f"the file ends inside a record of {length} bytes", offset + 5 + len(payload))
        count += 1
        yield Record(last, payload, offset)
        offset += frame_bytes + length - 1
        if last is _END:
            break
    if read(1):
        raise UnreadableExport("bytes after the END record", offset)


def parse_header(record: Record) -> Header:
    """Raises UnreadableExport."""
    network, log = _fields(record, 2)
    return Header(_hash(record, network), None if _hash(record, log) == ZERO else _hash(record, log))


def parse_end(record: Record) -> tuple[int, Roots]:
    """The number of ENTRYs, and the roots. Raises UnreadableExport."""
    count, entries, balances = _fields(record, 3)
    if not isinstance(count, int):
        raise UnreadableExport("an END record without a number of entries", record.offset)
    return count, Roots(_hash(record, entries), _hash(record, balances))


def parse_frozen(record: Record) -> bytes:
    """The account. Raises UnreadableExport."""
    return _hash(record, record.payload)


def _check_magic(magic: bytes) -> None:
    if magic == MAGIC:
        return
    if magic.startswith(_FAMILY) and len(magic) == len(MAGIC):
        version = ascii(magic[len(_FAMILY) :].split(b"\n")[0].decode("latin-1"))[1:-1]
        raise UnreadableExport(
            f"format version {version}, and this program knows 1", len(_FAMILY), hint="a newer ubcp may read it"
        )
    if MAGIC.startswith(magic):
        raise UnreadableExport("the file ends inside its first line", len(magic))
    raise UnreadableExport(f"it does not begin with {MAGIC.decode().strip()!r}", 0)


def _a(kind: RecordKind) -> str:
    """Its name with the article."""
    return f"an {kind.name}" if kind in (RecordKind.ENTRY, RecordKind.END) else f"a {kind.name}"


def _next_kind(last: RecordKind, count: int, number: int, offset: int) -> RecordKind:
    """The kind of a record that is not one more of `last`, of which there were `count`."""
    try:
        kind = RecordKind(number)
    except ValueError:
        raise UnreadableExport(f"a record of unknown type {number}", offset) from None
    if kind == last:
        raise UnreadableExport(f"more than {_LIMITS[kind].most} {kind.name} records", offset)
    if kind < last:
        raise UnreadableExport(f"{_a(kind)} record after {last.name} records", offset)
    had = {last: count}
    for skipped in RecordKind:
        if last <= skipped < kind and had.get(skipped, 0) < _LIMITS[skipped].least:
            raise UnreadableExport(f"{_a(kind)} record where {_a(skipped)} record belongs", offset)
    return kind


def _fields(record: Record, count: int) -> list[object]:
    try:
        value = decode(record.payload, bytes_max=len(record.payload))
    except MalformedMessage as error:
        raise UnreadableExport(f"{_a(record.kind)} record: {error.message}", record.offset) from None
    if not isinstance(value, list) or len(value) != count:
        raise UnreadableExport(f"{_a(record.kind)} record without its {count} fields", record.offset)
    return list(value)


def _hash(record: Record, value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != 32:
        raise UnreadableExport(f"{_a(record.kind)} record without 32 bytes where they belong", record.offset)
    return value
