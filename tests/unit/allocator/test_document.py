"""`ubcp allocate`: the document, what is wrong with it, and what is printed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.slices import id_of
from ubcp_p2p.allocator.document import DOCUMENT_BYTES_MAX, parse, schema
from ubcp_p2p.allocator.problem import Reason
from ubcp_p2p.cli import main as cli
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.units import AMOUNT_MAX

REPOSITORY = Path(__file__).parents[3]
VECTORS = Path(__file__).parents[2] / "vectors" / "allocator"


def document() -> dict[str, Any]:
    return {
        "format": "ubcp-allocate/1",
        "rules": {"purposes": ["research"]},
        "budget": 1000,
        "units": [{"name": "all"}],
        "users": [{"id": id_of(1).hex(), "unit": "all"}],
        "requests": [{"id": id_of(7).hex(), "user": id_of(1).hex(), "purpose": "research", "units": 600}],
    }


def changed(path: str, value: object) -> bytes:
    """The document with one field set; ∅ takes it away."""
    found: Any = document()
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    at = found
    for part in way:
        at = at[part]
    if value == "∅":
        del at[last]
    else:
        at[last] = value
    return json.dumps(found).encode()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("requests.0.units", -600, "requests.0.units: must be greater than or equal to 1 (it is -600)"),
        ("requests.0.units", AMOUNT_MAX + 1, "requests.0.units: must be less than or equal to 9007199254740991"),
        ("requests.0.units", 10**30, "requests.0.units: "),
        ("requests.0.units", 600.0, "requests.0.units: must be a valid integer (it is 600.0)"),
        ("requests.0.units", "600", "requests.0.units: must be a valid integer"),
        ("requests.0.units", True, "requests.0.units: must be a valid integer"),
        ("requests.0.units", "∅", "requests.0.units: Field required"),
        ("requests.0.units_min", 601, "requests.0.units_min: must be an integer from 1 to 600 (the request 0"),
        ("requests.0.waited_slices", -1, "requests.0.waited_slices: "),
        ("requests.0.urgency_permille", 2001, "requests.0.urgency_permille: "),
        ("requests.0.user", id_of(2).hex(), "requests.0.user: is not one of the users (the request 0"),
        ("requests.0.id", "12", "requests.0.id: must be 64 hex digits"),
        ("requests.0.id", "A" * 64, "requests.0.id: must be 64 hex digits"),
        (
            "requests.0.standing",
            "hungry",
            "requests.0.standing: must be 'frozen', 'not-enrolled', 'owner-refused', 'indebted' or 'too-few-peers'",
        ),
        ("requests.0.unit", 5, "requests.0.unit: Extra inputs are not permitted"),
        ("users.0.unit", "none", "users.0.unit: 'none' is not one of the units (the user 0"),
        ("users.0.use", -1, "users.0.use: "),
        ("units.0.use", 5.5, "units.0.use: "),
        ("units.0.weight", 0, "units.0.weight: "),
        ("rules.purposes", [], "rules.purposes: "),
        ("rules.purposes", ["b", "b"], "rules.purposes: must be sorted, each once"),
        ("rules.half_life_slices", 0, "rules.half_life_slices: "),
        ("budget", -1, "budget: "),
        ("budget", 1e3, "budget: "),
        ("budget_max", 999, "budget_max: must be an integer from 1000"),
        ("reserve_carried", 1, "reserve_carried: must be an integer from 0 to 0"),
        ("format", "ubcp-allocate/2", "format: must be 'ubcp-allocate/1'"),
        ("surprise", 1, "surprise: Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(changed(path, value), where="mine.json")
    assert caught.value.message.startswith(f"mine.json: {words}")
    assert caught.value.hint


def test_a_row_is_named_by_its_place_in_the_file_and_its_id() -> None:
    """Not by its place among rows that are sorted by id."""
    found = document()
    first, last = id_of(9).hex(), id_of(3).hex()
    found["requests"] = [{**found["requests"][0], "id": first, "units_min": 601}, {**found["requests"][0], "id": last}]
    for data in (found, {**found, "requests": [{**found["requests"][0], "units_min": 1, "units": 0}]}):
        with pytest.raises(ConfigError) as caught:
            parse(json.dumps(data).encode(), where="mine.json")
        assert caught.value.message.startswith("mine.json: requests.0.")
        assert caught.value.message.endswith(f" (the request {first})")
    found["units"] = [{"name": "z", "weight": 0}]
    with pytest.raises(ConfigError, match=r"units\.0\.weight: .* \(the unit z\)"):
        parse(json.dumps(found).encode(), where="mine.json")


@pytest.mark.parametrize(("rows", "what"), [("requests", "id"), ("users", "id"), ("units", "name")])
def test_two_rows_of_one_id_are_both_named(rows: str, what: str) -> None:
    found = document()
    found[rows] = [*found[rows], found[rows][0]]
    with pytest.raises(ConfigError, match=rf"mine\.json: {rows}\.1\.{what}: .* is that of {rows}\.0 too"):
        parse(json.dumps(found).encode(), where="mine.json")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            '"units": 600',
            '"units": 600, "units": 1',
            f"the key 'units' stands twice in one object of '{id_of(7).hex()}'",
        ),
        ('"budget": 1000', '"budget": 1000, "budget": 1000', "the key 'budget' stands twice in one object"),
        ('"name": "all"', '"name": "all", "name": "b"', "the key 'name' stands twice in one object"),
    ],
)
def test_a_key_that_stands_twice_is_refused(old: str, new: str, words: str) -> None:
    text = json.dumps(document())
    assert old in text
    with pytest.raises(ConfigError) as caught:
        parse(text.replace(old, new).encode(), where="mine.json")
    assert caught.value.message == f"mine.json: {words}"


def test_what_to_do_with_a_file_that_is_too_large(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(DOCUMENT_BYTES_MAX + 1)
    assert cli.main(["allocate", str(large)]) == 3
    assert "hint: leave out spaces" in capsys.readouterr().err


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"1", b"NaN", b"[" * 100_000])
def test_what_is_no_document(data: bytes) -> None:
    with pytest.raises(ConfigError, match="the document: "):
        parse(data, where="mine.json")


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("requests.0.purpose", "mining", "purpose-not-allowed"),
        ("requests.0.units", 1001, "too-large"),
        ("requests.0.standing", "frozen", "frozen"),
    ],
)
def test_one_request_that_is_refused_does_not_stop_the_slice(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, path: str, value: object, reason: str
) -> None:
    file = tmp_path / "slice.json"
    file.write_bytes(changed(path, value))
    assert cli.main(["allocate", "--json", str(file)]) == 0
    (row,) = json.loads(capsys.readouterr().out)["decisions"]
    assert (row["accepted"], row["reason"]) == (False, reason)
    assert row["explain"].startswith("refused: ")


def test_the_json_of_a_decision(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "slice.json"
    file.write_text(json.dumps(document()))
    assert cli.main(["allocate", "--json", str(file)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accepted"] == [id_of(7).hex()]
    assert (found["budget_used"], found["budget"], found["granule"], found["refused"]) == (600, 1000, 1, {})
    (row,) = found["decisions"]
    assert row.items() >= {"id": id_of(7).hex(), "accepted": True, "reason": "accepted", "displaces_permille": None,
                           "expected_wait_s": 0}.items()  # fmt: skip
    assert found["value"] == row["value"]


def test_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["allocate", str(VECTORS / "slice.json")]) == 0
    *rows, last = capsys.readouterr().out.splitlines()
    assert len(rows) == 9
    assert any("  not this slice: full; yours would displace " in row for row in rows)
    assert last == "3 of 9 accepted; 990,000 of 1,000,000 GFLOP used"


def test_the_page_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    page = (REPOSITORY / "docs" / "allocator.md").read_text()
    command = "ubcp allocate tests/vectors/allocator/slice.json"
    shown = page.partition(f"$ {command}\n")[2].partition("```")[0]
    assert cli.main(["allocate", str(VECTORS / "slice.json")]) == 0
    assert capsys.readouterr().out == shown


def test_the_page_has_every_reason() -> None:
    page = (REPOSITORY / "docs" / "allocator.md").read_text()
    assert set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == {str(reason) for reason in Reason}


def test_errors_of_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    for arguments, code, words in (
        ([], 2, "FILE is missing"),
        ([str(tmp_path / "none.json")], 2, "there is no file"),
        ([str(bad)], 2, "format: Field required"),
        ([str(tmp_path)], 3, "cannot read"),
    ):
        assert cli.main(["allocate", *arguments]) == code
        out, err = capsys.readouterr()
        assert out == ""
        error, hint = err.splitlines()
        assert words in error
        assert hint.startswith("ubcp: hint: ")


def test_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--schema"], ["--schema", "--json"]):
        assert cli.main(["allocate", *arguments]) == 0
        assert json.loads(capsys.readouterr().out) == schema()
    assert schema()["additionalProperties"] is False
