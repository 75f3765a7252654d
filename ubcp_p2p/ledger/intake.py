"""What comes from peers, on its way into the store: verified once, held back while it is early.

Synchronous, in the thread of the store. Whose fault it was when something is refused is told, not judged, here.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ubcp_p2p.charter.values import CharterConflict, CharterError, SignedCharter
from ubcp_p2p.ledger import sync
from ubcp_p2p.ledger.faults import BadSignature, LedgerError, MalformedEntry
from ubcp_p2p.ledger.pull import Take
from ubcp_p2p.ledger.store import Outcome, Store, Verdict
from ubcp_p2p.ledger.wire import ForkProof, Signed, verify, verify_proof

EARLY_MAX: Final = 1024  # held back; what is the furthest ahead is let go of first, and comes again by sync
NOBODY: Final = b""  # the sender of what is our own


class Item(NamedTuple):
    """One thing that came, decoded. sender: public key of the node that sent it."""

    sender: bytes
    thing: Signed | ForkProof


class Junk(NamedTuple):
    """What no honest peer sends: malformed, badly signed, another community's."""

    sender: bytes
    error: LedgerError


@dataclass
class Taken:
    """What became of some items. added: entries, in their order. proofs: wire forms of forks that are new here."""

    added: list[Signed] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)  # of the items that were verified, and what they settled
    refused: list[tuple[bytes, Signed, LedgerError]] = field(default_factory=list)  # (sender, …): its author's fault
    junk: list[Junk] = field(default_factory=list)
    waiting: set[bytes] = field(default_factory=set)  # senders of what refers to entries that are not here
    proofs: list[bytes] = field(default_factory=list)
    frozen: list[bytes] = field(default_factory=list)  # authors that were not frozen before
    known: int = 0
    early: set[bytes] = field(default_factory=set)  # ids of entries held back
    charters: int = 0  # versions that are new here
    conflict: CharterConflict | None = None


class Intake:
    """`now` is the slice of this machine's clock."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._early: list[tuple[int, int, bytes, Signed]] = []  # (slice, tie-breaker, sender, entry): a heap
        self._early_copies: set[bytes] = set()  # by their bytes: a bad copy must not keep the good one out
        self._count = 0

    @property
    def early_count(self) -> int:
        return len(self._early)

    def take(self, items: Iterable[Item], now: int) -> Taken:
        """Take in what gathered, in one transaction, with what was early and is not any more. Raises StoreError."""
        things = list(items)
        proofs = [(sender, thing) for sender, thing in things if isinstance(thing, ForkProof)]
        entries = [(sender, thing) for sender, thing in things if isinstance(thing, Signed)]
        return self._put(proofs, entries, now, Taken())

    def take_pulled(self, step: Take, sender: bytes, now: int) -> Taken:
        """What a pull brought. Raises StoreError."""
        taken = Taken()
        proofs = []
        for data in step.data:
            try:
                if step.what == sync.CHARTERS:
                    taken.charters += self._store.add_charter(SignedCharter.from_bytes(data))
                else:
                    proofs.append((sender, ForkProof.from_bytes(data)))
            except CharterConflict as conflict:
                taken.conflict = conflict
            except CharterError as error:
                taken.junk.append(Junk(sender, MalformedEntry("encoding", error.message)))
            except LedgerError as error:
                taken.junk.append(Junk(sender, error))
        return self._put(proofs, [(sender, signed) for signed in step.entries], now, taken)

    def _put(
        self,
        proofs: Sequence[tuple[bytes, ForkProof]],
        entries: Sequence[tuple[bytes, Signed]],
        now: int,
        taken: Taken,
    ) -> Taken:
        store = self._store
        known_frozen = set(store.ledger.frozen())
        for sender, proof in proofs:
            try:
                if not store.is_known(proof):
                    verify_proof(proof)
                    self._note(store.add_proof(proof, verified=True), sender, None, taken)
            except LedgerError as error:
                taken.junk.append(Junk(sender, error))
        good = self._due(now)
        for sender, signed in entries:
            try:
                if self._is_good(sender, signed, now, taken):
                    good.append((sender, signed))
            except LedgerError as error:
                taken.junk.append(Junk(sender, error))
        if good:
            verdicts = store.append([signed for _, signed in good], verified=True)
            for (sender, signed), verdict in zip(good, verdicts, strict=False):
                self._note(verdict, sender, signed, taken)
            for verdict in verdicts[len(good) :]:  # what had waited for these
                self._note(verdict, NOBODY, None, taken)
        ids = (verdict.proof for verdict in taken.verdicts)
        taken.proofs = [data for id_ in ids if id_ is not None and (data := store.proof(id_)) is not None]
        taken.frozen = [author for author in store.ledger.frozen() if author not in known_frozen]
        return taken

    def _is_good(self, sender: bytes, signed: Signed, now: int, taken: Taken) -> bool:
        """Whether to append it now. Raises MalformedEntry, BadSignature."""
        entry, ledger = signed.entry, self._store.ledger
        if entry.network != ledger.network:
            raise MalformedEntry("network", "an entry of another community's ledger")
        copy = hashlib.sha256(signed.to_bytes()).digest() if entry.slice > now + 1 else b""
        if ledger.contains(entry.author, entry.seq, entry.id) or copy in self._early_copies:
            taken.known += 1
            return False
        verify(signed)
        if entry.slice <= now + 1:  # SPEC §5.4
            return True
        taken.early.add(entry.id)
        self._count += 1
        heapq.heappush(self._early, (entry.slice, self._count, sender, signed))
        self._early_copies.add(copy)
        if len(self._early) > EARLY_MAX:
            furthest = max(self._early)
            self._early.remove(furthest)
            heapq.heapify(self._early)
            self._early_copies.discard(hashlib.sha256(furthest[3].to_bytes()).digest())
        return False

    def _due(self, now: int) -> list[tuple[bytes, Signed]]:
        due = []
        while self._early and self._early[0][0] <= now + 1:
            _, _, sender, signed = heapq.heappop(self._early)
            self._early_copies.discard(hashlib.sha256(signed.to_bytes()).digest())
            due.append((sender, signed))
        return due

    def _note(self, verdict: Verdict, sender: bytes, signed: Signed | None, taken: Taken) -> None:
        taken.verdicts.append(verdict)
        if verdict.outcome is Outcome.ADDED:
            added = signed if signed is not None else self._store.entry(verdict.id)
            if added is not None:
                taken.added.append(added)
        elif verdict.outcome is Outcome.PENDING:
            taken.waiting.add(sender)
        elif verdict.outcome is Outcome.KNOWN:
            taken.known += 1
        elif isinstance(verdict.error, MalformedEntry | BadSignature) or signed is None:
            if verdict.error is not None:
                taken.junk.append(Junk(sender, verdict.error))
        else:
            assert verdict.error is not None
            taken.refused.append((sender, signed, verdict.error))
