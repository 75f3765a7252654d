"""Weekly windows in the owner's zone, by the clock on the wall: "Mon-Fri 22:00-06:00". Pure.

What the clock shows decides, also where it is put forward or back: an hour that it shows twice counts twice, and one
that it skips is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
WINDOWS_MAX: Final = 50
_DAY_MIN: Final = 24 * 60
_TEXT_CHARS_MAX: Final = 100
_LOOK_DAYS: Final = 8  # a weekly rule repeats by then


@dataclass(frozen=True)
class Window:
    """On each of `days` (0: Monday) from minute `start` of the day until before `end`; past midnight when not later."""

    days: frozenset[int]
    start: int
    end: int

    def shows(self, weekday: int, minute: int) -> bool:
        """Whether it is open when the clock shows this."""
        if self.start < self.end:
            return weekday in self.days and self.start <= minute < self.end
        return (weekday in self.days and minute >= self.start) or ((weekday - 1) % 7 in self.days and minute < self.end)


def parse_window(text: str) -> Window:
    """A window from "22:00-06:00" (daily), "Mon-Fri 22:00-06:00", "Sat,Sun 00:00-24:00". Raises ValueError in words."""
    words = text.split()
    if not 1 <= len(words) <= 2 or len(text) > _TEXT_CHARS_MAX:
        raise ValueError(f"{text[:_TEXT_CHARS_MAX]!r} is not like 'Mon-Fri 22:00-06:00'")
    days = frozenset(range(7)) if len(words) == 1 else _days(words[0])
    start, dash, end = words[-1].partition("-")
    if not dash:
        raise ValueError(f"{words[-1]!r} is not like '22:00-06:00'")
    first, last = _minute(start), _minute(end)
    if first == _DAY_MIN:
        raise ValueError(f"{words[-1]!r} begins at 24:00: write 00:00, of the day after")
    if first == last:
        raise ValueError(f"{words[-1]!r} is empty: a whole day is 00:00-24:00")
    return Window(days, first, last)


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin = _day(first)
        count = (_day(last) - begin) % 7 if dash else 0
        found.update((begin + offset) % 7 for offset in range(count + 1))
    return frozenset(found)


def _day(text: str) -> int:
    try:
        return DAYS.index(text.capitalize())
    except ValueError:
        raise ValueError(f"{text!r} is not a day: write {', '.join(DAYS)}") from None


def _minute(text: str) -> int:
    hours, colon, minutes = text.partition(":")
    digits = hours + minutes
    if not colon or not (digits.isascii() and digits.isdigit()) or len(minutes) != 2 or not 1 <= len(hours) <= 2:
        raise ValueError(f"{text!r} is not a time like 22:00")
    minute = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or minute > _DAY_MIN:
        raise ValueError(f"{text!r} is not a time from 00:00 to 24:00")
    return minute


def is_open(windows: Sequence[Window], zone: tzinfo, now: int) -> bool:
    """Whether one of the windows is open; without any, always."""
    local = datetime.fromtimestamp(now, zone)
    minute = local.hour * 60 + local.minute
    return not windows or any(window.shows(local.weekday(), minute) for window in windows)


def next_change(windows: Sequence[Window], zone: tzinfo, now: int) -> int | None:
    """When next a window opens, or the last open one closes; None when that never happens."""
    present = is_open(windows, zone, now)
    today = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    moments: set[int] = set()
    for offset in range(-1, _LOOK_DAYS + 1):
        day = today + timedelta(days=offset)
        moments.update(_jumps(day, zone))
        for window in windows:
            for minute in (window.start, window.end % _DAY_MIN):
                moments.update(_instants(day + timedelta(minutes=minute), zone))
    return next((t for t in sorted(moments) if t > now and is_open(windows, zone, t) != present), None)


def _instants(local: datetime, zone: tzinfo) -> Iterator[int]:
    """When the clock shows this: once, twice where it is put back; near it where it never does."""
    for fold in (0, 1):
        yield int(local.replace(tzinfo=zone, fold=fold).timestamp())


def _jumps(day: datetime, zone: tzinfo) -> Iterator[int]:
    """When the clock is put forward or back on this day, if it is: to the minute."""
    first = int(day.replace(tzinfo=UTC).timestamp()) - _offset(day.replace(tzinfo=zone))
    after = day + timedelta(days=1)
    last = int(after.replace(tzinfo=UTC).timestamp()) - _offset(after.replace(tzinfo=zone))
    before = _offset(datetime.fromtimestamp(first, zone))
    if _offset(datetime.fromtimestamp(last, zone)) == before:
        return
    while last - first > 1:
        middle = (first + last) // 2
        if _offset(datetime.fromtimestamp(middle, zone)) == before:
            first = middle
        else:
            last = middle
    yield last


def _offset(moment: datetime) -> int:
    offset = moment.utcoffset()
    assert offset is not None
    return int(offset.total_seconds())


def moment_text(moment: int, now: int, zone: tzinfo) -> str:
    """For people: "18:30" today, "Mon 22:00" this week, "2026-12-24 22:00" else, by the clock on the wall."""
    then, today = datetime.fromtimestamp(moment, zone), datetime.fromtimestamp(now, zone)
    days = (then.date() - today.date()).days
    clock = f"{then.hour:02d}:{then.minute:02d}"
    if days == 0:
        return clock
    return f"{DAYS[then.weekday()]} {clock}" if 0 < days < 7 else f"{then.date().isoformat()} {clock}"
