"""Each danger is seen where it is, and only there: the bounds themselves are fine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ubcp_p2p.charter.dangers import clock_period, dangers
from ubcp_p2p.charter.draft import ALLOWANCE, Answers, first, following
from ubcp_p2p.charter.values import Allowance, Charter

STEWARDS = tuple(bytes([n]) * 32 for n in (1, 2, 3))
GOOD = first(
    Answers("Lab", ("en",), STEWARDS, threshold=2, currency="EUR", tariff=300_000, carbon_g=300), epoch=1_767_225_600
)
CAN = 350_000 * 900 * 672  # what a gpu-datacenter of the default costs sustains in a period, µcredits
DAY = 96  # slices


def keys(charter: Charter, now_period: int | None = None) -> list[str]:
    found = dangers(charter, now_period=now_period)
    assert all(danger.what and danger.remedy and "\n" not in danger.what + danger.remedy for danger in found)
    return [danger.key for danger in found]


def test_the_defaults_are_not_dangerous() -> None:
    assert keys(GOOD) == []


def test_an_open_network_is() -> None:
    assert keys(first(Answers("x"), epoch=0)) == ["threshold", "cost"]


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("threshold", {"threshold": 0}), ("threshold", {"threshold": 1}), ("threshold", {"threshold": 3}),
        ("slice_seconds", {"slice_s": 59, "period_slices": 10_080, "half_life_slices": 10_080, "ageing_slices": 1440}),
        ("slice_seconds", {"slice_s": 21_601, "period_slices": 28, "half_life_slices": 28, "ageing_slices": 4}),
        ("period_slices", {"period_slices": DAY - 1}),
        ("period_slices", {"period_slices": 31 * DAY + 1, "enrolment_periods_max": 10}),
        ("half_life_slices", {"half_life_slices": DAY - 1}), ("half_life_slices", {"half_life_slices": 90 * DAY + 1}),
        ("ageing_slices", {"ageing_slices": 3}), ("ageing_slices", {"ageing_slices": 14 * DAY + 1}),
        ("grace_slices", {"grace_slices": 0}), ("exposure_cap", {"exposure_cap": ALLOWANCE - 1}),
        ("allowance.newcomer", {"allowance": Allowance(ALLOWANCE, ALLOWANCE + 1)}),
        ("allowance", {"allowance": Allowance(CAN + 1, 1), "exposure_cap": CAN + 1}),
        ("allowance", {"allowance": Allowance(CAN // 2 + 1, 1), "exposure_cap": CAN}),
        ("allowance", {"allowance": Allowance(0, 0)}), ("allowance.newcomer", {"allowance": Allowance(ALLOWANCE, 0)}),
        ("exposure_cap", {"exposure_cap": 1000 * ALLOWANCE + 1}), ("grace_slices", {"grace_slices": 31 * DAY + 1}),
        ("earned_periods", {"earned_periods": 3}), ("newcomer_permille", {"newcomer_permille": 0}),
        ("newcomer_permille", {"newcomer_permille": 501}), ("cost", {"cost": None}),
        ("cost.device", {"cost": GOOD.cost and GOOD.cost._replace(devices=GOOD.cost.devices[1:])}),
    ],
)  # fmt: skip
def test_one_danger(key: str, changes: dict[str, Any]) -> None:
    assert keys(replace(GOOD, **changes)) == [key]


@pytest.mark.parametrize(
    "changes",
    [
        {"slice_s": 60, "period_slices": 10_080, "half_life_slices": 10_080, "ageing_slices": 1440},
        {"slice_s": 21_600, "period_slices": 28, "half_life_slices": 28, "ageing_slices": 4},
        {"period_slices": DAY, "enrolment_periods_max": 366}, {"period_slices": 31 * DAY, "enrolment_periods_max": 12},
        {"half_life_slices": DAY}, {"half_life_slices": 90 * DAY}, {"ageing_slices": 4}, {"ageing_slices": 14 * DAY},
        {"grace_slices": 1}, {"exposure_cap": ALLOWANCE},
        {"allowance": Allowance(CAN // 2, CAN // 2), "exposure_cap": CAN}, {"allowance": Allowance(ALLOWANCE, 1)},
        {"exposure_cap": 1000 * ALLOWANCE}, {"grace_slices": 31 * DAY},
        {"earned_periods": 4}, {"newcomer_permille": 1}, {"newcomer_permille": 500}, {"enrolment_periods_max": 53},
    ],
)  # fmt: skip
def test_just_not_dangerous(changes: dict[str, Any]) -> None:
    assert keys(replace(GOOD, **changes)) == []


@pytest.mark.parametrize(("days", "periods", "found"), [(100, 4, []), (401, 1, ["enrolment_periods_max"])])
def test_how_long_an_enrolment_lasts(days: int, periods: int, found: list[str]) -> None:
    charter = replace(GOOD, period_slices=days * DAY, enrolment_periods_max=periods)
    assert keys(charter) == ["period_slices", *found]


def test_an_open_network_has_no_reserve_to_be_wrong() -> None:
    assert keys(replace(GOOD, threshold=0, newcomer_permille=0)) == ["threshold"]
    assert keys(replace(GOOD, threshold=1, newcomer_permille=0)) == ["threshold", "newcomer_permille"]


def test_periods_of_years_keep_people_enrolled_who_have_left() -> None:
    charter = replace(GOOD, period_slices=500 * DAY, enrolment_periods_max=1, half_life_slices=DAY)
    assert keys(charter) == ["period_slices", "enrolment_periods_max"]


def test_one_steward_alone_is_one_danger() -> None:
    (danger,) = dangers(replace(GOOD, stewards=STEWARDS[:1], threshold=1))
    assert danger.key == "threshold"
    assert danger.what.startswith("there is one steward: ")
    assert "all 1" not in danger.what


def test_a_peak_counts_where_no_sustained_speed_is_known() -> None:
    more = Allowance(CAN + 1, 1)
    assert keys(replace(GOOD, allowance=more, exposure_cap=CAN + 1, cost=None)) == ["cost"]


def test_a_version_that_has_begun_already() -> None:
    after = following(GOOD, 9)
    assert keys(after) == keys(after, now_period=8) == []
    assert keys(after, now_period=9) == ["effective_period"]
    assert keys(GOOD, now_period=9) == []


def test_a_version_that_freezes_the_rules_for_years() -> None:
    """None after it may hold sooner (SPEC §4.2)."""
    assert keys(following(GOOD, 60), now_period=8) == []
    assert keys(following(GOOD, 61), now_period=8) == ["effective_period"]
    assert keys(following(GOOD, 2**31), now_period=8) == ["effective_period"]


def test_a_time_that_does_not_begin() -> None:
    assert keys(GOOD, now_period=-4) == []
    assert keys(GOOD, now_period=-5) == ["epoch"]
    week = 7 * 86_400
    assert [clock_period(GOOD, GOOD.epoch + at) for at in (-5 * week, -1, 0, week)] == [-5, -1, 0, 1]
