"""The ledger of one peer: on disk, and as a state.Ledger in memory that is always the fold over what the disk has.

Synchronous, for one thread. What `append` has returned is on the disk; when it raises StoreError the memory is again
what the disk has, and a new attempt or a new start goes on from there.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, TypeAlias

from ubcp_p2p.charter.values import Charters, SignedCharter
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.ledger import rules
from ubcp_p2p.ledger.ahead import Ahead, Until
from ubcp_p2p.ledger.database import StoreError
from ubcp_p2p.ledger.disk import Disk, EntryRow
from ubcp_p2p.ledger.entry import SEQ_MAX, Position
from ubcp_p2p.ledger.export import BLOB_BYTES_MAX
from ubcp_p2p.ledger.faults import BadSignature, LedgerError, Pending
from ubcp_p2p.ledger.forks import Place
from ubcp_p2p.ledger.loading import refuse_ahead, replayed
from ubcp_p2p.ledger.pending import MISSING_MAX, Waiting
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.wire import ForkProof, Signed, decode_signed, verify, verify_proof

BLOBS_BYTES_MAX: Final = 1 << 30  # of all blobs together
PROOFS_PER_AUTHOR_MAX: Final = 64  # one freezes an author; a HEAL can settle this many

Item: TypeAlias = Signed | ForkProof
_ENTRY, _PROOF = 0, 1  # what a row of the table `pending` is


class Outcome(Enum):
    """What became of an entry or a proof."""

    ADDED = "added"
    KNOWN = "known"
    PENDING = "pending"
    REFUSED = "refused"


class Verdict(NamedTuple):
    """id: of the entry, or of the fork that a proof proves. missing: ids that it waits for. error: why refused.

    proof: the id of the fork proof that was kept with this.
    """

    id: bytes
    outcome: Outcome
    missing: tuple[bytes, ...] = ()
    error: LedgerError | None = None
    proof: bytes | None = None


class Store:
    """`ledger` is another object after a StoreError and after a charter that came late: do not keep it."""

    def __init__(
        self, disk: Disk, *, fresh: bool = False, check_signatures: bool = False, until: Until | None = None
    ) -> None:
        """until: entries of later slices, and what refers to them, are left out of `ledger`: for who only reads."""
        self._disk = disk
        self.fresh = fresh  # made by this very object: nothing was signed with it before
        self.ahead = Ahead()  # what was left out
        self._ledger: Ledger | None = None
        try:
            self._load(check_signatures, until)
        except BaseException:
            disk.close()
            raise

    @classmethod
    def create(cls, path: Path, charters: Charters) -> Store:
        """Make the store of a community. Raises ConfigError when there is one (`disk.is_there`), LocalIOError."""
        return cls(Disk.create(path, [signed.to_bytes() for signed in charters.versions]), fresh=True)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        network: bytes | None = None,
        read_only: bool = False,
        check_signatures: bool = False,
        until: Until | None = None,
    ) -> Store:
        """Open a store and replay it. Signatures were verified when entries came in: only on demand are they again.

        network: refuse another community's. read_only: beside a running node. until: no later entry may have a say;
        who reads does without them (`ahead`), who writes is refused. Raises ConfigError (missing, no store, a newer
        format, another community's, entries of the future), LocalIOError (another process has it), StoreError.
        """
        disk = Disk.open(path, read_only=read_only)
        store = cls(disk, check_signatures=check_signatures, until=until if read_only else None)
        if until is not None and not read_only:
            try:
                refuse_ahead(disk, store.ledger.charters.first, until)
            except BaseException:
                store.close()
                raise
        found = store.ledger.network
        if network is not None and found != network:
            store.close()
            raise ConfigError(
                f"the ledger store {path} is of another community ({found.hex()[:16]}…)",
                hint="use another --store or --profile for each community",
            )
        return store

    def close(self) -> None:
        """Safe to call twice."""
        self._disk.close()
        self._ledger = None

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        return self._disk.path

    @property
    def ledger(self) -> Ledger:
        """The state that the entries on the disk lead to. Raises StoreError when the disk could not be read again."""
        if self._ledger is None:
            raise StoreError(f"the ledger store {self.path} is closed", hint="start again")
        return self._ledger

    # -- writing --------------------------------------------------------------------------------------------------

    def append(self, batch: Sequence[Signed], *, verified: bool = False) -> list[Verdict]:
        """Add entries in this order, all in one transaction. verified: the caller has checked all signatures.

        One verdict for each of the batch, then one for each earlier pending entry or proof that this settled. Raises
        StoreError; then nothing was added.
        """
        return self._take(batch, verified)

    def add_proof(self, proof: ForkProof, *, verified: bool = False) -> Verdict:
        """Keep a fork proof and freeze its author (SPEC §7.2); pending while the entry before the fork is not here."""
        return self._take([proof], verified)[0]

    def add_own(self, signed: Signed, *, draft: int | None = None) -> Verdict:
        """Add an own entry and forget the draft that it was, in one transaction. If that cannot be, nothing is kept.

        Whoever signs must not show the entry to others before this has returned ADDED.
        """
        with self._writing():
            verdict, *_ = self._settle([signed], park=False)
            if draft is not None and verdict.outcome is Outcome.ADDED:
                self._disk.drop_draft(draft)
        return verdict

    def add_charter(self, signed: SignedCharter) -> bool:
        """Take a charter version in; False when it is known. Raises CharterError, CharterConflict, StoreError.

        Where it holds for periods that have entries already, these are judged again: what it refuses is in no balance
        any more, nor shown; it is kept aside (`dropped`), for a later version may let it stand.
        """
        if not self.ledger.charters.add(signed):
            return False
        charter = signed.charter
        with self._writing():
            self._disk.put_charter(charter.number, signed.to_bytes())
            if charter.effective <= self.ledger.period(self.ledger.slice) or self._disk.dropped():
                self._judge_again()
        return True

    def put_blob(self, data: bytes) -> bytes:
        """Keep evidence, or a decision's inputs; returns its SHA-256. Raises StoreError when there is no room."""
        hash_ = hashlib.sha256(data).digest()
        if self._disk.blob(hash_) is not None:
            return hash_
        if len(data) > BLOB_BYTES_MAX or self._disk.blobs_bytes() + len(data) > BLOBS_BYTES_MAX:
            raise StoreError(
                f"no room for a blob of {len(data)} bytes: at most {BLOB_BYTES_MAX} each and {BLOBS_BYTES_MAX} in all"
            )
        with self._disk.transaction():
            self._disk.put_blob(hash_, data)
        return hash_

    def drop_blobs(self, hashes: Iterable[bytes]) -> None:
        """Forget these blobs; what is not here is passed over. Raises StoreError."""
        with self._disk.transaction():
            for hash_ in hashes:
                self._disk.drop_blob(hash_)

    def put_draft(self, author: bytes, data: bytes) -> None:
        """Keep what an author of ours will sign later. Raises StoreError."""
        with self._disk.transaction():
            self._disk.put_draft(author, data)

    def drop_draft(self, number: int) -> None:
        with self._disk.transaction():
            self._disk.drop_draft(number)

    # -- reading --------------------------------------------------------------------------------------------------

    def entry(self, id_: bytes) -> Signed | None:
        """An applied entry."""
        data = self._disk.entry(id_)
        return decode_signed(data) if data is not None else None

    def history(self, author: bytes, wanted: Collection[bytes] | None = None) -> list[Signed]:
        """A state.History."""
        if wanted is None:
            return self.chain(author)
        return [signed for id_ in wanted if (signed := self.entry(id_)) is not None]

    def chain(self, author: bytes, first: int = 0, last: int = SEQ_MAX, limit: int = SEQ_MAX) -> list[Signed]:
        """An author's entries of all branches, first ≤ seq ≤ last, ascending by seq, then id."""
        return [decode_signed(data) for data in self._disk.chain(author, first, last, limit)]

    def newest(self, author: bytes, limit: int) -> list[Signed]:
        """An author's newest entries, newest first; without those that are left out."""
        found = [decode_signed(data) for data in self._disk.newest(author, limit + len(self.ahead.ids))]
        return [signed for signed in found if signed.entry.id not in self.ahead][:limit]

    def after(self, position: int, limit: int) -> list[EntryRow]:
        """Wire forms in append order: those after the first `position`."""
        return self._disk.after(position, limit)

    def entries(self) -> Iterator[bytes]:
        """All wire forms in append order, which is causal; without those that are left out."""
        return (row.data for row in self._disk.entries() if row.id not in self.ahead)

    def kinds(self, author: bytes) -> dict[int, int]:
        """How many entries of each kind an author has."""
        return self._disk.kinds(author)

    def starting(self, low: bytes, high: bytes, limit: int) -> tuple[list[bytes], list[bytes]]:
        """(entry ids, authors) from `low` to `high`, both included, at most `limit` of each."""
        return self._disk.starting(low, high, limit)

    def proofs(self) -> list[ForkProof]:
        """All that hold, by id."""
        return [ForkProof.from_bytes(data) for data in self._disk.proofs()]

    def proofs_of(self, author: bytes) -> list[ForkProof]:
        """Those that hold against one author, PROOFS_PER_AUTHOR_MAX at most."""
        return [ForkProof.from_bytes(data) for data in self._disk.proofs_of(author)]

    def proof_ids(self, but_of: bytes | None = None) -> list[bytes]:
        """Ascending; without those of one author, where one is given."""
        return self._disk.proof_ids(but_of)

    def proof(self, id_: bytes) -> bytes | None:
        """The wire form of a proof that holds."""
        return self._disk.proof(id_)

    @property
    def pending_count(self) -> int:
        """Entries and proofs that wait for others."""
        return len(self._waiting)

    def pending_missing(self) -> list[bytes]:
        """The ids that pending entries and proofs wait for, sorted: what to ask for."""
        return self._waiting.missing()

    def is_pending(self, author: bytes, signer: bytes) -> bool:
        """Whether an entry of this author is pending that `signer` has signed, and that was never applied here."""
        return self._disk.is_pending(author, signer)

    def dropped(self, author: bytes) -> list[Position]:
        """An author's entries that a charter has dropped and that are not back, the greatest number first."""
        found = (Position(author, seq, id_) for seq, id_ in self._disk.dropped_of(author))
        return [position for position in found if not self.ledger.contains(*position)]

    def blob(self, hash_: bytes) -> bytes | None:
        return self._disk.blob(hash_)

    def blob_hashes(self) -> list[bytes]:
        """Ascending."""
        return self._disk.blob_hashes()

    def drafts(self, author: bytes) -> list[tuple[int, bytes]]:
        """(number, what was put), oldest first."""
        return self._disk.drafts(author)

    # -- inside ---------------------------------------------------------------------------------------------------
    def _load(self, check_signatures: bool = False, until: Until | None = None) -> None:
        """The memory from the disk alone."""
        self._ledger = None
        ledger, self.ahead = replayed(self._disk, check_signatures=check_signatures, until=until)
        waiting = Waiting()
        for number, missing, size in self._disk.pending_sizes():
            waiting.add(number, [missing[i : i + 32] for i in range(0, len(missing), 32)], size)
        self._ledger, self._waiting = ledger, waiting

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction. When it fails, the memory must not keep what the disk has lost, nor lose what it kept."""
        try:
            with self._disk.transaction():
                yield
        except BaseException:
            self._load()
            raise

    def _take(self, batch: Sequence[Item], verified: bool) -> list[Verdict]:
        errors: dict[int, BadSignature] = {}
        for slot, item in enumerate(batch if not verified else ()):
            try:
                verify(item) if isinstance(item, Signed) else verify_proof(item)
            except BadSignature as error:
                errors[slot] = error
        good = [item for slot, item in enumerate(batch) if slot not in errors]
        with self._writing():
            verdicts = self._settle(good)
        for slot, bad in errors.items():  # ascending, so that each is inserted at its place
            verdicts.insert(slot, Verdict(_id_of(batch[slot]), Outcome.REFUSED, error=bad))
        return verdicts

    def _settle(self, items: Sequence[Item], *, park: bool = True) -> list[Verdict]:
        """Apply all of them, and whatever waits for one of them."""
        verdicts: list[Verdict] = [Verdict(_id_of(item), Outcome.PENDING) for item in items]
        parked: dict[int, list[int]] = {}  # number of what became pending → its places in the batch
        queue: deque[tuple[list[int], int | None, Item]] = deque(([i], None, item) for i, item in enumerate(items))
        while queue:
            slots, number, item = queue.popleft()
            verdict = self._apply(item) if isinstance(item, Signed) else self._freeze(item)
            if verdict.outcome is not Outcome.PENDING:
                if number is not None:
                    self._unpark(number)
                if not slots:
                    verdicts.append(verdict)
            elif park:
                parked.setdefault(self._park(item, verdict.missing), []).extend(slots)
            for slot in slots:
                verdicts[slot] = verdict
            if verdict.outcome is Outcome.ADDED and isinstance(item, Signed):
                for ready in self._waiting.arrived(verdict.id):
                    row = self._disk.pending(ready)
                    woken = decode_signed(row.data) if row.what == _ENTRY else ForkProof.from_bytes(row.data)
                    queue.append((parked.pop(ready, []), ready, woken))
        for number in self._waiting.overflow():
            self._unpark(number)
        return verdicts

    def _apply(self, signed: Signed) -> Verdict:
        entry, ledger = signed.entry, self.ledger
        was_forked = ledger.forks.has(entry)
        try:
            if rules.apply(ledger, signed, self.history):
                self._disk.put_entry(ledger.entries, entry, signed.to_bytes())
                verdict = Verdict(entry.id, Outcome.ADDED)
            else:
                verdict = Verdict(entry.id, Outcome.KNOWN)
        except Pending as pending:
            verdict = Verdict(entry.id, Outcome.PENDING, pending.missing)
        except LedgerError as error:
            verdict = Verdict(entry.id, Outcome.REFUSED, error=error)
        if not was_forked and ledger.forks.has(entry):
            return verdict._replace(proof=self._prove(signed))
        return verdict

    def _prove(self, signed: Signed) -> bytes | None:
        """Keep a proof of the fork that this entry has made, for those who have not both entries."""
        entry = signed.entry
        first = self.ledger.first_after(entry.author, Place(entry.seq, entry.prev))
        other = self.entry(first) if first is not None and first != entry.id else None
        # Nobody else there is valid: it has come to a fork that was proved before.
        return self._keep(ForkProof.of(signed, other)) if other is not None else None

    def _keep(self, proof: ForkProof) -> bytes | None:
        if self._disk.count_proofs(proof.author) >= PROOFS_PER_AUTHOR_MAX:
            return None
        self._disk.put_proof(proof.id, proof.author, proof.to_bytes())
        return proof.id

    def _freeze(self, proof: ForkProof) -> Verdict:
        known = self.is_known(proof)
        try:
            rules.check_proof(self.ledger, proof)
        except Pending as pending:
            return Verdict(proof.id, Outcome.PENDING, pending.missing)
        except LedgerError as error:
            return Verdict(proof.id, Outcome.REFUSED, error=error)
        if known:
            return Verdict(proof.id, Outcome.KNOWN)
        return Verdict(proof.id, Outcome.ADDED, proof=self._keep(proof))

    def is_known(self, proof: ForkProof) -> bool:
        """Whether both its entries are known to stand at one place."""
        return self.ledger.forks.has(proof.first.entry) and self.ledger.forks.has(proof.second.entry)

    def _park(self, item: Item, missing: Iterable[bytes]) -> int:
        data, ids = item.to_bytes(), list(missing)[:MISSING_MAX]
        if isinstance(item, Signed):
            what, author, signers = _ENTRY, item.entry.author, b"".join(key for key, _ in item.signatures)
        else:
            what, author, signers = _PROOF, item.author, b""
        number = self._disk.put_pending(what, hashlib.sha256(data).digest(), author, signers, b"".join(ids), data)
        self._disk.set_missing(number, b"".join(ids))
        self._waiting.add(number, ids, len(data))
        return number

    def _unpark(self, number: int) -> None:
        self._disk.drop_pending(number)
        self._waiting.remove(number)

    def _judge_again(self) -> None:
        """All entries anew, by charters that were not all known when they came in."""
        ledger = Ledger(self.ledger.charters)
        fallen = []
        for row in self._disk.entries():
            signed = decode_signed(row.data)
            try:
                rules.apply(ledger, signed, self.history)
            except (LedgerError, Pending):
                fallen.append(row.position)
                self._disk.put_dropped(signed.entry, hashlib.sha256(row.data).digest(), row.data)
        for data in self._disk.proofs():
            proof = ForkProof.from_bytes(data)
            try:
                rules.check_proof(ledger, proof)
            except Pending as pending:
                self._disk.drop_proof(proof.id)
                self._park(proof, pending.missing)
        self._disk.drop_entries(fallen)
        self._ledger = ledger
        kept = [decode_signed(data) for data in self._disk.dropped()]  # also by earlier versions
        for verdict in self._settle(kept)[: len(kept)]:
            if verdict.outcome in (Outcome.ADDED, Outcome.KNOWN):
                self._disk.forget_dropped(verdict.id)


def _id_of(item: Item) -> bytes:
    return item.entry.id if isinstance(item, Signed) else item.id
