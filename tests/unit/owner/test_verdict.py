"""The owner's rules applied: each cause with its words, what cannot be read, and what keeps it from flapping."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.carbon.values import Intensity, Slot
from ubcp_p2p.owner.hours import parse_window
from ubcp_p2p.owner.values import (
    PERMILLE,
    SHARE_MIN,
    Cause,
    Manner,
    Memory,
    Pause,
    Readings,
    Rules,
    Unreadable,
    Verdict,
)
from ubcp_p2p.owner.verdict import POWER_EVERY_S, POWER_REST_S, refusal, verdict

NOW = int(datetime(2026, 11, 26, 18, 0, tzinfo=UTC).timestamp())  # a Thursday
GRID = Readings(on_battery=False)
WHY = Unreadable("there is no sensor")


def causes(found: Verdict) -> list[Cause]:
    return [block.cause for block in found.blocks]


def grid(*grams: int) -> Intensity:
    slots = tuple(Slot(NOW + n * 3600, NOW + (n + 1) * 3600, g) for n, g in enumerate(grams))
    return Intensity(grams[0], "api", "the test", slots)


def test_without_rules_it_works() -> None:
    found = verdict(NOW, GRID, Rules(), None)
    assert (found.works, found.share_permille, found.words, found.until) == (True, PERMILLE, "working", None)
    assert found.manner == Manner.ROUND


@pytest.mark.parametrize(
    ("pause", "words", "until", "manner"),
    [
        (Pause(NOW), "paused by you until `ubcp resume`", None, Manner.NOW),
        (Pause(NOW, NOW + 1800), "paused by you until 18:30", NOW + 1800, Manner.NOW),
        (Pause(NOW, None, True), "paused by you until `ubcp resume`", None, Manner.ROUND),
        (Pause(NOW, NOW + 86_400, True), "paused by you until Fri 18:00", NOW + 86_400, Manner.ROUND),
    ],
)
def test_a_pause(pause: Pause, words: str, until: int | None, manner: Manner) -> None:
    found = verdict(NOW, GRID, Rules(), pause)
    assert (found.works, found.words, found.until, found.manner) == (False, words, until, manner)


def test_a_pause_ends_by_itself() -> None:
    assert not verdict(NOW, GRID, Rules(), Pause(NOW - 60, NOW + 1)).works
    assert verdict(NOW, GRID, Rules(), Pause(NOW - 60, NOW)).works


def test_hours() -> None:
    rules = Rules(windows=(parse_window("Mon-Fri 22:00-06:00"),))
    found = verdict(NOW, GRID, rules, None)
    assert (found.words, found.until) == ("outside your hours; the next window opens 22:00", NOW + 4 * 3600)
    found = verdict(NOW + 5 * 3600, GRID, rules, None)
    assert (found.works, found.words) == (True, "working until Fri 06:00")
    saturday = NOW + 86_400 + 13 * 3600
    assert verdict(saturday, GRID, rules, None).words == "outside your hours; the next window opens Mon 22:00"


def test_hours_that_do_not_come_again_soon() -> None:
    rules = Rules(windows=(parse_window("Fri 08:00-09:00"),), zone=ZoneInfo("Pacific/Apia"))
    friday = int(datetime(2011, 12, 23, 12, 0, tzinfo=rules.zone).timestamp())  # Samoa left out the next one
    found = verdict(friday, GRID, rules, None)
    assert (found.works, found.words, found.until) == (False, "outside your hours", None)


def test_on_battery() -> None:
    on = Readings(on_battery=True)
    found = verdict(NOW, on, Rules(), None)
    assert (found.words, found.manner) == ("on battery", Manner.EARLY)
    assert verdict(NOW, on, Rules(on_battery=True), None).works


def test_heat_goes_by_two_limits() -> None:
    rules = Rules(temperature_c_max=80)
    works, memory = [], Memory()
    for heat in (80, 81, 80, 76, 75, 76, 80, 81):
        found = verdict(NOW, replace(GRID, temperature_c=heat), rules, None, memory)
        memory = found.memory
        works.append(found.works)
    assert works == [True, False, False, False, True, True, True, False]
    assert found.words == "it has 81 °C with your cap at 80; it goes on at 75"


def test_only_when_idle() -> None:
    rules = Rules(idle_s=600)
    quiet = replace(GRID, idle_s=3600, others_permille=10)
    assert verdict(NOW, quiet, rules, None).works
    assert verdict(NOW, replace(quiet, idle_s=600), rules, None).works
    found = verdict(NOW, replace(quiet, idle_s=60), rules, None)
    assert found.until == NOW + 540
    assert found.words == "somebody is at the machine; if nobody is from now on, until 18:09"
    busy = verdict(NOW, replace(quiet, others_permille=455), rules, None)
    assert busy.words == "other programs use 45.5 % of the processors"
    later = verdict(NOW + 599, quiet, rules, None, busy.memory)
    assert (later.works, later.until) == (False, NOW + 600)
    assert later.words == "other programs used the processors until a moment ago"
    still = verdict(NOW + 599, replace(quiet, others_permille=250), rules, None, busy.memory)
    assert still.words == later.words
    assert verdict(NOW + 600, quiet, rules, None, later.memory).works
    assert verdict(NOW, replace(quiet, others_permille=250), rules, None).works


def test_the_power_cap_takes_from_the_share_first() -> None:
    rules = Rules(power_w_max=200)
    memory, now, seen = Memory(), NOW, []
    for watts in (400, 210, 200, 150, 150, 190):
        found = verdict(now, replace(GRID, power_w=watts), rules, None, memory)
        seen.append(found.share_permille)
        memory, now = found.memory, now + POWER_EVERY_S
    assert seen == [500, 476, 476, 526, 576, 576]
    assert found.words == "working with 57.6 % of its speed, to keep to your cap of 200 W"
    for watts, share in ((180, 550), (181, 500)):  # up again only where there is room
        room = verdict(NOW, replace(GRID, power_w=watts), rules, None, Memory(power_permille=500))
        assert room.share_permille == share
    hasty = verdict(NOW + 1, replace(GRID, power_w=400), rules, None, Memory(power_permille=500, power_at=NOW))
    assert hasty.share_permille == 500  # nobody has seen yet what that does


def test_a_power_cap_that_no_share_keeps() -> None:
    rules, high = Rules(power_w_max=200), replace(GRID, power_w=215)
    found = verdict(NOW, high, rules, None, Memory(power_permille=SHARE_MIN))
    assert not found.works
    assert found.until == NOW + POWER_REST_S
    assert found.words == (
        "even the smallest share of this machine draws more than your cap of 200 W; it is tried again at 18:10"
    )
    low = replace(GRID, power_w=90)
    resting = verdict(NOW + POWER_REST_S - 1, low, rules, None, found.memory)
    assert (resting.works, resting.memory) == (False, found.memory)
    assert verdict(NOW, replace(GRID, power_w=200), rules, None, Memory(power_permille=SHARE_MIN)).works
    again = verdict(NOW + POWER_REST_S, low, rules, None, found.memory)
    assert (again.works, again.share_permille) == (True, SHARE_MIN)


def test_a_clock_that_is_set_back_does_not_make_a_rest_longer() -> None:
    rules = Rules(power_w_max=200, idle_s=600)
    calm = replace(GRID, power_w=100, idle_s=9999, others_permille=0)
    for memory in (Memory(busy_at=NOW + 9), Memory(rest_until=NOW + POWER_REST_S + 9)):
        assert verdict(NOW, calm, rules, None, memory).works
    stuck = verdict(NOW, replace(calm, power_w=400), rules, None, Memory(power_at=NOW + 9))
    assert stuck.share_permille == 500
    kept = Memory(busy_at=NOW, power_at=NOW, rest_until=NOW + POWER_REST_S)
    assert causes(verdict(NOW, calm, rules, None, kept)) == [Cause.IDLE, Cause.POWER]


def test_the_share() -> None:
    assert verdict(NOW, replace(GRID, power_w=400), Rules(), None).share_permille == PERMILLE  # no cap
    found = verdict(NOW, GRID, Rules(share_permille=500), None)
    assert (found.share_permille, found.words) == (500, "working with 50 % of its speed")
    both = verdict(NOW, replace(GRID, power_w=400), Rules(share_permille=500, power_w_max=300), None)
    assert both.share_permille == 375


def test_the_carbon_ceiling() -> None:
    rules = Rules(g_per_kwh_max=300)
    assert verdict(NOW, replace(GRID, carbon=grid(300)), rules, None).works
    found = verdict(NOW, replace(GRID, carbon=grid(412, 412, 390, 299)), rules, None)
    assert found.until == NOW + 3 * 3600
    assert found.words == ("the grid has 412 g/kWh, above your ceiling of 300; a cleaner hour is expected at 21:00")
    just = verdict(NOW, replace(GRID, carbon=grid(412, 301, 300)), rules, None)
    assert just.until == NOW + 2 * 3600
    hopeless = verdict(NOW, replace(GRID, carbon=grid(412)), rules, None)
    assert hopeless.words.endswith("; no cleaner hour is known")
    assert hopeless.until is None


def test_a_clean_slot_that_is_nearly_over_is_no_hope() -> None:
    slots = (Slot(NOW - 3300, NOW + 300, 100), Slot(NOW + 300, NOW + 3900, 900), Slot(NOW + 3900, NOW + 7500, 200))
    mixed = Intensity(634, "api", "the test", slots)  # of the next quarter of an hour
    assert verdict(NOW, replace(GRID, carbon=mixed), Rules(g_per_kwh_max=300), None).until == NOW + 3900
    begins = Intensity(634, "api", "the test", (Slot(NOW, NOW + 300, 100), *slots[1:]))
    assert verdict(NOW, replace(GRID, carbon=begins), Rules(g_per_kwh_max=300), None).until == NOW + 3900


@pytest.mark.parametrize(
    ("rules", "cause", "words"),
    [
        ({"temperature_c_max": 80}, Cause.HEAT, "your temperature cap of 80 °C cannot be kept: there is no sensor"),
        ({"power_w_max": 200}, Cause.POWER, "your power cap of 200 W cannot be kept: there is no sensor"),
        ({"g_per_kwh_max": 1}, Cause.CARBON, "your carbon ceiling of 1 g/kWh cannot be kept: there is no sensor"),
        ({"idle_s": 1}, Cause.IDLE, "you lend this machine only when it is idle, and that cannot be read: there is no"),
        ({}, Cause.BATTERY, "whether this machine is on battery cannot be read: there is no sensor"),
    ],
)
def test_what_is_asked_for_and_cannot_be_read_stops_the_work(rules: dict[str, Any], cause: Cause, words: str) -> None:
    blind = Readings(WHY, WHY, WHY, WHY, WHY, WHY)
    found = verdict(NOW, blind, Rules(on_battery=bool(rules), **rules), None)
    assert causes(found) == [cause]
    assert found.words.startswith(words)
    assert found.until is None


def test_all_reasons_are_told_and_the_most_urgent_decides_how() -> None:
    rules = Rules(windows=(parse_window("22:00-06:00"),), g_per_kwh_max=300)
    found = verdict(NOW, replace(GRID, carbon=grid(400, 100)), rules, Pause(NOW, NOW + 60, True))
    assert causes(found) == [Cause.PAUSE, Cause.HOURS, Cause.CARBON]
    assert found.words.startswith(
        "paused by you until 18:01; and outside your hours; the next window opens 22:00; and the"
    )
    assert found.until == NOW + 4 * 3600
    assert found.manner == Manner.ROUND
    unplugged = verdict(NOW, Readings(on_battery=True, carbon=grid(400, 100)), rules, Pause(NOW, NOW + 60, True))
    assert unplugged.manner == Manner.EARLY
    assert unplugged.until is None
    assert verdict(NOW, replace(GRID, carbon=grid(1)), rules, Pause(NOW)).manner == Manner.NOW


def test_what_is_never_served() -> None:
    rules = Rules(runs_refused=frozenset({"plays", "ab" * 32}), purposes_refused=frozenset({"advertising"}))
    assert refusal(rules, "plays", bytes(32)) == "the owner of this machine refuses the run 'plays'"
    assert refusal(rules, "other", b"\xab" * 32) is not None
    assert refusal(rules, "other", bytes(32)) is None
    assert (
        refusal(rules, "other", bytes(32), "advertising")
        == "the owner of this machine refuses the purpose 'advertising'"
    )
    assert refusal(rules, "other", bytes(32), "science") is None


number = st.one_of(st.just(WHY), st.integers(0, 2000))
readings = st.builds(
    Readings,
    st.one_of(st.just(WHY), st.booleans()),
    number,
    number,
    number,
    number,
    st.one_of(st.just(WHY), st.lists(st.integers(0, 900), min_size=1, max_size=4).map(lambda g: grid(*g))),
)
rules = st.builds(
    Rules,
    windows=st.sampled_from([(), (parse_window("22:00-06:00"),), (parse_window("Mon 08:00-24:00"),)]),
    idle_s=st.sampled_from([0, 60, 3600]),
    on_battery=st.booleans(),
    power_w_max=st.sampled_from([0, 200]),
    temperature_c_max=st.sampled_from([0, 80]),
    share_permille=st.integers(SHARE_MIN, PERMILLE),
    g_per_kwh_max=st.sampled_from([0, 300]),
)
pauses = st.one_of(
    st.none(),
    st.builds(Pause, st.just(NOW), st.one_of(st.none(), st.integers(NOW - 100, NOW + 90_000)), st.booleans()),
)


@given(rules, st.lists(st.tuples(st.integers(0, 700), readings), min_size=1, max_size=12), pauses)
def test_whatever_is_read(rules: Rules, steps: list[tuple[int, Readings]], pause: Pause | None) -> None:
    now, memory = NOW, Memory()
    for seconds, read in steps:
        now += seconds
        found = verdict(now, read, rules, pause, memory)
        assert found == verdict(now, read, rules, pause, memory)
        assert found.works == (not found.blocks)
        assert found.words
        assert SHARE_MIN <= found.share_permille <= rules.share_permille
        assert found.until is None or found.until > now
        if found.works:
            assert not rules.temperature_c_max or (isinstance(read.temperature_c, int) and read.temperature_c <= 80)
            assert not rules.g_per_kwh_max or (isinstance(read.carbon, Intensity) and read.carbon.g_per_kwh <= 300)
            assert rules.on_battery or read.on_battery is False
            assert not rules.power_w_max or isinstance(read.power_w, int)
            assert not rules.idle_s or (isinstance(read.idle_s, int) and read.idle_s >= rules.idle_s)
            assert pause is None or (pause.until is not None and pause.until <= now)
        memory = found.memory
