"""The formats of a store's file, and how one becomes the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ubcp_p2p.errors import ConfigError

if TYPE_CHECKING:
    import sqlite3

APPLICATION: Final = 0x75626370  # "ubcp" in SQLite's application_id: this file is ours


def _to_format_1(db: sqlite3.Connection) -> None:
    """All tables. ids and keys are 32 bytes; `bytes` are wire forms."""
    db.execute("CREATE TABLE charters (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL)")
    db.execute(
        """CREATE TABLE entries (
            position INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, author BLOB NOT NULL, seq INTEGER NOT NULL,
            slice INTEGER NOT NULL, kind INTEGER NOT NULL, bytes BLOB NOT NULL)"""
    )
    db.execute("CREATE INDEX entries_by_author ON entries (author, seq)")
    db.execute("CREATE TABLE proofs (id BLOB PRIMARY KEY, author BLOB NOT NULL, bytes BLOB NOT NULL)")
    db.execute("CREATE INDEX proofs_by_author ON proofs (author)")
    # By the digest of the bytes, not by id: a copy with other signatures must not keep the good one out.
    db.execute(
        """CREATE TABLE pending (
            number INTEGER PRIMARY KEY AUTOINCREMENT, what INTEGER NOT NULL, digest BLOB NOT NULL UNIQUE,
            author BLOB NOT NULL, signers BLOB NOT NULL, missing BLOB NOT NULL, bytes BLOB NOT NULL)"""
    )
    db.execute("CREATE INDEX pending_by_author ON pending (author)")
    db.execute("CREATE TABLE blobs (hash BLOB PRIMARY KEY, bytes BLOB NOT NULL)")
    db.execute(
        "CREATE TABLE drafts (number INTEGER PRIMARY KEY AUTOINCREMENT, author BLOB NOT NULL, bytes BLOB NOT NULL)"
    )


def _to_format_2(db: sqlite3.Connection) -> None:
    """What a late charter has dropped: its number was signed all the same, and a later version may let it stand."""
    db.execute(
        """CREATE TABLE dropped (
            number INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, author BLOB NOT NULL,
            seq INTEGER NOT NULL, digest BLOB NOT NULL, bytes BLOB NOT NULL)"""
    )
    db.execute("CREATE INDEX dropped_by_author ON dropped (author)")


# MIGRATIONS[n] brings a file of format n to n + 1. What a release has written is never changed: add a function.
MIGRATIONS: Final[tuple[Callable[[sqlite3.Connection], None], ...]] = (_to_format_1, _to_format_2)
FORMAT: Final = len(MIGRATIONS)
READABLE: Final = 1  # the oldest format that serves whoever only reads


def migrate(db: sqlite3.Connection, found: int, charters: Iterable[bytes] = ()) -> None:
    """From format `found` (0: blank) to FORMAT, in one transaction: a kill leaves the old format or the new one."""
    if found == FORMAT:
        return
    db.execute("BEGIN IMMEDIATE")
    for migration in MIGRATIONS[found:]:
        migration(db)
    for number, data in enumerate(charters, 1):
        db.execute("INSERT INTO charters (number, bytes) VALUES (?, ?)", (number, data))
    db.execute(f"PRAGMA application_id = {APPLICATION}")
    db.execute(f"PRAGMA user_version = {FORMAT}")
    db.execute("COMMIT")


def format_of(db: sqlite3.Connection, path: Path, *, read_only: bool) -> int:
    """The format of an open file. read_only: it will not be brought up to date. Raises ConfigError."""
    application = db.execute("PRAGMA application_id").fetchone()[0]
    found = int(db.execute("PRAGMA user_version").fetchone()[0])
    if application != APPLICATION or found < 1:
        raise ConfigError(f"{path} is no ledger store", hint="it may belong to another program, or be cut off")
    if found > FORMAT or (read_only and found < READABLE):
        hint = "a newer ubcp may read it" if found > FORMAT else "start the node once: it brings the file up to date"
        raise ConfigError(
            f"the ledger store {path} is of format {found}; this program reads format {FORMAT}", hint=hint
        )
    return found
