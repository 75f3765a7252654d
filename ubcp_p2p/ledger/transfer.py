"""A store as an export file, and an export file into a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from ubcp_p2p.charter.values import Charters, SignedCharter
from ubcp_p2p.errors import ConfigError, LocalIOError
from ubcp_p2p.files import open_input
from ubcp_p2p.ledger.ahead import Ahead, Until, by_clock
from ubcp_p2p.ledger.balances import balances, balances_root, entries_root
from ubcp_p2p.ledger.database import is_there
from ubcp_p2p.ledger.export import (
    FROZEN_MAX,
    PROOFS_MAX,
    Record,
    RecordKind,
    Roots,
    parse_header,
    read_export,
    write_export,
)
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
    ahead: Ahead = field(default_factory=Ahead)  # entries that are early: left out

    def refuse(self, id_: bytes, error: LedgerError) -> None:
        self.refused += 1
        if len(self.faults) < FAULTS_MAX:
            self.faults.append((id_, error))


class Exported(NamedTuple):
    """entries: in the file. *_left_out: for which it has no room."""

    entries: int
    proofs_left_out: int
    frozen_left_out: int


def export_store(store: Store, file: BinaryIO, *, log: bytes | None = None) -> Exported:
    """Write everything that a store has. log: the key of the node whose store it is.

    Anybody can make more forks than an export has room for. Then those stay out that freeze nobody else, and nobody is
    named frozen whose proof is not in it.
    """
    ledger, frozen = store.ledger, store.ledger.frozen()
    ranked = _by_weight(store, set(frozen))
    proofs = sorted(id_ for id_, _ in ranked[:PROOFS_MAX])
    proved = {author for _, author in ranked[:PROOFS_MAX]}
    named = [author for author in frozen if author in proved or len(ranked) <= PROOFS_MAX][:FROZEN_MAX]
    count = write_export(
        file,
        [signed.to_bytes() for signed in ledger.charters.versions],
        (data for id_ in proofs if (data := store.proof(id_)) is not None),
        named,
        store.entries(),
        (blob for hash_ in store.blob_hashes() if (blob := store.blob(hash_)) is not None),
        network=ledger.network,
        roots=lambda: Roots(entries_root(ledger), balances_root(balances(ledger, store.history))),
        log=log,
    )
    return Exported(count, len(ranked) - len(proofs), len(frozen) - len(named))


def _by_weight(store: Store, frozen: set[bytes]) -> Sequence[tuple[bytes, bytes]]:
    """(id, author) of all fork proofs: first one of each frozen author, last what a HEAL has settled."""
    unsettled = {author: {fork.seq for fork in store.ledger.open_forks(author)} for author in frozen}
    counts: Counter[bytes] = Counter()
    ranked = []
    for id_ in store.proof_ids():
        data = store.proof(id_)
        assert data is not None
        entry = ForkProof.from_bytes(data).first.entry
        is_settled = entry.seq not in unsettled.get(entry.author, ())
        counts[entry.author] += not is_settled
        ranked.append((is_settled, counts[entry.author], id_, entry.author))
    return [(id_, author) for *_, id_, author in sorted(ranked)]


def import_export(
    path: Path, source: Path, *, now_s: float, progress: Callable[[int], None] = lambda offset: None
) -> tuple[Store, Imported]:
    """Bring what is in the export `source` into the store at `path`, which is made when there is none.

    The form of the whole file is checked first: an unreadable one changes nothing. All signatures are verified. What is
    refused, or more than a slice ahead of `now_s` (Unix time), is left out, the rest goes on; a second import of the
    same file changes nothing. progress: gets the offset. Returns the open store. Raises UnreadableExport, CharterError,
    ConfigError (another community's, no plain file), LocalIOError.
    """
    try:
        with open_input(source, hint="name a file; it is read twice, so a pipe does not do") as file:
            for _ in read_export(file):
                pass
            file.seek(0)
            return _import(path, read_export(file), by_clock(now_s), progress)
    except OSError as error:
        raise LocalIOError(f"cannot read {source}: {error.strerror}", hint="check the disk") from None


def _import(
    path: Path, records: Iterator[Record], until: Until, progress: Callable[[int], None]
) -> tuple[Store, Imported]:
    done = Imported()
    network = parse_header(next(records)).network
    charters: list[SignedCharter] = []
    first = next(records)
    while first.kind is RecordKind.CHARTER:
        charters.append(SignedCharter.from_bytes(first.payload))
        first = next(records)
    store = _store_of(path, network, charters, done, until)
    latest = until(store.ledger.charters.first)
    try:
        entries, proofs = store.ledger.entries, len(store.proof_ids())
        batch: list[Signed] = []
        for record in chain([first], records):
            if batch and (record.kind is not RecordKind.ENTRY or len(batch) == BATCH):
                _judge(done, store.append(batch))
                batch = []
                progress(record.offset)
            _take(store, record, batch, latest, done)
        done.entries_added = store.ledger.entries - entries
        done.proofs_added = len(store.proof_ids()) - proofs
        done.waiting = len(store.pending_missing())
    except BaseException:
        store.close()
        raise
    return store, done


def _store_of(path: Path, network: bytes, versions: list[SignedCharter], done: Imported, until: Until) -> Store:
    charters = Charters(versions[0])
    for signed in versions[1:]:
        charters.add(signed)
    if charters.network != network:
        raise ConfigError("the export's first charter is not the one that its header names")
    if not is_there(path):
        done.created, done.charters_added = True, len(versions)
        return Store.create(path, charters)
    store = Store.open(path, network=network, until=until)
    try:
        done.charters_added = sum(store.add_charter(signed) for signed in versions)
    except BaseException:
        store.close()
        raise
    return store


def _take(store: Store, record: Record, batch: list[Signed], latest: int, done: Imported) -> None:
    try:
        match record.kind:
            case RecordKind.ENTRY:
                done.entries_read += 1
                signed = decode_signed(record.payload)
                if signed.entry.slice > latest:  # SPEC §5.4
                    done.ahead.add(signed.entry.id, signed.entry.slice)
                else:
                    batch.append(signed)
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
