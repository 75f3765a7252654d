"""The store's file: rows and transactions. How it is opened is database.py.

A `Disk` knows no rules. WAL with synchronous=FULL: when `transaction` returns, what was written survives a kill and a
power cut; when it raises, the file has all of it or nothing of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.ledger.database import (
    StoreError,
    connect,
    connect_to_read,
    in_memory,
    is_there,
    prepare,
    refuse_special,
    take_lock,
    told,
)
from ubcp_p2p.ledger.entry import Entry
from ubcp_p2p.ledger.formats import format_of, migrate

if TYPE_CHECKING:
    import sqlite3

BATCH: Final = 1000  # rows read at once: at most 25 MB of entries


class EntryRow(NamedTuple):
    """One applied entry. position: from 1, in append order. data: wire form."""

    position: int
    id: bytes
    data: bytes


class PendingRow(NamedTuple):
    """Something that refers to entries that are not here. number: in order of arrival. what: an int of the caller's."""

    number: int
    what: int
    missing: bytes
    data: bytes


class Disk:
    """One open file. Everything from one thread."""

    def __init__(self, path: Path, db: sqlite3.Connection, lock: int | None) -> None:
        self.path = path
        self.db = db
        self._lock = lock

    @classmethod
    def create(cls, path: Path, charters: Iterable[bytes]) -> Disk:
        """Make a new file (mode 0600) with these charters in their order, and open it.

        Raises ConfigError when there is one already, LocalIOError (another process has it), StoreError.
        """
        lock = take_lock(path)
        try:
            with told(path):
                # A blank file is one whose making was cut off before its only transaction.
                if is_there(path):
                    raise ConfigError(f"there is a ledger store in {path} already; nothing was changed")
                with suppress(FileExistsError):
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
                db = connect(path)
                try:
                    prepare(db)
                    migrate(db, 0, charters)
                except BaseException:
                    db.close()
                    raise
        except BaseException as error:
            os.close(lock)
            if isinstance(error, OSError):
                raise StoreError(f"cannot make the ledger store {path}: {error.strerror}") from None
            raise
        return cls(path, db, lock)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Disk:
        """Open a file, and bring one of an older format to this one.

        read_only: beside a process that writes; sees what was committed when it opened. Raises ConfigError (missing,
        not a store, of a newer format), LocalIOError (another process has it), StoreError (damaged).
        """
        if not path.exists():
            raise ConfigError(
                f"there is no ledger store in {path}",
                hint="a node of a community makes it (`ubcp up`); so does `ubcp ledger import FILE`, from an export",
            )
        refuse_special(path)
        lock = None if read_only else take_lock(path)
        try:
            with told(path):
                db = connect_to_read(path) if read_only else connect(path)
                try:
                    found = format_of(db, path, read_only=read_only)
                    if read_only:
                        db.execute("BEGIN")
                        db.execute("SELECT count(*) FROM charters")  # from the first read on, the view stands still
                    else:
                        prepare(db)
                        migrate(db, found)
                except BaseException:
                    db.close()
                    raise
        except BaseException:
            if lock is not None:
                os.close(lock)
            raise
        return cls(path, db, lock)

    @classmethod
    def in_memory(cls, charters: Iterable[bytes]) -> Disk:
        """One that no file keeps: for who only looks on."""
        db = in_memory()
        migrate(db, 0, charters)
        return cls(Path(":memory:"), db, None)

    def close(self) -> None:
        """Safe to call twice."""
        self.db.close()
        if self._lock is not None:
            os.close(self._lock)  # after the file: nobody may come in between
            self._lock = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside are kept together, or none of them. Raises StoreError; then none is, unless it says so."""
        with told(self.path):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                # The commit point: the WAL is synced before this returns. What comes before is lost by a crash as if it
                # had never been; what comes after may be told to others.
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    def rows(self, sql: str, *values: object) -> list[Any]:
        """Run one statement. Raises StoreError."""
        with told(self.path):
            return self.db.execute(sql, values).fetchall()

    # -- entries --------------------------------------------------------------------------------------------------

    def put_entry(self, position: int, entry: Entry, data: bytes) -> None:
        self.rows(
            "INSERT INTO entries (position, id, author, seq, slice, kind, bytes) VALUES (?, ?, ?, ?, ?, ?, ?)",
            position, entry.id, entry.author, entry.seq, entry.slice, entry.kind, data,
        )  # fmt: skip

    def entry(self, id_: bytes) -> bytes | None:
        """The wire form."""
        found = self.rows("SELECT bytes FROM entries WHERE id = ?", id_)
        return found[0][0] if found else None

    def after(self, position: int, limit: int) -> list[EntryRow]:
        """In append order."""
        sql = "SELECT position, id, bytes FROM entries WHERE position > ? ORDER BY position LIMIT ?"
        return [EntryRow(*row) for row in self.rows(sql, position, limit)]

    def later(self, slice_: int) -> list[tuple[bytes, int]]:
        """(id, slice) of entries of later slices than this, in append order."""
        return self.rows("SELECT id, slice FROM entries WHERE slice > ? ORDER BY position", slice_)

    def entries(self) -> Iterator[EntryRow]:
        """All of them in append order; needs the memory of BATCH rows."""
        position = 0
        while batch := self.after(position, BATCH):
            yield from batch
            position = batch[-1].position

    def chain(self, author: bytes, first: int, last: int, limit: int) -> list[bytes]:
        """Wire forms of an author's entries, all branches, first ≤ seq ≤ last, ascending by seq, then id."""
        sql = "SELECT bytes FROM entries WHERE author = ? AND seq BETWEEN ? AND ? ORDER BY seq, id LIMIT ?"
        return [data for (data,) in self.rows(sql, author, first, last, limit)]

    def newest(self, author: bytes, limit: int) -> list[bytes]:
        """Wire forms of an author's newest entries, newest first."""
        sql = "SELECT bytes FROM entries WHERE author = ? ORDER BY seq DESC, id LIMIT ?"
        return [data for (data,) in self.rows(sql, author, limit)]

    def kinds(self, author: bytes) -> dict[int, int]:
        """How many entries of each kind an author has."""
        return dict(self.rows("SELECT kind, count(*) FROM entries WHERE author = ? GROUP BY kind", author))

    def starting(self, low: bytes, high: bytes, limit: int) -> tuple[list[bytes], list[bytes]]:
        """(ids, authors) from `low` to `high`, both included, at most `limit` of each."""
        ids = self.rows("SELECT id FROM entries WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?", low, high, limit)
        authors = self.rows(
            "SELECT DISTINCT author FROM entries WHERE author BETWEEN ? AND ? ORDER BY author LIMIT ?", low, high, limit
        )
        return [id_ for (id_,) in ids], [author for (author,) in authors]

    def drop_entries(self, positions: Iterable[int]) -> None:
        """Forget these; the others close ranks, in their order."""
        for position in positions:
            self.rows("DELETE FROM entries WHERE position = ?", position)
        left = self.rows("SELECT position FROM entries ORDER BY position")
        for wanted, (position,) in enumerate(left, 1):
            if wanted != position:
                self.rows("UPDATE entries SET position = ? WHERE position = ?", wanted, position)

    def put_dropped(self, entry: Entry, digest: bytes, data: bytes) -> None:
        """Keep what a charter has dropped. digest: of the data, as `put_pending` has it."""
        sql = "INSERT OR IGNORE INTO dropped (id, author, seq, digest, bytes) VALUES (?, ?, ?, ?, ?)"
        self.rows(sql, entry.id, entry.author, entry.seq, digest, data)

    def dropped(self) -> list[bytes]:
        """Wire forms, in the order in which they were dropped."""
        return [data for (data,) in self.rows("SELECT bytes FROM dropped ORDER BY number")]

    def dropped_of(self, author: bytes) -> list[tuple[int, bytes]]:
        """(seq, id) of an author's, the greatest number first."""
        return self.rows("SELECT seq, id FROM dropped WHERE author = ? ORDER BY seq DESC, id", author)

    def forget_dropped(self, id_: bytes) -> None:
        self.rows("DELETE FROM dropped WHERE id = ?", id_)

    # -- charters, proofs, blobs ----------------------------------------------------------------------------------

    def put_charter(self, number: int, data: bytes) -> None:
        self.rows("INSERT INTO charters (number, bytes) VALUES (?, ?)", number, data)

    def charters(self) -> list[bytes]:
        """Wire forms, by number."""
        return [data for (data,) in self.rows("SELECT bytes FROM charters ORDER BY number")]

    def put_proof(self, id_: bytes, author: bytes, data: bytes) -> None:
        self.rows("INSERT OR IGNORE INTO proofs (id, author, bytes) VALUES (?, ?, ?)", id_, author, data)

    def proofs(self) -> list[bytes]:
        """Wire forms, by id."""
        return [data for (data,) in self.rows("SELECT bytes FROM proofs ORDER BY id")]

    def proofs_of(self, author: bytes) -> list[bytes]:
        """Wire forms of those of one author, by id."""
        return [data for (data,) in self.rows("SELECT bytes FROM proofs WHERE author = ? ORDER BY id", author)]

    def proof_ids(self, but_of: bytes | None) -> list[bytes]:
        """Ascending; without those of one author, where one is given."""
        return [id_ for (id_,) in self.rows("SELECT id FROM proofs WHERE author IS NOT ? ORDER BY id", but_of)]

    def proof(self, id_: bytes) -> bytes | None:
        found = self.rows("SELECT bytes FROM proofs WHERE id = ?", id_)
        return found[0][0] if found else None

    def drop_proof(self, id_: bytes) -> None:
        self.rows("DELETE FROM proofs WHERE id = ?", id_)

    def count_proofs(self, author: bytes) -> int:
        return int(self.rows("SELECT count(*) FROM proofs WHERE author = ?", author)[0][0])

    def put_blob(self, hash_: bytes, data: bytes) -> None:
        self.rows("INSERT INTO blobs (hash, bytes) VALUES (?, ?)", hash_, data)

    def blob(self, hash_: bytes) -> bytes | None:
        found = self.rows("SELECT bytes FROM blobs WHERE hash = ?", hash_)
        return found[0][0] if found else None

    def drop_blob(self, hash_: bytes) -> None:
        self.rows("DELETE FROM blobs WHERE hash = ?", hash_)

    def blob_hashes(self) -> list[bytes]:
        """Ascending."""
        return [hash_ for (hash_,) in self.rows("SELECT hash FROM blobs ORDER BY hash")]

    def blobs_bytes(self) -> int:
        """Of all blobs together."""
        return int(self.rows("SELECT coalesce(sum(length(bytes)), 0) FROM blobs")[0][0])

    # -- pending --------------------------------------------------------------------------------------------------

    def put_pending(self, what: int, digest: bytes, author: bytes, signers: bytes, missing: bytes, data: bytes) -> int:
        """Its number; the one that it has when the same bytes are there already. signers: keys, joined."""
        sql = "INSERT OR IGNORE INTO pending (what, digest, author, signers, missing, bytes) VALUES (?, ?, ?, ?, ?, ?)"
        self.rows(sql, what, digest, author, signers, missing, data)
        return int(self.rows("SELECT number FROM pending WHERE digest = ?", digest)[0][0])

    def set_missing(self, number: int, missing: bytes) -> None:
        self.rows("UPDATE pending SET missing = ? WHERE number = ?", missing, number)

    def pending(self, number: int) -> PendingRow:
        sql = "SELECT number, what, missing, bytes FROM pending WHERE number = ?"
        return PendingRow(*self.rows(sql, number)[0])

    def is_pending(self, author: bytes, signer: bytes) -> bool:
        """Whether something of this author is pending that `signer` has signed, and that was never applied here."""
        sql = (
            "SELECT 1 FROM pending WHERE author = ? AND instr(signers, ?)"
            " AND digest NOT IN (SELECT digest FROM dropped) LIMIT 1"
        )
        return bool(self.rows(sql, author, signer))

    def pending_sizes(self) -> list[tuple[int, bytes, int]]:
        """(number, missing, bytes of data) of each, oldest first."""
        return self.rows("SELECT number, missing, length(bytes) FROM pending ORDER BY number")

    def drop_pending(self, number: int) -> None:
        self.rows("DELETE FROM pending WHERE number = ?", number)

    # -- drafts ---------------------------------------------------------------------------------------------------

    def put_draft(self, author: bytes, data: bytes) -> None:
        self.rows("INSERT INTO drafts (author, bytes) VALUES (?, ?)", author, data)

    def drafts(self, author: bytes) -> list[tuple[int, bytes]]:
        """(number, bytes), oldest first."""
        return self.rows("SELECT number, bytes FROM drafts WHERE author = ? ORDER BY number", author)

    def drop_draft(self, number: int) -> None:
        self.rows("DELETE FROM drafts WHERE number = ?", number)
