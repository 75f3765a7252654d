"""Where an audit reads from. Nothing in a source is trusted but its form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Protocol

from ubcp_p2p.charter.values import CharterError, Charters, SignedCharter
from ubcp_p2p.files import open_input
from ubcp_p2p.ledger.database import SQLITE_MAGIC, damaged, files_of
from ubcp_p2p.ledger.disk import Disk
from ubcp_p2p.ledger.export import (
    Header,
    Place,
    Record,
    RecordKind,
    Roots,
    UnreadableExport,
    parse_end,
    parse_frozen,
    parse_header,
    read_export,
)

_BUFFER_BYTES: Final = 1 << 20
_ROWS: Final = 512  # of a store at once
_ENTRY: Final = RecordKind.ENTRY  # bound once: every record is compared with it
_HINT: Final = "name an export file or a node's ledger.sqlite3; it is read more than once, so a pipe does not do"


class Source(Protocol):
    """One ledger in causal order."""

    files: list[Path]  # what must not be written over
    charters: Charters
    log: bytes | None  # the node whose append order it is
    first: int  # the offset of the first entry
    last: int  # what no offset exceeds

    def proofs(self) -> Iterator[bytes]:
        """All fork proofs, as bytes."""

    def frozen(self) -> Iterator[bytes]:
        """All accounts that are said to be frozen."""

    def entries(self, after: Place | None = None) -> Iterator[Record]:
        """All ENTRY records, or those after the one at a place."""

    def entry(self, offset: int) -> bytes | None:
        """The payload of the ENTRY record that begins there; None when none does."""

    def blobs(self) -> Iterator[bytes]:
        """Every blob; after all entries."""

    def end(self) -> tuple[int, Roots] | None:
        """The number of entries and the roots that the source claims; after all blobs."""

    def close(self) -> None: ...


class ExportSource:
    """An export file. Memory: one record."""

    def __init__(self, path: Path) -> None:
        """Reads up to the first entry. Raises ConfigError, UnreadableExport."""
        self.files = [path]
        self._file: BinaryIO = open_input(path, hint=_HINT, buffering=_BUFFER_BYTES)
        self._lookup: BinaryIO = open_input(path, hint=_HINT)  # for entries that are read once more
        self.last = path.stat().st_size
        try:
            self.charters, self.log, self.first = self._read_head()
        except BaseException:
            self.close()
            raise
        self._rest: Iterator[Record] = iter(())
        self._end: tuple[int, Roots] | None = None

    def __enter__(self) -> ExportSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._lookup.close()

    def proofs(self) -> Iterator[bytes]:
        return (record.payload for record in self._head() if record.kind is RecordKind.PROOF)

    def frozen(self) -> Iterator[bytes]:
        return (parse_frozen(record) for record in self._head() if record.kind is RecordKind.FROZEN)

    def entries(self, after: Place | None = None) -> Iterator[Record]:
        """Raises UnreadableExport."""
        records = read_export(self._file, after or Place(self.first, 0))
        if after is not None:
            next(records)
        for record in records:
            if record.kind is not _ENTRY:
                self._rest = _and_rest(record, records)
                return
            yield record

    def entry(self, offset: int) -> bytes | None:
        try:
            record = next(read_export(self._lookup, Place(offset, 0)))
        except UnreadableExport:
            return None
        return record.payload if record.kind is RecordKind.ENTRY else None

    def blobs(self) -> Iterator[bytes]:
        """Raises UnreadableExport."""
        for record in self._rest:
            if record.kind is RecordKind.END:
                self._end = parse_end(record)
            else:
                yield record.payload

    def end(self) -> tuple[int, Roots] | None:
        return self._end

    def _head(self) -> Iterator[Record]:
        self._lookup.seek(0)
        for record in read_export(self._lookup):
            if record.kind >= RecordKind.ENTRY:
                return
            yield record

    def _read_head(self) -> tuple[Charters, bytes | None, int]:
        header = Header(b"", None)
        charters: Charters | None = None
        first = 0
        for record in self._head():
            first = record.end
            if record.kind is RecordKind.HEADER:
                header = parse_header(record)
            elif record.kind is RecordKind.CHARTER:
                charters = _with_charter(charters, header, record)
        assert charters is not None  # read_export sees to that
        return charters, header.log, first


class StoreSource:
    """The store of a node, also of one that runs. Offsets are positions in its append order, from 1."""

    def __init__(self, path: Path, log: bytes | None = None) -> None:
        """log: the key of the node, if its CHECKPOINTs are to be checked. Raises ConfigError, LocalIOError."""
        self.files = files_of(path)
        self._disk = Disk.open(path, read_only=True)
        self.log = log
        self.first, self.last = 1, self._disk.rows("SELECT coalesce(max(position), 0) FROM entries")[0][0]
        try:
            first, *later = (SignedCharter.from_bytes(data) for data in self._disk.charters())
            self.charters = Charters(first)
            for signed in later:
                self.charters.add(signed)
        except (CharterError, ValueError) as error:
            self.close()
            raise damaged(path, f"its charters do not hold: {error}") from None

    def __enter__(self) -> StoreSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._disk.close()

    def proofs(self) -> Iterator[bytes]:
        return iter(self._disk.proofs())

    def frozen(self) -> Iterator[bytes]:
        """None: a store holds nobody frozen but by its proofs."""
        return iter(())

    def entries(self, after: Place | None = None) -> Iterator[Record]:
        position = after.offset if after is not None else 0
        while rows := self._disk.after(position, _ROWS):
            for row in rows:
                yield Record(RecordKind.ENTRY, row.data, row.position)
            position = rows[-1].position

    def entry(self, offset: int) -> bytes | None:
        rows = self._disk.after(offset - 1, 1)
        return rows[0].data if rows and rows[0].position == offset else None

    def blobs(self) -> Iterator[bytes]:
        for hash_ in self._disk.blob_hashes():
            yield self._disk.blob(hash_) or b""

    def end(self) -> tuple[int, Roots] | None:
        """None: a store claims nothing."""
        return None


def open_source(path: Path) -> ExportSource | StoreSource:
    """An export file or a store, by its first bytes. Raises ConfigError (unreadable), LocalIOError."""
    with open_input(path, hint=_HINT) as file:
        magic = file.read(len(SQLITE_MAGIC))
    return StoreSource(path) if magic == SQLITE_MAGIC else ExportSource(path)


def _and_rest(record: Record, records: Iterator[Record]) -> Iterator[Record]:
    yield record
    yield from records


def _with_charter(charters: Charters | None, header: Header, record: Record) -> Charters:
    try:
        signed = SignedCharter.from_bytes(record.payload)
        if charters is not None:
            charters.add(signed)
            return charters
        charters = Charters(signed)
    except CharterError as error:
        raise UnreadableExport(f"a charter that does not hold: {error.message}", record.offset) from None
    if charters.network != header.network:
        raise UnreadableExport(
            f"its charter is that of the network {charters.network.hex()[:16]}…, its header says "
            f"{header.network.hex()[:16]}…", record.offset,
            hint="this is a mix of two communities' ledgers; ask for another export",
        )  # fmt: skip
    return charters
