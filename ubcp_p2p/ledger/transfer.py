"""A store as an export file, and an export file into a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

from ubcp_p2p.charter.values import Charters, SignedCharter
from ubcp_p2p.errors import ConfigError, LocalIOError
from ubcp_p2p.ledger.balances import balances, balances_root, entries_root
from ubcp_p2p.ledger.disk import is_there
from ubcp_p2p.ledger.export import Record, RecordKind, Roots, parse_header, read_export, write_export
from ubcp_p2p.ledger.faults import LedgerError, MalformedEntry
from ubcp_p2p.ledger.store import Store, Verdict
from ubcp_p2p.ledger.wire import ForkProof, Signed, decode_signed

BATCH: Final = 512  # entries in one transaction
FAULTS_MAX: Final = 1000  # refusals that are told; all are counted


@dataclass
class Imported:
    """What an import has done. *_read: in the file; *_added: new to the store. refused: (id, or none, and why)."""

    created: bool = False
    charters_added: int = 0
    entries_read: int = 0
    entries_added: int = 0
    proofs_read: int = 0
    proofs_added: int = 0
    blobs_read: int = 0
    waiting: int = 0  # ids that the store lacks, for what refers to them
    refused: int = 0
    faults: list[tuple[bytes, LedgerError]] = field(default_factory=list)  # the first FAULTS_MAX

    def refuse(self, id_: bytes, error: LedgerError) -> None:
        self.refused += 1
        if len(self.faults) < FAULTS_MAX:
            self.faults.append((id_, error))


def export_store(store: Store, file: BinaryIO, *, log: bytes | None = None) -> int:
    """Write everything that a store has; returns the number of entries. log: the key of the node whose store it is."""
    ledger = store.ledger
    return write_export(
        file,
        [signed.to_bytes() for signed in ledger.charters.versions],
        [proof.to_bytes() for proof in store.proofs()],
        ledger.frozen(),
        store.entries(),
        (blob for hash_ in store.blob_hashes() if (blob := store.blob(hash_)) is not None),
        network=ledger.network,
        roots=lambda: Roots(entries_root(ledger), balances_root(balances(ledger, store.history))),
        log=log,
    )


def import_export(
    path: Path, source: Path, *, progress: Callable[[int], None] = lambda offset: None
) -> tuple[Store, Imported]:
    """Bring what is in the export `source` into the store at `path`, which is made when there is none.

    The form of the whole file is checked first: an unreadable one changes nothing. All signatures are verified. What is
    refused is left out, the rest goes on; a second import of the same file changes nothing. progress: gets the offset.
    Returns the open store. Raises UnreadableExport, CharterError, ConfigError (another community's), LocalIOError.
    """
    try:
        with source.open("rb") as file:
            for _ in read_export(file):
                pass
            file.seek(0)
            return _import(path, read_export(file), progress)
    except OSError as error:
        raise LocalIOError(f"cannot read {source}: {error.strerror}") from None


def _import(path: Path, records: Iterator[Record], progress: Callable[[int], None]) -> tuple[Store, Imported]:
    done = Imported()
    network = parse_header(next(records)).network
    charters: list[SignedCharter] = []
    first = next(records)
    while first.kind is RecordKind.CHARTER:
        charters.append(SignedCharter.from_bytes(first.payload))
        first = next(records)
    store = _store_of(path, network, charters, done)
    try:
        entries, proofs = store.ledger.entries, len(store.proof_ids())
        batch: list[Signed] = []
        for record in chain([first], records):
            if batch and (record.kind is not RecordKind.ENTRY or len(batch) == BATCH):
                _judge(done, store.append(batch))
                batch = []
                progress(record.offset)
            _take(store, record, batch, done)
        done.entries_added = store.ledger.entries - entries
        done.proofs_added = len(store.proof_ids()) - proofs
        done.waiting = len(store.pending_missing())
    except BaseException:
        store.close()
        raise
    return store, done


def _store_of(path: Path, network: bytes, versions: list[SignedCharter], done: Imported) -> Store:
    charters = Charters(versions[0])
    for signed in versions[1:]:
        charters.add(signed)
    if charters.network != network:
        raise ConfigError("the export's first charter is not the one that its header names")
    if not is_there(path):
        done.created, done.charters_added = True, len(versions)
        return Store.create(path, charters)
    store = Store.open(path, network=network)
    try:
        done.charters_added = sum(store.add_charter(signed) for signed in versions)
    except BaseException:
        store.close()
        raise
    return store


def _take(store: Store, record: Record, batch: list[Signed], done: Imported) -> None:
    try:
        match record.kind:
            case RecordKind.ENTRY:
                done.entries_read += 1
                batch.append(decode_signed(record.payload))
            case RecordKind.PROOF:
                done.proofs_read += 1
                _judge(done, [store.add_proof(ForkProof.from_bytes(record.payload))])
            case RecordKind.BLOB:
                done.blobs_read += 1
                store.put_blob(record.payload)
    except MalformedEntry as error:
        done.refuse(b"", error)


def _judge(done: Imported, verdicts: list[Verdict]) -> None:
    for verdict in verdicts:
        if verdict.error is not None:
            done.refuse(verdict.id, verdict.error)
