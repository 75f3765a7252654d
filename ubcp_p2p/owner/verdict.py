"""The owner's rules applied: whether this machine works now, and in words why not. Pure.

One rule for all that cannot be read: what the owner has asked for and this machine cannot measure stops the work, and
the words say so. A cap that nobody can see being broken is no cap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ubcp_p2p.owner.hours import is_open, moment_text, next_change
from ubcp_p2p.owner.values import (
    PERMILLE,
    SHARE_MIN,
    Block,
    Cause,
    Manner,
    Memory,
    Pause,
    Readings,
    Rules,
    Unreadable,
    Verdict,
)

COOLER_C: Final = 5  # hysteresis: a machine that was too hot works again so much below its cap
POWER_EVERY_S: Final = 15  # between two changes of the share: a reading has to show what the last one did
POWER_STEP: Final = 50  # permille more at a time, while there is room under the cap
POWER_ROOM_PERCENT: Final = 90  # of the cap; above it the share stays as it is
POWER_REST_S: Final = 600  # when even the smallest share draws too much


def verdict(now: int, readings: Readings, rules: Rules, pause: Pause | None, memory: Memory = Memory()) -> Verdict:  # noqa: B008  # a frozen value
    """What holds at `now`. memory: that of the verdict before."""
    memory = _remember(now, readings, rules, _without_future(now, memory))
    blocks = tuple(_blocks(now, readings, rules, pause, memory))
    share = min(rules.share_permille, memory.power_permille)
    if blocks:
        untils = [block.until for block in blocks]
        until = None if None in untils else max(u for u in untils if u is not None)
        first, *others = (block.words for block in blocks)
        words = first + "".join(f"; and {other}" for other in others)
        return Verdict(False, share, words, until, blocks, memory)
    closes = next_change(rules.windows, rules.zone, now)
    words = "working" if share == PERMILLE else f"working with {_percent(share)} of its speed"
    if share < rules.share_permille:
        words += f", to keep to your cap of {rules.power_w_max} W"
    if closes is not None:
        words += f" until {moment_text(closes, now, rules.zone)}"
    return Verdict(True, share, words, closes, memory=memory)


def refusal(rules: Rules, run: str, run_id: bytes, purpose: str | None = None) -> str | None:
    """Why this machine never serves such a run, in words; None when it does."""
    if run in rules.runs_refused or run_id.hex() in rules.runs_refused:
        return f"the owner of this machine refuses the run {run!r}"
    if purpose in rules.purposes_refused:
        return f"the owner of this machine refuses the purpose {purpose!r}"
    return None


def _blocks(now: int, readings: Readings, rules: Rules, pause: Pause | None, memory: Memory) -> Iterator[Block]:
    yield from _paused(now, rules, pause)
    if not is_open(rules.windows, rules.zone, now):
        opens = next_change(rules.windows, rules.zone, now)
        when = "" if opens is None else f"; the next window opens {moment_text(opens, now, rules.zone)}"
        yield Block(Cause.HOURS, f"outside your hours{when}", Manner.ROUND, opens)
    yield from _on_battery(readings, rules)
    yield from _hot(readings, rules, memory)
    yield from _in_use(now, readings, rules, memory)
    yield from _draws_too_much(now, readings, rules, memory)
    yield from _dirty(now, readings, rules)


def _paused(now: int, rules: Rules, pause: Pause | None) -> Iterator[Block]:
    if pause is None or (pause.until is not None and pause.until <= now):
        return
    manner = Manner.ROUND if pause.after_round else Manner.NOW
    if pause.until is None:
        yield Block(Cause.PAUSE, "paused by you until `ubcp resume`", manner)
    else:
        words = f"paused by you until {moment_text(pause.until, now, rules.zone)}"
        yield Block(Cause.PAUSE, words, manner, pause.until)


def _on_battery(readings: Readings, rules: Rules) -> Iterator[Block]:
    if rules.on_battery:
        return
    if isinstance(readings.on_battery, Unreadable):
        words = f"whether this machine is on battery cannot be read: {readings.on_battery.why}"
        yield Block(Cause.BATTERY, words, Manner.EARLY)
    elif readings.on_battery:
        yield Block(Cause.BATTERY, "on battery", Manner.EARLY)


def _hot(readings: Readings, rules: Rules, memory: Memory) -> Iterator[Block]:
    cap, found = rules.temperature_c_max, readings.temperature_c
    if not cap:
        return
    if isinstance(found, Unreadable):
        words = f"your temperature cap of {cap} °C cannot be kept: {found.why}"
        yield Block(Cause.HEAT, words, Manner.EARLY)
    elif memory.hot:
        words = f"it has {found} °C with your cap at {cap}; it goes on at {cap - COOLER_C}"
        yield Block(Cause.HEAT, words, Manner.EARLY)


def _in_use(now: int, readings: Readings, rules: Rules, memory: Memory) -> Iterator[Block]:
    if not rules.idle_s:
        return
    for found in (readings.idle_s, readings.others_permille):
        if isinstance(found, Unreadable):
            words = f"you lend this machine only when it is idle, and that cannot be read: {found.why}"
            yield Block(Cause.IDLE, words, Manner.EARLY)
            return
    assert isinstance(readings.idle_s, int) and isinstance(readings.others_permille, int)
    if readings.idle_s < rules.idle_s:
        until = now + rules.idle_s - readings.idle_s
        words = f"somebody is at the machine; if nobody is from now on, until {moment_text(until, now, rules.zone)}"
        yield Block(Cause.IDLE, words, Manner.EARLY, until)
    if memory.busy_at is not None and now - memory.busy_at < rules.idle_s:
        until = memory.busy_at + rules.idle_s
        words = (
            f"other programs use {_percent(readings.others_permille)} of the processors"
            if readings.others_permille > rules.others_permille_max
            else "other programs used the processors until a moment ago"
        )
        yield Block(Cause.IDLE, words, Manner.EARLY, until)


def _draws_too_much(now: int, readings: Readings, rules: Rules, memory: Memory) -> Iterator[Block]:
    cap = rules.power_w_max
    if not cap:
        return
    if isinstance(readings.power_w, Unreadable):
        words = f"your power cap of {cap} W cannot be kept: {readings.power_w.why}"
        yield Block(Cause.POWER, words, Manner.EARLY)
    elif memory.rest_until is not None:
        again = moment_text(memory.rest_until, now, rules.zone)
        words = (
            f"even the smallest share of this machine draws more than your cap of {cap} W; it is tried again at {again}"
        )
        yield Block(Cause.POWER, words, Manner.EARLY, memory.rest_until)


def _dirty(now: int, readings: Readings, rules: Rules) -> Iterator[Block]:
    ceiling, found = rules.g_per_kwh_max, readings.carbon
    if not ceiling:
        return
    if isinstance(found, Unreadable):
        yield Block(Cause.CARBON, f"your carbon ceiling of {ceiling} g/kWh cannot be kept: {found.why}", Manner.ROUND)
    elif found.g_per_kwh > ceiling:
        later = next((s.start for s in found.forecast if s.start > now and s.g_per_kwh <= ceiling), None)
        hope = (
            "no cleaner hour is known"
            if later is None
            else f"a cleaner hour is expected at {moment_text(later, now, rules.zone)}"
        )
        words = f"the grid has {found.g_per_kwh} g/kWh, above your ceiling of {ceiling}; {hope}"
        yield Block(Cause.CARBON, words, Manner.ROUND, later)


def _remember(now: int, readings: Readings, rules: Rules, memory: Memory) -> Memory:
    heat, others = readings.temperature_c, readings.others_permille
    if rules.temperature_c_max and isinstance(heat, int):
        cap = rules.temperature_c_max
        memory = replace(memory, hot=heat > (cap - COOLER_C if memory.hot else cap))
    if isinstance(others, int) and others > rules.others_permille_max:
        memory = replace(memory, busy_at=now)
    return _share_power(now, readings, rules, memory)


def _without_future(now: int, memory: Memory) -> Memory:
    """A clock that was set back must not make a short rest last until it has caught up."""
    future = (at is not None and at > now for at in (memory.busy_at, memory.power_at))
    too_long = memory.rest_until is not None and memory.rest_until > now + POWER_REST_S
    if not (any(future) or too_long):
        return memory
    return replace(memory, busy_at=None, power_at=None, rest_until=None)


def _share_power(now: int, readings: Readings, rules: Rules, memory: Memory) -> Memory:
    """The share that keeps to the power cap: down in proportion at once, up again in steps."""
    if memory.rest_until is not None and memory.rest_until <= now:
        memory = replace(memory, rest_until=None, power_at=now)
    cap, watts = rules.power_w_max, readings.power_w
    if not cap or isinstance(watts, Unreadable) or memory.rest_until is not None:
        return memory
    if memory.power_at is not None and now - memory.power_at < POWER_EVERY_S:
        return memory
    share = min(rules.share_permille, memory.power_permille)
    if watts > cap:
        if share <= SHARE_MIN:
            return replace(memory, power_permille=SHARE_MIN, power_at=now, rest_until=now + POWER_REST_S)
        return replace(memory, power_permille=max(SHARE_MIN, share * cap // watts), power_at=now)
    if watts * 100 <= cap * POWER_ROOM_PERCENT and memory.power_permille < PERMILLE:
        return replace(memory, power_permille=min(PERMILLE, memory.power_permille + POWER_STEP), power_at=now)
    return memory


def _percent(permille: int) -> str:
    return f"{permille // 10} %" if permille % 10 == 0 else f"{permille // 10}.{permille % 10} %"
