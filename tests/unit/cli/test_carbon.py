"""`ubcp carbon` as a command line: each source, and none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.carbon.test_api import Server, body_of
from ubcp_p2p.cli import main as cli
from ubcp_p2p.peer.profile import Profile

FOR_EVER = {"start": "2020-01-01T00:00:00Z", "end": "2100-01-01T00:00:00Z", "g_per_kwh": 120}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def run(root: Path, config: str, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    place = Profile(root / "profile")
    place.make()
    place.config_file.write_text(config)
    code = cli.main(["carbon", "--profile", str(place.root), *words])
    return code, *capsys.readouterr()


def test_untold_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(tmp_path, "", capsys)
    assert (code, out) == (0, "unknown    carbon is unknown: this node has not been told where it is\n")
    assert "under [carbon] in config.toml" in err
    assert json.loads(run(tmp_path, "", capsys, "--json")[1])["known"] is False


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = '[owner]\ncarbon_g_max = 50\n[carbon]\ncountry = "FR"\n'
    code, out, _ = run(tmp_path, config, capsys)
    assert code == 0
    assert out.splitlines() == [
        "now        56 g CO2 a kWh",
        "source     the yearly average of France (FR) in 2023, which knows no hours",
        "ceiling    above your 50 g",
    ]


def test_a_schedule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.csv").write_text("start,g_per_kwh\n2020-01-01T00:00:00Z,120\n2100-01-01T00:00:00Z,\n")
    config = f'[carbon]\nschedule = "{tmp_path / "mine.csv"}"\n'
    code, out, _ = run(tmp_path, config, capsys)
    assert code == 0
    assert "source     your schedule mine.csv" in out
    assert "forecast   2020-01-01 " in out
    document = json.loads(run(tmp_path, config, capsys, "--json")[1])
    assert document == {
        "known": True, "g_per_kwh": 120, "kind": "schedule", "source": "your schedule mine.csv", "note": "",
        "forecast": [{"start": "2020-01-01T00:00:00Z", "end": "2100-01-01T00:00:00Z", "g_per_kwh": 120}],
    }  # fmt: skip


def test_an_api_is_asked_once_and_the_table_stands_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Server
) -> None:
    server.body = body_of(FOR_EVER)
    config = f'[carbon]\ncountry = "FR"\napi = "{server.url}"\n'
    code, out, err = run(tmp_path, config, capsys)
    assert (code, err) == (0, "")
    assert "now        120 g" in out
    assert "secret" not in out
    assert len(server.asked) == 1
    server.status = 500
    code, out, err = run(tmp_path, config, capsys)
    assert code == 0
    assert "the carbon API at 127.0.0.1: it answered 500" in err
    assert "now        56 g" in out
    assert "note       the carbon API at 127.0.0.1: it answered 500" in out


def test_a_wrong_configuration_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for config in ('[carbon]\ncountry = "XX"\n', '[carbon]\nschedule = "no.csv"\n'):
        code, out, err = run(tmp_path, config, capsys)
        assert (code, out) == (2, "")
        assert "ubcp: hint: " in err
