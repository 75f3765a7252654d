"""The pause in the profile: written in one step, read strictly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.owner.values import Pause
from ubcp_p2p.peer.pause import FORMAT, HOURS_MAX, begin_pause, end_pause, keep_pause, read_pause

GOOD = {"format": FORMAT, "since": 5, "until": None, "after_round": False}


@pytest.mark.parametrize("pause", [Pause(5), Pause(5, 9), Pause(5, None, True)])
def test_what_is_kept_is_read(tmp_path: Path, pause: Pause) -> None:
    path = tmp_path / "pause.json"
    assert read_pause(path) is None
    keep_pause(path, Pause(1))
    keep_pause(path, pause)
    assert read_pause(path) == pause
    assert path.stat().st_mode & 0o777 == 0o600
    end_pause(path)
    end_pause(path)
    assert read_pause(path) is None


@pytest.mark.parametrize(
    "change",
    [{"format": "ubcp/pause/2"}, {"since": -1}, {"since": "5"}, {"until": 1 << 60}, {"after_round": 1}, {"more": 1}],
    ids=str,
)
def test_a_damaged_file_is_a_fault(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "pause.json"
    path.write_text(json.dumps(GOOD))
    assert read_pause(path) == Pause(5)
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(ConfigError, match=r"pause\.json is damaged: paused until") as caught:
        read_pause(path)
    assert "ubcp resume" in str(caught.value.hint)


@pytest.mark.parametrize("hours", [0.0, -1.0, HOURS_MAX + 1, float("nan"), float("inf")])
def test_hours_that_cannot_be(hours: float) -> None:
    with pytest.raises(ConfigError, match="hours cannot be"):
        begin_pause(5, hours, False)


@given(st.floats(1e-9, HOURS_MAX))
def test_a_pause_is_never_over_before_it_begins(hours: float) -> None:
    pause = begin_pause(5, hours, False)
    assert pause.until is not None
    assert 5 < pause.until <= 5 + HOURS_MAX * 3600
    assert begin_pause(5, None, True) == Pause(5, None, True)
