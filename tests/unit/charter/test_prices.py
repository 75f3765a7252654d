"""What a credit costs to make: figures worked by hand, and how they depend on each number of the basis."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.charter.draft import Answers, first
from ubcp_p2p.charter.prices import Price, price_of, prices
from ubcp_p2p.charter.values import CostBasis, DeviceCost

BASIS = CostBasis("EUR", 300_000, 360, ())


def test_by_hand() -> None:
    """40 TFLOP/s make a PFLOP in 25 s; 450 W for 25 s are 11,250 J, or 1/320 kWh."""
    device = DeviceCost("gpu", 40_000, 450_000, 2_000_000_000, 25_000)
    assert price_of(BASIS, device) == Price(
        device="gpu",
        seconds=Fraction(25),
        kwh=Fraction(1, 320),
        energy=Fraction(3, 3200),
        hardware=Fraction(2000 * 25, 25_000 * 3600),
        gco2=Fraction(9, 8),
    )


def test_the_cheapest_comes_first() -> None:
    charter = first(Answers("x", currency="EUR", tariff=300_000, carbon_g=300), epoch=0)
    assert [row.device for row in prices(charter.cost)] == ["gpu-datacenter", "gpu-consumer", "cpu"]


def test_without_a_basis_nothing_is_said() -> None:
    assert prices(None) == ()


counts = st.integers(1, 10**9)


@given(counts, counts, counts, counts, st.integers(2, 50))
def test_each_figure_follows_its_number(sustained: int, power: int, price: int, lifetime: int, factor: int) -> None:
    device = DeviceCost("d", sustained, power, price, lifetime)
    one = price_of(BASIS, device)
    assert one.total == one.energy + one.hardware > 0
    dearer = price_of(BASIS._replace(tariff=factor * BASIS.tariff), device)
    assert dearer == one._replace(energy=factor * one.energy)
    dirtier = price_of(BASIS._replace(carbon_g=factor * BASIS.carbon_g), device)
    assert dirtier == one._replace(gco2=factor * one.gco2)
    assert price_of(BASIS, device._replace(price=factor * price)) == one._replace(hardware=factor * one.hardware)
    assert price_of(BASIS, device._replace(lifetime_h=factor * lifetime)).hardware == one.hardware / factor
    hungrier = price_of(BASIS, device._replace(power_mw=factor * power))
    assert (hungrier.kwh, hungrier.hardware) == (factor * one.kwh, one.hardware)
    faster = price_of(BASIS, device._replace(sustained=factor * sustained))
    assert faster.times(Fraction(factor)) == one


def test_the_price_of_a_credit_is_the_same_whatever_it_costs() -> None:
    """The basis explains; nothing in the ledger's rules reads it."""
    charter = first(Answers("x"), epoch=0)
    dear = replace(charter, cost=CostBasis("EUR", 10**12, 0, (DeviceCost("cpu", 1, 10**12, 0, 1),)))
    assert replace(dear, cost=None) == charter
