"""Who uses the machine: terminals and desktops as files of the test, and the load of other programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.owner.values import Unreadable
from ubcp_p2p.sensors.activity import NOBODY_S, OthersLoad, ProcessorTimes, Times, idle_seconds

NOW = 1_800_000_000


def terminal(root: Path, name: str, touched: int) -> None:
    path = root / "dev" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (touched, NOW))  # what was written to it does not count


def desktop(root: Path, name: str = "2", kind: str = "wayland", state: str = "active", who: str = "user") -> None:
    path = root / "run/systemd/sessions" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# private\nUID=1000\nTYPE={kind}\nCLASS={who}\nSTATE={state}\n")


def loginctl(tmp_path: Path, answer: str) -> str:
    path = tmp_path / "loginctl"
    path.write_text(f'#!/bin/sh\n[ "$1 $2" = "show-session 2" ] || exit 1\nprintf "{answer}"\n')
    path.chmod(0o700)
    return str(path)


def test_the_terminal_that_was_used_last(tmp_path: Path) -> None:
    assert idle_seconds(tmp_path, NOW) == NOBODY_S
    terminal(tmp_path, "tty1", NOW - 900)
    terminal(tmp_path, "pts/3", NOW - 60)
    terminal(tmp_path, "pts/ptmx", NOW)  # no terminal
    terminal(tmp_path, "tty", NOW)  # whoever asks
    assert idle_seconds(tmp_path, NOW) == 60
    terminal(tmp_path, "pts/4", NOW + 5)  # clocks
    assert idle_seconds(tmp_path, NOW) == 0


def test_a_desktop_is_asked(tmp_path: Path) -> None:
    terminal(tmp_path, "pts/3", NOW - 900)
    desktop(tmp_path)
    (tmp_path / "run/systemd/sessions/2.ref").touch()
    used = loginctl(tmp_path, "IdleHint=no\\nIdleSinceHint=0\\n")
    assert idle_seconds(tmp_path, NOW, loginctl=used) == 0
    idle = loginctl(tmp_path, f"IdleHint=yes\\nIdleSinceHint={(NOW - 300) * 1_000_000}\\n")
    assert idle_seconds(tmp_path, NOW, loginctl=idle) == 300


@pytest.mark.parametrize(
    "facts", [{"kind": "tty"}, {"state": "closing"}, {"who": "greeter"}, {"who": "manager"}], ids=str
)
def test_other_sessions_are_not_asked(tmp_path: Path, facts: dict[str, str]) -> None:
    terminal(tmp_path, "pts/3", NOW - 900)
    desktop(tmp_path, **facts)
    assert idle_seconds(tmp_path, NOW, loginctl="/nowhere") == 900


def test_what_cannot_be_known_is_said(tmp_path: Path) -> None:
    desktop(tmp_path)
    for answer, why in (
        (None, "cannot be started"),
        ("", "does not say"),
        ("IdleHint=yes\\nIdleSinceHint=x", "not say"),
    ):
        tool = "/nowhere/loginctl" if answer is None else loginctl(tmp_path, answer)
        found = idle_seconds(tmp_path, NOW, loginctl=tool)
        assert isinstance(found, Unreadable)
        assert why in found.why


@pytest.mark.parametrize("mark", [".dockerenv", "run/.containerenv", "tmp/.X11-unix/X0"])
def test_where_nobody_can_be_seen(tmp_path: Path, mark: str) -> None:
    path = tmp_path / mark
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    found = idle_seconds(tmp_path, NOW)
    assert isinstance(found, Unreadable)
    assert "container" in found.why or "desktop" in found.why


def test_the_load_of_others_is_what_is_not_ours() -> None:
    samples = iter([Times(0, 100, 50), Times(5, 110, 57), Times(70, 150, 97), Times(140, 290, 97)])
    load = OthersLoad(2, lambda: next(samples))
    first = load.permille()
    assert isinstance(first, Unreadable)
    assert load.permille() == 300  # 3 of 10 processor seconds
    assert load.permille() == 0  # 40 of 40 since the second, the newest that is a minute old: ours
    assert load.permille() == 1000


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e5), st.floats(0, 1e5)), min_size=1, max_size=20))
def test_whatever_the_counters_say(rows: list[tuple[float, float, float]]) -> None:
    samples = iter([Times(*row) for row in sorted(rows)])
    load = OthersLoad(4, lambda: next(samples))
    for _ in rows:
        found = load.permille()
        assert found.why if isinstance(found, Unreadable) else 0 <= found <= 1000


def test_this_machine_counts() -> None:
    times = ProcessorTimes()
    first = times()
    sum(range(300_000))
    second = times()
    assert second.moment_s > first.moment_s
    assert second.own_s >= first.own_s > 0
    assert round(second.busy_s - first.busy_s, 3) >= 0 < first.busy_s  # sums, whose last bits are rounded
