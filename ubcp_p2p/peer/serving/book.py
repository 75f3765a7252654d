"""A store's requests, decisions and receipts, kept up to date entry by entry. In the thread of the store."""

from __future__ import annotations

from typing import Final

from ubcp_p2p.allocator.problem import Problem
from ubcp_p2p.ledger.activity import Activity
from ubcp_p2p.ledger.balances import Standing, standing
from ubcp_p2p.ledger.entry import Decision, Request
from ubcp_p2p.ledger.leases import holders
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.wire import decode_signed
from ubcp_p2p.peer.serving.problem import Offer, assemble

PAGE: Final = 512


class Book:
    """What one node goes by. first_seen: in which slice a REQUEST came here, of those that came while this ran."""

    def __init__(self, node: bytes) -> None:
        self.activity = Activity()
        self.first_seen: dict[bytes, int] = {}
        self._node = node
        self._of: Ledger | None = None  # a store that judges anew, after a late charter, begins a new one
        self._position = 0

    def read(self, store: Store, slice_: int) -> None:
        """Take in what is new in the store; `slice_` is now."""
        starts = self._of is None
        if self._of is not store.ledger:
            self.activity, self._of, self._position = Activity(), store.ledger, 0
        while rows := store.after(self._position, PAGE):
            for row in rows:
                entry = decode_signed(row.data).entry
                self.activity.add(entry)
                if isinstance(entry.body, Request) and not starts:
                    self.first_seen.setdefault(entry.id, slice_)
            self._position = rows[-1].position

    def problem(self, store: Store, slice_: int, offer: Offer) -> Problem:
        """The problem of `slice_`, after everything that the store has by now."""
        self.read(store, slice_)
        authors = {asked.author for asked in self.activity.requests.values() if asked.body.deadline >= slice_}
        owing = {
            author
            for author in authors
            if standing(store.ledger, author, store.history, slice_).standing is Standing.INDEBTED
        }
        return assemble(store.ledger, self.activity, slice_, offer.knowing(self.first_seen, owing))

    def decided(self, store: Store, slice_: int) -> list[Decision]:
        """This node's own decisions on `slice_`: after a restart it may have made them already."""
        self.read(store, slice_)
        return [
            decided.body
            for decided in self.activity.decisions.values()
            if decided.node == self._node and decided.body.slice == slice_
        ]

    def held(self, store: Store, slice_: int) -> list[bytes]:
        """The REQUESTs on which this node's lease of `slice_` holds, by id."""
        self.read(store, slice_)
        found = []
        for asked in self.activity.requests.values():
            leases = [lease for lease in self.activity.leases(asked.id) if lease.slice == slice_]
            if any(lease.node == self._node for lease in leases) and self._node in holders(asked, slice_, leases):
                found.append(asked.id)
        return sorted(found)
