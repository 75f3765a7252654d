"""`ubcp audit`, `ledger synth`, `ledger verify-entry`: each fraud found, its author named, and nothing else said."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ubcp_p2p.cli import audit as commands
from ubcp_p2p.cli import main as cli
from ubcp_p2p.ledger.entry import Receipt
from ubcp_p2p.ledger.export import RecordKind, read_export
from ubcp_p2p.ledger.faults import FAULTS
from ubcp_p2p.ledger.frauds import FRAUDS
from ubcp_p2p.ledger.verifying import BATCH
from ubcp_p2p.ledger.wire import ForkProof, SignedVoucher, decode_signed
from ubcp_p2p.units import credits_text

SMALL = ("--accounts", "5", "--entries", "200", "--seed", "7")


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    assert cli.main([*words, "--json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: str, code: int = 2) -> str:
    """The error line of a command that fails."""
    assert cli.main(list(words)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    error, *hint = captured.err.splitlines()
    assert error.startswith("ubcp: error: ") and len(hint) <= 1
    return error


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "valid.ubcp"
    assert cli.main(["ledger", "synth", *SMALL, "--out", str(path)]) == 0
    return path


# -- frauds -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", FRAUDS)
def test_a_planted_fraud_is_found_and_nothing_else(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "x.ubcp")
    planted = run(capsys, "ledger", "synth", *SMALL, "--out", path, "--plant", kind)["planted"]
    report = run(capsys, "audit", path, "--jobs", "1", code=1)
    found = {(fault["code"], fault["entry"], fault["account"]) for fault in report["faults"]}
    assert (planted["code"], planted["entry"], planted["account"]) in found
    assert sorted(fault["code"] for fault in report["faults"]) == sorted([planted["code"], *planted["also"]])
    assert report["dependent"] == planted["dependent"]
    for fault in report["faults"]:
        assert (fault["invariant"], fault["section"]) == FAULTS[fault["code"]][:2]
        assert fault["message"]


def test_every_invariant_has_a_fraud(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ledger", "synth", "--plant", "list", "--json"]) == 0
    kinds = json.loads(capsys.readouterr().out)
    assert {kind["invariant"] for kind in kinds} == set(range(1, 16))
    assert [kind["kind"] for kind in kinds] == [*FRAUDS]
    assert cli.main(["ledger", "synth", "--plant", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [*FRAUDS]


def test_the_help_lists_the_kinds() -> None:
    rows = re.findall(r"^ *(\d+)?  ((?:[a-z-]+(?:, |,$|$))+)$", commands.synth.__doc__ or "", re.MULTILINE)
    listed = [name for _, names in rows for name in names.strip(",").split(", ")]
    assert sorted(listed) == sorted(FRAUDS)


def test_the_same_options_give_the_same_bytes(valid: Path, tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert cli.main(["ledger", "synth", *SMALL, "--out", str(path)]) == 0
    assert path.read_bytes() == valid.read_bytes()
    assert cli.main(["ledger", "synth", *SMALL[:-1], "8", "--out", str(path), "--force"]) == 0
    assert path.read_bytes() != valid.read_bytes()


# -- audit ------------------------------------------------------------------------------------------------------------


def ubcp(*words: str) -> subprocess.CompletedProcess[str]:
    """As a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "ubcp_p2p", *words], capture_output=True, text=True, timeout=100, check=False
    )


ENDLESS = """
import itertools, multiprocessing
from ubcp_p2p.ledger.verifying import Workers

if __name__ == "__main__":
    BEFORE
    with Workers(3) as workers:
        for _ in workers.checked(itertools.repeat([b"junk"] * 64)):
            if len(children := multiprocessing.active_children()) == 2:
                assert all(HOW in type(child).__name__ for child in children), children
                print("3 processes", flush=True)
"""


@pytest.mark.slow
def test_as_a_process_on_several_cores(tmp_path: Path) -> None:
    path, count = tmp_path / "x", 6 * BATCH  # fewer, and no worker would start
    assert ubcp("ledger", "synth", "--accounts", "9", "--entries", str(count), "--out", str(path)).returncode == 0
    done = ubcp("audit", str(path), "--jobs", "3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["entries"], report["valid"], report["faults"]) == (count, count, [])
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    done = ubcp("audit", str(path), "--jobs", "3")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"(at byte {size - 1})" in done.stderr


INTERRUPTED = """
import itertools, multiprocessing, os, signal
from ubcp_p2p.ledger.verifying import Workers

if __name__ == "__main__":
    BEFORE
    try:
        with Workers(3) as workers:
            for _ in workers.checked(itertools.repeat([b"junk"] * 64)):
                if len(children := multiprocessing.active_children()) == 2:
                    assert all(HOW in type(child).__name__ for child in children), children
                    os.killpg(0, signal.SIGINT)  # as a terminal does: to workers too that have only begun to start
    except KeyboardInterrupt:
        print("stopped")
"""


# Beside another thread workers are spawned, else they are forked.
STARTS = pytest.mark.parametrize(
    "before",
    ["HOW = 'Fork'",
     "HOW = 'Spawn'; import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"],
    ids=["forked", "spawned"],
)  # fmt: skip


@pytest.mark.slow
@STARTS
def test_an_interrupted_audit_and_its_workers_say_nothing(tmp_path: Path, before: str) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED.replace("BEFORE", before))
    done = subprocess.run(
        [sys.executable, str(script)], start_new_session=True, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")


@pytest.mark.slow
@STARTS
def test_a_killed_audit_leaves_no_worker(tmp_path: Path, before: str) -> None:
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS.replace("BEFORE", before))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"3 processes\n"
        child.kill()
        child.stdout.read()  # returns when the last process that has the other end is gone


def test_in_words(valid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", str(valid), "--jobs", "1"]) == 0
    words = capsys.readouterr().out
    assert "200, 200 valid; 5 accounts" in words
    assert words.endswith("no fault\n")
    path = str(tmp_path / "x.ubcp")
    planted = run(capsys, "ledger", "synth", *SMALL, "--out", path, "--plant", "sequence")["planted"]
    assert cli.main(["audit", path, "--jobs", "1"]) == 1
    words = capsys.readouterr().out
    assert f"fault 3 (sequence, SPEC §5.2) by {planted['account']} in entry {planted['entry']}: " in words
    assert "dependent      3 not judged" in words
    assert words.endswith("1 fault\n")


def test_one_line_for_what_is_unreadable(valid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = valid.read_bytes()
    path = tmp_path / "x"

    def error(changed: bytes) -> str:
        path.write_bytes(changed)
        return refused(capsys, "audit", str(path), "--jobs", "1")

    assert "at byte 777" in error(data[:777])
    assert "format version 2, and" in error(data.replace(b"ubcp-ledger/1", b"ubcp-ledger/2", 1))
    assert "does not begin with" in error(b"PK\x03\x04" + data)
    last = [record.offset for record in read_export(valid.open("rb")) if record.kind is RecordKind.ENTRY][-1]
    assert f"4294967295 bytes; at most 23133 are allowed (at byte {last})" in error(
        data[:last] + b"\xff\xff\xff\xff" + data[last + 4 :]
    )
    assert "No such file" in refused(capsys, "audit", str(tmp_path / "absent"))
    assert "it is a folder" in refused(capsys, "audit", str(tmp_path))


def test_another_communitys_ledger(valid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = run(capsys, "audit", str(valid), "--jobs", "1")["network"]
    run(capsys, "audit", str(valid), "--jobs", "1", "--network", network.upper())
    assert "no network id" in refused(capsys, "audit", str(valid), "--network", "zz")
    assert f"of the network {network}, not of abcd" in refused(capsys, "audit", str(valid), "--network", "abcd")


def test_as_of(valid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = run(capsys, "audit", str(valid), "--jobs", "1")
    half = run(capsys, "audit", str(valid), "--jobs", "1", "--as-of", str(whole["slice"] // 2))
    assert half["later"] > 0 and half["faults"] == [] and half["slice"] <= whole["slice"] // 2
    assert run(capsys, "audit", str(valid), "--jobs", "1", "--as-of", "2023-12-31")["valid"] > 0  # slice 0
    same = run(capsys, "audit", str(valid), "--jobs", "1", "--as-of", "2099-01-01T00:00+00:00")
    assert (same["later"], same["balances_root"]) == (0, whole["balances_root"])
    assert "neither a slice nor a date" in refused(capsys, "audit", str(valid), "--as-of", "noon")
    words = ("audit", str(valid), "--as-of", "5", "--checkpoint", "x")
    assert "do not go together" in refused(capsys, *words)
    assert "--jobs 0" in refused(capsys, "audit", str(valid), "--jobs", "0")


def test_a_checkpoint_saves_the_work(valid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = str(tmp_path / "snapshot")
    first = run(capsys, "audit", str(valid), "--jobs", "1", "--checkpoint", snapshot)
    again = run(capsys, "audit", str(valid), "--jobs", "1", "--checkpoint", snapshot)
    assert first["signatures"] > 200 and again["signatures"] == 0
    assert again["resumed_after"] == 200
    keys = ("entries", "valid", "accounts", "balances_root", "entries_root", "faults", "checkpoints", "blobs")
    assert [first[key] for key in keys] == [again[key] for key in keys]
    data = (tmp_path / "snapshot").read_bytes()
    (tmp_path / "snapshot").write_bytes(data[:-1])
    assert cli.main(["audit", str(valid), "--jobs", "1", "--checkpoint", snapshot]) == 0
    assert "everything is audited" in capsys.readouterr().err
    assert (tmp_path / "snapshot").read_bytes() == data


def test_bad_options_of_synth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "x")
    assert "--out FILE is missing" in refused(capsys, "ledger", "synth")
    assert "no kind of fraud 'theft'" in refused(capsys, "ledger", "synth", "--out", out, "--plant", "theft")
    assert "too few" in refused(capsys, "ledger", "synth", "--out", out, "--accounts", "100", "--entries", "100")
    nowhere = str(tmp_path / "no" / "x")
    assert "cannot write" in refused(capsys, "ledger", "synth", *SMALL, "--out", nowhere, code=3)
    assert not list(tmp_path.iterdir())


# -- verify-entry -----------------------------------------------------------------------------------------------------


def test_entries_are_explained(valid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = set()
    for record in read_export(valid.open("rb")):
        if record.kind is not RecordKind.ENTRY or decode_signed(record.payload).entry.kind in kinds:
            continue
        entry = decode_signed(record.payload).entry
        kinds.add(entry.kind)
        (tmp_path / "x").write_bytes(record.payload)
        facts = run(capsys, "ledger", "verify-entry", str(tmp_path / "x"))
        assert (facts["valid"], facts["id"], facts["author"]) == (True, entry.id.hex(), entry.author.hex())
        assert facts == run(capsys, "ledger", "verify-entry", record.payload.hex())
        assert cli.main(["ledger", "verify-entry", record.payload.hex()]) == 0
        assert entry.id.hex() in capsys.readouterr().out
    assert kinds == {1, 2, 3, 4, 5, 6, 7, 8, 9}


def test_vouchers_and_proofs_are_explained(valid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [decode_signed(r.payload) for r in read_export(valid.open("rb")) if r.kind is RecordKind.ENTRY]
    receipt = next(signed.entry.body for signed in entries if isinstance(signed.entry.body, Receipt))
    data = SignedVoucher(*receipt).to_bytes()
    assert run(capsys, "ledger", "verify-entry", data.hex())["what"] == "voucher"
    path = tmp_path / "proved"
    assert cli.main(["ledger", "synth", *SMALL, "--out", str(path), "--plant", "fork-proved"]) == 0
    capsys.readouterr()
    proof = next(record.payload for record in read_export(path.open("rb")) if record.kind is RecordKind.PROOF)
    facts = run(capsys, "ledger", "verify-entry", proof.hex())
    assert (facts["what"], facts["author"]) == ("fork proof", ForkProof.from_bytes(proof).author.hex())


def test_what_does_not_hold(valid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = next(record.payload for record in read_export(valid.open("rb")) if record.kind is RecordKind.ENTRY)
    bad = (entry[:-1] + bytes([entry[-1] ^ 1])).hex()
    facts = run(capsys, "ledger", "verify-entry", bad, code=1)
    assert (facts["valid"], facts["code"], facts["section"]) == (False, "signature", "3.2")
    assert "does not hold" in refused(capsys, "ledger", "verify-entry", bad, code=1)
    assert "neither a signed entry" in refused(capsys, "ledger", "verify-entry", "c1", code=1)
    assert "neither a file nor hex" in refused(capsys, "ledger", "verify-entry", "nothing")


# -- what must stay, and what is told all the same --------------------------------------------------------------------


def test_a_snapshot_replaces_nothing_but_a_snapshot_of_this_ledger(
    valid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger, notes, other = tmp_path / "x.ubcp", tmp_path / "notes", tmp_path / "other.ubcp"
    ledger.write_bytes(valid.read_bytes())
    notes.write_text("dear diary")
    assert cli.main(["ledger", "synth", *SMALL[:-1], "8", "--out", str(other)]) == 0
    assert cli.main(["audit", str(other), "--jobs", "1", "--checkpoint", str(tmp_path / "snapshot")]) == 0
    (tmp_path / "link").symlink_to(notes)
    os.mkfifo(tmp_path / "pipe")
    capsys.readouterr()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.name != "pipe"}
    for name, words in (
        ("x.ubcp", "what is read here"), ("other.ubcp", "no snapshot"), ("notes", "no snapshot"),
        ("snapshot", "of another ledger"), ("link", "no plain file"), ("pipe", "no plain file"), (".", "a folder"),
    ):  # fmt: skip
        words_of = ("audit", str(ledger), "--jobs", "1", "--checkpoint", str(tmp_path / name))
        assert words in refused(capsys, *words_of)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.name != "pipe"} == before
    assert "is there already" in refused(capsys, "ledger", "synth", *SMALL, "--out", str(notes))


def test_a_snapshot_that_cannot_be_written_costs_no_report(
    valid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(tmp_path / "none" / "snapshot")
    assert cli.main(["audit", str(valid), "--jobs", "1", "--checkpoint", nowhere]) == 3
    captured = capsys.readouterr()
    assert captured.out.endswith("no fault\n")
    assert captured.err.startswith("ubcp: error: the snapshot was not written: cannot write")
    bad = str(tmp_path / "x.ubcp")
    assert cli.main(["ledger", "synth", *SMALL, "--out", bad, "--plant", "overdraft"]) == 0
    capsys.readouterr()
    report = run(capsys, "audit", bad, "--jobs", "1", "--checkpoint", nowhere, code=1)
    assert [fault["code"] for fault in report["faults"]] == ["overdraft"]


def test_a_pipe_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert cli.main(["audit", str(tmp_path / "pipe")]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert "it is no plain file" in error and "a pipe does not do" in hint


def test_the_credits_of_all_are_told(valid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    totals = run(capsys, "audit", str(valid), "--jobs", "1")["totals"]
    assert totals["available"] > 0 and totals["reserved"] > 0 and totals["debt"] == 0
    assert cli.main(["audit", str(valid), "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert f"{credits_text(totals['available'])} available, {credits_text(totals['reserved'])} reserved, " in said
    assert " not claimed yet, 0 owed" in said
