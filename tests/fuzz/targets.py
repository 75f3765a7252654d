"""Every decoder of the ledger that reads bytes of others: what may come out of it, and what it is fed to begin with.

A target takes any bytes and may only return or raise what its module promises; anything else that comes out is a crash.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.ledgers import MemoryLedger
from tests.support.story import Story
from ubcp_p2p import codec
from ubcp_p2p.charter import dangers, document, draft, words
from ubcp_p2p.charter.values import CharterError, SignedCharter
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.ledger import entry, export, parse, pull, rules, sync, wire
from ubcp_p2p.ledger.balances import balances, balances_root, entries_root
from ubcp_p2p.ledger.faults import LedgerError, Pending

VECTORS = Path(__file__).parents[2] / "ledger" / "vectors"


@functools.cache
def story() -> Story:
    """A ledger with forks, heals and refusals."""
    return Story(range(7000, 7100))


@functools.cache
def _peer() -> MemoryLedger:
    return MemoryLedger(story().scene.charters.versions, story().scene.entries)


def _vectors(subject: str, key: str) -> list[bytes]:
    vectors: dict[str, Any] = json.loads((VECTORS / f"{subject}.json").read_text())
    return [bytes.fromhex(vector[key]) for vector in vectors["vectors"]]


def _entry(data: bytes) -> None:
    try:
        parsed = parse.decode(data)
    except LedgerError:
        return
    assert entry.encode(parsed) == data
    assert all(len(id_) == 32 for id_ in entry.references(parsed))


def _signed(data: bytes) -> None:
    """Down to the rules: as what comes from a peer."""
    try:
        signed = wire.decode_signed(data)
        assert signed.to_bytes() == data
        wire.verify(signed)
    except LedgerError:
        return
    try:
        assert not rules.apply(story().scene.ledger, signed, story().scene.history), "a forged entry was taken"
    except (LedgerError, Pending):
        return


def _unverified(data: bytes) -> None:
    """The rules alone, as if the signatures held: no entry may do worse than be refused."""
    try:
        signed = wire.decode_signed(data)
    except LedgerError:
        return
    peer = MemoryLedger(story().scene.charters.versions, story().scene.entries)
    before = peer.ledger.entries
    peer.add([signed])
    if peer.ledger.entries > before:
        balances(peer.ledger, peer.history)


def _voucher(data: bytes) -> None:
    try:
        assert wire.SignedVoucher.from_bytes(data).to_bytes() == data
    except LedgerError:
        return


def _proof(data: bytes) -> None:
    try:
        proof = wire.ForkProof.from_bytes(data)
        assert proof.to_bytes() == data
        wire.verify_proof(proof)
        rules.check_proof(story().scene.ledger, proof)
    except (LedgerError, Pending):
        return


def _charter(data: bytes) -> None:
    try:
        assert SignedCharter.from_bytes(data).to_bytes() == data
    except CharterError:
        return


def _charter_file(data: bytes) -> None:
    """As people write it: what is read can be written and read again."""
    try:
        signed = document.parse(data.decode("utf-8", "replace"))
    except ConfigError:
        return
    assert document.parse(document.to_toml(signed)) == signed
    assert words.lines(signed.charter)
    dangers.dangers(signed.charter, now_period=1)


def _charters() -> list[SignedCharter]:
    full = draft.first(draft.Answers("x", ("en",), currency="EUR"), epoch=0)
    return [story().scene.charters.versions[0], SignedCharter(full)]


def _export(data: bytes) -> None:
    kinds = {
        export.RecordKind.HEADER: export.parse_header,
        export.RecordKind.END: export.parse_end,
        export.RecordKind.FROZEN: export.parse_frozen,
    }
    try:
        for record in export.read_export(io.BytesIO(data)):
            if record.kind in kinds:
                kinds[record.kind](record)
    except export.UnreadableExport:
        return


def _question(data: bytes) -> None:
    try:
        question = codec.decode(data, bytes_max=sync.FRAME_BYTES_MAX)
        answered = sync.answer(question, _peer())
    except codec.MalformedMessage:
        return
    assert len(codec.encode(answered)) <= sync.FRAME_BYTES_MAX


def _answers(data: bytes) -> None:
    """A peer that answers every question with the same bytes."""
    try:
        given = codec.decode(data, bytes_max=sync.FRAME_BYTES_MAX)
    except codec.MalformedMessage:
        return
    local = MemoryLedger(story().scene.charters.versions, story().scene.entries[:5])
    steps = pull.pull(local)
    try:
        step = next(steps)
        for _ in range(100):
            step = steps.send(given if isinstance(step, pull.Ask) else 0)
    except (StopIteration, codec.MalformedMessage, pull.OtherNetwork, LedgerError):
        return


def _export_bytes() -> bytes:
    scene = story().scene
    file = io.BytesIO()
    rows = balances(scene.ledger, scene.history)
    export.write_export(
        file, [version.to_bytes() for version in scene.charters.versions], [p.to_bytes() for p in story().proofs()[:2]],
        scene.ledger.frozen(), [signed.to_bytes() for signed in scene.entries[:6]], [b"a blob"],
        network=scene.charters.network, roots=lambda: export.Roots(entries_root(scene.ledger), balances_root(rows)),
    )  # fmt: skip
    return file.getvalue()


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "entry": (_entry, lambda: [signed.data for signed in story().told] + _vectors("entries", "bytes")),
    "signed": (_signed, lambda: [signed.to_bytes() for signed in story().told]),
    "unverified": (_unverified, lambda: [signed.to_bytes() for signed in story().told]),
    "voucher": (_voucher, lambda: _vectors("vouchers", "bytes")),
    "proof": (_proof, lambda: [proof.to_bytes() for proof in story().proofs()]),
    "charter": (_charter, lambda: [signed.to_bytes() for signed in _charters()]),
    "charter file": (_charter_file, lambda: [document.to_toml(signed).encode() for signed in _charters()]),
    "export": (_export, lambda: [_export_bytes()]),
    "question": (_question, lambda: _vectors("sync", "question")),
    "answer": (_answers, lambda: [data for data in _vectors("sync", "answer") if data]),
}
