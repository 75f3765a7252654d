"""What one credit costs to make, by device class, from the charter's cost basis (SPEC §4.1). Pure, exact fractions.

The price is 1 credit for 1 PFLOP, whoever computes it on whatever: this table says what stands behind the credit.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final, NamedTuple

from ubcp_p2p.charter.values import CostBasis, DeviceCost
from ubcp_p2p.units import MICROCREDITS

HOUR_S: Final = 3600
MICRO: Final = 10**6  # money in a charter is in millionths


class Price(NamedTuple):
    """What computing takes on a device of one class: for one credit (10^6 GFLOP), or some. Money in the currency."""

    device: str
    seconds: Fraction
    kwh: Fraction
    energy: Fraction
    hardware: Fraction  # the part of its price that the time is of its life
    gco2: Fraction

    @property
    def total(self) -> Fraction:
        """Energy and hardware."""
        return self.energy + self.hardware

    def times(self, credits_: Fraction) -> Price:
        """What so many credits take."""
        return Price(self.device, *(figure * credits_ for figure in self[1:]))


def price_of(basis: CostBasis, device: DeviceCost) -> Price:
    """One row of the table."""
    seconds = Fraction(MICROCREDITS, device.sustained)
    kwh = seconds * Fraction(device.power_mw, HOUR_S * 10**6)  # mW·s to kWh: a kW has 10^6 mW
    return Price(
        device=device.name,
        seconds=seconds,
        kwh=kwh,
        energy=kwh * Fraction(basis.tariff, MICRO),
        hardware=seconds * Fraction(device.price, MICRO * HOUR_S * device.lifetime_h),
        gco2=kwh * basis.carbon_g,
    )


def prices(basis: CostBasis | None) -> tuple[Price, ...]:
    """The table, cheapest first; empty without a basis."""
    rows = (price_of(basis, device) for device in basis.devices) if basis is not None else ()
    return tuple(sorted(rows, key=lambda row: (row.total, row.device)))
