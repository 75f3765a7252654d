"""Every limit of a problem: what is just allowed, and what is just not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.slices import RULES, ask, changed, id_of, problem, user
from ubcp_p2p.allocator.problem import BadProblem, Cleaner, Problem, Reason, UnitUse, grid
from ubcp_p2p.units import AMOUNT_MAX

GOOD = problem([ask(1, 10), ask(2, 20, user=2)], [user(1, use=5), user(2)])
ASK = GOOD.asks[0]


def with_rules(**fields: Any) -> dict[str, Any]:
    return {"rules": RULES._replace(**fields)}


def with_ask(**fields: Any) -> dict[str, Any]:
    return {"asks": (ASK._replace(**fields), GOOD.asks[1])}


ALLOWED: list[dict[str, Any]] = [
    {"slice": 2**32 - 1},
    with_rules(newcomer_permille=500),
    with_rules(half_life_slices=1),
    with_rules(ageing_slices=2**20),
    {"budget": 0},
    {"budget": AMOUNT_MAX, "budget_max": AMOUNT_MAX, "capacity": AMOUNT_MAX},
    {"carbon": 0},
    {"carbon": 10**5},
    with_ask(units=AMOUNT_MAX, units_min=1),
    with_ask(waited=2**32 - 1),
    with_ask(urgency=2000),
    with_ask(cleaner=Cleaner(0, 1)),
    with_ask(standing=Reason.FROZEN),
    with_ask(purpose="whatever: it is refused, not an error"),
    {"units": (UnitUse("all", 10**6, AMOUNT_MAX),)},
]

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("slice", {"slice": 2**32}),
    ("slice", {"slice": -1}),
    ("rules.newcomer_permille", with_rules(newcomer_permille=501)),
    ("rules.half_life_slices", with_rules(half_life_slices=0)),
    ("rules.ageing_slices", with_rules(ageing_slices=2**20 + 1)),
    ("rules.slice_s", with_rules(slice_s=0)),
    ("rules.purposes", with_rules(purposes=())),
    ("rules.purposes", with_rules(purposes=("b", "a"))),
    ("rules.purposes", with_rules(purposes=("a\n",))),
    ("rules.purposes", with_rules(purposes=("é" * 33,))),
    ("budget", {"budget": -1}),
    ("budget", {"budget": AMOUNT_MAX + 1, "budget_max": AMOUNT_MAX + 1}),
    ("budget", {"budget": True}),
    ("budget", {"budget": 10.0}),
    ("budget_max", {"budget_max": 999}),
    ("capacity", {"capacity": 2**64}),
    ("reserve_carried", {"reserve_carried": 1}),
    ("reserve_carried", {"reserve_carried": 101, **with_rules(newcomer_permille=100)}),
    ("carbon", {"carbon": 10**5 + 1}),
    ("units[0].weight", {"units": (UnitUse("all", 0, 5),)}),
    ("units[0].stalled", {"units": (UnitUse("all", 1, 5, -1),)}),
    ("units[0].name", {"units": (UnitUse("", 1, 5),)}),
    ("units", {"units": (UnitUse("b", 1, 0), UnitUse("all", 1, 5))}),
    ("units", {"units": (UnitUse("all", 1, 4),)}),
    ("units", {"units": (UnitUse("all", 1, AMOUNT_MAX), UnitUse("b", 1, 1))}),
    ("units", {"units": tuple(UnitUse(f"{n:04}", 1, 0) for n in range(1025))}),
    ("applicants[0].unit", {"applicants": (user(1, unit="none"), user(2))}),
    ("applicants[1].use", {"applicants": (user(1), user(2, use=-1))}),
    ("applicants[0].stalled", {"applicants": (user(1)._replace(stalled=2**32), user(2))}),
    ("applicants[0].id", {"applicants": (user(1)._replace(id=bytes(31)), user(2))}),
    ("applicants", {"applicants": (user(2), user(1))}),
    ("applicants", {"applicants": (user(1), user(1), user(2))}),
    ("asks[0].id", with_ask(id=b"")),
    ("asks[0].applicant", with_ask(applicant=id_of(3))),
    ("asks[0].purpose", with_ask(purpose="")),
    ("asks[0].purpose", with_ask(purpose="\ud800")),
    ("asks[0].units", with_ask(units=0)),
    ("asks[0].units", with_ask(units=-10)),
    ("asks[0].units", with_ask(units=AMOUNT_MAX + 1)),
    ("asks[0].units_min", with_ask(units_min=11)),
    ("asks[0].units_min", with_ask(units_min=0)),
    ("asks[0].waited", with_ask(waited=2**32)),
    ("asks[0].urgency", with_ask(urgency=999)),
    ("asks[0].urgency", with_ask(urgency=2001)),
    ("asks[0].slices_left", with_ask(slices_left=0)),
    ("asks[0].cleaner.g_per_kwh", with_ask(cleaner=Cleaner(-1, 1))),
    ("asks[0].cleaner.slices_ahead", with_ask(cleaner=Cleaner(1, 0))),
    ("asks[0].standing", with_ask(standing=Reason.FULL)),
    ("asks", {"asks": GOOD.asks[::-1]}),
    ("asks", {"asks": (ASK, ASK)}),
    ("asks", {"asks": tuple(ASK._replace(id=id_of(n)) for n in range(10_001))}),
    ("applicants", {"applicants": tuple(user(n) for n in range(10_001))}),
]


@pytest.mark.parametrize("fields", ALLOWED)
def test_what_is_just_allowed(fields: dict[str, Any]) -> None:
    assert isinstance(changed(GOOD, **fields), Problem)


@pytest.mark.parametrize(("field", "fields"), REFUSED)
def test_what_is_just_not(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(BadProblem) as caught:
        changed(GOOD, **fields)
    assert caught.value.field == field
    assert caught.value.message.startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("budget", "permille", "expected"),
    [
        (0, 100, (1, 0, 0)),
        (1, 500, (1, 1, 0)),
        (10_000, 100, (1, 10_000, 1000)),
        (10_001, 0, (2, 5000, 0)),
        (10**6, 55, (100, 10_000, 550)),
        (AMOUNT_MAX, 500, (900_719_925_475, 9999, 4999)),
    ],
)
def test_granules(budget: int, permille: int, expected: tuple[int, int, int]) -> None:
    found = grid(budget, permille)
    assert found == expected
    assert found.capacity * found.granule <= budget
    assert found.cost(found.fits) == found.capacity - found.reserve
    assert found.cost(1) == 1
    assert found.cost(found.granule + 1) == 2
