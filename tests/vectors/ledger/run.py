"""Runs one vector of ledger/vectors/ through the code: AssertionError where the code says something else."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

from tests.support.ledgers import MemoryLedger
from tests.vectors.ledger.files import FORMAT
from ubcp_p2p import codec, keys
from ubcp_p2p.charter.values import CharterError, Charters, SignedCharter
from ubcp_p2p.ledger import balances, decisions, entry, merkle, parse, rules, stats, stats_document, sync, wire
from ubcp_p2p.ledger.activity import Activity
from ubcp_p2p.ledger.faults import LedgerError, Pending
from ubcp_p2p.ledger.state import Ledger

Json = dict[str, Any]
COMMON = {"name", "shows", "section"}
KEYS: dict[str, tuple[set[str], ...]] = {
    "worked": ({"bytes"},),
    "encoding": ({"form", "bytes", "expected"},),
    "entries": ({"form", "bytes", "expected"}, {"form", "bytes", "expected", "id"}),
    "vouchers": ({"form", "bytes", "expected"}, {"form", "bytes", "expected", "digest"}),
    "charters": ({"versions", "expected"},),
    "ed25519": ({"key", "role", "digest", "signature", "expected"},),
    "merkle": ({"leaves", "root", "inclusion"},),
    "chains": ({"charters", "before", "entry", "expected"},),
    "rules": ({"charters", "before", "entry", "expected"},),
    "forks": (
        {"charters", "entries", "proofs", "as_of", "rows", "frozen", "findings", "entries_root", "balances_root"},
    ),
    "balances": (
        {"charters", "entries", "proofs", "as_of", "rows", "frozen", "findings", "entries_root", "balances_root"},
    ),
    "sync": ({"charters", "entries", "question", "answer", "expected"},),
    "stats": ({"charters", "entries", "periods", "figures"},),
}


def check_file(document: Json, subject: str) -> None:
    """The file's own form: nothing in it that a reader would skip."""
    assert document["format"] == FORMAT
    assert document["subject"] == subject
    has_entries = any({"before", "entries"} & fields for fields in KEYS[subject])
    assert set(document) == {"format", "subject", "vectors"} | ({"charters", "entries"} if has_entries else set())
    names = [vector["name"] for vector in document["vectors"]]
    assert len(set(names)) == len(names)
    for vector in document["vectors"]:
        assert set(vector) - COMMON in KEYS[subject], vector["name"]
        assert set(vector) >= COMMON, vector["name"]


def check(document: Json, vector: Json) -> None:
    """One vector."""
    CHECKS[document["subject"]](document, vector)


class Replica:
    """A ledger that verifies what it takes, as a peer does."""

    def __init__(self, document: Json, vector: Json) -> None:
        versions = [SignedCharter.from_bytes(_bytes(document["charters"][name])) for name in vector["charters"]]
        charters = Charters(versions[0])
        for version in versions[1:]:
            assert charters.add(version)
        self.ledger = Ledger(charters)
        self._by_author: dict[bytes, list[wire.Signed]] = {}

    def history(self, author: bytes, wanted: Collection[bytes] | None = None) -> list[wire.Signed]:
        return self._by_author.get(author, [])

    def take(self, data: bytes) -> None:
        """Raises what the layers raise."""
        signed = wire.decode_signed(data)
        wire.verify(signed)
        if rules.apply(self.ledger, signed, self.history):
            self._by_author.setdefault(signed.entry.author, []).append(signed)

    def prove(self, data: bytes) -> None:
        """Raises what the layers raise."""
        proof = wire.ForkProof.from_bytes(data)
        wire.verify_proof(proof)
        rules.check_proof(self.ledger, proof)


def _bytes(text: str) -> bytes:
    assert text == text.lower()
    return bytes.fromhex(text)


def _outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except Pending:
        return "pending"
    except (LedgerError, CharterError) as error:
        return error.code
    return "ok"


def _worked(document: Json, vector: Json) -> None:
    assert _bytes(vector["bytes"])


def _form(document: Json, vector: Json) -> None:
    data = _bytes(vector["bytes"])
    found: dict[str, bytes] = {}

    def act() -> None:
        match vector["form"]:
            case "entry":
                parsed = parse.decode(data)
                assert entry.encode(parsed) == data
                found["id"] = parsed.id
            case "signed":
                signed = wire.decode_signed(data)
                assert signed.to_bytes() == data
                wire.verify(signed)
            case "voucher":
                voucher = wire.SignedVoucher.from_bytes(data)
                assert voucher.to_bytes() == data
                found["digest"] = entry.voucher_digest(voucher.voucher)

    assert _outcome(act) == vector["expected"]
    for name in ("id", "digest"):
        assert name not in vector or found[name].hex() == vector[name]


def _charters(document: Json, vector: Json) -> None:
    *before, last = (_bytes(text) for text in vector["versions"])
    charters: Charters | None = None
    for data in before:
        signed = SignedCharter.from_bytes(data)
        assert signed.to_bytes() == data
        if charters is None:
            charters = Charters(signed)
        else:
            assert charters.add(signed)

    def act() -> None:
        signed = SignedCharter.from_bytes(last)
        assert signed.to_bytes() == last
        if charters is None:
            Charters(signed)
        else:
            charters.add(signed)

    assert _outcome(act) == vector["expected"]


def _ed25519(document: Json, vector: Json) -> None:
    holds = keys.verify(_bytes(vector["key"]), vector["role"], _bytes(vector["digest"]), _bytes(vector["signature"]))
    assert holds == (vector["expected"] == "ok")
    assert vector["expected"] in ("ok", "signature")


def _merkle(document: Json, vector: Json) -> None:
    leaves, root = [_bytes(leaf) for leaf in vector["leaves"]], _bytes(vector["root"])
    assert merkle.root_of(leaves) == root
    for row in vector["inclusion"]:
        assert set(row) == {"leaf", "index", "proof", "holds"}
        proof = [_bytes(node) for node in row["proof"]]
        assert merkle.is_included(leaves[row["leaf"]], row["index"], len(leaves), proof, root) == row["holds"]


def _entry(document: Json, vector: Json) -> None:
    replica = Replica(document, vector)
    for name in vector["before"]:
        replica.take(_bytes(document["entries"][name]))
    assert _outcome(lambda: replica.take(_bytes(vector["entry"]))) == vector["expected"]


def _state(document: Json, vector: Json) -> None:
    replica, activity = Replica(document, vector), Activity()
    ledger = replica.ledger
    for name in vector["entries"]:
        data = _bytes(document["entries"][name])
        replica.take(data)
        activity.add(wire.decode_signed(data).entry)
    for proof in vector["proofs"]:
        assert set(proof) == {"bytes", "expected"}
        assert _outcome(functools.partial(replica.prove, _bytes(proof["bytes"]))) == proof["expected"]
    rows = balances.balances(ledger, replica.history, vector["as_of"])
    assert [[row.account.hex(), *row[1:]] for row in rows] == vector["rows"]
    assert [author.hex() for author in ledger.frozen()] == vector["frozen"]
    twice = decisions.told_twice(activity.decisions.values(), ledger)
    found = [*ledger.findings(), *balances.debts(ledger, rows), *twice]
    named = sorted([finding.code, (finding.entry or entry.ZERO).hex(), finding.author.hex()] for finding in found)
    assert named == vector["findings"]
    assert balances.entries_root(ledger).hex() == vector["entries_root"]
    assert balances.balances_root(rows).hex() == vector["balances_root"]


def _sync(document: Json, vector: Json) -> None:
    versions = [SignedCharter.from_bytes(_bytes(document["charters"][name])) for name in vector["charters"]]
    entries = [wire.decode_signed(_bytes(document["entries"][name])) for name in vector["entries"]]
    source = MemoryLedger(versions, entries)
    try:
        question = codec.decode(_bytes(vector["question"]), bytes_max=sync.FRAME_BYTES_MAX)
        answer = codec.encode(sync.answer(question, source)).hex()
    except codec.MalformedMessage:
        assert (vector["expected"], vector["answer"]) == ("malformed", "")
    else:
        assert (vector["expected"], vector["answer"]) == ("ok", answer)


def _stats(document: Json, vector: Json) -> None:
    replica, activity = Replica(document, vector), Activity()
    for name in vector["entries"]:
        data = _bytes(document["entries"][name])
        replica.take(data)
        activity.add(wire.decode_signed(data).entry)
    ledger = replica.ledger
    found = stats.statistics(activity, ledger, stats.Span(*vector["periods"]))
    said = stats_document.document(found, ledger.charters)
    assert {key: said[key] for key in vector["figures"]} == vector["figures"]
    assert said.keys() - vector["figures"].keys() == {"network", "name", "periods", "slice_seconds", "accounts_min"}


CHECKS: dict[str, Callable[[Json, Json], None]] = {
    "worked": _worked,
    "encoding": _form,
    "entries": _form,
    "vouchers": _form,
    "charters": _charters,
    "ed25519": _ed25519,
    "merkle": _merkle,
    "chains": _entry,
    "rules": _entry,
    "forks": _state,
    "balances": _state,
    "sync": _sync,
    "stats": _stats,
}
