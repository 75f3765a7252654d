"""The owner's own schedule: a CSV file of moments, and what a kilowatt-hour costs from each on.

    start,g_per_kwh
    2026-11-27T00:00:00+01:00,120
    2026-11-27T06:00:00+01:00,310
    2026-11-27T21:00:00+01:00,

A row holds until the next begins. The last has no number: it is the end of the schedule.
"""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path
from typing import Final

from ubcp_p2p.carbon.values import G_PER_KWH_MAX, SLOTS_MAX, TIME_MAX, CarbonUnknown, Intensity, Slot, mean
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.files import read_limited

HEADER: Final = ["start", "g_per_kwh"]
BYTES_MAX: Final = 256 << 10
_CELL_CHARS_MAX: Final = 64


class Schedule:
    """A provider that reads the rows of a file."""

    def __init__(self, slots: tuple[Slot, ...], name: str) -> None:
        self._slots = slots
        self._name = name

    def intensity(self, start: int, end: int) -> Intensity:
        grams = mean(self._slots, start, end)
        if grams is None:
            when = "has ended" if end > self._slots[-1].end else "has not begun"  # it has no gaps
            raise CarbonUnknown(f"the schedule {self._name} {when}", hint="add rows to it (docs/owner.md)")
        ahead = tuple(slot for slot in self._slots if slot.end > start)
        return Intensity(grams, "schedule", f"your schedule {self._name}", ahead)


def load(path: Path) -> Schedule:
    """Read and check a schedule. Raises ConfigError naming file and line; LocalIOError when it cannot be read."""
    try:
        data = read_limited(path, bytes_max=BYTES_MAX)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no carbon schedule {path}", hint="correct carbon.schedule in config.toml"
        ) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: byte {error.start}", hint="save it as UTF-8") from None
    return Schedule(parse(text, where=str(path)), path.name)


def parse(text: str, *, where: str) -> tuple[Slot, ...]:
    """The slots of a schedule. Raises ConfigError naming `where` and the line."""
    starts: list[int] = []
    grams: list[int | None] = []
    reader = csv.reader(text.splitlines(), strict=True)
    try:
        for row in reader:
            line = reader.line_num
            if line == 1:
                if [cell.strip() for cell in row] != HEADER:
                    raise _fault(where, 1, f"the first line is not {','.join(HEADER)!r}", f"write {','.join(HEADER)}")
                continue
            if not row:
                continue
            if grams and grams[-1] is None:
                raise _fault(where, line, "a row after the end", "only the last row has no number")
            if len(starts) > SLOTS_MAX:
                raise _fault(where, line, f"more than {SLOTS_MAX} rows", "keep what is still to come")
            if len(row) != 2 or any(len(cell) > _CELL_CHARS_MAX for cell in row):
                raise _fault(where, line, "not two short cells", "write a moment, a comma, whole grams a kWh")
            starts.append(_moment(row[0].strip(), where, line))
            grams.append(_grams(row[1].strip(), where, line))
            if len(starts) > 1 and starts[-1] <= starts[-2]:
                raise _fault(where, line, f"{row[0].strip()} is not after the row before it", "sort the rows by time")
    except csv.Error as error:
        raise _fault(where, reader.line_num, f"not CSV ({error})", "write plain cells without quotes") from None
    if len(starts) < 2 or grams[-1] is not None:
        last = "end with a row that has a moment and no number: until then the one before it holds"
        raise ConfigError(f"{where}: the schedule has no end", hint=last)
    slots = []
    for start, end, grams_ in zip(starts, starts[1:], grams, strict=False):
        assert grams_ is not None  # only the last is None
        slots.append(Slot(start, end, grams_))
    return tuple(slots)


def _moment(text: str, where: str, line: int) -> int:
    remedy = "write 2026-11-27T06:00:00+01:00, or …Z for UTC"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _fault(where, line, f"{text!r} is no moment", remedy) from None
    if moment.tzinfo is None:
        raise _fault(where, line, f"{text!r} does not say its time zone", remedy)
    if moment.microsecond:
        raise _fault(where, line, f"{text!r} is no whole second", remedy)
    seconds = int(moment.timestamp())
    if not 0 <= seconds <= TIME_MAX:
        raise _fault(where, line, f"{text!r} is before 1970", remedy)
    return seconds


def _grams(text: str, where: str, line: int) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > G_PER_KWH_MAX:
        raise _fault(
            where, line, f"{text!r} is not a whole number from 0 to {G_PER_KWH_MAX}", "write whole grams a kWh"
        )
    return int(text)


def _fault(where: str, line: int, what: str, remedy: str) -> ConfigError:
    return ConfigError(f"{where}, line {line}: {what}", hint=remedy)
