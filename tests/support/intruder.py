"""A trainer's program that a stranger has taken over: after a real start, `sample` does what its prompt orders.

Everything but that is the trainer's own: its start, its sandbox, torch, its channel. The prompt is a JSON list of
orders, each `[name, argument…]`; the text that comes back is the JSON list of what became of each: "done", what was
found, "MemoryError", or the name of the system's error, such as "EACCES".
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from ubcp_p2p.training import worker
from ubcp_p2p.training.messages import Start

_LIBC = ctypes.CDLL(None, use_errno=True)
_FCHMODAT2 = 452
_IO_URING_SETUP = 425
_PR_SET_PDEATHSIG = 1
_AT_FDCWD = -100


def _connect(port: str) -> None:
    with socket.create_connection(("127.0.0.1", int(port)), timeout=10.0):
        pass


def _connect_unix(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(path)


def _fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _thread() -> None:
    thread = threading.Thread(target=bool)
    thread.start()
    thread.join()


def _system_call(number: int, *arguments: object) -> None:
    if _LIBC.syscall(number, *arguments) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _outlive() -> None:
    if _LIBC.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "PR_SET_PDEATHSIG")
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _allocate(mib: str) -> None:
    bytearray(int(mib) << 20)


ORDERS: Mapping[str, Callable[..., object]] = {
    "read": lambda path: Path(path).read_bytes() and None,
    "list": lambda path: os.listdir(path) and None,
    "write": lambda path: Path(path).write_bytes(b"x") and None,
    "append": lambda path: Path(path).open("ab").close(),
    "truncate": lambda path: os.truncate(path, 0),
    "unlink": os.unlink,
    "rename": os.rename,
    "link": os.link,
    "mkdir": os.mkdir,
    "chmod": lambda path: os.chmod(path, 0o600),
    "chmod-new": lambda path: _system_call(_FCHMODAT2, _AT_FDCWD, os.fsencode(path), 0o600, 0),
    "utime": os.utime,
    "connect": _connect,
    "connect-unix": _connect_unix,
    "socketpair": lambda: socket.socketpair() and None,
    "uring": lambda: _system_call(_IO_URING_SETUP, 1, ctypes.byref(ctypes.create_string_buffer(120))),
    "fork": _fork,
    "run": lambda: subprocess.run(["/bin/true"], check=True) and None,
    "thread": _thread,
    "signal": lambda pid: os.kill(int(pid), 0),
    "pidfd": lambda pid: os.close(os.pidfd_open(int(pid))),
    "limits-of": lambda pid: resource.prlimit(int(pid), resource.RLIMIT_CORE) and None,
    "outlive": _outlive,
    "allocate": _allocate,
    "environment": lambda name: os.environ.get(name, "unset"),
}


def carry_out(orders: str) -> str:
    """Each order's outcome."""
    outcomes = []
    for name, *arguments in json.loads(orders):
        try:
            outcomes.append(ORDERS[name](*arguments) or "done")
        except OSError as error:
            outcomes.append(errno.errorcode[error.errno or 0])
        except MemoryError:
            outcomes.append("MemoryError")
    return json.dumps(outcomes)


def main(arguments: list[str]) -> int:
    """The worker's own, but for what `sample` does."""
    honest = worker._open

    def opened(start: Start) -> object:
        session = honest(start)
        session.sample = lambda prompt, length, seed, temperature: carry_out(prompt)  # type: ignore[method-assign]
        return session

    worker._open = opened  # type: ignore[assignment]
    return worker.main(arguments)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)
