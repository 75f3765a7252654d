"""Files that are there whole or not at all: temporary name, fsync, then one rename or link.

The mode is set before the first byte is written, so a secret is never readable by others, not even for a moment.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ubcp_p2p.errors import LocalIOError


def atomic_write(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `data` in one step; after a crash the old or the new content is there, whole.

    Raises LocalIOError (disk full, permission); the old file then stays as it was.
    """
    _write(path, data, mode, replace=True)


def create_new(path: Path, data: bytes, *, mode: int) -> None:
    """As `atomic_write`, but never touches a file that exists.

    Raises FileExistsError, also when another process makes the file at the same moment; LocalIOError.
    """
    _write(path, data, mode, replace=False)


@contextmanager
def open_atomic(path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """As `atomic_write`, for what is too large for memory: a file that takes the place of `path` when the block ends.

    When the block raises, nothing is changed. Raises LocalIOError, also for an OSError inside the block.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with open(fd, "wb") as file:
                os.fchmod(fd, mode)  # the umask may have taken bits away
                yield file
                file.flush()
                os.fsync(fd)
            os.rename(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_dir(path.parent)
    except OSError as error:
        raise LocalIOError(
            f"cannot write {path}: {error.strerror}",
            hint="check free space and permissions; what was there before is untouched",
        ) from None


def read_limited(path: Path, *, bytes_max: int) -> bytes:
    """The whole file, which may have at most `bytes_max` bytes.

    Raises FileNotFoundError when it is absent, LocalIOError when it is unreadable, no plain file, or larger.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # else a named pipe is waited for
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise LocalIOError(f"{path} is no plain file", hint="name a file")
            data = file.read(bytes_max + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise LocalIOError(f"cannot read {path}: {error.strerror}", hint="check its owner and mode") from None
    if len(data) > bytes_max:
        raise LocalIOError(f"{path} has more than {bytes_max} bytes", hint="it is not a file that ubcp wrote")
    return data


def sync_dir(path: Path) -> None:
    """Make renames and links in the directory `path` survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write(path: Path, data: bytes, mode: int, *, replace: bool) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            _write_synced(temporary, data, mode)
            if replace:
                os.rename(temporary, path)
            else:
                os.link(temporary, path)  # unlike rename, refuses when `path` is there
        finally:
            temporary.unlink(missing_ok=True)
        sync_dir(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise LocalIOError(
            f"cannot write {path}: {error.strerror}",
            hint="check free space and permissions; what was there before is untouched",
        ) from None


def _write_synced(path: Path, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)  # the umask may have taken bits away
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)
