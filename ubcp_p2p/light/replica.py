"""The follower's own copy of a ledger: takes in what a node sends, verifies all of it, and says what is wrong.

Nothing here does I/O but the store.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from ubcp_p2p.codec import MalformedMessage
from ubcp_p2p.ledger import sync
from ubcp_p2p.ledger.balances import balances, balances_root, debts, entries_root
from ubcp_p2p.ledger.blame import Authorship, in_words, is_authors
from ubcp_p2p.ledger.entry import Checkpoint, Entry, Kind, Receipt, Request
from ubcp_p2p.ledger.faults import LedgerError, RuleViolation
from ubcp_p2p.ledger.intake import Intake
from ubcp_p2p.ledger.merkle import Frontier
from ubcp_p2p.ledger.pull import Take
from ubcp_p2p.ledger.report import Fault
from ubcp_p2p.ledger.shared import Shared
from ubcp_p2p.ledger.store import Outcome, Store
from ubcp_p2p.ledger.wire import ForkProof, Signed, signatures_of

REFUSED_MAX: Final = 64  # a node that follows the rules sends none: it has refused them itself
SHOWN_MAX: Final = 32  # new entries that one event describes
WAITING_MAX: Final = 32_768  # twice what a store keeps pending

SENDER: Final = b"node"  # whoever is followed now: Intake's word for whom to blame

Observer: TypeAlias = Callable[[str, dict[str, Any]], None]


@dataclass
class Log:
    """The followed node's append order as far as it was read: its CHECKPOINTs speak of it (SPEC §9.3)."""

    node: bytes
    after: int = 0  # what to ask for next
    tree: Frontier = field(default_factory=Frontier)
    exchanges: int = 0  # in which it was read: the node may have begun a new log in between
    is_whole: bool = True  # all of it is in our ledger
    is_doubtful: bool = False


class Replica:
    """A ledger in a store. observe(kind, values): told of every fault the moment it is seen."""

    def __init__(self, store: Store, observe: Observer) -> None:
        self.store = store
        self.local = Shared(store)
        self.faults: list[Fault] = []
        self._signatures = 0
        self._checkpoints = 0
        self._log: Log | None = None
        self._new: Counter[str] = Counter()  # kinds of entries since the last `state`
        self._shown: list[dict[str, Any]] = []
        self._observe = observe
        self._seen: set[Fault] = set()
        self._intake = Intake(store)
        self._followed = b""  # whose log we have read from its beginning
        self._checked: set[bytes] = set()  # CHECKPOINTs that were recomputed, right or wrong
        self._is_conflict_told = False
        self._node = b""  # who is followed now
        self._authors: dict[bytes, Authorship] = {}  # of entries that wait
        self._copies: dict[bytes, Fault] = {}  # by entry: faults of a copy that the node has sent
        self._refused: set[bytes] = set()  # ids
        self._refused_now = 0  # in this exchange
        self._forks = (store.ledger, store.ledger.forks.changes)
        self._look()

    # -- taking in ------------------------------------------------------------------------------------------------

    def log_after(self, node: bytes) -> int | None:
        """From where to read this node's log; None where that would mean to read again what came from elsewhere."""
        if self._log is None and (self.local.size == 0 or self._followed == node):
            self._log, self._followed = Log(node), node
        if self._log is None or self._log.node != node:
            return None
        self._log.exchanges += 1
        return self._log.after

    def take(self, step: Take) -> None:
        """Verify, and keep what holds. Raises MalformedMessage for what only the sender can be blamed for."""
        if step.what == sync.LOG:
            self._take_log(step)
        else:
            self._put(step)

    def begin(self, node: bytes) -> None:
        """A new exchange with the node of this key, which may send some invalid entries in each."""
        self._node = node
        self._refused_now = 0

    def finish(self) -> None:
        """The exchange is over: look for what shows in the whole only."""
        self._look()

    def _take_log(self, step: Take) -> None:
        """In the node's order, one CHECKPOINT of its own at a time."""
        log, self._log = self._log, None  # should anything fail below: the next exchange reads it from its beginning
        if log is None:
            self._put(step)
            return
        batch: list[Signed] = []
        for signed in step.entries:
            if signed.entry.author == log.node and signed.entry.kind == Kind.CHECKPOINT:
                self._append_log(log, batch)
                batch = []
                self._check(log, signed.entry)
            batch.append(signed)
        self._append_log(log, batch)
        log.after = step.after
        if not log.is_doubtful:
            self._log = log

    def _append_log(self, log: Log, batch: Sequence[Signed]) -> None:
        self._put(Take(sync.IDS, entries=batch))
        for signed in batch:
            entry = signed.entry
            log.tree.append(entry.id)
            log.is_whole &= self.local.contains(entry.author, entry.seq, entry.id)

    def _put(self, step: Take) -> None:
        now, versions = self._clock(), len(self.local.charter_ids())
        by_id = {signed.entry.id: signed for signed in step.entries}
        taken = self._intake.take_pulled(step, SENDER, now)
        for signed in self.store.ledger.charters.versions[versions:]:
            charter = signed.charter
            self._observe("charter", {"number": charter.number, "effective_period": charter.effective})
        if taken.conflict is not None and not self._is_conflict_told:
            self._is_conflict_told = True
            self._observe("conflict", {"message": taken.conflict.message, "hint": taken.conflict.hint})
        for id_ in sorted(taken.early):
            early = by_id[id_]
            message = f"slice {early.entry.slice} is more than one ahead of this machine's clock (is that right?)"
            self._blame("slice-ahead", id_, Authorship.of(early), message)
            self._wait(id_, Authorship.of(early))
        for signed_entry in taken.added:
            self._note(signed_entry)
        for verdict in taken.verdicts:
            if verdict.outcome is Outcome.PENDING and verdict.id in by_id:
                self._wait(verdict.id, Authorship.of(by_id[verdict.id]))
            elif isinstance(verdict.error, RuleViolation) and (verdict.id in by_id or verdict.id in self._authors):
                self._refuse(verdict.id, verdict.error, by_id.get(verdict.id))
        self._look_for_forks()
        if junk := next((junk for junk in taken.junk if junk.sender == SENDER), None):
            raise MalformedMessage(junk.error.message)
        if self._refused_now > REFUSED_MAX:
            raise MalformedMessage("many entries that break the rules: whoever keeps them does not check them")

    def _wait(self, id_: bytes, authorship: Authorship) -> None:
        self._authors[id_] = authorship
        if len(self._authors) > WAITING_MAX:
            del self._authors[next(iter(self._authors))]

    def _note(self, signed: Signed) -> None:
        entry = signed.entry
        self._authors.pop(entry.id, None)
        if (fault := self._copies.pop(entry.id, None)) is not None:  # it was the copy, as a good one shows
            self.faults.remove(fault)
            self._refused.discard(entry.id)
            self._observe("mended", {"code": fault.code, "entry": entry.id.hex()})
        self._signatures += len(signatures_of(signed))
        self._new[Kind(entry.kind).name] += 1
        self._checkpoints += entry.kind == Kind.CHECKPOINT
        if len(self._shown) < SHOWN_MAX:
            self._shown.append(_described(entry))

    def _refuse(self, id_: bytes, error: LedgerError, signed: Signed | None) -> None:
        waited = self._authors.pop(id_, None)
        self._refused.add(id_)
        self._refused_now += 1
        self._blame(error.code, id_, Authorship.of(signed) if signed is not None else waited, error.message)

    def _blame(self, code: str, id_: bytes, authorship: Authorship | None, message: str) -> None:
        """A fault of the author, where that is certain, else of the node that has sent such a copy."""
        if authorship is not None and is_authors(self.store.ledger, code, authorship):
            self._fault(Fault(code, id_, authorship.author, message))
            return
        fault = Fault(code, id_, self._node, in_words(message, authorship))
        if self._copies.setdefault(id_, fault) is fault:  # one of an entry is enough
            self._fault(fault)

    def _clock(self) -> int:
        return self.store.ledger.charters.first.slice_at(time.time())

    # -- what makes no entry invalid ------------------------------------------------------------------------------

    def _check(self, log: Log, entry: Entry) -> None:
        """A CHECKPOINT of the node whose log this is, against that log up to here (SPEC §9.3)."""
        body, tree = entry.body, log.tree
        assert isinstance(body, Checkpoint)
        is_root = (body.size, body.root) == (tree.size, tree.root())
        if is_root and not (log.is_whole and self.local.size == tree.size):
            return  # our ledger is not of just these entries
        if not is_root and log.exchanges > 1:
            log.is_doubtful = True  # nobody is accused by a log that was not read in one go
            return
        self._checked.add(entry.id)
        if not is_root:
            message = f"not the root of the {tree.size} entries before it"
            self._fault(Fault("checkpoint-root", entry.id, entry.author, message))
        elif body.state != self._balances_root():
            message = f"not what the {tree.size} entries before it lead to"
            self._fault(Fault("checkpoint-state", entry.id, entry.author, message))

    def _balances_root(self) -> bytes:
        return balances_root(balances(self.store.ledger, self.store.history))

    def _look_for_forks(self) -> None:
        now = (self.store.ledger, self.store.ledger.forks.changes)  # a charter that comes late makes another ledger
        if now != self._forks:
            self._forks = now
            self._look()

    def _look(self) -> None:
        proofs: dict[bytes, dict[bytes, ForkProof]] = {}  # by author, by entry: read once, for there may be many forks
        for finding in self.store.ledger.findings():
            if finding.code == "fork" and finding.author not in proofs:
                found = self.store.proofs_of(finding.author)
                proofs[finding.author] = {part.entry.id: proof for proof in found for part in proof}
            self._fault(Fault(*finding), proofs.get(finding.author, {}).get(finding.entry))

    def _fault(self, fault: Fault, proof: ForkProof | None = None) -> None:
        if fault in self._seen:
            return
        self._seen.add(fault)
        self.faults.append(fault)
        values = fault.to_json()
        if proof is not None:
            values["entries"] = [_described(part.entry) for part in proof]
            values["proof"] = proof.to_bytes().hex()
        self._observe("fault", values)

    # -- what it is now -------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Counts, for an event. Forgets which entries were new."""
        ledger = self.store.ledger
        document = {
            "entries": ledger.entries, "accounts": len(ledger.accounts()), "heads": sum(1 for _ in ledger.heads()),
            "pending": len(self.store.pending_missing()), "added": self._new.total(),
            "kinds": dict(sorted(self._new.items())), "new": self._shown,
        }  # fmt: skip
        self._new, self._shown = Counter(), []
        return document

    def summary(self, seconds: float) -> dict[str, Any]:
        """As `ubcp audit --json` has it. entries: with those that were refused."""
        ledger = self.store.ledger
        try:
            rows = balances(ledger, self.store.history)
            root = balances_root(rows)
            owing = debts(ledger, rows)
        except LedgerError as error:
            self._fault(Fault(error.code, b"", b"", error.message))
            root, owing = b"", []
        faults = [*self.faults, *(Fault(*finding) for finding in owing)]  # as of now: they change with every payment
        return {
            "entries": ledger.entries + len(self._refused), "accounts": len(ledger.accounts()), "valid": ledger.entries,
            "faults": [fault.to_json() for fault in faults], "balances_root": root.hex(),
            "entries_root": entries_root(ledger).hex(), "seconds": round(seconds, 3),
            "verified_per_s": round(self._signatures / seconds, 1) if seconds else 0.0, "network": ledger.network.hex(),
            "slice": ledger.slice, "signatures": self._signatures, "pending": len(self.store.pending_missing()),
            "checkpoints": {
                "checked": len(self._checked), "not_checkable_here": self._checkpoints - len(self._checked)
            },
            "frozen": [account.hex() for account in ledger.frozen()],
        }  # fmt: skip


def _described(entry: Entry) -> dict[str, Any]:
    """What people want to know of an entry."""
    values: dict[str, Any] = {
        "id": entry.id.hex(), "author": entry.author.hex(), "seq": entry.seq, "slice": entry.slice,
        "kind": Kind(entry.kind).name,
    }  # fmt: skip
    body = entry.body
    if isinstance(body, Request):
        values |= {"run": body.run, "purpose": body.purpose, "credits": body.credits, "paymaster": body.paymaster.hex()}
    elif isinstance(body, Receipt):
        voucher = body.voucher
        values |= {"credits": voucher.credits, "paymaster": voucher.paymaster.hex(), "request": voucher.request.hex()}
    return values
