"""Limits that no vector can show, as no charter's bytes have a negative number; and the key that an error names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ubcp_p2p.charter.draft import COSTS, Answers, first
from ubcp_p2p.charter.values import Allowance, Charter, CharterError, CostBasis

GOOD = first(Answers("Lab", ("en",), [bytes([1]) * 32], 1), epoch=0)


def cost(**changes: Any) -> dict[str, Any]:
    return {"cost": CostBasis("EUR", 0, 0, COSTS)._replace(**changes)}


def device(**changes: Any) -> dict[str, Any]:
    return {"cost": CostBasis("EUR", 0, 0, (COSTS[0]._replace(**changes),))}


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("number", {"number": -1}), ("effective_period", {"effective": -1}), ("epoch", {"epoch": -1}),
        ("slice_seconds", {"slice_s": -1}), ("period_slices", {"period_slices": -1}),
        ("allowance_periods", {"allowance_periods": -1}), ("earned_periods", {"earned_periods": -1}),
        ("grace_slices", {"grace_slices": -1}), ("half_life_slices", {"half_life_slices": -1}),
        ("ageing_slices", {"ageing_slices": -1}), ("enrolment_periods_max", {"enrolment_periods_max": -1}),
        ("exposure_cap", {"exposure_cap": -1}), ("allowance.member", {"allowance": Allowance(-1, 0)}),
        ("allowance.newcomer", {"allowance": Allowance(0, -1)}), ("threshold", {"threshold": -1}),
        ("newcomer_permille", {"newcomer_permille": -1}), ("cost.tariff_per_kwh", cost(tariff=-1)),
        ("cost.gco2_per_kwh", cost(carbon_g=-1)), ("cost.device.price", device(price=-1)),
        ("cost.device.watts", device(power_mw=-1)), ("cost.device.lifetime_hours", device(lifetime_h=-1)),
        ("cost.device.sustained_gflops", device(sustained=-1)),
    ],
)  # fmt: skip
def test_nothing_is_negative(key: str, changes: dict[str, Any]) -> None:
    with pytest.raises(CharterError) as caught:
        replace(GOOD, **changes)
    assert (caught.value.code, caught.value.key) == ("charter-field", key)


@pytest.mark.parametrize(("key", "changes"), [
    ("previous", {"previous": bytes(31)}), ("stewards", {"stewards": (bytes(31), bytes(32))}),
    ("name", {"name": ""}), ("unit", {"units": ()}), ("device", {"devices": ()}), ("purposes", {"purposes": ()}),
    ("languages", {"languages": ("en",) * 2}),
    ("languages", {"languages": tuple(f"a{n:02}" for n in range(65))}),
    ("purposes_refused", {"refused": ("research",)}),
])  # fmt: skip
def test_the_key_is_named(key: str, changes: dict[str, Any]) -> None:
    with pytest.raises(CharterError) as caught:
        replace(GOOD, **changes)
    assert caught.value.key == key


def test_purposes_both_allowed_and_refused_are_named_in_order() -> None:
    with pytest.raises(CharterError, match="'education, research' both allowed and refused"):
        replace(GOOD, refused=("education", "research"))


def test_a_charter_is_never_longer_than_it_may_be() -> None:
    texts = tuple(f"{n:064}" for n in range(1000))
    with pytest.raises(CharterError, match="at most 65536 bytes") as caught:
        replace(GOOD, refused=texts)
    assert caught.value.code == "charter-encoding"
    assert len(replace(GOOD, refused=texts[:900]).to_bytes()) < 65_536
    assert Charter.from_bytes(GOOD.to_bytes()) == GOOD
