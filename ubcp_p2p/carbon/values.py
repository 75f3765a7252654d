"""What is known of a grid's carbon: slots of time with whole grams of CO2 a kilowatt-hour. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, Protocol

from ubcp_p2p.errors import UbcpError

G_PER_KWH_MAX: Final = 5000  # the dirtiest lignite has about 1,300; beyond this somebody has mixed up units
SLOTS_MAX: Final = 2000  # of a forecast: twelve weeks of hours, three of quarters
TIME_MAX: Final = 1 << 36  # the year 4147: no clock or file may make us reckon with larger numbers

Kind = Literal["table", "schedule", "api"]


class CarbonUnknown(UbcpError):
    """Nothing is known of the grid at that time; the message says why."""


@dataclass(frozen=True)
class Slot:
    """From `start` until before `end` a kilowatt-hour costs `g_per_kwh` grams of CO2."""

    start: int
    end: int
    g_per_kwh: int

    def __post_init__(self) -> None:
        assert 0 <= self.start < self.end <= TIME_MAX and 0 <= self.g_per_kwh <= G_PER_KWH_MAX, self


@dataclass(frozen=True)
class Intensity:
    """What a provider says of a span of time.

    g_per_kwh: the mean over it. forecast: slots from its start on, ascending, no two overlapping, gaps allowed.
    source: who says so, in words. note: why it is not the source that was asked first; empty when it is.
    """

    g_per_kwh: int
    kind: Kind
    source: str
    forecast: tuple[Slot, ...]
    note: str = ""


class Provider(Protocol):
    """Something that knows a grid's carbon."""

    def intensity(self, start: int, end: int) -> Intensity:
        """Of the time from `start` until `end`. Raises CarbonUnknown; what is known only in part is unknown."""
        ...


def is_in_order(slots: Sequence[Slot]) -> bool:
    """Whether each slot begins when or after the one before it ends."""
    return all(before.end <= after.start for before, after in pairwise(slots))


def gram_seconds(slots: Sequence[Slot], start: int, end: int) -> int | None:
    """Σ g/kWh · seconds from `start` until `end`; None where the slots do not cover all of it."""
    total = covered = 0
    for slot in slots:
        overlap = min(slot.end, end) - max(slot.start, start)
        if overlap > 0:
            total += slot.g_per_kwh * overlap
            covered += overlap
    return total if covered == end - start else None


def mean(slots: Sequence[Slot], start: int, end: int) -> int | None:
    """The mean g/kWh from `start` until `end`, rounded up; None where the slots do not cover all of it."""
    total = gram_seconds(slots, start, end)
    return None if total is None else -(-total // (end - start))
