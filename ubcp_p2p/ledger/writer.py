"""Writing own chains over a Store: never two entries with one number, after whatever crash, restart or restored backup.

A chain forks when somebody signs after an old head. So a Writer signs nothing until peers have said how far they know
the chain to be, and all of that is in the store; what is to be written until then is kept as a draft, without number
and signature. What it signs is on the disk before anybody can see it. An entry of its own that it has not signed, met
later, takes the confirmation back. Two branches end it: a restored backup went on, or one profile runs twice. So does
a charter that drops an entry of the chain, until another one lets it stand: its number is signed, and signed again it
would be a fork at all who have it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, NamedTuple

from ubcp_p2p.charter.values import Charter
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.ledger.author import Author, Key
from ubcp_p2p.ledger.chain import AccountChain, Chain
from ubcp_p2p.ledger.entry import ZERO, Body, Enrol, Heal, OpenNode, Position, Rotate
from ubcp_p2p.ledger.faults import LedgerError, RuleViolation
from ubcp_p2p.ledger.parse import decode, make
from ubcp_p2p.ledger.store import Outcome, Store
from ubcp_p2p.ledger.wire import Signed

DRAFTS_MAX: Final = 1024  # of one author: a node that meets nobody must not fill its disk
CURABLE: Final = frozenset({"unknown-reference", "signer"})  # a draft stays for what may come, or for who may sign too

COSIGNED: Final = (OpenNode, Enrol, Rotate, Heal)


class Standing(Enum):
    """How a writer stands to its own chain."""

    UNCONFIRMED = "unconfirmed"  # peers may know more of it than this store
    CONFIRMED = "confirmed"
    FORKED = "forked"
    ENDED = "ended"  # a charter has dropped an entry of it


class ForkedBackup(ConfigError):
    """Two entries with one number exist: a backup was restored, or the profile runs twice. Nothing more is signed."""


class EndedByCharter(ConfigError):
    """A charter that came late has dropped an entry of this chain: no other one may ever have its number."""


class WrongClock(ConfigError):
    """This machine's clock is too far off to write the time into entries."""


class Written(NamedTuple):
    """What became of one draft: an entry to publish, or why it is none."""

    signed: Signed | None
    error: LedgerError | None


class Writer:
    """One author of ours. Only one Writer of an author, on one store, in the thread of the store."""

    def __init__(self, store: Store, key: Key, *, author: bytes | None = None, alone: bool = False) -> None:
        """author: whose chain, when `key` is not the first key of it any more.

        alone: the key was made together with this store, so that nobody can know an entry of it: it signs without
        having asked. Without effect on a store that was opened, or that has an entry of it.
        """
        self._store = store
        self._key = key
        self.author = author or key.public
        self._confirmed = alone and store.fresh and self.head is None
        self._stands_at = self.head

    # -- where the chain stands -----------------------------------------------------------------------------------

    @property
    def head(self) -> Position | None:
        """The newest own entry in the store; None before the first."""
        branch = self._branch()
        return branch.head if branch else None

    @property
    def standing(self) -> Standing:
        if self._store.ledger.is_frozen(self.author):
            return Standing.FORKED
        if self._signed_up_to() is not None:
            return Standing.ENDED
        return Standing.CONFIRMED if self._is_known() else Standing.UNCONFIRMED

    @property
    def shows(self) -> bool:
        """Whether others may be shown what this store has of this author: its heads, entries and fork proofs.

        A restored store may have an entry that nobody has ever seen, and that the chain went another way from since.
        To show it would make the fork. What others know, they have.
        """
        return self._is_known() and not self._store.ledger.open_forks(self.author)

    def check(self) -> None:
        """Raises ForkedBackup or EndedByCharter where this chain has no future, whatever peers will say."""
        self._refuse_fork()
        last = self._signed_up_to()
        if last is None:
            return
        if isinstance(self._branch(), AccountChain):
            remedy = "ask your stewards to enrol a new account"
        else:
            remedy = "make a new node with `ubcp init --profile NEW`; what this one has earned stays yours"
        raise EndedByCharter(
            f"a charter has dropped the entry {last.id.hex()[:16]}… of {self.author.hex()[:16]}…, number {last.seq}: "
            "another one with that number would be a fork, so it can write nothing more in this community",
            hint=remedy,
        )

    def missing(self, reports: Sequence[Iterable[Position]]) -> list[bytes]:
        """The ids that peers have named as heads of this chain and that are not in the store; changes nothing.

        What a charter has dropped here is no news: such a peer has not seen that charter yet.
        """
        ledger = self._store.ledger
        heads = {head for report in reports for head in report}
        assert all(head.author == self.author for head in heads)
        heads.difference_update(self._store.dropped(self.author))
        return sorted(head.id for head in heads if not ledger.contains(*head))

    def confirm(self, reports: Sequence[Iterable[Position]]) -> list[bytes]:
        """What peers know of this chain: of each that was asked the heads of all branches, none for an unknown chain.

        Ask three peers, or all where there are fewer, and give all reports at once. Returns what is `missing`: fetch
        that (they are entries like any other, and prove themselves by their signatures), append it, and call this
        again; leave out a peer that cannot show what it has claimed. When nothing is missing, and one peer was asked
        at least, the writer is confirmed. Raises ForkedBackup.
        """
        missing = self.missing(reports)
        self._refuse_fork()
        if reports and not missing:
            self._confirmed, self._stands_at = True, self.head
        return missing

    # -- writing --------------------------------------------------------------------------------------------------

    def write(
        self, body: Body, *, now_s: float, offsets_s: Sequence[float], cosigners: Iterable[Key] = ()
    ) -> Signed | None:
        """Sign and store the next entry; it may be published when this returns. None: it was kept as a draft.

        now_s: Unix time. offsets_s: by how much the clocks of peers are ahead of ours; none when nobody was asked.
        cosigners: the owner's key for the OPEN of a node, the new key for a ROTATE, stewards' keys for ENROL and HEAL.
        Raises ForkedBackup, EndedByCharter, WrongClock, LedgerError (it breaks a rule: nothing was kept), StoreError.
        """
        self.check()
        drafts = self._store.drafts(self.author)
        if drafts or self.standing is Standing.UNCONFIRMED:
            if len(drafts) >= DRAFTS_MAX:
                raise ConfigError(
                    f"{DRAFTS_MAX} entries wait to be signed until peers have said what they know of this chain",
                    hint="`ubcp status` says who is connected",
                )
            self._store.put_draft(self.author, make(self._store.ledger.network, self.author, 0, ZERO, 0, body)[1])
            return None
        written = self._sign(body, self._slice(now_s, offsets_s), cosigners, draft=None)
        if written.error is not None:
            raise written.error
        return written.signed

    def write_drafts(self, *, now_s: float, offsets_s: Sequence[float], cosigners: Iterable[Key] = ()) -> list[Written]:
        """Sign the drafts in their order, as `write`: after `confirm`.

        One that breaks a rule by now is forgotten; at one that lacks a reference or a signature it stops. Raises
        ForkedBackup, EndedByCharter, WrongClock, StoreError.
        """
        self.check()
        done: list[Written] = []
        if self.standing is Standing.UNCONFIRMED:
            return done
        slice_ = self._slice(now_s, offsets_s)
        for number, data in self._store.drafts(self.author):
            done.append(self._sign(decode(data).body, slice_, cosigners, draft=number))
            error = done[-1].error
            if error is not None:
                if error.code in CURABLE:
                    break
                self._store.drop_draft(number)
        return done

    # -- inside ---------------------------------------------------------------------------------------------------

    def _branch(self) -> Chain | None:
        return self._store.ledger.branch_of(self.author)

    def _is_known(self) -> bool:
        """Whether all that exists of this chain is here, as far as peers have said."""
        is_here = self._confirmed and self.head == self._stands_at
        # Else more of the chain exists than is here: this key has signed it.
        return is_here and not self._store.is_pending(self.author, self._key.public)

    def _signed_up_to(self) -> Position | None:
        """The entry with the greatest number ever signed, where a charter has dropped it and its number is free now."""
        head = self.head
        dropped = self._store.dropped(self.author)
        return dropped[0] if dropped and (head is None or dropped[0].seq > head.seq) else None

    def _refuse_fork(self) -> None:
        forks = self._store.ledger.open_forks(self.author)
        if not forks:
            return
        fork = forks[0]
        if isinstance(self._branch(), AccountChain):
            remedy = "ask your stewards for a HEAL"
        else:
            remedy = "make a new node with `ubcp init --profile NEW`; what this one has earned stays yours"
        raise ForkedBackup(
            f"there are two entries with number {fork.seq} of {self.author.hex()[:16]}…, {fork.first.hex()[:16]}… and "
            f"{fork.second.hex()[:16]}…: a backup was restored, or the profile runs twice; it signs nothing more",
            hint=f"end the other one, if it runs; then {remedy}",
        )

    def _slice(self, now_s: float, offsets_s: Sequence[float]) -> int:
        charter, branch = self._store.ledger.charters.first, self._branch()
        check_clock(charter, offsets_s)
        now, newest = charter.slice_at(now_s), branch.slice if branch else 0
        if newest > now + 1:
            raise _wrong_clock(float((newest - now) * charter.slice_s), "the time in its own newest entry")
        return max(now, newest)

    def _sign(self, body: Body, slice_: int, cosigners: Iterable[Key], *, draft: int | None) -> Written:
        cosigners = tuple(cosigners) if isinstance(body, COSIGNED) else ()
        author = Author(self._store.ledger.network, self._key, public=self.author, head=self.head)
        signed = author.draft(slice_, body, cosigners)
        # On the disk before anybody sees it: after a crash from here on this very entry has its number, or none has.
        verdict = self._store.add_own(signed, draft=draft)
        if verdict.outcome is Outcome.PENDING:
            return Written(None, RuleViolation("unknown-reference", "refers to an entry that this node does not have"))
        if verdict.outcome is not Outcome.ADDED:
            return Written(None, verdict.error)
        self._stands_at = signed.entry.position
        if isinstance(body, Rotate):
            self._key = next(key for key in cosigners if key.public == body.key)
        return Written(signed, None)


def check_clock(charter: Charter, offsets_s: Sequence[float]) -> None:
    """Raises WrongClock where the clocks of peers are a slice and more from ours."""
    offset_s = statistics.median(offsets_s) if offsets_s else 0.0
    if abs(offset_s) > charter.slice_s:
        raise _wrong_clock(offset_s, "the clocks of its peers")


def _wrong_clock(behind_s: float, whom: str) -> WrongClock:
    how = "behind" if behind_s > 0 else "ahead of"
    return WrongClock(
        f"this machine's clock is {abs(behind_s):.0f} s {how} {whom}: entries carry the time, so nothing was signed",
        hint="set the clock (NTP)",
    )
