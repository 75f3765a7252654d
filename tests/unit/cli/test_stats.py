"""`ubcp stats`: the same figures from a store, its export and another node's export; and all that can go wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.community import fresh_charters, new_store
from ubcp_p2p.cli import main as cli
from ubcp_p2p.keys import AccountKey
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import ZERO, Checkpoint, OpenAccount, Request
from ubcp_p2p.ledger.export import Roots, write_export
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import World, secret
from ubcp_p2p.units import MICROCREDITS


def _world() -> World:
    """Two people's requests, one of them served, in period 0; a fork; and an entry in period 1."""
    world = World(5)
    ann, ben, eve = (world.account(name) for name in ("ann", "ben", "eve"))
    ann_pc, ben_pc, eve_pc = world.node(ann, "ann"), world.node(ben, "ben"), world.node(eve, "eve")
    request = world.request(ann, ann_pc, 50 * MICROCREDITS)
    world.request(ben, eve_pc, 10 * MICROCREDITS, slices=5)
    world.now = 4
    world.decide(ben_pc, [request], refused={"full": 2})
    allot = world.allot(ann_pc, request, ben_pc, 20 * MICROCREDITS)
    world.now = 6
    world.receipt(ben_pc, ann_pc, allot, 2_500_000)
    before = eve.head
    world.request(eve, eve_pc, 3 * MICROCREDITS)
    eve.head = before
    world.request(eve, eve_pc, 4 * MICROCREDITS)
    world.now = world.charter.period_slices
    world.decide(eve_pc)
    return world


@pytest.fixture(scope="module")
def world() -> World:
    return _world()


def _store(path: Path, world: World, entries: list[Signed]) -> Path:
    with new_store(path, world) as store:
        store.append(entries)
        assert store.ledger.entries == len(entries)
    return path


@pytest.fixture
def path(tmp_path: Path, world: World) -> Path:
    return _store(tmp_path / "ledger.sqlite3", world, world.entries)


def _file(path: Path, world: World, entries: list[bytes]) -> Path:
    """An export with whatever entries. Its roots are not looked at."""
    with path.open("wb") as file:
        versions = [version.to_bytes() for version in world.charters.versions]
        write_export(file, versions, [], [], entries, [], network=world.charters.network,
                     roots=lambda: Roots(ZERO, ZERO))  # fmt: skip
    return path


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the figures, where they are from)."""
    code = cli.main(["stats", *words, "--json"])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    document = json.loads(captured.out)
    return document, document.pop("source")


def _refused(capsys: pytest.CaptureFixture[str], *words: str, code: int) -> list[str]:
    """The error and the hint."""
    assert cli.main(["stats", *words]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    error, hint = captured.err.splitlines()
    assert error.startswith("ubcp: error: ") and hint.startswith("ubcp: hint: ")
    return [error, hint]


def test_a_store_its_export_and_another_nodes_export(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, path: Path, world: World
) -> None:
    """The other node got the entries backwards, so its order is another; its export is of its own order."""
    backwards = _store(tmp_path / "other.sqlite3", world, world.entries[::-1])
    with Store.open(path) as one, Store.open(backwards) as other:
        assert list(one.entries()) != list(other.entries())
    exports = []
    for name, store in (("a", path), ("b", backwards)):
        exports.append(tmp_path / f"{name}.ubcp")
        assert cli.main(["ledger", "export", "--store", str(store), "--out", str(exports[-1]), "--json"]) == 0
    capsys.readouterr()
    assert exports[0].read_bytes() != exports[1].read_bytes()
    documents = [_json(capsys, str(place))[0] for place in (path, backwards, *exports)]
    assert all(document == documents[0] for document in documents)
    total = documents[0]["total"]
    assert (total["requests"], total["served"], total["unserved"], total["waiting"]) == (4, 1, 3, 0)
    assert total["wait_slices"] == {"p50": 4, "p90": 4, "p99": 4, "max": 4}
    assert documents[0]["refusals"] == [{"reason": "full", "times": 2, "decisions": 1}]
    assert documents[0]["periods"] == {
        "first": 0, "last": 1, "begins": "2026-01-01T00:00:00+00:00", "ends": "2026-01-15T00:00:00+00:00",
    }  # fmt: skip


def test_the_store_of_the_profile(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a node took in itself it has verified; it may be running."""
    monkeypatch.setenv("UBCP_HOME", str(tmp_path))
    assert "there is no ledger store in" in _refused(capsys, code=2)[0]
    with Store.create(tmp_path / "ledger.sqlite3", fresh_charters(world)) as store:
        store.append(world.entries)
        document, source = _json(capsys)
        assert source == {
            "signatures_verified": True, "entries": len(world.entries), "refused": 0, "pending": 0, "early": 0,
        }  # fmt: skip
        assert document == _json(capsys, str(tmp_path / "ledger.sqlite3"))[0]
    assert cli.main(["stats", "--profile", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""


def test_what_breaks_a_rule_is_left_out_and_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, path: Path, world: World
) -> None:
    author = _author(world)
    spent = author.write(world.now, _request(world)._replace(credits=10**12))  # more than anybody has
    after = author.draft(world.now, Checkpoint(1, ZERO, ZERO))  # follows it
    author.head = None
    early = author.draft(2**32 - 1, OpenAccount(ZERO))
    entries = [s.to_bytes() for s in (*world.entries, spent, after, early, world.entries[0])]
    place = _file(tmp_path / "bad.ubcp", world, [*entries, b"\xc1"])
    document, source = _json(capsys, str(place))
    assert (source["refused"], source["pending"], source["early"]) == (2, 1, 1)
    assert (source["entries"], source["signatures_verified"]) == (len(world.entries), False)
    assert document == _json(capsys, str(path))[0]
    assert cli.main(["stats", str(place)]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "left out: 2 entries malformed or against a rule",
        "left out: 1 entry referring to entries that are not before them or were left out",
        "left out: 1 entry ahead of this machine's clock",
        f"not audited: no signature in {place} was verified here; `ubcp audit {place}` does that",
    ]
    assert "4 asked for; 1 served, 3 ended without" in captured.out


def test_periods(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    for text, first, last, requests in (("0", 0, 0, 4), ("1", 1, 1, 0), ("0..1", 0, 1, 4), ("1..1", 1, 1, 0)):
        document, _ = _json(capsys, str(path), "--period", text)
        assert (document["periods"]["first"], document["periods"]["last"]) == (first, last)
        assert document["total"]["requests"] == requests


@pytest.mark.parametrize("text", ["", "x", "-1", "1..", "..1", "1...2", "1..2..3", "0 ", "1.5", "٣", "9" * 11])
def test_what_is_no_period(capsys: pytest.CaptureFixture[str], path: Path, text: str) -> None:
    error, hint = _refused(capsys, str(path), f"--period={text}", code=2)
    assert "is no period" in error and "--period 3..5" in hint


def test_periods_that_cannot_be(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    error, hint = _refused(capsys, str(path), "--period", "3..1", code=2)
    assert "ends before it begins" in error and hint.endswith("--period 1..3")
    for text in ("2", "0..2", "9999999999"):
        error, hint = _refused(capsys, str(path), "--period", text, code=2)
        assert "is later than all entries" in error and "--period 1 is the last there is" in hint


def test_another_community(capsys: pytest.CaptureFixture[str], path: Path, world: World) -> None:
    network = world.charters.network.hex()
    assert _json(capsys, str(path), "--network", network.upper())[0]["network"] == network
    assert f"not of {'0' * 64}" in _refused(capsys, str(path), "--network", "0" * 64, code=2)[0]


def test_a_ledger_without_valid_entries(capsys: pytest.CaptureFixture[str], tmp_path: Path, world: World) -> None:
    empty = _store(tmp_path / "empty.sqlite3", world, [])
    error, hint = _refused(capsys, str(empty), code=1)
    assert error.endswith("has no entry yet") and "ubcp status" in hint
    bad = _file(tmp_path / "bad.ubcp", world, [world.entries[1].to_bytes()])
    error, hint = _refused(capsys, str(bad), code=1)
    assert error.endswith("has no valid entry among its 1") and "ubcp audit" in hint


def test_files_that_are_none(capsys: pytest.CaptureFixture[str], tmp_path: Path, path: Path, world: World) -> None:
    whole = _file(tmp_path / "whole.ubcp", world, [s.to_bytes() for s in world.entries])
    cut = tmp_path / "cut.ubcp"
    for size in (3, 2000, whole.stat().st_size - 1):
        cut.write_bytes(whole.read_bytes()[:size])
        assert "at byte" in _refused(capsys, str(cut), code=2)[0]
    assert cli.main(["stats", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err


def _author(world: World) -> Author:
    """The first account's writer, at its head."""
    key = AccountKey(secret(world.seed, "account ann"))
    return Author(world.charters.network, key, head=world.history(key.public)[-1].entry.position)


def _request(world: World) -> Request:
    return next(signed.entry.body for signed in world.entries if isinstance(signed.entry.body, Request))
