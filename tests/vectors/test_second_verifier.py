"""The second verifier, written from the specification alone, agrees with the vectors and with `ubcp audit`.

Where they differ, it stands here, with the section, until the specification says which is right.
"""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.support import second_verifier as second
from tests.support.second_verifier import Charters, Ledger, Pending, Refused

VECTORS = Path(__file__).parents[2] / "ledger" / "vectors"

# Where several codes apply, any may be given (§1): these are the ones that one byte string can earn together.
ALIKE = [
    ["encoding", "field", "version", "length"],
    ["charter-encoding", "charter-field", "charter-format"],
    ["signer", "rotation"],  # §6.9 names both for one sentence
]


def vectors(subject: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((VECTORS / f"{subject}.json").read_text())
    return document


def outcome(judge: Callable[..., object], *arguments: object) -> str:
    try:
        judge(*arguments)
    except Refused as refused:
        return refused.code
    except Pending:
        return "pending"
    return "ok"


class Tally:
    """What differs in one file of vectors."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.differs: list[tuple[str, object, object]] = []

    def __call__(self, name: str, expected: object, got: object) -> None:
        alike = any(expected in codes and got in codes for codes in ALIKE)
        if expected != got and not alike:
            self.differs.append((name, expected, got))


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "entry": second.entry_from,
    "signed": second.signed_entry_from,
    "voucher": second.voucher_from,
}


@pytest.mark.parametrize("subject", ["encoding", "entries", "vouchers"])
def test_decoding(subject: str) -> None:
    tally = Tally(subject)
    for vector in vectors(subject)["vectors"]:
        data = bytes.fromhex(vector["bytes"])
        tally(vector["name"], vector["expected"], outcome(DECODERS[vector["form"]], data))
        if "id" in vector:
            tally(vector["name"], vector["id"], second.entry_from(data).id.hex())
        if "digest" in vector:
            tally(vector["name"], vector["digest"], second.voucher_from(data)[1].hex())
    assert not tally.differs


def test_worked_bytes() -> None:
    worked = {v["name"]: bytes.fromhex(v["bytes"]) for v in vectors("worked")["vectors"]}
    entry, voucher = second.signed_entry_from(worked["wire"]), second.decode(worked["voucher"])
    second.charter_from(worked["charter"])
    assert second.digest("ubcp/charter/1", worked["charter"]) == worked["network"] == entry.network
    assert second.entry_from(worked["entry"]).id == entry.id == worked["id"]
    assert (entry.author, entry.body) == (worked["author"], [0, worked["recovery"]])
    assert second.signed_by(entry.author, worked["signature"], "entry", entry.id)
    assert second.voucher_from(second.encode([voucher, worked["voucher signature"]]))[1] == worked["digest"]


def test_charters() -> None:
    tally = Tally("charters")
    for vector in vectors("charters")["vectors"]:
        *good, last = [bytes.fromhex(wire) for wire in vector["versions"]]
        charters = Charters(good)
        tally(vector["name"], vector["expected"], outcome(charters.take, last))
    assert not tally.differs


def test_signatures() -> None:
    tally = Tally("ed25519")
    for vector in vectors("ed25519")["vectors"]:
        key, what, signature = (bytes.fromhex(vector[name]) for name in ("key", "digest", "signature"))
        holds = second.signed_by(key, signature, vector["role"], what)
        tally(vector["name"], vector["expected"], "ok" if holds else "signature")
    assert not tally.differs


def test_trees() -> None:
    for vector in vectors("merkle")["vectors"]:
        leaves, root = [bytes.fromhex(leaf) for leaf in vector["leaves"]], bytes.fromhex(vector["root"])
        assert second.merkle_root(leaves) == root
        for claim in vector["inclusion"]:
            proof = [bytes.fromhex(node) for node in claim["proof"]]
            holds = second.merkle_holds(root, len(leaves), leaves[claim["leaf"]], claim["index"], proof)
            assert holds == claim["holds"], vector["name"]


def take(ledger: Ledger, wire: bytes) -> None:
    ledger.take(second.signed_entry_from(wire))


def ledger_of(document: dict[str, Any], vector: dict[str, Any], entries: str) -> Ledger:
    ledger = Ledger(Charters(bytes.fromhex(document["charters"][name]) for name in vector["charters"]))
    for name in vector[entries]:
        take(ledger, bytes.fromhex(document["entries"][name]))
    return ledger


@pytest.mark.slow
@pytest.mark.parametrize("subject", ["chains", "rules"])
def test_one_more_entry(subject: str) -> None:
    tally, document = Tally(subject), vectors(subject)
    for vector in document["vectors"]:
        ledger, wire = ledger_of(document, vector, "before"), bytes.fromhex(vector["entry"])
        got = outcome(take, ledger, wire)
        tally(vector["name"], vector["expected"], got)
    assert not tally.differs


@pytest.mark.slow
@pytest.mark.parametrize("subject", ["forks", "balances"])
def test_whole_ledgers(subject: str) -> None:
    tally, document = Tally(subject), vectors(subject)
    for vector in document["vectors"]:
        ledger, name = ledger_of(document, vector, "entries"), vector["name"]
        for proof in vector["proofs"]:
            data = bytes.fromhex(proof["bytes"])
            tally(name, proof["expected"], outcome(ledger.take_proof, data))
        at = vector["as_of"]
        tally(name, vector["rows"], [[r.account.hex(), *r[1:]] for r in ledger.rows(at)])
        tally(name, vector["frozen"], [key.hex() for key in ledger.frozen()])
        tally(name, vector["findings"], sorted([f.code, f.entry.hex(), f.author.hex()] for f in ledger.findings(at)))
        tally(name, vector["entries_root"], ledger.entries_root().hex())
        tally(name, vector["balances_root"], ledger.balances_root(at).hex())
    assert not tally.differs


def test_sync() -> None:
    tally, document = Tally("sync"), vectors("sync")
    for vector in document["vectors"]:
        ledger = ledger_of(document, vector, "entries")
        try:
            got = second.answer(ledger, bytes.fromhex(vector["question"])).hex()
        except Refused:
            got = "malformed"
        tally(vector["name"], vector["answer"] if vector["expected"] == "ok" else vector["expected"], got)
    assert not tally.differs


# Against `ubcp audit`, as a black box


def ubcp(*arguments: str) -> Any:
    """What a command prints with --json. It runs in this process: a hundred starts of Python take a minute."""
    program = shutil.which("ubcp", path=str(Path(sys.executable).parent))
    assert program is not None
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        mock.patch.object(sys, "argv", [program, *arguments, "--json"]),
        pytest.raises(SystemExit) as stopped,
    ):
        runpy.run_path(program, run_name="__main__")
    assert stopped.value.code in (0, None, 1), out.getvalue()
    return json.loads(out.getvalue())


def synth(path: Path, accounts: int, entries: int, *more: str) -> bytes:
    ubcp("ledger", "synth", "--out", str(path), "--accounts", str(accounts), "--entries", str(entries), *more)
    return path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("accounts", "entries", "seed"), [(5, 120, 1), (12, 500, 2), (30, 1500, 3)])
def test_a_valid_export(tmp_path: Path, accounts: int, entries: int, seed: int) -> None:
    audit = second.audit(synth(tmp_path / "valid.ubcp", accounts, entries, "--seed", str(seed)))
    assert (audit.faults, audit.dependent, audit.valid) == ([], 0, audit.entries)
    assert audit.end == (audit.entries, audit.entries_root, audit.balances_root)


@pytest.mark.slow
def test_each_fraud_has_the_same_code_and_author(tmp_path: Path) -> None:
    kinds = [plant["kind"] for plant in ubcp("ledger", "synth", "--plant", "list")]
    for kind in ("decision-inputs", "decision-claims"):  # for whoever knows the allocator's rules
        kinds.remove(kind)
    assert len(kinds) >= 50
    differs = []
    for kind in kinds:
        path = tmp_path / f"{kind}.ubcp"
        ours = second.audit(synth(path, 8, 200, "--plant", kind))
        theirs = ubcp("audit", str(path), "--jobs", "1")
        faults = sorted((f["code"], f["entry"] or "0" * 64, f["account"]) for f in theirs["faults"])
        mine = sorted((f.code, f.entry.hex(), f.author.hex()) for f in ours.faults)
        counts = tuple(theirs[name] for name in ("entries", "valid", "dependent", "duplicate"))
        roots = theirs["entries_root"], theirs["balances_root"]
        same = (
            faults == mine
            and counts == (ours.entries, ours.valid, ours.dependent, ours.duplicate)
            and roots == (ours.entries_root.hex(), ours.balances_root.hex())
            and theirs["frozen"] == [key.hex() for key in ours.frozen]
        )
        if not same:
            differs.append((kind, faults, mine))
    assert not differs


def test_a_file_that_is_no_export() -> None:
    for data in (b"", b"ubcp-ledger/1\n", b"ubcp-ledger/1\n\0\0\0\1\6", b"ubcp-ledger/1\n\0\0\0\0"):
        with pytest.raises(second.Unreadable):
            second.audit(data)
