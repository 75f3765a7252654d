"""The ledger's state: what a set of valid entries leads to, whatever the order they came in (SPEC §8.6). Pure.

rules.py changes it, one valid entry at a time; everything else reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeAlias

from ubcp_p2p.charter.values import Charter, Charters
from ubcp_p2p.ledger.chain import AccountChain, Chain
from ubcp_p2p.ledger.entry import Position
from ubcp_p2p.ledger.wire import Signed

# All applied entries of one author, every branch, in any order. Only asked for when the author has forked.
History: TypeAlias = Callable[[bytes], Iterable[Signed]]


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


class Fork(NamedTuple):
    """Two entries of one author with one sequence number. first < second."""

    seq: int
    first: bytes
    second: bytes


class Healing(NamedTuple):
    """What one HEAL settles: entries on these branches, and the refused ids."""

    positions: tuple[Position, ...]
    refused: frozenset[bytes]


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
        self.forks: dict[bytes, set[Fork]] = {}
        self.healings: dict[bytes, set[Healing]] = {}

    # -- looking up ---------------------------------------------------------------------------------------------

    def charter_at(self, slice_: int) -> Charter:
        """The version that holds in the period of a slice."""
        return self.charters.at(slice_ // self._period_slices)

    def period(self, slice_: int) -> int:
        return slice_ // self._period_slices

    def branch_through(self, position: Position) -> Chain | None:
        """A branch that passes through `position`, or None when that entry is not here."""
        return next((chain for chain in self.chains.get(position.author, ()) if chain.has(position)), None)

    def contains(self, author: bytes, seq: int, id_: bytes) -> bool:
        return self.branch_through(Position(author, seq, id_)) is not None

    def contains_id(self, id_: bytes) -> bool:
        """Whether any entry has this id: a search through everything, for telling apart what is wrong."""
        if id_ in self.requests or id_ in self.allots or id_ in self.closes or id_ in self.openings:
            return True
        return any(chain.seq_of(id_) is not None for chains in self.chains.values() for chain in chains)

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

    def ids(self) -> Iterator[bytes]:
        """The ids of all entries, each once, in no order."""
        for chains in self.chains.values():
            if len(chains) == 1:
                yield from chains[0].ids()
            else:
                yield from {id_ for chain in chains for id_ in chain.ids()}

    # -- forks --------------------------------------------------------------------------------------------------

    def open_forks(self, author: bytes) -> list[Fork]:
        """The author's forks that no HEAL has settled, by sequence number (SPEC §7.4)."""
        return sorted(fork for fork in self.forks.get(author, ()) if not self._is_healed(author, fork))

    def frozen(self) -> list[bytes]:
        """All authors with an open fork, sorted."""
        return sorted(author for author in self.forks if self.open_forks(author))

    def _is_healed(self, author: bytes, fork: Fork) -> bool:
        return any(
            all(self._settles(healing, author, fork.seq, id_) for id_ in (fork.first, fork.second))
            for healing in self.healings.get(author, ())
        )

    def _settles(self, healing: Healing, author: bytes, seq: int, id_: bytes) -> bool:
        branches = self.chains.get(author, ())
        if id_ in healing.refused:
            return not any(chain.id_at(seq) == id_ for chain in branches)
        return any(
            seq <= position.seq and chain.id_at(seq) == id_
            for position in healing.positions
            for chain in branches
            if chain.has(position)
        )

    # -- what makes no entry invalid ----------------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        """Forks not healed, nullifiers used twice, closes below a voucher: the same for the same set of entries."""
        found = []
        for author in self.frozen():
            for fork in self.open_forks(author):
                message = f"two entries with number {fork.seq}: {fork.first.hex()[:16]}… and {fork.second.hex()[:16]}…"
                found.append(Finding("fork", fork.second, author, message))
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
