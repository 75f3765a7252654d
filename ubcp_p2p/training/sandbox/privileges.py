"""Giving up rights for good: no program brings new ones (no_new_privs), and of root's only one is left.

Structures and numbers: linux/prctl.h, linux/capability.h.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

_PR_SET_NO_NEW_PRIVS: Final = 38
_VERSION: Final = 0x20080522  # of capabilities in two words of 32 bits
# Which files root may open is Landlock's to say; without this one it could not write into a folder of another user's.
_KEPT: Final = 1 << 1  # CAP_DAC_OVERRIDE


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Word(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def give_up() -> None:
    """Both, for this thread and all that it starts. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    header, words = _Header(_VERSION, 0), (_Word * 2)()
    _check(libc.capget(ctypes.byref(header), words))
    kept = words[0].permitted & _KEPT
    words[0], words[1] = _Word(kept, kept, 0), _Word(0, 0, 0)
    _check(libc.capset(ctypes.byref(header), words))


def _check(result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
