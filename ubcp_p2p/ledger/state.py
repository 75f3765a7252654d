"""The ledger's state: what a set of valid entries leads to, whatever the order they came in (SPEC §8.6). Pure.

The rules change it, one valid entry at a time; everything else reads it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple, Protocol

from ubcp_p2p.charter.values import Charter, Charters
from ubcp_p2p.ledger.chain import AccountChain, Chain, NodeChain
from ubcp_p2p.ledger.entry import Entry, Position
from ubcp_p2p.ledger.forks import Fork, Forks, Place
from ubcp_p2p.ledger.index import Index
from ubcp_p2p.ledger.wire import Signed

NAMED_MAX: Final = 4  # accounts that the finding of a fork names; whoever forks can make as many as they like
DERIVED: Final = frozenset({"_index", "kept"})  # attributes of a Ledger that the others lead to


class History(Protocol):
    """The applied entries of one author, in any order; asked for those that paid or enrolled when it has forked."""

    def __call__(self, author: bytes, wanted: Collection[bytes] | None = None, /) -> Iterable[Signed]:
        """At least those with the ids `wanted`; all where none are given."""


class RequestFact(NamedTuple):
    """What later entries need of a REQUEST. number: a small integer of this process, for packing."""

    id: bytes
    author: bytes
    slice: int
    credits: int
    expiry: int
    paymaster: bytes
    number: int


class AllotFact(NamedTuple):
    """What later entries need of an ALLOT. owner: the account that owns the paymaster. contributor: an OPEN id."""

    id: bytes
    request: bytes
    paymaster: bytes
    owner: bytes
    contributor: bytes
    credits: int
    slice: int
    seq: int


class OpeningFact(NamedTuple):
    """What later entries need of the OPEN of a node."""

    id: bytes
    author: bytes
    owner: bytes
    slice: int


class CloseFact(NamedTuple):
    """What later entries need of a CLOSE."""

    id: bytes
    author: bytes
    request: bytes
    final: tuple[tuple[bytes, int], ...]
    returned: int
    slice: int


class Finding(NamedTuple):
    """Something wrong that makes no entry invalid. author: who is at fault."""

    code: str
    entry: bytes
    author: bytes
    message: str


class Ledger:
    """Chains, and what entries refer to by id. `slice` is the greatest one that any entry has."""

    def __init__(self, charters: Charters) -> None:
        self.charters = charters
        self.network = charters.network
        self._period_slices = charters.first.period_slices  # the same in every version
        self.slice = 0
        self.entries = 0
        self.chains: dict[bytes, list[Chain]] = {}
        self.nodes_of: dict[bytes, set[bytes]] = {}
        self.openings: dict[bytes, OpeningFact] = {}
        self.requests: dict[bytes, RequestFact] = {}
        self.request_ids: list[bytes] = []  # by RequestFact.number
        self.allots: dict[bytes, AllotFact] = {}
        self.closes: dict[bytes, CloseFact] = {}
        self.paid: dict[bytes, dict[bytes, int]] = {}  # REQUEST → OPEN id → greatest cumulative µcredits received
        self.nullifiers: dict[bytes, dict[bytes, tuple[int, bytes, frozenset[bytes]]]] = {}
        self.forks = Forks()
        self.kept: dict[bytes, dict[bytes, Chain]] = {}  # of who has forked: branches as they stood after some entries
        self._index: Index | None = None

    # -- looking up ---------------------------------------------------------------------------------------------

    def charter_at(self, slice_: int) -> Charter:
        """The version that holds in the period of a slice."""
        return self.charters.at(slice_ // self._period_slices)

    def period(self, slice_: int) -> int:
        return slice_ // self._period_slices

    @property
    def index(self) -> Index:
        """Of all entries; made when it is first asked for, as an honest ledger in its order never does."""
        if self._index is None:
            self._index = Index(chain for chains in self.chains.values() for chain in chains)
        return self._index

    def branch_of(self, author: bytes) -> Chain | None:
        """The branch that an author goes on with: after a fork that was healed, that of the newest HEAL."""
        branches = self.chains.get(author, [])
        if len(branches) < 2:
            return branches[0] if branches else None
        heals = (healing.position for healing in self.forks.healings.get(author, {}).values())
        newest = max(heals, key=lambda position: position.seq, default=branches[0].head)
        return next((chain for chain in branches if chain.has(newest)), branches[0])

    def branch_through(self, position: Position) -> Chain | None:
        """A branch that passes through `position`, or None when that entry is not here."""
        chains = self.chains.get(position.author, ())
        if len(chains) == 1:
            return chains[0] if chains[0].has(position) else None
        chain = self.index.holder(position.id) if chains else None
        return chain if chain is not None and chain.has(position) else None

    def is_enrolled(self, account: bytes, period: int) -> bool:
        """Whether an ENROL on any branch of an account covers the period."""
        return any(
            enrolment.covers(period)
            for chain in self.chains.get(account, ())
            if isinstance(chain, AccountChain)
            for enrolment in chain.enrolments
        )

    def contains(self, author: bytes, seq: int, id_: bytes) -> bool:
        return self.branch_through(Position(author, seq, id_)) is not None

    def contains_id(self, id_: bytes) -> bool:
        """Whether any entry has this id, for telling apart what is wrong."""
        return self.index.holder(id_) is not None

    def first_after(self, author: bytes, place: Place) -> bytes | None:
        """The id of the entry that was the first to stand there; None when there is none."""
        if place.seq == 0:
            roots = self.chains.get(author)
            return roots[0].id_at(0) if roots else None
        before = self.branch_through(Position(author, place.seq - 1, place.prev))
        return before.holder(place.seq - 1).id_at(place.seq) if before is not None else None

    def accounts(self) -> list[bytes]:
        """All accounts, sorted."""
        return sorted(
            author for author, chains in self.chains.items() if any(isinstance(c, AccountChain) for c in chains)
        )

    def heads(self) -> Iterator[Position]:
        """The head of every branch."""
        for chains in self.chains.values():
            for chain in chains:
                yield chain.head

    def ids(self) -> bytes:
        """The ids of all entries one after another, each once, in no order."""
        return b"".join(chain.own_ids_packed for chains in self.chains.values() for chain in chains)

    # -- growing ------------------------------------------------------------------------------------------------

    def append(self, chain: Chain, entry: Entry) -> None:
        """The entry is valid, and the next of `chain`, which is one of `chains`."""
        chain.append(entry)
        if self._index is not None:
            self._index.add(entry.id, chain)
        if entry.author in self.forks.places:
            self.forks.arrived(entry)
        self.entries += 1
        if entry.slice > self.slice:
            self.slice = entry.slice

    # -- forks --------------------------------------------------------------------------------------------------

    def open_forks(self, author: bytes) -> list[Fork]:
        """The author's forks that no HEAL has settled, by sequence number (SPEC §7.4)."""
        return self.forks.open_forks(author, self.branch_through)

    def is_frozen(self, author: bytes) -> bool:
        """Whether the author has an open fork."""
        return self.forks.is_frozen(author, self.branch_through)

    def frozen(self) -> list[bytes]:
        """All authors with an open fork, sorted."""
        return self.forks.frozen(self.branch_through)

    # -- what makes no entry invalid ----------------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        """Forks not healed, nullifiers used twice, closes below a voucher: the same for the same set of entries."""
        found = []
        answerable = self._answerable()
        for author in self.frozen():
            names = answerable.get(author, "")
            for fork in self.open_forks(author):
                pair = f"{fork.first.hex()[:16]}… and {fork.second.hex()[:16]}…"
                found.append(Finding("fork", fork.second, author, f"two entries with number {fork.seq}: {pair}{names}"))
        for uses in self.nullifiers.values():
            if len(uses) > 1:
                (_, (_, _, before)), *again = sorted(uses.items(), key=lambda item: (item[1][0], item[0]))
                for account, (_, entry, signers) in again:
                    stewards = sorted((before | signers) - {account} - set(uses))
                    names = ", ".join(key.hex()[:16] + "…" for key in stewards) or "none: an open network"
                    found.append(Finding("nullifier", entry, account, f"one person enrolled twice; signed by {names}"))
        for close in self.closes.values():
            final = dict(close.final)
            for contributor, credits_ in sorted(self.paid.get(close.request, {}).items()):
                if credits_ > final.get(contributor, 0):
                    message = f"says {final.get(contributor, 0)} where a voucher over {credits_} was signed"
                    found.append(Finding("close-voucher", close.id, close.author, message))
        return sorted(found)

    def _answerable(self) -> dict[bytes, str]:
        """Of each frozen node, in words: the accounts that own it, and whose REQUESTs it pays for (SPEC §8.7)."""
        owners: dict[bytes, set[bytes]] = {}
        for author in self.frozen():
            owners[author] = {chain.owner for chain in self.chains.get(author, ()) if isinstance(chain, NodeChain)}
        payers: dict[bytes, set[bytes]] = {}
        for fact in self.requests.values() if owners else ():
            if fact.paymaster in owners:
                payers.setdefault(fact.paymaster, set()).add(fact.author)
        words = {}
        for author, owned_by in owners.items():
            parts = [
                f"; {what} {_names(accounts)}"
                for what, accounts in (("of", owned_by), ("paymaster of", payers.get(author, set())))
                if accounts
            ]
            words[author] = "".join(parts)
        return words


def _names(accounts: Iterable[bytes]) -> str:
    ordered = sorted(accounts)
    more = f" and {len(ordered) - NAMED_MAX} more" if len(ordered) > NAMED_MAX else ""
    return ", ".join(account.hex()[:16] + "…" for account in ordered[:NAMED_MAX]) + more
