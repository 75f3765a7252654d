"""A community's first charter from a few answers, and the next version of one that holds. Pure.

What nobody is asked has a default that a community can live with; all of it can be changed in the file before signing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from ubcp_p2p.charter.values import Allowance, Charter, CostBasis, DeviceClass, DeviceCost, Unit
from ubcp_p2p.units import MICROCREDITS

DAY_S: Final = 86_400
WEEK_S: Final = 7 * DAY_S
MONDAY_S: Final = 4 * DAY_S  # 1970-01-05, the first Monday of Unix time

SLICE_S: Final = 900
PERIOD_SLICES: Final = WEEK_S // SLICE_S
ALLOWANCE: Final = 10_000 * MICROCREDITS
CAP_ALLOWANCES: Final = 10  # the exposure cap: savings and earnings of some weeks, not a thief's whole haul
NEWCOMER_PERMILLE: Final = 150
PURPOSES: Final = ("education", "public-interest", "research")
REFUSED: Final = ("crypto-mining", "surveillance", "weapons")
UNITS: Final = (Unit("everybody", 1),)
DEVICES: Final = (
    DeviceClass("cpu", 5_000),
    DeviceClass("gpu-consumer", 400_000),
    DeviceClass("gpu-datacenter", 2_500_000),
)
# Guesses of what machines of these classes are like, for a community to replace: GFLOP/s sustained in training, mW of
# the whole machine, its price when new in millionths of a currency of about the euro's worth, hours of life.
COSTS: Final = (
    DeviceCost("cpu", 300, 100_000, 800 * 10**6, 43_800),
    DeviceCost("gpu-consumer", 40_000, 450_000, 2_000 * 10**6, 35_040),
    DeviceCost("gpu-datacenter", 350_000, 1_000_000, 30_000 * 10**6, 35_040),
)


@dataclass(frozen=True)
class Answers:
    """What differs from community to community. Amounts are µcredits; currency None: no cost basis."""

    name: str
    languages: Sequence[str] = ()
    stewards: Sequence[bytes] = ()
    threshold: int = 0
    member: int = ALLOWANCE
    newcomer: int | None = None  # None: as a member
    exposure_cap: int | None = None  # None: CAP_ALLOWANCES allowances
    newcomer_permille: int = NEWCOMER_PERMILLE
    purposes: Sequence[str] = PURPOSES
    refused: Sequence[str] = REFUSED
    units: Sequence[Unit] = UNITS
    currency: str | None = None
    tariff: int = 0  # millionths of the currency per kWh
    carbon_g: int = 0  # per kWh


def first(answers: Answers, *, epoch: int) -> Charter:
    """The first version. Raises CharterError."""
    cost = None
    if answers.currency is not None:
        cost = CostBasis(answers.currency, answers.tariff, answers.carbon_g, COSTS)
    newcomer = answers.member if answers.newcomer is None else answers.newcomer
    cap = CAP_ALLOWANCES * max(answers.member, newcomer) if answers.exposure_cap is None else answers.exposure_cap
    return Charter(
        name=answers.name, epoch=epoch, slice_s=SLICE_S, period_slices=PERIOD_SLICES,
        allowance=Allowance(answers.member, newcomer), allowance_periods=4, earned_periods=26, exposure_cap=cap,
        grace_slices=DAY_S // SLICE_S, enrolment_periods_max=52, threshold=answers.threshold,
        stewards=tuple(sorted(set(answers.stewards))),
        units=tuple(sorted(answers.units, key=lambda unit: unit.name.encode())), devices=DEVICES,
        purposes=tuple(sorted(set(answers.purposes), key=str.encode)), languages=tuple(sorted(set(answers.languages))),
        newcomer_permille=answers.newcomer_permille, half_life_slices=WEEK_S // SLICE_S,
        ageing_slices=DAY_S // SLICE_S, refused=tuple(sorted(set(answers.refused), key=str.encode)), cost=cost,
    )  # fmt: skip


def following(before: Charter, effective: int) -> Charter:
    """The next version, saying the same from another period on: to be edited, then signed by the stewards of `before`.

    Raises CharterError.
    """
    return replace(before, number=before.number + 1, previous=before.id, effective=effective)


def majority(stewards: int) -> int:
    """How many must sign unless somebody says otherwise."""
    return stewards // 2 + 1 if stewards else 0


def epoch_at(now_s: float) -> int:
    """The last Monday's first moment, UTC: weeks of the calendar are periods."""
    return int((now_s - MONDAY_S) // WEEK_S) * WEEK_S + MONDAY_S
