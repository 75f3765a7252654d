"""`ubcp simulate curve` as a person sees it: tables, JSON, CSV, pictures, and what is refused."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ubcp_p2p.cli.main import main
from ubcp_p2p.simulation.assumptions import shipped_assumptions


@pytest.fixture
def few(tmp_path: Path) -> str:
    """The shipped assumptions with few people and seeds."""
    text = shipped_assumptions().read_text()
    text = text.replace("sample = 20_000", "sample = 500").replace("seeds = 20", "seeds = 2")
    path = tmp_path / "few.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.slow
def test_the_table_the_document_and_the_csv_say_the_same(
    few: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "curve.csv"
    assert main(["simulate", "curve", "--json", "--assumptions", few, "--csv", str(table)]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = list(csv.DictReader(table.open()))
    assert [float(row["users"]) for row in rows] == [point["users"] for point in document["points"]]
    assert document["format"] == "ubcp-curve/1"
    assert document["assumptions"]["sample"] == 500
    assert document["inflection"]["sd"] > 0
    assert {row["assumption"] for row in document["sensitivity"]} >= {"users", "learning.credits", "project.0.tokens"}
    assert main(["simulate", "curve", "--assumptions", few]) == 0
    words = capsys.readouterr().out
    assert "The curve is steepest at" in words
    assert f"{document['inflection']['budget_pflops_days']:,.0f}" in words


@pytest.mark.slow
def test_pictures(few: str, tmp_path: Path) -> None:
    png, svgs = tmp_path / "a.png", [tmp_path / "a.svg", tmp_path / "b.svg"]
    assert main(["simulate", "curve", "--json", "--assumptions", few, "--png", str(png), "--svg", str(svgs[0])]) == 0
    assert main(["simulate", "curve", "--json", "--assumptions", few, "--svg", str(svgs[1])]) == 0
    assert png.read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in svgs[0].read_bytes()
    assert svgs[0].read_bytes() == svgs[1].read_bytes()


@pytest.mark.slow
def test_without_matplotlib_the_figures_come_and_the_picture_is_refused(
    few: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find: Callable[..., object] = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "matplotlib" else find(name, *more)
    )
    assert main(["simulate", "curve", "--assumptions", few, "--png", str(tmp_path / "a.png")]) == 2
    shown = capsys.readouterr()
    assert "The curve is steepest at" in shown.out
    assert "matplotlib not installed" in shown.err
    assert "pip install" in shown.err
    assert not (tmp_path / "a.png").exists()


def test_another_ending_is_refused_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "curve", "--png", str(tmp_path / "a.jpg")]) == 2
    assert "does not end in .png" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["simulate", "--scenario"], ["simulate", "curve", "--assumptions"]])
def test_a_file_that_is_not_there_is_refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "/nowhere.toml"]) == 2
    assert "there is no file /nowhere.toml" in capsys.readouterr().err


def test_a_misspelt_key_is_named_before_the_one_that_it_leaves_missing(
    few: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path(few).read_text()
    Path(few).write_text(text.replace("sample =", "samples ="))
    assert main(["simulate", "curve", "--assumptions", few]) == 2
    assert ": samples: unknown key\n" in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_project_is_called_is_no_markup(few: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = Path(few).read_text()
    name = '"a vision model for a local need, fine-tuned"'
    assert name in text
    Path(few).write_text(text.replace(name, '"a [/b] vision [bold]\\u001b[31m model"'))
    assert main(["simulate", "curve", "--assumptions", few]) == 0
    out = capsys.readouterr().out
    assert "\x1b[31m" not in out
    assert "[/b]" in out and "[bold]" in out
