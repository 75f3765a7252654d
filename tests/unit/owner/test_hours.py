"""Weekly windows: how they are written, over midnight, and where the clock is put forward or back."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.owner.hours import Window, is_open, moment_text, next_change, parse_window

BERLIN = ZoneInfo("Europe/Berlin")
FORWARD = "2026-03-29"  # 02:00 → 03:00 in Berlin
BACK = "2026-10-25"  # 03:00 → 02:00
WEEK = frozenset(range(7))


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp())


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("22:00-06:00", Window(WEEK, 1320, 360)),
        ("Mon-Fri 22:00-6:30", Window(frozenset(range(5)), 1320, 390)),
        ("sat,SUN 00:00-24:00", Window(frozenset({5, 6}), 0, 1440)),
        ("Fri-Mon 08:00-09:00", Window(frozenset({4, 5, 6, 0}), 480, 540)),
        ("Mon,Wed-Thu 08:00-09:00", Window(frozenset({0, 2, 3}), 480, 540)),
        ("Mon-Mon 08:00-00:00", Window(frozenset({0}), 480, 0)),
    ],
)
def test_how_it_is_written(text: str, window: Window) -> None:
    assert parse_window(text) == window


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not like 'Mon-Fri"),
        ("Mon Tue 08:00-09:00", "is not like 'Mon-Fri"),
        ("Mon", "is not like '22:00-06:00'"),
        ("Monday 08:00-09:00", "'Monday' is not a day"),
        ("Mon- 08:00-09:00", "'' is not a day"),
        ("8-9", "'8' is not a time like 22:00"),
        ("08:0-09:00", "'08:0' is not a time like"),
        ("24:01-09:00", "from 00:00 to 24:00"),
        ("08:60-09:00", "from 00:00 to 24:00"),
        ("24:00-09:00", "begins at 24:00"),
        ("08:00-08:00", "is empty: a whole day is"),
        ("٠٨:00-09:00", "is not a time like"),
        ("08:00-09:00-10:00", "is not a time like"),
        ("-8:00-09:00", "is not a time like"),
        ("Mon " + "8" * 200, "is not like"),
    ],
)
def test_what_is_no_window(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_window(text)


@given(st.text(alphabet="MonFri,-0123456789: ", max_size=30))
def test_any_text_is_a_window_or_a_fault_in_words(text: str) -> None:
    try:
        window = parse_window(text)
    except ValueError as error:
        assert "'" in str(error)  # noqa: PT017  # both outcomes are right; the words of the second are checked
    else:
        assert window.days
        assert 0 <= window.start < 1440
        assert 0 <= window.end <= 1440


def test_over_midnight_it_belongs_to_the_day_on_which_it_begins() -> None:
    windows = [parse_window("Fri 22:00-06:00")]
    assert not is_open(windows, BERLIN, at("2026-11-27 21:59:59"))  # a Friday
    assert is_open(windows, BERLIN, at("2026-11-27 22:00"))
    assert is_open(windows, BERLIN, at("2026-11-28 05:59:59"))
    assert not is_open(windows, BERLIN, at("2026-11-28 06:00"))
    assert not is_open(windows, BERLIN, at("2026-11-27 05:00"))
    assert next_change(windows, BERLIN, at("2026-11-27 12:00")) == at("2026-11-27 22:00")
    assert next_change(windows, BERLIN, at("2026-11-27 23:00")) == at("2026-11-28 06:00")
    assert next_change(windows, BERLIN, at("2026-11-28 06:00")) == at("2026-12-04 22:00")


def test_windows_that_meet_are_one() -> None:
    windows = [parse_window("Mon 08:00-24:00"), parse_window("Tue 00:00-10:00")]
    assert next_change(windows, BERLIN, at("2026-11-30 09:00")) == at("2026-12-01 10:00")


def test_without_windows_it_is_always_open() -> None:
    assert is_open([], BERLIN, 0)
    assert next_change([], BERLIN, at("2026-11-30 09:00")) is None
    assert next_change([parse_window("00:00-24:00")], BERLIN, at("2026-11-30 09:00")) is None


def test_an_hour_that_the_clock_skips_is_not_there() -> None:
    windows = [parse_window("02:15-02:45"), parse_window("Sun 02:50-05:00")]
    assert next_change(windows, BERLIN, at(f"{FORWARD} 01:00")) == at(f"{FORWARD} 03:00")  # it shows 01:59, then 03:00
    only = [parse_window("02:15-02:45")]
    assert next_change(only, BERLIN, at(f"{FORWARD} 01:00")) == at("2026-03-30 02:15")


def test_an_hour_that_the_clock_shows_twice_counts_twice() -> None:
    windows = [parse_window("02:15-02:45")]
    first, again = at(f"{BACK} 02:15"), at(f"{BACK} 02:15", fold=1)
    assert again - first == 3600
    assert next_change(windows, BERLIN, first - 60) == first
    assert next_change(windows, BERLIN, at(f"{BACK} 02:45")) == again
    late = [parse_window("02:30-06:00")]
    assert next_change(late, BERLIN, at(f"{BACK} 02:40")) == at(f"{BACK} 02:00", fold=1)  # it shows 02:00 again


ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Santiago", "UTC"]


@given(
    st.lists(
        st.builds(
            Window,
            st.frozensets(st.integers(0, 6), min_size=1),
            st.integers(0, 95).map(lambda quarter: quarter * 15),
            st.integers(1, 96).map(lambda quarter: quarter * 15),
        ).filter(lambda window: window.start != window.end),
        max_size=3,
    ),
    st.sampled_from(ZONES),
    st.sampled_from([FORWARD, BACK, "2026-03-08", "2026-11-01", "2026-04-05", "2026-10-04", "2026-09-06"]),
    st.integers(0, 2 * 96),
)
def test_the_next_change_is_the_first_that_a_clock_shows(
    windows: list[Window], zone_name: str, day: str, quarter: int
) -> None:
    zone = ZoneInfo(zone_name)
    now = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) - 86_400 + quarter * 900
    present = is_open(windows, zone, now)
    shown = next((t for t in range(now + 900, now + 3 * 86_400, 900) if is_open(windows, zone, t) != present), None)
    found = next_change(windows, zone, now)
    assert found == shown or (shown is None and (found is None or found >= now + 3 * 86_400))


def test_moments_for_people() -> None:
    now = at("2026-11-26 18:00")  # a Thursday
    assert moment_text(at("2026-11-26 18:30"), now, BERLIN) == "18:30"
    assert moment_text(at("2026-11-27 03:00"), now, BERLIN) == "Fri 03:00"
    assert moment_text(at("2026-12-03 03:00"), now, BERLIN) == "2026-12-03 03:00"
    assert moment_text(at("2026-11-25 03:00"), now, BERLIN) == "2026-11-25 03:00"
