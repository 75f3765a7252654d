"""Files that are there whole or not at all: temporary name, fsync, then one rename or link.

The mode is set before the first byte is written, so a secret is never readable by others, not even for a moment. What
is no plain file (a link, a pipe, a device) is not replaced: a rename would put a file in its place.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ubcp_p2p.errors import ConfigError, LocalIOError


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
    _refuse_special(path)
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


def keep_newest(path: Path, data: bytes, count: int) -> None:
    """Write a file into its folder, which is made where it is absent, and keep the newest `count` of its kind there.

    Raises LocalIOError as `atomic_write`.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic_write(path, data)
    files = sorted(path.parent.glob(f"*{path.suffix}"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for old in files[count:]:
        old.unlink(missing_ok=True)


def read_limited(path: Path, *, bytes_max: int, hint: str = "it is not a file that ubcp wrote") -> bytes:
    """The whole file, which may have at most `bytes_max` bytes. hint: what to do with a larger one.

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
        raise LocalIOError(f"{path} has more than {bytes_max} bytes", hint=hint)
    return data


def open_input(path: Path, *, hint: str = "name a file", buffering: int = -1) -> BinaryIO:
    """A plain file that somebody has named to be read, opened; a named pipe is not waited for.

    Raises ConfigError when it is absent, unreadable, or no plain file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check its name, owner and mode") from None
    kind = os.fstat(fd).st_mode
    if not stat.S_ISREG(kind):
        os.close(fd)
        what = "a folder" if stat.S_ISDIR(kind) else "no plain file"
        raise ConfigError(f"cannot read {path}: it is {what}", hint=hint)
    return open(fd, "rb", buffering=buffering)


def beginning_of(path: Path, count: int) -> bytes:
    """The first bytes of a plain file; none where there is no file. Raises ConfigError as `open_input`."""
    if not os.path.lexists(path):
        return b""
    if path.is_symlink():
        raise ConfigError(f"{path} is no plain file, and is not replaced by one", hint="name a file")
    with open_input(path) as file:
        return file.read(count)


def same_file(one: Path, other: Path) -> bool:
    """Whether two names lead to one file, which is there."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def sync_dir(path: Path) -> None:
    """Make renames and links in the directory `path` survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _refuse_special(path: Path) -> None:
    """Raises LocalIOError where there is something else than a plain file."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return  # not there, or not to be reached: writing tells
    if not stat.S_ISREG(mode):
        raise LocalIOError(f"{path} is no plain file, and is not replaced by one", hint="name a file")


def _write(path: Path, data: bytes, mode: int, *, replace: bool) -> None:
    if replace:
        _refuse_special(path)
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
