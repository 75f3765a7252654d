"""seccomp: system calls that the kernel refuses this process, for good. By libseccomp, which most systems ship.

A list of what is refused, not of what is allowed: torch, CUDA and the C library need other calls in each version, and a
filter that breaks training would be switched off. Landlock stands beside it for files.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from typing import Final, NamedTuple

LIBRARY: Final = "libseccomp.so.2"  # the interface of 2012, extended since

_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000  # in the upper half; the error's number in the lower
_NOT_EQUAL: Final = 1
_EQUAL: Final = 4
_MASKED_EQUAL: Final = 7
_UNKNOWN: Final = -1  # a name that this libseccomp has never heard of; other negative numbers: not on this machine

_CLONE_THREAD: Final = 0x00010000
_PR_SET_PDEATHSIG: Final = 1
_AF_UNIX: Final = 1
_SOCKET_TYPE: Final = 0xF  # the bits of a socket's type that are not flags
_OTHER_TYPES: Final = (1, 2, 3, 4, 10)  # than SOCK_SEQPACKET, which sends nothing without a connection

# Sockets, also those that io_uring would make without a call of their own.
_NETWORK: Final = "socket socketpair connect bind listen accept accept4 io_uring_setup io_uring_enter io_uring_register"
# Programs, and processes that would live on when the daemon kills this one.
_PROCESSES: Final = "execve execveat fork vfork unshare setns"
# Other processes of this user: the daemon is one, and holds the keys.
_OTHERS: Final = (
    "ptrace process_vm_readv process_vm_writev pidfd_open pidfd_getfd pidfd_send_signal tkill kcmp setpriority "
    "ioprio_set"
)
# What Landlock does not see: modes, owners, times and attributes of files, before Linux 6.2 their length, and names
# that outlive a process.
_FILES: Final = (
    "truncate chmod fchmod fchmodat chown fchown lchown fchownat utime utimes utimensat futimesat setxattr lsetxattr "
    "fsetxattr removexattr lremovexattr fremovexattr name_to_handle_at open_by_handle_at inotify_init inotify_init1 "
    "fanotify_init shmget semget msgget mq_open"
)
# For root alone, or with a long history of faults.
_KERNEL: Final = (
    "mount umount2 pivot_root chroot move_mount open_tree fsopen fsconfig fsmount fspick swapon swapoff reboot "
    "init_module finit_module delete_module kexec_load kexec_file_load bpf perf_event_open userfaultfd "
    "add_key request_key keyctl quotactl syslog acct settimeofday clock_settime adjtimex clock_adjtime sethostname "
    "setdomainname iopl ioperm personality"
)
# CUDA's driver begins with a socket of this machine to listen on, and does not begin without. Others may then speak to
# the trainer, and it to nobody: `connect` and `accept` stay refused, and Landlock leaves no place for such a socket's
# file, so that it has a name without one.
_OF_CUDA: Final = ("socket", "bind", "listen")
REFUSED: Final = tuple(f"{_NETWORK} {_PROCESSES} {_OTHERS} {_FILES} {_KERNEL}".split())
# Calls newer than a libseccomp that may be there; from 424 on the numbers are the same on all architectures.
# process_madvise, mount_setattr, process_mrelease, fchmodat2, setxattrat, removexattrat, open_tree_attr, file_setattr.
REFUSED_NUMBERS: Final = (440, 442, 448, 452, 463, 466, 467, 469)


class Condition(NamedTuple):
    """Refuse the call `name` when its argument number `at` compares so with `datum` (and `other`, of a masked one)."""

    name: str
    at: int
    comparison: int
    datum: int
    other: int = 0


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def refused(*, cuda: bool) -> Iterator[str]:
    """Calls that are refused whatever their arguments. cuda: to a process that may use it."""
    return (name for name in REFUSED if not (cuda and name in _OF_CUDA))


def conditions(pid: int, *, cuda: bool) -> Iterator[Condition]:
    """Calls that are refused for some arguments, in the process `pid`."""
    if cuda:
        yield Condition("socket", 0, _NOT_EQUAL, _AF_UNIX)
        for kind in _OTHER_TYPES:
            yield Condition("socket", 1, _MASKED_EQUAL, _SOCKET_TYPE, kind)
    yield Condition("clone", 0, _MASKED_EQUAL, _CLONE_THREAD, 0)  # threads may be made, processes not
    for name in ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        yield Condition(name, 0, _NOT_EQUAL, pid)  # abort() sends a signal to itself
    for name in ("prlimit64", "sched_setscheduler", "sched_setparam", "sched_setattr"):
        yield Condition(name, 0, _NOT_EQUAL, 0)
    yield Condition("prctl", 0, _EQUAL, _PR_SET_PDEATHSIG)  # it is to die with the daemon


def load() -> ctypes.CDLL | None:
    """The library; None where it is not installed."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison),
    ]  # fmt: skip
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_release.restype = None
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    return library


def restrict(library: ctypes.CDLL, *, cuda: bool) -> None:
    """Refuse all of the above to this process. Call it while it has one thread. Raises OSError.

    Calls of another architecture (32-bit ones, x32) end the process: libseccomp's own choice.
    """
    context = library.seccomp_init(_ALLOW)
    if not context:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    try:
        for name in refused(cuda=cuda):
            _refuse(library, context, _number(library, name))
        for number in REFUSED_NUMBERS:
            _refuse(library, context, number)
        for name, at, comparison, datum, other in conditions(os.getpid(), cuda=cuda):
            argument = _Comparison(at, comparison, datum, other)
            _refuse(library, context, _number(library, name), argument)
        # Its arguments lie in memory, where a filter cannot look; the C library then takes clone.
        _refuse(library, context, _number(library, "clone3"), error=errno.ENOSYS)
        _check(library.seccomp_load(context))
    finally:
        library.seccomp_release(context)


def _refuse(
    library: ctypes.CDLL, context: int, number: int, argument: _Comparison | None = None, error: int = errno.EPERM
) -> None:
    if number < 0:
        return  # this architecture has no such call
    count = 0 if argument is None else 1
    pointer = None if argument is None else ctypes.byref(argument)
    _check(library.seccomp_rule_add_array(context, _ERRNO | error, number, count, pointer))


def _number(library: ctypes.CDLL, name: str) -> int:
    number: int = library.seccomp_syscall_resolve_name(name.encode())
    if number == _UNKNOWN:
        raise OSError(errno.ENOSYS, f"{LIBRARY} is too old to know {name}")
    return number


def _check(result: int) -> None:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
