"""Shares and utilities: the formulas of docs/allocator.md, against 60 digits."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest

from tests.support.slices import ask, id_of, made_up, problem, user
from ubcp_p2p.allocator.allocation import allocate
from ubcp_p2p.allocator.fixed import exponent
from ubcp_p2p.allocator.problem import SLICE_MAX, UnitUse
from ubcp_p2p.allocator.shares import Share, standings
from ubcp_p2p.allocator.utility import Level, Piece, pieces_of, scaled, to_scale, weight
from ubcp_p2p.units import AMOUNT_MAX

FOREVER = SLICE_MAX  # unless it is said how long the first request has been the first

# -- shares -----------------------------------------------------------------------------------------------------------


def test_units_share_by_weight_and_people_equally() -> None:
    asks = [ask(1, 1, user=1), ask(2, 1, user=2), ask(3, 1, user=3)]
    users = [user(1, unit="a")._replace(stalled=9), user(2, unit="b"), user(3, unit="b", use=100)]
    units = [UnitUse("a", 1, 0, 7), UnitUse("b", 3, 100)]
    found = standings(problem(asks, users, units=units, capacity=800), [one.applicant for one in asks])
    assert found[id_of(1)][:2] == (Share(0, 200, 9), Share(0, 200, 7))
    assert found[id_of(2)][:2] == (Share(0, 300, FOREVER), Share(100, 600, FOREVER))
    assert found[id_of(3)][:2] == (Share(100, 300, FOREVER), Share(100, 600, FOREVER))


def test_the_basis_is_use_where_that_is_more_than_a_slice_of_the_network() -> None:
    one = problem([ask(1, 1)], [user(1, use=5000)], capacity=1000)
    assert standings(one, [id_of(1)])[id_of(1)].user == Share(5000, 5000, FOREVER)


def test_who_has_neither_use_nor_a_request_has_no_share() -> None:
    users = [user(1, unit="a"), user(2, unit="b"), user(3, unit="c", use=1)]
    units = [UnitUse("a", 1, 0), UnitUse("b", 10**6, 0), UnitUse("c", 1, 1)]
    found = standings(problem([ask(1, 1)], users, units=units, capacity=1000), [id_of(1)])
    assert set(found) == {id_of(1), id_of(3)}
    assert found[id_of(1)].unit.part == 500


def test_a_part_is_at_least_one() -> None:
    users = [user(n) for n in range(1, 20)]
    found = standings(problem([], users, capacity=3), [one.id for one in users])
    assert {one.user.part for one in found.values()} == {1}
    assert standings(problem([], users, capacity=0, budget=0), [id_of(1)])[id_of(1)].user.part == 1


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [1, 1000, 2**30, AMOUNT_MAX])
@pytest.mark.parametrize("quantum", [1, 7, 10**6, AMOUNT_MAX])
def test_the_integral(quantum: int, part: int) -> None:
    with localcontext(prec=60):
        true = part / Decimal(2).ln() * (1 - Decimal(2) ** -(Decimal(quantum) / part))
        assert abs(Decimal(weight(quantum, part)) / 2**64 / true - 1) < Decimal(2) ** -40


def _worth(pieces: tuple[Piece, ...]) -> Decimal:
    return sum(
        (Decimal(piece.weight) / 2**64 * Decimal(2) ** (Decimal(piece.rise - piece.fall) / 2**96) for piece in pieces),
        Decimal(0),
    )


@pytest.mark.parametrize(
    ("user_at", "unit_at", "at_unit"),
    [
        ((500, 100, 0), (100, 1000, 0), 0),  # the user is ahead, and stays so
        ((0, 100, 0), (900, 1000, 0), 100),  # the unit is ahead for 100 units of work: then both are at 1
        ((0, 100, 0), (9000, 1000, 0), 250),  # for longer than the quantum
        ((3, 1000, 0), (2, 1000, 0), 0),
        ((2, 1000, 0), (3, 1000, 0), 250),  # the only one of its unit
        ((500, 100, 96), (100, 1000, 96), 0),
        ((500, 100, 96 * 5), (100, 1000, 0), 11),  # waiting makes up for the user's use, not for the unit's
        ((0, 100, 0), (900, 1000, 96), 0),
    ],
)
def test_the_level_is_the_worse_one_at_each_point(
    user_at: tuple[int, int, int], unit_at: tuple[int, int, int], at_unit: int
) -> None:
    levels = [Level(used, part, exponent(wait, 96)) for used, part, wait in (user_at, unit_at)]
    pieces = pieces_of(levels[0], levels[1], 250, 1500)
    lengths = [length for length in (at_unit, 250 - at_unit) if length]
    assert len(pieces) == len(lengths)
    with localcontext(prec=60):
        true = Decimal(0)
        steps = 4000
        for step in range(steps):  # the middle rule over the larger v/S
            x = Decimal(250) * (2 * step + 1) / (2 * steps)
            true += Decimal(2) ** -max(
                (used + x) / part - Decimal(wait) / 96 for used, part, wait in (user_at, unit_at)
            )
        true *= Decimal(250) / steps * Decimal("1.5") * 1000
        assert abs(_worth(pieces) / true - 1) < Decimal(10) ** -5


def test_values_keep_their_ratios_in_the_common_scale() -> None:
    rows = [(Piece(weight(1000, 10**6), rise << 96, fall << 96),) for rise, fall in ((0, 0), (3, 0), (0, 5), (40, 45))]
    one, eight, small, same = scaled(rows)
    assert same == small
    assert abs(one - 32 * small) <= 32
    assert abs(eight - 8 * one) <= 8


def test_what_is_far_below_the_rest_is_still_worth_one() -> None:
    rows = [(Piece(weight(10, 10), 0, 0),), (Piece(weight(10, 10), 0, 10**9 << 96),)]
    assert scaled(rows)[1] == 1
    assert scaled([rows[1]])[0] > 2**47  # alone, it has the whole scale


def test_the_sum_is_below_two_to_the_fifty() -> None:
    for raw in ([2**300] * 10_000, [1] * 10_000, [2**49] * 3, [2**49 - 1], [0, 0]):
        assert sum(to_scale(raw)) < 2**50
        assert min(to_scale(raw)) >= 1
    assert to_scale([2**48, 5]) == [2**48, 5]
    assert scaled([]) == []


def values(*asks: object, **fields: object) -> list[int]:
    return [entry.worth.value for entry in allocate(problem(list(asks), **fields)).entries]  # type: ignore[arg-type]


def test_waiting_one_ageing_time_doubles_a_value() -> None:
    new, old = values(ask(1, 10, user=1), ask(2, 10, user=2, waited=96), capacity=10**6, budget=100)
    assert abs(old - 2 * new) * 10**4 < old  # the unit's earlier quantum takes a hundred thousandth


def test_only_the_first_request_of_a_user_and_of_a_unit_waits() -> None:
    """Those that wait behind it would else be worth more for the length of their own queue."""
    alone = values(ask(1, 10, waited=96), capacity=10**9)
    first, second = values(ask(1, 10, waited=96), ask(2, 10, waited=96), capacity=10**9)
    assert len(alone) == 1
    assert abs(first - 2 * second) * 10**4 < first
    users = [user(1, unit="a"), user(2, unit="a"), user(3, unit="b")]
    asks = [ask(1, 10, user=1, waited=97), ask(2, 10, user=2, waited=96), ask(3, 10, user=3)]
    _, behind, new = values(*asks, users=users, capacity=10**9)
    assert abs(behind - new) * 10**4 < new


def test_the_first_waits_since_it_is_the_first() -> None:
    users = [user(1, unit="a")._replace(stalled=48), user(2, unit="b")]
    moved, new = values(ask(1, 10, user=1, waited=96), ask(2, 10, user=2), users=users, capacity=10**9)
    assert abs(moved * 1000 - 1414 * new) < 2 * new


def test_waiting_makes_up_for_a_users_use_but_not_for_its_units() -> None:
    users = [user(1, unit="a", use=3000), user(2, unit="a"), user(3, unit="b", use=3000)]
    units = [UnitUse("a", 1, 3000, 0), UnitUse("b", 1, 3000)]
    asks = [ask(1, 1, user=1, waited=400), ask(2, 1, user=2), ask(3, 1, user=3)]
    heavy, light, other = values(*asks, users=users, units=units, capacity=0)
    assert abs(heavy - light) * 100 < light
    assert abs(other - light) * 100 < light


def test_urgency_multiplies() -> None:
    plain, urgent = values(ask(1, 10, user=1), ask(2, 10, user=2, urgency=1700), capacity=10**9)
    assert abs(urgent * 1000 - 1700 * plain) < plain


def test_value_grows_with_work() -> None:
    small, large = values(ask(1, 10, user=1), ask(2, 750, user=2), capacity=10**9)
    assert abs(large - 75 * small) < small // 100


def test_what_is_queued_before_counts_as_use() -> None:
    first, second, third = values(ask(1, 100), ask(2, 100), ask(3, 100), capacity=100)
    assert abs(first - 2 * second) <= 4
    assert abs(second - 2 * third) <= 4
    later, sooner = values(ask(1, 100), ask(2, 100, waited=1), capacity=100)
    assert later < sooner


def test_use_of_the_unit_counts_where_it_is_worse() -> None:
    users = [user(1, unit="a", use=0), user(2, unit="b", use=0), user(3, unit="a", use=3000)]
    units = [UnitUse("a", 1, 3000), UnitUse("b", 1, 0)]
    mine, theirs = values(ask(1, 10, user=1), ask(2, 10, user=2), users=users, units=units, capacity=3000)
    assert abs(theirs - 4 * mine) * 50 < theirs  # v/S is 2 for unit a


def test_ids_decide_who_was_first_among_equally_long_waiting() -> None:
    first, second = values(ask(7, 100), ask(3, 100), capacity=100)  # entries are in the order of their ids: 3, 7
    assert first > second


def test_a_lifelike_problem_keeps_the_limits() -> None:
    for seed in range(5):
        found = [entry.worth.value for entry in allocate(made_up(seed, 300)).entries]
        assert sum(found) < 2**50
        assert min(found) >= 1
