"""One audit under way: every entry applied, every fault noted with its author (SPEC §12).

Entries stream through; what stays in memory is the Ledger, some 150 bytes an entry. Faults do not stop an audit. What
only depends on a faulty or missing entry is counted, not reported.
"""

from __future__ import annotations

import gc
import hashlib
import time
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from ubcp_p2p.ledger import rules
from ubcp_p2p.ledger.balances import Balance, balances, balances_root, debts
from ubcp_p2p.ledger.blame import Authorship, in_words, is_authors
from ubcp_p2p.ledger.decisions import Decided, joined, told_twice
from ubcp_p2p.ledger.entry import Checkpoint, Decision, Entry, Kind
from ubcp_p2p.ledger.export import Place, Record, Roots
from ubcp_p2p.ledger.facts import Facts, Judged, Replay
from ubcp_p2p.ledger.faults import LedgerError, Pending
from ubcp_p2p.ledger.merkle import Frontier, root_of_sorted
from ubcp_p2p.ledger.report import Counts, Fault, Report, Totals
from ubcp_p2p.ledger.sources import Source
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.verifying import BATCH, BATCH_ALONE, Bad, Outcome, Workers, batches
from ubcp_p2p.ledger.wire import ForkProof, Signed, decode_signed, verify_proof

_ID_BYTES: Final = 32
_RECEIPT: Final = int(Kind.RECEIPT)
_CHECKPOINT: Final = int(Kind.CHECKPOINT)
_NOTED: Final = frozenset({int(Kind.DECISION), int(Kind.CHECKPOINT)})


@dataclass
class Auditor:
    """An audit under way: what was found up to `place`. All of it goes into a snapshot (snapshot.py)."""

    source: Source
    ledger: Ledger
    counts: Counts = field(default_factory=Counts)
    faults: list[Fault] = field(default_factory=list)
    left_out: set[bytes] = field(default_factory=set)  # ids of entries that are faulty, dependent or later
    frontier: Frontier = field(default_factory=Frontier)  # over the ids of valid entries, but for those in `tail`
    tail: bytearray = field(default_factory=bytearray)
    applied: dict[bytes, array[int]] = field(default_factory=dict)  # author → offsets of its valid entries
    decisions: list[Decided] = field(default_factory=list)
    places: dict[bytes, dict[bytes, int]] = field(default_factory=dict)  # of who has forked and paid: id → offset
    last: int = 0  # the offset of the last entry
    started_s: float = field(default_factory=time.monotonic)
    resumed: int = 0  # entries that an earlier audit had read
    signatures_before: int = 0

    def history(self, author: bytes, wanted: Collection[bytes] | None = None) -> Iterator[Signed]:
        """A state.History: reads the author's valid entries again."""
        offsets = self.applied.get(author, array("Q"))
        if wanted is None:
            yield from map(self._read, offsets)
            return
        known = self.places.setdefault(author, {})
        for offset in offsets[len(known) :]:  # in which each id stands once
            known[self._read(offset).entry.id] = offset
        for id_ in wanted:
            yield self._read(known[id_])

    def _read(self, offset: int) -> Signed:
        payload = self.source.entry(offset)
        assert payload is not None, "the file changed during the audit"
        return decode_signed(payload)

    def run(
        self, workers: Workers, *, clock: int, as_of: int | None, progress: Callable[[int], None] | None = None
    ) -> None:
        """Verify and apply all entries from where this audit stands. clock: the slice that it is now.

        Raises UnreadableExport.
        """
        latest = clock + 1 if as_of is None else as_of  # §5.4
        place = Place(self.last, self.counts.read) if self.counts.read else None
        window: list[list[Record]] = []

        def payloads() -> Iterator[list[bytes]]:
            for batch in batches(self.source.entries(place), BATCH if workers.are_any else BATCH_ALONE):
                window.append(batch)
                yield [record.payload for record in batch]

        with _without_collector():
            for outcomes in workers.checked(payloads()):
                records = window.pop(0)
                self._take(records, outcomes, latest, as_of is not None)
                self.last = records[-1].offset
                if progress is not None:
                    progress(self.last)

    def _take(self, records: Sequence[Record], outcomes: Sequence[Outcome], latest: int, is_as_of: bool) -> None:
        """Apply one batch."""
        ledger, history, applied, tail = self.ledger, self.history, self.applied, self.tail
        signatures = valid = 0
        for record, outcome in zip(records, outcomes, strict=True):
            if isinstance(outcome, Bad):
                self._blame(outcome.code, outcome.id, outcome.authorship, outcome.message)
                continue
            entry = outcome.entry
            kind = entry.kind
            signatures += len(outcome.signatures) + (kind == _RECEIPT)
            if entry.slice > latest:
                self._early(outcome, latest, is_as_of)
                continue
            claimed = self._log_state() if kind == _CHECKPOINT and entry.author == self.source.log else None
            try:
                added = rules.apply(ledger, outcome, history)
            except Pending as pending:
                self._pending(outcome, pending.missing)
                continue
            except LedgerError as error:
                self._blame(error.code, entry.id, Authorship.of(outcome), error.message)
                continue
            if not added:
                self.counts.duplicate += 1
                continue
            if kind in _NOTED:
                self._note(entry, claimed)
            valid += 1
            tail += entry.id
            try:
                applied[entry.author].append(record.offset)
            except KeyError:
                applied[entry.author] = array("Q", (record.offset,))
        self.counts.read += len(records)
        self.counts.signatures += signatures
        self.counts.valid += valid

    def _blame(self, code: str, id_: bytes, authorship: Authorship | None, message: str) -> None:
        """Note a fault of the author, where that is certain, else of the log whose export this is."""
        if authorship is not None and is_authors(self.ledger, code, authorship):
            self.faults.append(Fault(code, id_, authorship.author, message))
        else:
            self.faults.append(Fault(code, id_, self.source.log or b"", in_words(message, authorship)))
        if id_:
            self.left_out.add(id_)

    def _early(self, signed: Signed, latest: int, is_as_of: bool) -> None:
        entry = signed.entry
        if is_as_of:
            self.counts.later += 1
            self.left_out.add(entry.id)
        else:
            message = f"slice {entry.slice} where the clock allows up to {latest}"
            self._blame("slice-ahead", entry.id, Authorship.of(signed), message)

    def _pending(self, signed: Signed, missing: tuple[bytes, ...]) -> None:
        entry = signed.entry
        if any(id_ in self.left_out for id_ in missing):
            self.counts.dependent += 1
            self.left_out.add(entry.id)
        else:
            names = ", ".join(id_.hex()[:16] + "…" for id_ in missing[:4])
            message = f"refers to {names}, which is not before it"
            self._blame("unknown-reference", entry.id, Authorship.of(signed), message)

    # -- checkpoints (§9.3) -------------------------------------------------------------------------------------

    def fold(self) -> Frontier:
        """The tree over the ids of all valid entries in their order."""
        tail = bytes(self.tail)
        self.frontier.extend(tail[i : i + _ID_BYTES] for i in range(0, len(tail), _ID_BYTES))
        self.tail.clear()
        return self.frontier

    def _log_state(self) -> Checkpoint:
        tree = self.fold()
        return Checkpoint(tree.size, tree.root(), self._balances_root())

    def _balances_root(self) -> bytes:
        return balances_root(balances(self.ledger, self.history))

    def _note(self, entry: Entry, claimed: Checkpoint | None) -> None:
        body = entry.body
        if isinstance(body, Decision):
            self.decisions.append(Decided.of(entry, body))
            return
        assert isinstance(body, Checkpoint)
        if claimed is None:
            self.counts.uncheckable += 1
            return
        self.counts.checkpoints += 1
        is_whole = not self.left_out
        if (body.size, body.root) != (claimed.size, claimed.root):
            code, message = "checkpoint-root", f"not the root of the {claimed.size} entries before it"
        elif body.state != claimed.state:
            code, message = "checkpoint-state", f"not what the {claimed.size} entries before it lead to"
        else:
            return
        if is_whole:
            self.faults.append(Fault(code, entry.id, entry.author, message))
        else:
            self.counts.dependent += 1  # it may count an entry that was left out here

    # -- the end ------------------------------------------------------------------------------------------------

    def report(self, workers: Workers, replay: Replay | None = None) -> Report:
        """Check what concerns the ledger as a whole; replay: the allocator's rules. Raises UnreadableExport."""
        entries_root = workers.aside(root_of_sorted, self.ledger.ids())
        faults = list(self.faults)
        faults += self._proof_faults()
        faults += [Fault(*finding) for finding in self.ledger.findings()]
        faults += [Fault(*finding) for finding in told_twice(self.decisions, self.ledger)]
        frozen = set(self.ledger.frozen())
        for account in self.source.frozen():
            if account not in frozen:
                message = f"{account.hex()} is named frozen, and no fork of it is proved or here"
                faults.append(Fault("freeze", b"", self.source.log or b"", message))
        rows: list[Balance] = []
        state = b""
        try:
            rows = balances(self.ledger, self.history)
            state = balances_root(rows)
            faults += [Fault(*finding) for finding in debts(self.ledger, rows)]
        except LedgerError as error:
            faults.append(Fault(error.code, b"", b"", error.message))
            rows, state = [], b""
        blobs: set[bytes] = set()
        judged = list(self._judged(blobs, replay))
        self.counts.replayed, self.counts.unknown_asks = len(judged), sum(found.unknown for _, found in judged)
        for one, found in judged:
            for code, words in (("decision-inputs", found.inputs), ("decision-claims", found.claims)):
                if words:
                    faults.append(Fault(code, one.id, one.node, "; ".join(words)))
        roots = Roots(entries_root(), state)
        faults += self._end_faults(roots, bool(faults))
        return Report(
            network=self.ledger.network, counts=self.counts, accounts=len(self.ledger.accounts()),
            faults=tuple(faults), roots=roots, slice=self.ledger.slice, frozen=tuple(sorted(frozen)),
            debts=tuple((row.account, row.debt) for row in rows if row.debt),
            is_open=any(version.charter.threshold == 0 for version in self.ledger.charters.versions),
            totals=Totals.of(rows), blobs=len(blobs), resumed=self.resumed,
            blobs_missing=len({one.body.inputs for one in self.decisions} - blobs),
            seconds=time.monotonic() - self.started_s, signatures=self.counts.signatures - self.signatures_before,
        )  # fmt: skip

    def _judged(self, blobs: set[bytes], replay: Replay | None) -> Iterator[tuple[Decided, Judged]]:
        """§12.1: each decision whose inputs are here, held against them, and they against the entries. Notes blobs."""
        facts = Facts(self.ledger, self.history)
        decided: dict[bytes, list[Decided]] = {}
        for one in joined(self.decisions):
            decided.setdefault(one.body.inputs, []).append(one)
        for blob in self.source.blobs():
            hash_ = hashlib.sha256(blob).digest()
            blobs.add(hash_)
            if replay is None:
                continue
            for one in decided.get(hash_, ()):
                yield one, replay(blob, one, facts)

    def _proof_faults(self) -> Iterator[Fault]:
        """§7.2: every proof holds; one that does not is held against the export, whoever's entries it shows."""
        log = self.source.log or b""
        for data in self.source.proofs():
            id_ = b""
            try:
                proof = ForkProof.from_bytes(data)
                id_ = proof.second.entry.id
                verify_proof(proof)
                rules.check_proof(self.ledger, proof)
            except Pending as pending:
                if any(missing in self.left_out for missing in pending.missing):
                    self.counts.dependent += 1
                else:
                    yield Fault("freeze", id_, log, "a fork proof that follows an entry which is not here")
            except LedgerError as error:
                yield Fault("freeze", id_, log, f"a fork proof that does not hold: {error.message}")

    def _end_faults(self, roots: Roots, has_faults: bool) -> Iterator[Fault]:
        """§10: what END says. Its roots may be over what was left out here, so they count where nothing was."""
        claimed = self.source.end()
        if claimed is None:
            return
        count, claimed_roots = claimed
        is_whole = not has_faults and not self.counts.later
        if count != self.counts.read:
            yield Fault("checkpoint-root", b"", b"", f"the END of the export counts {count} entries")
        elif is_whole and claimed_roots.entries != roots.entries:
            yield Fault("checkpoint-root", b"", b"", "the END of the export names another set of entries")
        elif is_whole and claimed_roots.balances != roots.balances:
            yield Fault("checkpoint-state", b"", b"", "the END of the export names other balances")


@contextmanager
def _without_collector() -> Iterator[None]:
    """Nothing here makes cycles, and the collector would walk a million small tuples again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
