"""Opening a store's file: SQLite, the lock, and what SQLite says in words. The only user of SQLite."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ubcp_p2p.errors import ConfigError, LocalIOError
from ubcp_p2p.files import open_input
from ubcp_p2p.ledger.export import MAGIC

SQLITE_MAGIC: Final = b"SQLite format 3\0"
BUSY_S: Final = 10.0  # a reader that recovers the WAL of a killed writer holds the file that long at most
LOG_BYTES_MAX: Final = 64 << 20  # what the WAL may keep of the disk after a large batch
_NO_WRITING: Final = frozenset({"SQLITE_READONLY_DIRECTORY", "SQLITE_CANTOPEN", "SQLITE_READONLY_CANTINIT"})


class StoreError(LocalIOError):
    """Our own disk: damaged, full or unreadable. A new start finds all that was acknowledged."""


def connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """To read and write; or as `mode` has it."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)


def in_memory() -> sqlite3.Connection:
    """One that no file keeps."""
    return sqlite3.connect(":memory:", isolation_level=None)


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Beside a process that writes; or in a folder where nobody can, as a backup's, which SQLite does not read else."""
    db = connect(path, "ro")
    try:
        db.execute("PRAGMA schema_version").fetchone()  # the first look into the file
        return db
    except sqlite3.OperationalError as error:
        db.close()
        if error.sqlite_errorname not in _NO_WRITING:
            raise
    log = _sibling(path, "-wal")
    if log.exists() and log.stat().st_size:
        raise ConfigError(
            f"the ledger store {path} cannot be read in a folder that cannot be written: its log {log.name} has to be "
            "worked in first",
            hint="copy both into another folder",
        )
    return connect(path, "ro&immutable=1")


def prepare(db: sqlite3.Connection) -> None:
    """For writing."""
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",  # a commit is synced before it is acknowledged
        f"journal_size_limit = {LOG_BYTES_MAX}",
        "trusted_schema = OFF",
        "cell_size_check = ON",
    ):
        db.execute(f"PRAGMA {pragma}")


def files_of(path: Path) -> list[Path]:
    """A store's file and what belongs to it."""
    return [path, *(_sibling(path, suffix) for suffix in ("-wal", "-shm", ".lock"))]


def is_there(path: Path) -> bool:
    """Whether there is a file with anything in it: not one whose making was cut off.

    Raises ConfigError for what can be no store, StoreError.
    """
    if not path.exists():
        return False
    refuse_special(path)
    with told(path):
        db = connect_to_read(path)
        try:
            return bool(db.execute("SELECT 1 FROM sqlite_schema").fetchall())
        finally:
            db.close()


def refuse_special(path: Path) -> None:
    """Raises ConfigError for what is no plain file: SQLite would wait for a pipe.

    It is not opened for that: closing it again would free SQLite's locks on it.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is no plain file, hence no ledger store", hint="name a file")


def _refuse_export(path: Path) -> None:
    """Raises ConfigError where SQLite has found no database because it is an export."""
    with open_input(path) as file:
        head = file.read(len(MAGIC))
    if head == MAGIC:
        raise ConfigError(
            f"{path} is an export of a ledger, not a store",
            hint="`ubcp audit` reads it; `ubcp ledger import FILE` makes a store from it",
        )


def _sibling(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def take_lock(path: Path) -> int:
    """Raises LocalIOError when another process has it. The descriptor, which has to be closed for it to end.

    A file of its own: closing any descriptor of the database itself would free SQLite's locks.
    """
    lock = _sibling(path, ".lock")
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise LocalIOError(f"cannot open {lock}: {error.strerror}", hint="check its folder's owner and mode") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise LocalIOError(
            f"the ledger store {path} is in use by another process", hint="`ubcp stop` ends the node that has it"
        ) from None
    return fd


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What SQLite says, in words."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_NOTADB":
            _refuse_export(path)
        if name == "SQLITE_FULL":
            raise StoreError(
                f"cannot write the ledger store {path}: the disk is full",
                hint="free some space; nothing that was acknowledged is lost",
            ) from error
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or isinstance(error, sqlite3.IntegrityError):
            raise damaged(path, str(error)) from error
        raise StoreError(
            f"the ledger store {path} cannot be used: {error}", hint="check the disk, its space and the file's mode"
        ) from error


def damaged(path: Path, why: str) -> StoreError:
    """The file has something in it that this program never wrote."""
    return StoreError(
        f"the ledger store {path} is damaged: {why}",
        hint="move it away and start again: entries come back from peers, or from an export by `ubcp ledger import`",
    )
