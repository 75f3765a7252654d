"""The export file: what is written is read; everything else is one error that says what and where."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest

from ubcp_p2p.codec import encode
from ubcp_p2p.errors import Exit, LocalIOError
from ubcp_p2p.files import open_atomic
from ubcp_p2p.ledger.export import (
    BLOB_BYTES_MAX,
    MAGIC,
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
    write_export,
)

NETWORK, LOG = bytes(range(32)), bytes(range(1, 33))
ROOTS = Roots(b"e" * 32, b"b" * 32)
PAYLOADS = [b"charter", b"proof", b"f" * 32, b"one", b"", b"three", b"a blob"]


def written(log: bytes | None = LOG) -> bytes:
    file = io.BytesIO()
    charter, proof, frozen, *entries, blob = PAYLOADS
    count = write_export(
        file, [charter], [proof], [frozen], entries, [blob], network=NETWORK, roots=lambda: ROOTS, log=log
    )
    assert count == 3
    return file.getvalue()


def frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">IB", len(payload) + 1, kind) + payload


HEADER = frame(0, encode([NETWORK, bytes(32)]))
CHARTER = frame(1, b"charter")
ENTRY = frame(4, b"entry")
END = frame(6, encode([1, *ROOTS]))


def read(data: bytes) -> list[Record]:
    return list(read_export(io.BytesIO(data)))


def test_what_is_written_is_read() -> None:
    records = read(written())
    assert [record.payload for record in records[1:-1]] == PAYLOADS
    assert [record.kind for record in records] == [*RecordKind][:5] + [RecordKind.ENTRY] * 2 + [*RecordKind][5:]
    assert parse_header(records[0]) == Header(NETWORK, LOG)
    assert parse_frozen(records[3]) == b"f" * 32
    assert parse_end(records[-1]) == (3, ROOTS)


def test_without_a_log() -> None:
    assert parse_header(read(written(log=None))[0]) == Header(NETWORK, None)


def test_offsets_are_where_records_begin_and_end() -> None:
    data = written()
    offset = len(MAGIC)
    for record in read(data):
        assert record.offset == offset
        assert data[offset + 5 : record.end] == record.payload
        offset = record.end
    assert offset == len(data)


def test_reading_goes_on_from_a_place() -> None:
    data = written()
    records = read(data)
    assert list(read_export(io.BytesIO(data), Place(records[5].offset, 1))) == records[5:]


@pytest.mark.parametrize("length", range(len(written())))
def test_a_file_cut_off_anywhere_is_unreadable(length: int) -> None:
    with pytest.raises(UnreadableExport) as caught:
        read(written()[:length])
    assert caught.value.offset <= length
    assert f"at byte {caught.value.offset}" in caught.value.message
    assert caught.value.exit_code is Exit.USAGE


@pytest.mark.parametrize(
    ("data", "offset", "words"),
    [
        (b"SQLite format 3\0", 0, "does not begin with 'ubcp-ledger/1'"),
        (b"ubcp-ledger/2\n" + HEADER, 12, "format version 2, and"),
        (MAGIC + CHARTER, 14, "a CHARTER record where a HEADER record belongs"),
        (MAGIC + HEADER + HEADER, 88, "more than 1 HEADER records"),
        (MAGIC + HEADER + ENTRY, 88, "an ENTRY record where a CHARTER record belongs"),
        (MAGIC + HEADER + CHARTER + ENTRY + CHARTER, 110, "a CHARTER record after ENTRY records"),
        (MAGIC + HEADER + CHARTER + frame(9, b""), 100, "unknown type 9"),
        (MAGIC + HEADER + CHARTER + b"\xff\xff\xff\xff\x04" + b"x" * 99, 100, "an ENTRY record of 4294967295 bytes"),
        (MAGIC + HEADER + CHARTER + b"\0\0\0\0\x04", 100, "an ENTRY record of 0 bytes"),
        (MAGIC + HEADER + CHARTER + frame(3, b"f" * 33), 100, "a FROZEN record of 34 bytes"),
        (MAGIC + HEADER + CHARTER + struct.pack(">IB", BLOB_BYTES_MAX + 2, 5), 100, "a BLOB record of"),
        (MAGIC + HEADER + CHARTER + END + b"x", 175, "bytes after the END record"),
        (MAGIC + HEADER + CHARTER + END + END, 175, "bytes after the END record"),
        (MAGIC + HEADER + CHARTER * 1025, 88 + 12 * 1024, "more than 1024 CHARTER records"),
    ],
)
def test_bad_input(data: bytes, offset: int, words: str) -> None:
    with pytest.raises(UnreadableExport) as caught:
        read(data)
    assert words in caught.value.message
    assert caught.value.offset == offset
    assert "\n" not in caught.value.message


def test_a_length_is_checked_before_the_bytes_are_read() -> None:
    class Counting(io.BytesIO):
        asked = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.asked = max(self.asked, size or 0)
            return super().read(size)

    file = Counting(MAGIC + HEADER + CHARTER + b"\xff\xff\xff\xff\x04")
    with pytest.raises(UnreadableExport):
        list(read_export(file))
    assert file.asked < 100


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (RecordKind.HEADER, b"\xc1"),
        (RecordKind.HEADER, encode([NETWORK])),
        (RecordKind.HEADER, encode([NETWORK, b"short"])),
        (RecordKind.HEADER, encode([NETWORK, 5])),
        (RecordKind.END, encode([b"", *ROOTS])),
        (RecordKind.END, encode([1, ROOTS.entries, b""])),
        (RecordKind.FROZEN, b"f" * 31),
    ],
)
def test_bad_fields(kind: RecordKind, payload: bytes) -> None:
    record = Record(kind, payload, 77)
    parse = {RecordKind.HEADER: parse_header, RecordKind.END: parse_end, RecordKind.FROZEN: parse_frozen}[kind]
    with pytest.raises(UnreadableExport) as caught:
        parse(record)
    assert caught.value.offset == 77


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), open_atomic(path) as file:
        file.writelines([b"half", 5])  # type: ignore[list-item]  # what fails after the first half
    assert path.read_bytes() == b"old"
    with open_atomic(path, mode=0o640) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(LocalIOError), open_atomic(tmp_path / "no" / "x"):
        pass
