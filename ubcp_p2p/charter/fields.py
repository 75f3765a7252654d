"""What a charter is made of, and the limits of each field (SPEC §4.1). Pure.

`CharterError.key` is the key as people write it in TOML (`document`), so that an error can name it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from ubcp_p2p.errors import UbcpError
from ubcp_p2p.units import AMOUNT_MAX

if TYPE_CHECKING:
    from ubcp_p2p.charter.values import Charter

FORMAT: Final = 1
CHARTER_BYTES_MAX: Final = 64 * 1024
# What an allocator keeps of a slice for newcomers at most: above, the largest request that is sure to fit is smaller
# than the reserve.
RESERVE_PERMILLE_MAX: Final = 500
VERSIONS_MAX: Final = 1024
STEWARDS_MAX: Final = 64
LANGUAGES_MAX: Final = 64
ROWS_MAX: Final = 1024  # units, device classes, purposes, refused purposes, devices with a cost
TEXT_BYTES_MAX: Final = 64
PERIOD_MAX: Final = 2**32 - 1
SLICES_MAX: Final = 2**20  # of a period, a grace, a half-life: 29 years of slices of 15 minutes
SLICE_S_MAX: Final = 86_400
YEAR_S: Final = 366 * 86_400
ENROLMENT_PERIODS_MAX: Final = 1024  # each period of an enrolment is an allowance to add up
EPOCH_MAX: Final = 2**37  # the year 6325: every calendar library can write it
PERMILLE_MAX: Final = 1000
PEAK_MAX: Final = 10**12  # GFLOP/s
POWER_MAX_MW: Final = 10**12  # a gigawatt: a device class may be a whole cluster
TARIFF_MAX: Final = 10**12  # µ¤ per kWh: a million of the currency
CARBON_MAX_G: Final = 10**6  # per kWh; the dirtiest grids have 10^3
LIFETIME_MAX_H: Final = 10**6  # a century
NO_ID: Final = bytes(32)

_LANGUAGE: Final = re.compile(r"[A-Za-z0-9-]{2,35}")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")


class CharterError(UbcpError):
    """A charter that is malformed, unsigned, or does not follow from the one before; `code` names the class."""

    def __init__(self, code: str, message: str, *, hint: str | None = None, key: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.key = key


class Allowance(NamedTuple):
    """What each enrolled person gets per period, in µcredits."""

    member: int
    newcomer: int


class Unit(NamedTuple):
    """A school, lab, village … whose people share one part of the capacity."""

    name: str
    weight: int


class DeviceClass(NamedTuple):
    """Hardware of one kind. peak: GFLOP/s that no device of this class exceeds."""

    name: str
    peak: int


class DeviceCost(NamedTuple):
    """What a device of one class costs to run. sustained: GFLOP/s in training; price: µ¤ for `lifetime_h` of work."""

    name: str
    sustained: int
    power_mw: int
    price: int
    lifetime_h: int


class CostBasis(NamedTuple):
    """Where the price of a credit comes from. tariff: µ¤ per kWh, ¤ being the currency; devices: sorted by name."""

    currency: str  # ISO 4217
    tariff: int
    carbon_g: int  # CO2 per kWh
    devices: tuple[DeviceCost, ...]


def check(charter: Charter) -> None:
    """SPEC §4.1, the limits of each field. Raises CharterError."""
    _check_times(charter)
    amounts = {"allowance.member": charter.allowance.member, "allowance.newcomer": charter.allowance.newcomer,
               "exposure_cap": charter.exposure_cap}  # fmt: skip
    for key, amount in amounts.items():
        need(0 <= amount <= AMOUNT_MAX, key, f"amounts must be 0 to {AMOUNT_MAX} µcredits")
    check_threshold(charter.threshold, len(charter.stewards))
    need(all(len(key) == 32 for key in charter.stewards), "stewards", "stewards must be keys of 32 bytes")
    need(list(charter.stewards) == sorted(set(charter.stewards)), "stewards", "stewards must be sorted, each once")
    _check_names("unit", "units", 1, [unit.name for unit in charter.units])
    _check_names("device", "device classes", 1, [device.name for device in charter.devices])
    check_purposes(charter.purposes, charter.refused)
    check_name(charter.name)
    check_languages(charter.languages)
    need(all(1 <= unit.weight <= 10**6 for unit in charter.units), "unit.weight", "weights must be 1 to 10^6")
    need(all(1 <= device.peak <= PEAK_MAX for device in charter.devices), "device.peak_gflops",
         "device peaks must be 1 to 10^12 GFLOP/s")  # fmt: skip
    need(0 <= charter.newcomer_permille <= PERMILLE_MAX, "newcomer_permille",
         f"newcomer reserve must be 0 to {PERMILLE_MAX} per mille")  # fmt: skip
    if charter.cost is not None:
        _check_cost(charter.cost, dict(charter.devices))


def need(good: bool, key: str, what: str) -> None:
    """Raise CharterError of a field unless `good`."""
    if not good:
        raise CharterError("charter-field", f"the charter's {what}", key=key)


def check_threshold(threshold: int, stewards: int) -> None:
    """How many of so many stewards must sign. Raises CharterError."""
    need(stewards <= STEWARDS_MAX, "stewards", f"stewards are {stewards}, and {STEWARDS_MAX} are the most")
    named = f"{f'only {stewards}' if stewards else 'no'} steward{' is' if stewards == 1 else 's are'} named"
    need(0 <= threshold <= stewards, "threshold", f"threshold is {threshold}, but {named}")


def check_purposes(purposes: Sequence[str], refused: Sequence[str]) -> None:
    """Those that requests may name, and those that nothing is for. Raises CharterError."""
    _check_names("purposes", "purposes", 1, purposes)
    _check_names("purposes_refused", "refused purposes", 0, refused)
    both = sorted(set(purposes) & set(refused))
    need(not both, "purposes_refused", f"purposes have {', '.join(both)!r} both allowed and refused")


def check_languages(languages: Sequence[str]) -> None:
    """Raises CharterError."""
    need(len(languages) <= LANGUAGES_MAX, "languages", f"languages must be at most {LANGUAGES_MAX}")
    need(list(languages) == sorted(set(languages)), "languages", "languages must be sorted, each once")
    need(all(_LANGUAGE.fullmatch(tag) for tag in languages), "languages",
         "languages must be tags like en or pt-BR: 2 to 35 letters, digits and hyphens")  # fmt: skip


def check_energy(currency: str, tariff: int, carbon_g: int) -> None:
    """A currency, what a kWh costs in millionths of it, and what it emits. Raises CharterError."""
    need(bool(_CURRENCY.fullmatch(currency)), "cost.currency", "currency must be three capital letters, as EUR")
    need(0 <= tariff <= TARIFF_MAX, "cost.tariff_per_kwh", "tariff must be 0 to 1,000,000 per kWh")
    need(0 <= carbon_g <= CARBON_MAX_G, "cost.gco2_per_kwh", "carbon must be 0 to 10^6 g per kWh")


def _check_times(charter: Charter) -> None:
    need(1 <= charter.number <= VERSIONS_MAX, "number", f"number must be 1 to {VERSIONS_MAX}")
    need(0 <= charter.effective <= PERIOD_MAX, "effective_period", f"first period must be 0 to {PERIOD_MAX}")
    need(len(charter.previous) == 32, "previous", "previous hash must have 32 bytes")
    need(0 <= charter.epoch <= EPOCH_MAX, "epoch", f"epoch must be Unix seconds from 0 to {EPOCH_MAX}")
    need(1 <= charter.slice_s <= SLICE_S_MAX, "slice_seconds", f"slice must last 1 to {SLICE_S_MAX} seconds")
    need(1 <= charter.period_slices <= SLICES_MAX, "period_slices", "period must have 1 to 2^20 slices")
    for key, periods in (("allowance_periods", charter.allowance_periods), ("earned_periods", charter.earned_periods)):
        need(1 <= periods <= 1024, key, "expiries must be 1 to 1024 periods")
    need(0 <= charter.grace_slices <= SLICES_MAX, "grace_slices", "grace must be 0 to 2^20 slices")
    need(1 <= charter.half_life_slices <= SLICES_MAX, "half_life_slices", "half-life must be 1 to 2^20 slices")
    need(1 <= charter.ageing_slices <= SLICES_MAX, "ageing_slices", "ageing must be 1 to 2^20 slices")
    year = min(-(-YEAR_S // (charter.slice_s * charter.period_slices)), ENROLMENT_PERIODS_MAX)
    need(1 <= charter.enrolment_periods_max <= max(1, year), "enrolment_periods_max",
         f"longest enrolment must be 1 to {max(1, year)} periods (a year)")  # fmt: skip


def check_name(name: str) -> None:
    """Of a community. Raises CharterError."""
    need(is_text(name), "name", f"name must have 1 to {TEXT_BYTES_MAX} bytes and no control characters")


def _check_names(key: str, what: str, least: int, rows: Sequence[str]) -> None:
    need(least <= len(rows) <= ROWS_MAX, key, f"{what} must be {least} to {ROWS_MAX}")
    need(list(rows) == sorted(set(rows), key=str.encode), key, f"{what} must be sorted by name, each once")
    need(all(is_text(text) for text in rows), key,
         f"names must have 1 to {TEXT_BYTES_MAX} bytes and no control characters")  # fmt: skip


def _check_cost(cost: CostBasis, peaks: dict[str, int]) -> None:
    check_energy(cost.currency, cost.tariff, cost.carbon_g)
    names = [device.name for device in cost.devices]
    key = "cost.device"
    need(1 <= len(names) <= ROWS_MAX, key, f"devices with a cost must be 1 to {ROWS_MAX}")
    need(names == sorted(set(names), key=str.encode), key, "devices with a cost must be sorted by name, each once")
    for device in cost.devices:
        need(device.name in peaks, f"{key}.name", f"costs name {device.name!r}, which is no device class of it")
        need(1 <= device.sustained <= peaks[device.name], f"{key}.sustained_gflops",
             f"{device.name!r} must sustain 1 to {peaks[device.name]} GFLOP/s, the peak of its class")  # fmt: skip
        need(1 <= device.power_mw <= POWER_MAX_MW, f"{key}.watts", "devices must take 0.001 to 10^9 watts")
        need(0 <= device.price <= AMOUNT_MAX, f"{key}.price", f"device prices must be 0 to {AMOUNT_MAX} millionths")
        need(1 <= device.lifetime_h <= LIFETIME_MAX_H, f"{key}.lifetime_hours", "lifetimes must be 1 to 10^6 hours")


def is_text(text: str) -> bool:
    """SPEC §2.2: 1 to 64 bytes of UTF-8 without control characters (code points below 0x20, and 0x7F)."""
    return 0 < len(text.encode()) <= TEXT_BYTES_MAX and all(char >= " " and char != "\x7f" for char in text)
