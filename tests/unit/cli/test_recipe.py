"""`ubcp recipe`: what is shipped, a file of one's own, and the schema; nothing of it needs a node or an extra."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ubcp_p2p.cli import main as cli
from ubcp_p2p.content import content_dir
from ubcp_p2p.models.recipe import Recipe, load_recipe, recipe_json_schema, shipped_recipes


def test_list_has_one_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipe", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_recipes())
    assert cli.main(["recipe", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(shipped_recipes())
    assert rows[0].keys() == {"name", "summary", "hash", "parameters", "rounds", "local_steps", "unchecked"}


@pytest.mark.parametrize("name", shipped_recipes())
def test_what_show_prints_is_the_recipe(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    assert cli.main(["recipe", "show", name]) == 0
    text = capsys.readouterr().out
    assert text == shipped_recipes()[name].read_text()
    mine = tmp_path / "mine.toml"
    mine.write_text(text)
    assert cli.main(["recipe", "check", str(mine), "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["hash"] == load_recipe(name).hash().hex()
    assert cli.main(["recipe", "show", str(mine), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert Recipe.model_validate_json(json.dumps(shown["recipe"])) == load_recipe(name)
    assert shown.items() >= checked.items()


def test_check_says_fine(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipe", "check", str(shipped_recipes()["digits-tiny"])]) == 0
    assert "fine: digits-tiny, 1,922 parameters, 50 rounds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name = 'x", "not TOML"),
        ("nmae = 'x'", "nmae: unknown key"),
        (b"\xff", "not UTF-8"),
        ("#" * 70_000, "at most 65536 bytes"),
        (None, "cannot read the recipe"),
    ],
)
def test_check_is_one_error_with_a_hint(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str | bytes | None, words: str
) -> None:
    file = tmp_path / "mine.toml"
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    for arguments in (["check", str(file)], ["check", str(file), "--json"], ["show", str(file)]):
        assert cli.main(["recipe", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        error, hint = err.splitlines()
        assert error.startswith(f"ubcp: error: {file}: ")
        assert words in error
        assert hint.startswith("ubcp: hint: ")


def test_check_takes_a_file_whatever_it_is_called(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits-tiny").write_text("seed = 1")  # and not the shipped one of that name
    assert cli.main(["recipe", "check", "digits-tiny"]) == 2
    assert "digits-tiny" in capsys.readouterr().err


def test_cost_in_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["recipe", "cost", "shakespeare-nano", "--peers", "3"]) == 0
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "a peer's round 11 units 0.000011 credits 200 samples of 50,331,648 FLOP",
        "a round 33 units 0.000033 credits of 3 peers",
        "the whole run 1,584 units 0.001584 credits 48 rounds of 3 peers: shakespeare-nano",
    ]
    mine = tmp_path / "mine.toml"
    mine.write_text(shipped_recipes()["digits-tiny"].read_text())
    assert cli.main(["recipe", "cost", str(mine)]) == 0
    assert " 1 unit  " in capsys.readouterr().out


def test_cost_and_what_it_costs_to_make(capsys: pytest.CaptureFixture[str]) -> None:
    charter = str(content_dir("ledger") / "charter.toml")
    assert cli.main(["recipe", "cost", "shakespeare-nano", "--charter", charter, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["units"], document["units_per_round"], document["units_per_peer_and_round"]) == (528, 11, 11)
    assert document["hash"] == load_recipe("shakespeare-nano").hash().hex()
    consumer = next(row for row in document["devices"] if row["device"] == "gpu-consumer")
    assert consumer["seconds"] == 528 / 40_000
    assert consumer["kwh"] == pytest.approx(528e-6 / 320)
    assert cli.main(["recipe", "cost", "shakespeare-nano", "--charter", charter]) == 0
    assert "made on gpu-consumer it costs 0.000000704 EUR" in capsys.readouterr().out


def test_cost_of_what_has_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["recipe", "cost", "digits-tiny", "--peers", "9"]) == 2
    assert "9 peers are not between 1 and 8" in capsys.readouterr().err
    charter = tmp_path / "charter.toml"
    assert cli.main(["charter", "new", str(charter), "--name", "x", "--steward", "none"]) == 0
    assert cli.main(["recipe", "cost", "digits-tiny", "--charter", str(charter)]) == 2
    assert "has no cost basis" in capsys.readouterr().err


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--json"]):
        assert cli.main(["recipe", "schema", *arguments]) == 0
        assert json.loads(capsys.readouterr().out) == recipe_json_schema()


@pytest.mark.parametrize("arguments", [[], ["shw"], ["check"], ["show", "no-such"], ["list", "more"]])
def test_usage_errors(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert cli.main(["recipe", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ubcp: error: ")
    assert "ubcp: hint: " in err


def test_help_names_all_five(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipe", "--help"]) == 0
    listed = capsys.readouterr().out
    for name in ("list", "show", "check", "cost", "schema"):
        assert f"\n  {name} " in listed
        assert cli.main(["recipe", name, "--help"]) == 0
        assert f"Usage: ubcp recipe {name}" in capsys.readouterr().out


@pytest.mark.slow
def test_it_imports_neither_torch_nor_a_network_library() -> None:
    code = (
        "import sys; from ubcp_p2p.cli.main import main; main(['recipe', 'cost', 'digits-tiny']); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "hivemind", "safetensors", "asyncio"} & set(done.stdout.split())
