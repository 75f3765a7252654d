"""Which slice is the cleanest, and what working in it instead has saved. Whole numbers only; savings are estimates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ubcp_p2p.carbon.values import Slot, gram_seconds

# Work is held only for a slice at least so much cleaner: forecasts err by as much. It is a rule of the allocator too,
# by which decisions are replayed: with another number, those of before come out otherwise.
CLEANER_PERCENT: Final = 20
SLICES_MAX: Final = 10_000  # that are looked at: fourteen weeks of quarters of an hour
_JOULES_OF_KWH: Final = 3_600_000


@dataclass(frozen=True)
class Hold:
    """A cleaner slice to wait for: its start, and the mean g/kWh of the present slice and of that one, rounded down."""

    start: int
    g_now: int
    g_then: int


def cleanest(forecast: Sequence[Slot], now: int, deadline: int, slice_s: int) -> Hold | None:
    """The cleanest slice that ends by `deadline`, when it is at least 20 % cleaner than the present one; else None.

    now: the start of the present slice. Slices that the forecast does not cover whole are not counted on; where that is
    the present one, nothing is held. Of equals the earliest.
    """
    assert slice_s > 0
    present = gram_seconds(forecast, now, now + slice_s)
    if present is None:
        return None
    best: tuple[int, int] | None = None
    first = 0  # of the slots that can still matter: both go forward together
    for number in range(1, SLICES_MAX):
        start = now + number * slice_s
        if start + slice_s > deadline:
            break
        while first < len(forecast) and forecast[first].end <= start:
            first += 1
        if first == len(forecast):
            break
        last = first
        while last < len(forecast) and forecast[last].start < start + slice_s:
            last += 1
        total = gram_seconds(forecast[first:last], start, start + slice_s)
        if total is not None and (best is None or total < best[0]):
            best = (total, start)
    if best is None or best[0] * 100 > present * (100 - CLEANER_PERCENT) or best[0] == present:
        return None
    return Hold(best[1], present // slice_s, best[0] // slice_s)


@dataclass(frozen=True)
class Worked:
    """Energy that was used in one slice, and what the grid had then and when the work could first have run."""

    energy_j: int
    g_then: int  # g/kWh in the slice in which it ran
    g_first: int  # g/kWh in the slice in which it would have run without waiting


@dataclass(frozen=True)
class Savings:
    """An estimate: grids are known by averages and forecasts, energy by readings of some parts of a machine."""

    emitted_mg: int
    unmoved_mg: int  # had nothing waited

    @property
    def saved_mg(self) -> int:
        """Below zero when the forecast was wrong."""
        return self.unmoved_mg - self.emitted_mg

    @property
    def words(self) -> str:
        """For a report."""
        if self.unmoved_mg == 0:
            return f"estimate: {grams_text(self.emitted_mg)} of CO2"
        part = f"{abs(self.saved_mg) * 100 // self.unmoved_mg} %"
        how = "less" if self.saved_mg >= 0 else "more"
        return (
            f"estimate: {grams_text(self.emitted_mg)} of CO2, {grams_text(abs(self.saved_mg))} ({part}) {how} than "
            "without waiting for cleaner hours"
        )


def saved(work: Iterable[Worked]) -> Savings:
    """What waiting for cleaner hours has saved, as an estimate; each sum is rounded down once."""
    emitted = unmoved = 0
    for part in work:
        emitted += part.energy_j * part.g_then
        unmoved += part.energy_j * part.g_first
    return Savings(emitted * 1000 // _JOULES_OF_KWH, unmoved * 1000 // _JOULES_OF_KWH)


def grams_text(mg: int) -> str:
    """Milligrams for people: "412 g", "1.3 kg", "0.4 g"."""
    if mg >= 1_000_000:
        return f"{mg // 1_000_000}.{mg % 1_000_000 // 100_000} kg"
    return f"{mg // 1000} g" if mg >= 10_000 else f"{mg // 1000}.{mg % 1000 // 100} g"
