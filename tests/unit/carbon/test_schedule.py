"""The owner's schedule: what is taken, and errors that name file and line."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.carbon.schedule import BYTES_MAX, Schedule, load, parse
from ubcp_p2p.carbon.values import SLOTS_MAX, CarbonUnknown, Slot
from ubcp_p2p.errors import ConfigError, LocalIOError

GOOD = "start,g_per_kwh\n1970-01-01T01:00:00+01:00,120\n1970-01-01T01:00:00Z,310\n1970-01-01T02:00:00Z,\n"


def test_rows_hold_until_the_next() -> None:
    assert parse(GOOD, where="x") == (Slot(0, 3600, 120), Slot(3600, 7200, 310))


def test_what_a_file_says(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())  # as a spreadsheet writes it
    schedule = load(path)
    found = schedule.intensity(1800, 5400)
    assert (found.g_per_kwh, found.kind, found.source) == (215, "schedule", "your schedule mine.csv")
    assert len(found.forecast) == 2
    assert len(schedule.intensity(3600, 5400).forecast) == 1
    with pytest.raises(CarbonUnknown, match="has ended"):
        schedule.intensity(7000, 7900)


def test_a_schedule_that_has_not_begun() -> None:
    with pytest.raises(CarbonUnknown, match="has not begun"):
        Schedule((Slot(100, 200, 5),), "x.csv").intensity(50, 150)


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("", None, "the schedule has no end", "moment and no number"),
        ("time,g\n", 1, "the first line is not", "write start,g_per_kwh"),
        ("start,g_per_kwh\n", None, "no end", "moment and no number"),
        ("start,g_per_kwh\n1970-01-01T00:00:00Z,5\n", None, "no end", "moment and no number"),
        ("start,g_per_kwh\n1970-01-01T00:00:00,5\n", 2, "does not say its time zone", "for UTC"),
        ("start,g_per_kwh\ntomorrow,5\n", 2, "'tomorrow' is no moment", "write 2026"),
        ("start,g_per_kwh\n1960-01-01T00:00:00Z,5\n", 2, "before 1970", "write 2026"),
        ("start,g_per_kwh\n1970-01-01T00:00:00.5Z,5\n", 2, "no whole second", "write 2026"),
        ("start,g_per_kwh\n1970-01-01T00:00:00Z,5.5\n", 2, "'5.5' is not a whole number", "whole grams"),
        ("start,g_per_kwh\n1970-01-01T00:00:00Z,-5\n", 2, "'-5' is not", "whole grams"),
        ("start,g_per_kwh\n1970-01-01T00:00:00Z,٣\n", 2, "is not a whole number", "whole grams"),
        ("start,g_per_kwh\n1970-01-01T00:00:00Z,5001\n", 2, "from 0 to 5000", "whole grams"),
        ("start,g_per_kwh\n1970-01-01T00:00:00Z,1,2\n", 2, "not two short cells", "a comma"),
        ("start,g_per_kwh\n1970-01-01T00:00:00Z," + "9" * 65 + "\n", 2, "not two short cells", "a comma"),
        ("start,g_per_kwh\n1970-01-01T00:01:00Z,1\n1970-01-01T00:01:00Z,2\n", 3, "is not after", "sort"),
        ("start,g_per_kwh\n1970-01-01T00:01:00Z,\n1970-01-01T00:02:00Z,2\n", 3, "a row after the end", "last row"),
        ('start,g_per_kwh\n"1970-01-01T00:01:00Z"x,1\n', 2, "not CSV", "without quotes"),
    ],
)
def test_faults_name_file_and_line(text: str, line: int | None, message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse(text, where="mine.csv")
    assert str(caught.value).startswith("mine.csv:" if line is None else f"mine.csv, line {line}:")
    assert hint in str(caught.value.hint)


def test_limits(tmp_path: Path) -> None:
    rows = "".join(f"1970-01-01T{n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}Z,1\n" for n in range(SLOTS_MAX + 2))
    with pytest.raises(ConfigError, match=f"more than {SLOTS_MAX} rows"):
        parse("start,g_per_kwh\n" + rows, where="x")
    path = tmp_path / "x.csv"
    with pytest.raises(ConfigError, match=r"there is no carbon schedule .*x\.csv"):
        load(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(path)
    path.write_bytes(b" " * (BYTES_MAX + 1))
    with pytest.raises(LocalIOError, match="more than"):
        load(path)


@given(st.text(max_size=200))
def test_any_text_is_slots_or_a_fault_in_words(text: str) -> None:
    with suppress(ConfigError):
        assert parse("start,g_per_kwh\n" + text, where="x")


@given(st.lists(st.tuples(st.integers(1, 100_000), st.integers(0, 5000)), min_size=1, max_size=30))
def test_what_is_written_is_read(rows: list[tuple[int, int]]) -> None:
    moment, lines, expected = 0, ["start,g_per_kwh"], []
    for seconds, grams in rows:
        lines.append(f"{datetime.fromtimestamp(moment, UTC).isoformat()},{grams}")
        expected.append(Slot(moment, moment + seconds, grams))
        moment += seconds
    lines.append(f"{datetime.fromtimestamp(moment, UTC).isoformat()},")
    assert parse("\n".join(lines), where="x") == tuple(expected)
