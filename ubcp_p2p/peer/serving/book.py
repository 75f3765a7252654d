"""A store's requests, decisions and receipts, kept up to date entry by entry. In the thread of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from ubcp_p2p.allocator.problem import Problem
from ubcp_p2p.ledger.activity import Activity, Asked
from ubcp_p2p.ledger.balances import Standing, standing
from ubcp_p2p.ledger.decisions import again, by_slice
from ubcp_p2p.ledger.entry import Decision, Request
from ubcp_p2p.ledger.leases import Leases, counts, holders
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.wire import decode_signed
from ubcp_p2p.peer.serving.problem import Offer, assemble

PAGE: Final = 512
CATCH_UP_SLICES: Final = 4


class Book:
    """What one node goes by, in all its parts: one of them reads an entry, for all.

    first_seen: in which slice a REQUEST came here, of those that came while a node ran. Where that is the slice which
    it says itself, it is not noted.
    """

    def __init__(self, node: bytes, first_seen: Mapping[bytes, int] = MappingProxyType({})) -> None:
        """first_seen: what an earlier Book has noted."""
        self.activity = Activity()
        self.first_seen = dict(first_seen)
        self._node = node
        self._of: Ledger | None = None  # a store that judges anew, or reads its disk again, begins another one
        self._position = 0
        self._begun: int | None = None

    def read(self, store: Store, slice_: int) -> None:
        """Take in what is new in the store; `slice_` is now."""
        if self._begun is None:
            self._begun = slice_
        # Read again, or in the first slices, in which a node catches up: then it is not the request that is new here.
        is_news = self._of is store.ledger and slice_ > self._begun + CATCH_UP_SLICES
        if self._of is not store.ledger:
            self.activity, self._of, self._position = Activity(), store.ledger, 0
        while rows := store.after(self._position, PAGE):
            for row in rows:
                entry = decode_signed(row.data).entry
                self.activity.add(entry)
                if isinstance(entry.body, Request) and is_news and slice_ > entry.slice:
                    self.first_seen.setdefault(entry.id, slice_)
            self._position = rows[-1].position
        over = [id_ for id_ in self.first_seen if self._is_over(id_, slice_)]
        for id_ in over:
            del self.first_seen[id_]

    def _is_over(self, request: bytes, slice_: int) -> bool:
        asked = self.activity.requests.get(request)
        return asked is None or asked.body.deadline < slice_

    def outdated(self, store: Store, slice_: int) -> list[bytes]:
        """Inputs of own decisions that are kept no longer: a period and the grace after their slice."""
        charter = store.ledger.charter_at(slice_)
        oldest = slice_ - charter.period_slices - charter.grace_slices
        own = [one.body for one in self.activity.decisions.values() if one.node == self._node]
        return sorted(
            {body.inputs for body in own if body.slice < oldest} - {b.inputs for b in own if b.slice >= oldest}
        )

    def problem(
        self, store: Store, slice_: int, offer: Offer, considered: Sequence[Asked] = (), *, ahead: int = 0
    ) -> Problem:
        """The problem of `slice_`, after everything that the store has by now, and with what is `considered`.

        ahead: by so many slices; what comes now has come now.
        """
        self.read(store, slice_ - ahead)
        authors = {asked.author for asked in self.activity.requests.values() if asked.body.deadline >= slice_}
        owing = {
            author
            for author in authors
            if standing(store.ledger, author, store.history, slice_).standing is Standing.INDEBTED
        }
        return assemble(store.ledger, self.activity, slice_, offer.knowing(self.first_seen, owing), considered)

    def decided(self, store: Store, slice_: int) -> list[Decision]:
        """This node's own decision on `slice_`, in its parts: after a restart it may have made it already."""
        self.read(store, slice_)
        own = [one for one in self.activity.decisions.values() if one.node == self._node and one.body.slice == slice_]
        return [one.body for rows in by_slice(own) for one in rows if one not in again(rows, store.ledger)]

    def counts(self, store: Store, slice_: int) -> bool:
        """Whether what this node decides on `slice_` counts; while its chain is not open, nobody can say."""
        return self._node not in store.ledger.chains or counts(self._node, slice_, store.ledger)

    def held(self, store: Store, slice_: int) -> list[bytes]:
        """The REQUESTs on which this node's lease of `slice_` holds, by id."""
        self.read(store, slice_)
        leases = Leases(self.activity, store.ledger, since=slice_)
        frozen = set(store.ledger.frozen())
        own = [one.body for one in leases.decided if one.node == self._node and one.body.slice == slice_]
        accepted = {id_ for body in own for id_ in body.accepted}
        found = []
        for id_ in accepted:
            of_it = [lease for lease in leases.of(id_) if lease.node not in frozen]
            if self._node in holders(self.activity.requests[id_], slice_, of_it):
                found.append(id_)
        return sorted(found)
