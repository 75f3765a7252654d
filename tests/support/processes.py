"""Which processes and files a test's nodes have left: every process of a node carries a mark in its environment."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MARK = "UBCP_TEST_MARK"  # p2pd, trainer and sweeper inherit it from their node


def family(mark: str) -> dict[int, str]:
    """Living processes with this mark: pid → command line. Zombies have no environment and do not count."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            environment = Path("/proc", entry, "environ").read_bytes()
            if wanted in environment.split(b"\0"):
                found[int(entry)] = Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it has just ended, or is another user's
    return found


def ended(pid: int, timeout_s: float) -> bool:
    """Wait until the process is gone (or a zombie); False when the time is up."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], max(0.0, timeout_s))[0])
    finally:
        os.close(fd)


def family_ended(mark: str, timeout_s: float) -> dict[int, str]:
    """Wait until no process with this mark lives; returns those that do when the time is up."""
    deadline_s = time.monotonic() + timeout_s
    while left := family(mark):
        for pid in left:
            if not ended(pid, deadline_s - time.monotonic()):
                return family(mark)
    return {}


def until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll a condition that has no event of its own; fails naming `what` when the time is up.

    Ever less often: to ask a node keeps it from what is waited for, and a core that others need.
    """
    began_s = time.monotonic()
    pause = select.poll()  # of nothing: waits its timeout
    while not condition():
        waited_s = time.monotonic() - began_s
        assert waited_s < timeout_s, f"{what}: not within {timeout_s:.0f} s"
        pause.poll(20 + min(180, int(50 * waited_s)))


def memfds(pid: int) -> int:
    """How many of our memfds the process holds open."""
    count = 0
    with suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                count += os.readlink(fd).startswith("/memfd:ubcp")
    return count


def signal_all(mark: str, number: int) -> None:
    """For the end of a test that failed: nothing of it may outlive it."""
    for pid in family(mark):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
