"""Whether somebody uses this machine: input at terminals and desktops, and the load of other programs."""

from __future__ import annotations

import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from ubcp_p2p.errors import LocalIOError
from ubcp_p2p.files import read_limited
from ubcp_p2p.owner.values import PERMILLE, Number, Unreadable

NOBODY_S: Final = 30 * 86_400  # what is said where nobody is logged in at all
WINDOW_S: Final = 60.0  # load is averaged over this: one cron job is nobody at work
SESSIONS_MAX: Final = 256
ANSWER_S: Final = 5.0
_FILE_BYTES_MAX: Final = 16 << 10
_CONTAINERS: Final = (".dockerenv", "run/.containerenv")
_DESKTOPS: Final = ("x11", "wayland", "mir")


def idle_seconds(root: Path, now: float, *, loginctl: str = "loginctl") -> Number:
    """Since the last input at any terminal (when it was last read from) and any desktop (as its session says)."""
    if any((root / mark).exists() for mark in _CONTAINERS):
        return Unreadable("this is a container: who uses the machine around it cannot be seen")
    idle = [int(now - touched) for touched in _terminals(root)]
    for session in _desktops(root):
        found = _desktop_idle(session, now, loginctl)
        if isinstance(found, Unreadable):
            return found
        idle.append(found)
    if not (root / "run/systemd/sessions").is_dir() and list((root / "tmp/.X11-unix").glob("X*")):
        return Unreadable("there is a desktop here, and no logind that knows when it was last used")
    return max(0, min(idle, default=NOBODY_S))


def _terminals(root: Path) -> Iterator[float]:
    for folder, pattern in (("dev/pts", "[0-9]*"), ("dev", "tty[0-9]*")):
        for path in sorted((root / folder).glob(pattern))[:SESSIONS_MAX]:
            with suppress(OSError):  # it may be closed at any moment
                yield path.stat().st_atime


def _desktops(root: Path) -> Iterator[str]:
    for path in sorted((root / "run/systemd/sessions").glob("*"))[:SESSIONS_MAX]:
        if not path.name.isalnum():  # the fifos of sessions, NAME.ref
            continue
        try:
            lines = read_limited(path, bytes_max=_FILE_BYTES_MAX).decode("utf-8", "replace").splitlines()
        except (FileNotFoundError, LocalIOError):
            continue
        facts = dict(line.split("=", 1) for line in lines if "=" in line)
        if facts.get("TYPE") in _DESKTOPS and facts.get("CLASS") == "user" and facts.get("STATE") != "closing":
            yield path.name


def _desktop_idle(session: str, now: float, loginctl: str) -> Number:
    command = [loginctl, "show-session", session, "--property=IdleHint", "--property=IdleSinceHint"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_S, check=False)
    except subprocess.TimeoutExpired:
        return Unreadable(f"loginctl did not answer within {ANSWER_S:g} s")
    except OSError as error:
        return Unreadable(f"loginctl, which knows when the desktop was last used, cannot be started: {error.strerror}")
    lines = done.stdout.decode("ascii", "replace").splitlines()[:10]
    facts = dict(line.split("=", 1) for line in lines if "=" in line)
    since = facts.get("IdleSinceHint", "")
    if facts.get("IdleHint") == "no":
        return 0
    if facts.get("IdleHint") == "yes" and since.isascii() and since.isdigit() and len(since) < 20:
        return int(now - int(since) / 1_000_000)
    return Unreadable("loginctl does not say when the desktop was last used")


@dataclass(frozen=True)
class Times:
    """Processor seconds since some start: of all programs, and of this program with all that it has started."""

    moment_s: float
    busy_s: float
    own_s: float


class OthersLoad:
    """What other programs take of all processors, over the last minute."""

    def __init__(self, processors: int, sample: Callable[[], Times]) -> None:
        self._processors = processors
        self._sample = sample
        self._kept: deque[Times] = deque()

    def permille(self) -> Number:
        """0 to 1000; the first reading has nothing to compare with."""
        new = self._sample()
        while len(self._kept) > 1 and self._kept[1].moment_s <= new.moment_s - WINDOW_S:
            self._kept.popleft()
        self._kept.append(new)
        old = self._kept[0]
        seconds = (new.moment_s - old.moment_s) * self._processors
        if seconds <= 0:
            return Unreadable("the load of other programs is known from the second reading on")
        others_s = (new.busy_s - old.busy_s) - (new.own_s - old.own_s)
        return round(min(max(0.0, others_s), seconds) * PERMILLE / seconds)


class ProcessorTimes:
    """Samples for OthersLoad from this machine."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._ended_s = 0.0  # of children that have gone: their time must not look like others'
        self._children_s: dict[tuple[int, float], float] = {}

    def __call__(self) -> Times:
        total = psutil.cpu_times()
        idle_s = total.idle + getattr(total, "iowait", 0.0) + getattr(total, "steal", 0.0)
        guest_s = getattr(total, "guest", 0.0) + getattr(total, "guest_nice", 0.0)  # in user and nice already
        busy_s = sum(total) - idle_s - guest_s
        present: dict[tuple[int, float], float] = {}
        for child in self._process.children(recursive=True):
            try:
                times = child.cpu_times()
                present[child.pid, child.create_time()] = times.user + times.system
            except psutil.Error:
                continue  # it has just ended
        self._ended_s += sum(seconds for key, seconds in self._children_s.items() if key not in present)
        self._children_s = present
        own = self._process.cpu_times()
        own_s = own.user + own.system + sum(present.values()) + self._ended_s
        return Times(time.monotonic(), busy_s, own_s)
