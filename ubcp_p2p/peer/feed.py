"""What happens on a node, for those who follow it over the API: one numbered list, of which the newest part is kept."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ubcp_p2p.peer.run import Run
    from ubcp_p2p.swarm.ledger import LedgerEvent
    from ubcp_p2p.swarm.run import Event

KEPT: Final = 2000
QUEUE_MAX: Final = 1000  # a follower that does not read loses events, not us memory
PASSING: Final = "progress"  # told, and not kept: some a second


class Feed:
    """Numbers begin anew with each start of the node, so an id carries a mark of the start too."""

    def __init__(self) -> None:
        self._mark = secrets.token_hex(4)
        self._count = 0
        self._kept: deque[tuple[int, dict[str, Any]]] = deque(maxlen=KEPT)
        self._followers: set[asyncio.Queue[tuple[int, dict[str, Any]] | None]] = set()

    def tell(self, topic: str, kind: str, data: Mapping[str, Any]) -> None:
        """Something has happened. data: JSON types, of any names."""
        document = {**data, "topic": topic, "kind": kind, "time": round(time.time(), 3)}
        if kind != PASSING:
            self._count += 1
            self._kept.append((self._count, document))
        for follower in self._followers:
            if follower.qsize() < QUEUE_MAX:
                follower.put_nowait((self._count, document))

    def hear_run(self, run: Run, event: Event) -> None:
        """A listener of Runs."""
        self.tell("run", event.kind, {**event.data, "run": run.name, "round": event.round})

    def hear_ledger(self, event: LedgerEvent) -> None:
        """An observer of the LiveLedger: of entries only how many."""
        data = {"entries": len(event.data["entries"])} if event.kind == "added" else event.data
        self.tell("ledger", event.kind, data)

    def end(self) -> None:
        """Nothing more will happen: the node stops."""
        for follower in self._followers:
            follower.put_nowait(None)

    async def follow(
        self, run: str | None = None, last_id: str | None = None
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """(id, document) from the one after `last_id` on; without one, from now on.

        last_id: of another start of the node it stands for all that is kept. run: its events alone. Ends with the node.
        """
        queue: asyncio.Queue[tuple[int, dict[str, Any]] | None] = asyncio.Queue()
        for kept in self._since(last_id):
            queue.put_nowait(kept)
        self._followers.add(queue)
        try:
            while (item := await queue.get()) is not None:
                number, document = item
                if run is None or document.get("run") == run:
                    yield f"{self._mark}-{number}", document
        finally:
            self._followers.discard(queue)

    def _since(self, last_id: str | None) -> list[tuple[int, dict[str, Any]]]:
        mark, _, number = (last_id or "").partition("-")
        if mark != self._mark or not (number.isascii() and number.isdigit() and len(number) <= 20):
            return [] if last_id is None else list(self._kept)
        return [item for item in self._kept if item[0] > int(number)]
