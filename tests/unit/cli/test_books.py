"""`ubcp ledger export`, `import`, `show` and `ubcp credits`: the same ledger as a store, as a file, and in words."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.community import Community, community, known, new_store, second_charter
from ubcp_p2p.cli import main as cli
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.keys import AccountKey, NodeKey, to_base58
from ubcp_p2p.ledger import transfer
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import ZERO, Kind, OpenAccount
from ubcp_p2p.ledger.export import MAGIC
from ubcp_p2p.ledger.sources import open_source
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.world import secret
from ubcp_p2p.units import MICROCREDITS

NOW = "0"  # as of the newest entry


@pytest.fixture(scope="module")
def town() -> Community:
    return community()


@pytest.fixture
def path(tmp_path: Path, town: Community) -> Path:
    with new_store(tmp_path / "ledger.sqlite3", town.world) as store:
        store.append(town.entries)
        store.put_blob(b"evidence")
    return tmp_path / "ledger.sqlite3"


def _run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    """The JSON document of a command."""
    assert cli.main([*words, "--json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def _words(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(list(words)) == 0
    return capsys.readouterr().out


def _refused(capsys: pytest.CaptureFixture[str], *words: str, code: int) -> str:
    """The error and the hint of a command that fails."""
    assert cli.main(list(words)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def _author(town: Community, name: str) -> bytes:
    return NodeKey(secret(town.world.seed, name)).public  # an account's key gives the same


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_there_and_back(capsys: pytest.CaptureFixture[str], path: Path, town: Community) -> None:
    out, again = path.with_name("a.ubcp"), path.with_name("b.sqlite3")
    document = _run(capsys, "ledger", "export", "--store", str(path), "--out", str(out))
    network = town.world.charters.network.hex()
    assert document == {
        "file": str(out), "network": network, "entries": len(town.entries), "log": None, "later": 0,
        "proofs_left_out": 0, "frozen_left_out": 0,
    }  # fmt: skip
    first = _run(capsys, "ledger", "import", str(out), "--store", str(again))
    assert first["created"] and first["entries"] == first["entries_added"] == len(town.entries)
    assert (first["charters_added"], first["blobs_read"], first["waiting"], first["refused"]) == (1, 1, 0, 0)
    second = _run(capsys, "ledger", "import", str(out), "--store", str(again))
    assert (second["created"], second["entries_added"], second["proofs_added"]) == (False, 0, 0)
    with Store.open(path) as one, Store.open(again) as other:
        assert known(one) == known(other)
    assert "no fault" not in _audit(capsys, out)  # the fork
    assert f"{len(town.entries)} entries" in _words(capsys, "ledger", "import", str(out), "--store", str(again))


def _audit(capsys: pytest.CaptureFixture[str], path: Path) -> str:
    assert cli.main(["audit", "--jobs", "1", str(path)]) == 1
    return capsys.readouterr().out


def test_an_export_to_a_pipe(capfdbinary: pytest.CaptureFixture[bytes], path: Path) -> None:
    assert cli.main(["ledger", "export", "--store", str(path)]) == 0
    piped = capfdbinary.readouterr().out
    out = path.with_name("a.ubcp")
    assert cli.main(["ledger", "export", "--store", str(path), "--out", str(out)]) == 0
    assert piped == out.read_bytes()


def test_a_json_document_and_an_export_do_not_share_stdout(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    assert "--out FILE" in _refused(capsys, "ledger", "export", "--store", str(path), "--json", code=2)


def test_beside_a_running_node(capsys: pytest.CaptureFixture[str], path: Path, town: Community) -> None:
    """Reading goes on beside it; an import would write, and is refused."""
    out = path.with_name("a.ubcp")
    with Store.open(path):
        _run(capsys, "ledger", "export", "--store", str(path), "--out", str(out))
        _run(capsys, "credits", town.forker.hex(), "--store", str(path))
        said = _refused(capsys, "ledger", "import", str(out), "--store", str(path), code=3)
    assert "in use by another process" in said and "ubcp stop" in said


def test_the_log_of_a_profile_is_its_nodes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, town: Community, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "profile"
    made = _run(capsys, "init", "--profile", str(profile))
    said = _refused(capsys, "ledger", "export", "--profile", str(profile), "--out", str(tmp_path / "x"), code=2)
    assert "there is no ledger store in" in said
    with new_store(profile / "ledger.sqlite3", town.world) as store:
        store.append(town.entries)
    monkeypatch.setenv("UBCP_HOME", str(profile))
    document = _run(capsys, "ledger", "export", "--out", str(tmp_path / "x"))
    assert document["log"] == made["node"]
    said = _refused(capsys, "credits", code=1)  # this profile's own account is not in that ledger
    assert made["account"] in said


def test_a_cut_file_changes_nothing(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    out, again = path.with_name("a.ubcp"), path.with_name("b.sqlite3")
    _run(capsys, "ledger", "export", "--store", str(path), "--out", str(out))
    whole = out.read_bytes()
    for size in (0, 5, len(MAGIC) + 3, len(whole) // 2, len(whole) - 1):
        out.write_bytes(whole[:size])
        assert "at byte" in _refused(capsys, "ledger", "import", str(out), "--store", str(again), code=2)
        assert not again.exists()
    said = _refused(capsys, "ledger", "import", str(path.with_name("none")), "--store", str(again), code=2)
    assert "No such file" in said


def test_what_is_refused_is_named_and_the_rest_goes_on(
    capsys: pytest.CaptureFixture[str], path: Path, town: Community
) -> None:
    out, again = path.with_name("a.ubcp"), path.with_name("b.sqlite3")
    _run(capsys, "ledger", "export", "--store", str(path), "--out", str(out))
    data, wire = out.read_bytes(), town.entries[-1].to_bytes()
    at = data.rindex(wire)  # the fork proof has it too
    broken = wire[:-1] + bytes([wire[-1] ^ 1])
    junk = struct.pack(">IB", 4, 4) + b"abc"
    out.write_bytes(data[:at] + broken + junk + data[at + len(wire) :])
    document = _run(capsys, "ledger", "import", str(out), "--store", str(again), code=1)
    assert document["refused"] == 2 and document["entries_added"] == len(town.entries) - 1
    assert {fault["code"] for fault in document["faults"]} == {"encoding", "signature"}
    assert town.entries[-1].entry.id.hex() in {fault["entry"] for fault in document["faults"]}
    assert cli.main(["ledger", "import", str(out), "--store", str(again)]) == 1
    assert "a signature under the entry does not hold" in capsys.readouterr().out


def test_another_community(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    out, other = path.with_name("a.ubcp"), path.with_name("other.sqlite3")
    _run(capsys, "ledger", "export", "--store", str(path), "--out", str(out))
    new_store(other, community(seed=9).world).close()
    assert "another community" in _refused(capsys, "ledger", "import", str(out), "--store", str(other), code=2)


def test_a_header_that_names_another_community(capsys: pytest.CaptureFixture[str], path: Path, town: Community) -> None:
    out, again = path.with_name("a.ubcp"), path.with_name("b.sqlite3")
    _run(capsys, "ledger", "export", "--store", str(path), "--out", str(out))
    out.write_bytes(out.read_bytes().replace(town.world.charters.network, bytes(32), 1))
    said = _refused(capsys, "ledger", "import", str(out), "--store", str(again), code=2)
    assert "not the one that its header names" in said
    assert not again.exists()


def test_an_import_goes_in_parts(path: Path, town: Community, monkeypatch: pytest.MonkeyPatch) -> None:
    out, again = path.with_name("a.ubcp"), path.with_name("b.sqlite3")
    with Store.open(path, read_only=True) as store, out.open("wb") as file:
        transfer.export_store(store, file)
    monkeypatch.setattr(transfer, "BATCH", 4)
    offsets: list[int] = []
    imported, done = transfer.import_export(again, out, now_s=time.time(), progress=offsets.append)
    imported.close()
    assert len(offsets) == -(-len(town.entries) // 4)
    assert offsets == sorted(offsets)
    assert done.entries_added == len(town.entries)


def test_a_charter_that_contradicts(capsys: pytest.CaptureFixture[str], path: Path, town: Community) -> None:
    out, other = path.with_name("a.ubcp"), path.with_name("other.sqlite3")
    with Store.open(path) as store:
        store.add_charter(second_charter(town.world.charters, town.world, effective=9))
    _run(capsys, "ledger", "export", "--store", str(path), "--out", str(out))
    with new_store(other, town.world) as store:
        store.add_charter(second_charter(town.world.charters, town.world, effective=9, grace_slices=1))
    assert "two charters of version 2" in _refused(capsys, "ledger", "import", str(out), "--store", str(other), code=1)
    Store.open(other).close()  # it holds no lock


# -- show -------------------------------------------------------------------------------------------------------------


def test_entries_in_words(capsys: pytest.CaptureFixture[str], path: Path, town: Community) -> None:
    for signed in (town.entries[0], town.entries[-1]):
        id_ = signed.entry.id.hex()
        document = _run(capsys, "ledger", "show", id_, "--store", str(path))
        assert (document["id"], document["what"]) == (id_, Kind(signed.entry.kind).name)
        said = _words(capsys, "ledger", "show", id_[:12], "--store", str(path))
        assert id_ in said and document["words"] in said


def test_an_account_in_words(capsys: pytest.CaptureFixture[str], path: Path, town: Community) -> None:
    document = _run(capsys, "ledger", "show", town.forker.hex(), "--store", str(path))
    assert (document["what"], document["account"], document["frozen"]) == ("account", town.forker.hex(), True)
    assert len(document["heads"]) == 2 and len(document["forks"]) == 1
    assert document["entries"] == {"OPEN": 1, "ENROL": 1, "REQUEST": 2}
    assert document["nodes"] == [_author(town, "node eve").hex()]
    said = _words(capsys, "ledger", "show", town.forker.hex().upper(), "--store", str(path))
    assert "FROZEN    two entries with number 2" in said


def test_a_node_by_its_peer_id(capsys: pytest.CaptureFixture[str], path: Path, town: Community) -> None:
    node = NodeKey(secret(town.world.seed, "node ben"))
    document = _run(capsys, "ledger", "show", to_base58(node.peer_id), "--store", str(path))
    assert (document["what"], document["node"]) == ("node", node.public.hex())
    assert document["owner"] == _author(town, "account ben").hex()
    assert document["earned"] == 600 * MICROCREDITS
    assert "600 credits in all" in _words(capsys, "ledger", "show", node.public.hex(), "--store", str(path))


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("00", 2, "has 2 hex digits"),
        ("0" * 65, 2, "has 65 hex digits"),
        ("zebra", 2, "neither hex digits nor a peer id"),
        ("0000000000", 1, "nothing in this ledger begins with 0000000000"),
    ],
)
def test_what_cannot_be_found(capsys: pytest.CaptureFixture[str], path: Path, text: str, code: int, words: str) -> None:
    assert words in _refused(capsys, "ledger", "show", text, "--store", str(path), code=code)


def test_digits_that_fit_several(
    capsys: pytest.CaptureFixture[str], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ubcp_p2p.ledger.finding.PREFIX_DIGITS_MIN", 0)
    said = _refused(capsys, "ledger", "show", "", "--store", str(path), code=2)
    assert "begins more than one" in said and "give more digits" in said and ", …" in said


# -- credits ----------------------------------------------------------------------------------------------------------


def test_a_balance_and_what_it_is_made_of(capsys: pytest.CaptureFixture[str], path: Path, town: Community) -> None:
    ann = _author(town, "account ann")
    document = _run(capsys, "credits", ann.hex()[:10], "--store", str(path), "--as-of", NOW)
    assert document["account"] == ann.hex()
    assert document["available"] == 5000 * MICROCREDITS
    assert document["vintages"] == [
        {"source": "allowance", "period": 0, "amount": 5000 * MICROCREDITS, "expires": "2026-01-29T00:00:00+00:00"}
    ]
    (reserve,) = document["reserves"]
    assert (reserve["amount"], reserve["paid"]) == (5000 * MICROCREDITS, 650 * MICROCREDITS)
    assert document["reserved"] == 4350 * MICROCREDITS
    assert document["totals"] == {"issued": 10**10, "claimed": 0, "paid": 0, "burned": 0}
    assert document["enrolment"]["class"] == "member"
    assert {entry["kind"] for entry in document["recent"]} == {"REQUEST", "ENROL", "OPEN", "ALLOT"}
    said = _words(capsys, "credits", ann.hex(), "--store", str(path), "--as-of", NOW)
    for part in ("5,000  credits available", "allowance of period 0; gone from 2026-01-29", "650 of it paid"):
        assert part in said


def test_income_per_node(capsys: pytest.CaptureFixture[str], path: Path, town: Community) -> None:
    ben = _author(town, "account ben")
    document = _run(capsys, "credits", ben.hex(), "--store", str(path), "--as-of", NOW)
    amount = 600 * MICROCREDITS
    assert document["income"] == [{"node": _author(town, "node ben").hex(), "uncollected": amount, "earned": amount}]
    assert document["uncollected"] == amount
    assert document["recent"][0]["words"].startswith("received 600 credits in all")


def test_later_the_allowance_is_gone(capsys: pytest.CaptureFixture[str], path: Path, town: Community) -> None:
    ben = _author(town, "account ben")
    document = _run(capsys, "credits", ben.hex(), "--store", str(path), "--as-of", "2028-01-01")
    assert (document["available"], document["uncollected"], document["enrolment"]) == (0, 0, None)
    assert document["totals"]["burned"] == document["totals"]["issued"] > 0
    said = _words(capsys, "credits", ben.hex(), "--store", str(path), "--as-of", "2028-01-01")
    assert "not enrolled now" in said


def test_a_debt_and_a_freeze_are_told(capsys: pytest.CaptureFixture[str], path: Path, town: Community) -> None:
    said = _words(capsys, "credits", town.forker.hex(), "--store", str(path), "--as-of", NOW)
    assert "FROZEN" in said


def test_a_node_has_no_credits_of_its_own(capsys: pytest.CaptureFixture[str], path: Path, town: Community) -> None:
    node = _author(town, "node ben").hex()
    said = _refused(capsys, "credits", node, "--store", str(path), code=1)
    owner = _author(town, "account ben").hex()
    assert f"{node} is a node, no account" in said and f"`ubcp credits {owner[:16]}`" in said


def test_an_entry_has_no_credits(capsys: pytest.CaptureFixture[str], path: Path, town: Community) -> None:
    id_ = town.entries[-1].entry.id.hex()
    said = _refused(capsys, "credits", id_, "--store", str(path), code=1)
    assert f"{id_} is an entry (REQUEST of" in said and f"`ubcp ledger show {id_[:16]}`" in said


def test_a_time_that_is_none(capsys: pytest.CaptureFixture[str], path: Path, town: Community) -> None:
    said = _refused(capsys, "credits", town.forker.hex(), "--store", str(path), "--as-of", "soon", code=2)
    assert "neither a slice nor a date" in said


# -- what must stay ---------------------------------------------------------------------------------------------------


def test_an_export_replaces_only_what_it_may(capsys: pytest.CaptureFixture[str], path: Path, town: Community) -> None:
    """Not without --force what is there; never a store, nor what belongs to the one that is read."""
    folder = path.parent
    other = folder / "other.sqlite3"
    new_store(other, town.world).close()
    (folder / "notes").write_text("dear diary")
    (folder / "link").symlink_to(folder / "notes")
    os.mkfifo(folder / "pipe")
    log = path.with_name(path.name + "-wal")
    log.touch()
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "pipe"}
    refused = {
        str(path): "what is read here", str(log): "what is read here", str(other): "a ledger store",
        str(folder / "link"): "no plain file", str(folder / "pipe"): "no plain file", str(folder): "a folder",
    }  # fmt: skip
    for out, words in refused.items():
        said = _refused(capsys, "ledger", "export", "--store", str(path), "--out", out, "--force", code=2)
        assert words in said and "hint" in said
    said = _refused(capsys, "ledger", "export", "--store", str(path), "--out", str(folder / "notes"), code=2)
    assert "is there already" in said and "--force" in said
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "pipe"} == before
    (folder / "empty").touch()
    for name, more in (("empty", []), ("notes", ["--force"])):
        _run(capsys, "ledger", "export", "--store", str(path), "--out", str(folder / name), *more)
        assert (folder / name).read_bytes().startswith(MAGIC)


def test_what_is_no_plain_file_is_not_waited_for(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    pipe = path.with_name("pipe")
    os.mkfifo(pipe)
    assert "no plain file" in _refused(capsys, "ledger", "import", str(pipe), "--store", str(path), code=2)
    assert "no plain file" in _refused(capsys, "ledger", "append", str(pipe), code=2)
    assert "no plain file" in _refused(capsys, "credits", "abcd", "--store", str(pipe), code=2)
    out = path.with_name("a.ubcp")
    _run(capsys, "ledger", "export", "--store", str(path), "--out", str(out))
    assert "no plain file" in _refused(capsys, "ledger", "import", str(out), "--store", str(pipe), code=2)
    said = _refused(capsys, "credits", "abcd", "--store", str(out), code=2)
    assert "is an export of a ledger, not a store" in said and "ubcp ledger import" in said
    assert "is an export" in _refused(capsys, "ledger", "import", str(out), "--store", str(out), code=2)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed, to whom a folder is closed")
def test_a_backup_in_a_closed_folder_can_be_read(path: Path, town: Community) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        backup = folder / "ledger.sqlite3"
        shutil.copy(path, backup)
        backup.chmod(0o444)
        folder.chmod(0o555)
        os.seteuid(65534)
        try:
            with Store.open(backup, read_only=True) as store:
                assert store.ledger.entries == len(town.entries)
            with open_source(backup) as source:
                assert source.last == len(town.entries)
            assert [file.name for file in folder.iterdir()] == ["ledger.sqlite3"]
        finally:
            os.seteuid(0)
        (folder / "ledger.sqlite3-wal").write_bytes(b"something")
        os.seteuid(65534)
        try:
            with pytest.raises(ConfigError, match="has to be worked in first"):
                Store.open(backup, read_only=True)
        finally:
            os.seteuid(0)


# -- entries of the future --------------------------------------------------------------------------------------------


def test_entries_of_the_future_count_nowhere_and_are_told(
    capsys: pytest.CaptureFixture[str], path: Path, town: Community
) -> None:
    ben = _author(town, "account ben").hex()
    before = _run(capsys, "credits", ben, "--store", str(path))
    assert before["available"] > 0
    world = community().world
    world.now = 2**31
    world.write(Author(world.charters.network, AccountKey(b"\5" * 32)), OpenAccount(ZERO))
    old, out, new = (path.with_name(name) for name in ("old.sqlite3", "out", "new.sqlite3"))
    with new_store(old, world) as store:
        store.append(world.entries)
    assert cli.main(["credits", ben, "--store", str(old), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["available"] == before["available"]
    words = "1 entry is of the future (first: slice 2147483648, after 9999 UTC), hence"
    assert captured.err == f"{words} not counted; is this machine's clock right?\n"
    _run(capsys, "ledger", "export", "--store", str(old), "--out", str(out))  # a copy of what is there
    assert cli.main(["ledger", "import", str(out), "--store", str(new)]) == 1
    assert f"{words} left out; is this machine's clock right?\n" in capsys.readouterr().out
    assert _run(capsys, "ledger", "import", str(out), "--store", str(new), code=1)["early"] == 1
    assert _run(capsys, "credits", ben, "--store", str(new))["available"] == before["available"]
    said = _refused(capsys, "ledger", "import", str(out), "--store", str(old), code=2)
    assert "ubcp ledger export --as-of DATE" in said
    done = _run(capsys, "ledger", "export", "--store", str(old), "--out", str(out), "--force", "--as-of", "2026-11-01")
    assert (done["later"], done["entries"]) == (1, len(world.entries) - 1)
    assert _run(capsys, "ledger", "import", str(out), "--store", str(new))["early"] == 0
