"""nvidia-smi: a program of the test in its place, and what it may print."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.owner.values import Unreadable
from ubcp_p2p.sensors.gpu import QUERY, Gpu, gpus, parse


def program(tmp_path: Path, script: str) -> str:
    path = tmp_path / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


def test_what_it_prints_is_read(tmp_path: Path) -> None:
    said = program(tmp_path, f'[ "$*" = "{" ".join(QUERY)}" ] || exit 9\necho "0, 61.32, 45"\necho "1, 300.00, 71"')
    assert gpus(said) == (Gpu(0, 62, 45), Gpu(1, 300, 71))


def test_without_the_program_there_are_none() -> None:
    assert gpus("/nowhere/nvidia-smi") == ()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'No devices were found'; exit 6", "failed with code 6: No devices were found"),
        ("exit 1", "failed with code 1: it said nothing"),
        ("echo 0, 5", "a line that is not understood: '0, 5'"),
        ("echo x, 5, 5", "not understood"),
        ("echo 99, 5, 5", "not understood"),
        ("exec tail -f /dev/null", "did not answer within 0.2 s"),
        ("for n in 0 1 2 3 4 5 6 7; do for m in 0 1 2 3 4 5 6 7 8; do echo 1, 5, 5; done; done", "more than 64"),
    ],
)
def test_what_goes_wrong_is_said(tmp_path: Path, script: str, why: str) -> None:
    found = gpus(program(tmp_path, script), timeout_s=0.2 if "tail" in script else 10.0)
    assert isinstance(found, Unreadable)
    assert why in found.why


def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = gpus(str(tmp_path / "file"))
    assert isinstance(found, Unreadable)
    assert "cannot be started" in found.why


@pytest.mark.parametrize("text", ["[N/A]", "[Not Supported]", "NaN", "Infinity", "-1", "1e9", "20001", "9" * 40, ""])
def test_power_that_is_none(text: str) -> None:
    found = parse(f"0, {text}, 45")
    assert isinstance(found, tuple)
    assert isinstance(found[0].power_w, Unreadable)
    assert found[0].celsius == 45


@given(st.text(alphabet="0123456789.,-[]NA/ \n", max_size=80))
def test_any_text(text: str) -> None:
    found = parse(text)
    if isinstance(found, Unreadable):
        assert found.why
    else:
        assert all(isinstance(card.power_w, Unreadable) or 0 <= card.power_w <= 20_000 for card in found)
