"""Landlock (Linux 5.13 and newer): which files a process may open, and no TCP, for good. By its three system calls.

Structures and numbers: linux/landlock.h; the numbers of system calls from 424 on are the same on all architectures.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION_FLAG: Final = 1
_RULE_PATH_BENEATH: Final = 1

# LANDLOCK_ACCESS_FS_…: each is a bit, and everything that is handled and not granted is refused.
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_REMOVE_FILE: Final = 1 << 5
_MAKE_REG: Final = 1 << 8
_TRUNCATE: Final = 1 << 14
_IOCTL_DEV: Final = 1 << 15
_OF_FILES: Final = 1 | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV  # what a rule on one file may grant

# What each version of the kernel's interface has added: (version, file rights known from then on).
_FILE_RIGHTS: Final = ((1, (1 << 13) - 1), (2, 1 << 13), (3, _TRUNCATE), (5, _IOCTL_DEV))
_TCP: Final = 0b11  # bind, connect; from version 4
_TCP_SINCE: Final = 4
_SCOPES: Final = 0b11  # abstract unix sockets of others, signals to others; from version 6
_SCOPES_SINCE: Final = 6

READ: Final = _READ_FILE | _READ_DIR
KEEP: Final = READ | _WRITE_FILE | _MAKE_REG | _REMOVE_FILE | _TRUNCATE  # a folder of plain files
DEVICE: Final = READ | _WRITE_FILE | _IOCTL_DEV
WRITE: Final = READ | _WRITE_FILE | _TRUNCATE  # what is there already


class Grant(NamedTuple):
    """Rights (READ, WRITE, KEEP, DEVICE) on a path and all beneath it. A path that is not there grants nothing."""

    path: Path
    rights: int


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Of Landlock's interface in this kernel; 0 when it has none, or it is switched off."""
    found: int = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    return max(0, found)


def restrict(grants: Iterable[Grant]) -> None:
    """Refuse this thread, and what it starts, every file but those granted, running programs, and TCP.

    Call it while the process has one thread, and no_new_privs. What the running kernel's version does not know
    (`version`) is not refused. Raises OSError when the kernel does not take it.
    """
    abi = version()
    known = sum(rights for since, rights in _FILE_RIGHTS if since <= abi)
    wanted = _Ruleset(known, _TCP if abi >= _TCP_SINCE else 0, _SCOPES if abi >= _SCOPES_SINCE else 0)
    size = 8 if abi < _TCP_SINCE else 16 if abi < _SCOPES_SINCE else 24  # an old kernel refuses fields of a new one
    ruleset = _call(_CREATE_RULESET, ctypes.byref(wanted), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for grant in grants:
            _grant(ruleset, grant, known)
        _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _grant(ruleset: int, grant: Grant, known: int) -> None:
    try:
        fd = os.open(grant.path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not on this machine, or not ours to open: it grants nothing
    try:
        rights = grant.rights & known
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_FILES
        beneath = _PathBeneath(rights, fd)
        _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), ctypes.byref(beneath), 0)
    finally:
        os.close(fd)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc().syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc
