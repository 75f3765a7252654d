"""What the API tells of the node's ledger: credits, decisions, statistics, entries, and the whole of it as a file.

The same functions as those of `ubcp credits`, `stats` and `ledger`, in the thread of the store.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ubcp_p2p.api.routes import PAGE_MAX
from ubcp_p2p.api.verbs import Attachment
from ubcp_p2p.ledger.decisions import joined
from ubcp_p2p.ledger.finding import credits_of, find, shown
from ubcp_p2p.ledger.spans import periods, span_of
from ubcp_p2p.ledger.stats import statistics
from ubcp_p2p.ledger.stats_document import document
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.transfer import export_store
from ubcp_p2p.ledger.views import decision_view, entry_view
from ubcp_p2p.ledger.wire import decode_signed
from ubcp_p2p.peer.serving.book import Book

if TYPE_CHECKING:
    from ubcp_p2p.swarm.ledger import LiveLedger

PAGE: Final = 50  # entries or decisions where nobody says how many


class Lookups:
    """Reads a LiveLedger; signs and changes nothing. account: whose credits are told unasked. clock: Unix seconds."""

    def __init__(
        self, ledger: LiveLedger, book: Book, account: bytes, node: bytes, *, clock: Callable[[], float] = time.time
    ) -> None:
        """book: read in the thread of the store alone."""
        self._ledger, self._book, self._account, self._node, self._clock = ledger, book, account, node, clock
        self.verbs: Mapping[str, Callable[[Mapping[str, Any]], Awaitable[Any]]] = {
            "credits": self.credits,
            "credits-of": self.credits,
            "decisions": self.decisions,
            "stats": self.stats,
            "entries": self.entries,
            "ledger-show": self.show,
            "ledger-export": self.export,
        }

    async def credits(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What an account can spend, and why. Raises ConfigError, UbcpError for what is no account."""

        def look(store: Store) -> dict[str, Any]:
            account = find(store, str(request["account"])) if "account" in request else self._account
            return credits_of(store, account, self._now(store))

        return await self._ledger.read(look)

    async def decisions(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The newest, of all nodes or of one, by slice. Raises ConfigError, UbcpError for what is no node."""

        def look(store: Store) -> dict[str, Any]:
            node = find(store, str(request["node"])) if "node" in request else None
            self._book.read(store, self._now(store))
            found = [one for one in self._book.activity.decisions.values() if node in (None, one.node)]
            newest = sorted(joined(found), key=lambda one: (-one.body.slice, one.node))
            return {"decisions": [decision_view(store.ledger, one) for one in newest[: _limit(request)]]}

        return await self._ledger.read(look)

    async def stats(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """As `ubcp stats --json`, less where the figures are from. Raises ConfigError, UbcpError."""
        wanted = periods(str(request["period"])) if "period" in request else None

        def look(store: Store) -> dict[str, Any]:
            self._book.read(store, self._now(store))
            span = span_of(wanted, store.ledger, "of this node")
            return document(statistics(self._book.activity, store.ledger, span), store.ledger.charters)

        return await self._ledger.read(look)

    async def entries(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A page, in the order in which they came here. next: where the next page begins, null at the end."""
        limit = _limit(request)

        def look(store: Store) -> dict[str, Any]:
            rows = store.after(int(request.get("after", 0)), limit)
            return {
                "entries": [entry_view(store.ledger, row.position, decode_signed(row.data)) for row in rows],
                "next": rows[-1].position if len(rows) == limit else None,
            }

        return await self._ledger.read(look)

    async def show(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One entry, account or node. Raises ConfigError, UbcpError."""
        return await self._ledger.read(lambda store: shown(store, str(request["digits"])))

    async def export(self, request: Mapping[str, Any]) -> Attachment:
        """The whole ledger, from a file without a name that goes with its last reader. Raises OSError."""

        def write(store: Store) -> Attachment:
            file = tempfile.TemporaryFile()  # noqa: SIM115  # whoever sends it closes it
            try:
                export_store(store, file, log=self._node)
                size = file.tell()
                file.seek(0)
            except BaseException:
                file.close()
                raise
            return Attachment(file, size)

        return await self._ledger.read(write)

    def _now(self, store: Store) -> int:
        return store.ledger.charters.first.slice_at(self._clock())


def _limit(request: Mapping[str, Any]) -> int:
    return min(int(request.get("limit", PAGE)), PAGE_MAX)
