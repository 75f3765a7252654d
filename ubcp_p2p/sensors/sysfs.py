"""Battery, temperatures and power from Linux' /sys. `root` is "/" but for tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ubcp_p2p.errors import LocalIOError
from ubcp_p2p.files import read_limited
from ubcp_p2p.owner.values import Flag, Number, Unreadable

ENTRIES_MAX: Final = 256  # of one folder of /sys; the largest machines have some dozens
_FILE_BYTES_MAX: Final = 4096  # sysfs gives one page
_ENERGY_UJ_MAX: Final = 1 << 62
CELSIUS_MIN: Final = -40  # outside of these a sensor is not there or broken: drivers report 0, -273 or 65261850 then
CELSIUS_MAX: Final = 150
WATTS_MAX: Final = 20_000
_PROCESSOR_CHIPS: Final = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "acpitz")
_PROCESSOR_ZONES: Final = ("x86_pkg_temp", "cpu", "acpitz")


def on_battery(root: Path) -> Flag:
    """Whether a battery feeds this machine. Where none is seen, as on desktops and in containers, it is on mains."""
    batteries, mains = [], []
    for supply in _entries(root / "sys/class/power_supply"):
        kind = _text(supply / "type")
        if kind == "Battery" and _text(supply / "scope") != "Device":  # a wireless mouse has a battery too
            batteries.append(supply)
        elif kind in ("Mains", "USB"):
            mains.append(_text(supply / "online"))
    if not batteries or "1" in mains:
        return False
    states = {_text(battery / "status") for battery in batteries}
    if "Discharging" in states:
        return True
    if states <= {"Charging", "Full", "Not charging"}:
        return False
    if "0" in mains:
        return True
    return Unreadable(f"the battery's state is {', '.join(sorted(repr(state or '') for state in states))}")


def processor_celsius(root: Path) -> Number:
    """The hottest sensor of the processors, in whole degrees, rounded up."""
    found = [*_chips(root), *_zones(root)]
    if not found:
        return Unreadable("this machine shows no temperature of its processors (/sys/class/hwmon, /sys/class/thermal)")
    return max(found)


def _chips(root: Path) -> Iterator[int]:
    for chip in _entries(root / "sys/class/hwmon"):
        if (_text(chip / "name") or "").startswith(_PROCESSOR_CHIPS):
            for place in _entries(chip):
                if place.name.startswith("temp") and place.name.endswith("_input"):
                    yield from _celsius(_text(place))


def _zones(root: Path) -> Iterator[int]:
    for zone in _entries(root / "sys/class/thermal"):
        if zone.name.startswith("thermal_zone") and (_text(zone / "type") or "").startswith(_PROCESSOR_ZONES):
            yield from _celsius(_text(zone / "temp"))


def _celsius(text: str | None) -> Iterator[int]:
    milli = _whole(text)
    if milli is not None and CELSIUS_MIN * 1000 <= milli <= CELSIUS_MAX * 1000:
        yield -(-milli // 1000)


@dataclass(frozen=True)
class _Counted:
    moment_s: float
    energies_uj: dict[Path, int]


class ProcessorPower:
    """The mean power of all processor packages between two readings, from their energy counters (RAPL)."""

    def __init__(self, root: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._monotonic = monotonic
        self._before: _Counted | None = None

    def watts(self) -> Number:
        """Whole watts, rounded up; the first reading has nothing to compare with."""
        packages = [
            zone
            for zone in _entries(self._root / "sys/class/powercap")
            if zone.name.startswith("intel-rapl:") and (_text(zone / "name") or "").startswith("package")
        ]
        if not packages:
            return Unreadable("this machine shows no power of its processors (/sys/class/powercap)")
        energies: dict[Path, int] = {}
        for zone in packages:
            energy = _whole(_text(zone / "energy_uj"))
            if energy is None or not 0 <= energy <= _ENERGY_UJ_MAX:
                return Unreadable(f"{zone / 'energy_uj'} cannot be read: on most systems only root may")
            energies[zone] = energy
        before, self._before = self._before, _Counted(self._monotonic(), energies)
        if before is None or before.energies_uj.keys() != energies.keys():
            return Unreadable("power is known from the second reading on")
        seconds = self._before.moment_s - before.moment_s
        used_uj = 0
        for zone, energy in energies.items():
            used = energy - before.energies_uj[zone]
            used_uj += used if used >= 0 else used + (_whole(_text(zone / "max_energy_range_uj")) or 0)  # it wraps
        if seconds <= 0 or not 0 <= used_uj <= WATTS_MAX * 1_000_000 * seconds:
            return Unreadable("the energy counters of the processors make no sense")
        return -(-used_uj // max(1, int(seconds * 1_000_000)))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())[:ENTRIES_MAX]
    except OSError:
        return []


def _text(path: Path) -> str | None:
    try:
        return read_limited(path, bytes_max=_FILE_BYTES_MAX).decode("ascii", "replace").strip()
    except (OSError, LocalIOError):  # a driver may refuse one file of many
        return None


def _whole(text: str | None) -> int | None:
    digits = (text or "").removeprefix("-")
    return int(text or "") if digits.isascii() and digits.isdigit() and len(digits) < 20 else None
