"""The cleanest slice and what waiting for it has saved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.carbon.choose import CLEANER_PERCENT, Hold, Savings, Worked, cleanest, grams_text, saved
from ubcp_p2p.carbon.values import G_PER_KWH_MAX, Slot, gram_seconds, is_in_order, mean

HOUR = 3600


def _hours(*grams: int, start: int = 0) -> tuple[Slot, ...]:
    return tuple(Slot(start + n * HOUR, start + (n + 1) * HOUR, g) for n, g in enumerate(grams))


def test_a_mean_is_of_time_and_rounds_up() -> None:
    slots = _hours(100, 201)
    assert mean(slots, 0, 2 * HOUR) == 151
    assert mean(slots, HOUR, 2 * HOUR) == 201
    assert mean(slots, 1800, 1800 + HOUR) == 151
    assert mean(slots, HOUR, 3 * HOUR) is None
    assert mean((slots[0], Slot(3 * HOUR, 4 * HOUR, 5)), 0, 4 * HOUR) is None  # a gap
    assert gram_seconds(slots, 0, 10) == 1000


def test_order() -> None:
    assert is_in_order(_hours(1, 2, 3))
    assert is_in_order(())
    assert not is_in_order((Slot(0, 10, 1), Slot(9, 20, 1)))


@pytest.mark.parametrize(
    ("grams", "deadline_h", "held"),
    [
        ((100, 80), 2, Hold(HOUR, 100, 80)),  # 20 % cleaner is just enough
        ((100, 81), 2, None),
        ((100, 10), 1, None),  # it ends after the deadline
        ((100, 90, 50, 50), 4, Hold(2 * HOUR, 100, 50)),  # of equals the earliest
        ((100, 50, 40), 3, Hold(2 * HOUR, 100, 40)),
        ((0, 0), 2, None),  # nothing is cleaner than nothing
        ((100,), 9, None),  # no forecast, no hold
    ],
)
def test_the_cleanest(grams: tuple[int, ...], deadline_h: int, held: Hold | None) -> None:
    assert cleanest(_hours(*grams), 0, deadline_h * HOUR, HOUR) == held


def test_a_slice_that_is_not_covered_is_not_counted_on() -> None:
    gap = (Slot(0, HOUR, 100), Slot(HOUR, 2 * HOUR - 1, 10), Slot(3 * HOUR, 4 * HOUR, 50))
    assert cleanest(gap, 0, 9 * HOUR, HOUR) == Hold(3 * HOUR, 100, 50)
    assert cleanest(gap[1:], 0, 9 * HOUR, HOUR) is None  # nor is the present one guessed


def test_slices_and_slots_need_not_match() -> None:
    halves = (Slot(0, 1800, 100), Slot(1800, 5400, 40), Slot(5400, 9000, 80))
    # the slice from 1 h on has half an hour of 40 and half an hour of 80
    assert cleanest(halves, 0, 2 * HOUR, HOUR) is None  # 60 against 70
    assert cleanest(halves, 0, 2 * HOUR, 1800) == Hold(1800, 100, 40)
    reaching = (Slot(0, 5400, 100), Slot(5400, 7200, 0))  # the first slot is half of the second slice
    assert cleanest(reaching, 0, 2 * HOUR, HOUR) == Hold(HOUR, 100, 50)


@given(
    st.lists(st.integers(0, G_PER_KWH_MAX), min_size=1, max_size=40),
    st.integers(0, 50 * HOUR),
    st.sampled_from([900, 1800, 3600, 5400, 7200]),
)
def test_it_is_the_best_of_all_slices(grams: list[int], deadline: int, slice_s: int) -> None:
    slots = _hours(*grams)
    present = gram_seconds(slots, 0, slice_s)
    all_later = [
        (total, start)
        for start in range(slice_s, max(deadline - slice_s, 0) + 1, slice_s)
        if (total := gram_seconds(slots, start, start + slice_s)) is not None
    ]
    held = cleanest(slots, 0, deadline, slice_s)
    if held is None:
        best = min(all_later, default=None)
        assert (
            present is None or best is None or best[0] >= present or best[0] * 100 > present * (100 - CLEANER_PERCENT)
        )
    else:
        assert present is not None
        assert min(all_later)[1] == held.start
        assert held.start + slice_s <= deadline
        assert min(all_later)[0] * 100 <= present * (100 - CLEANER_PERCENT)


def test_savings_are_called_estimates() -> None:
    moved = saved([Worked(3_600_000, 100, 400), Worked(1_800_000, 100, 100)])
    assert moved == Savings(150_000, 450_000)
    assert moved.saved_mg == 300_000
    assert moved.words == ("estimate: 150 g of CO2, 300 g (66 %) less than without waiting for cleaner hours")
    worse = saved([Worked(3_600_000, 400, 100)])
    assert worse.saved_mg == -300_000
    assert "(300 %) more than" in worse.words
    assert saved([]).words == "estimate: 0.0 g of CO2"


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 5000), st.integers(0, 5000)), max_size=20))
def test_savings_add_up(rows: list[tuple[int, int, int]]) -> None:
    work = [Worked(*row) for row in rows]
    total = saved(work)
    assert total.emitted_mg == sum(w.energy_j * w.g_then for w in work) * 1000 // 3_600_000
    assert total.unmoved_mg - total.emitted_mg == total.saved_mg
    assert total.words.startswith("estimate: ")


def test_grams_for_people() -> None:
    assert [grams_text(mg) for mg in (0, 400, 9_999, 10_000, 412_000, 1_300_000)] == [
        "0.0 g", "0.4 g", "9.9 g", "10 g", "412 g", "1.3 kg",
    ]  # fmt: skip
