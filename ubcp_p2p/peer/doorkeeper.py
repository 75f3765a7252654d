"""Keeps what the ledger says of the peers of this node's runs: whom each lets in, and who comes first for a seat.

The swarm asks in the event loop, at every heartbeat and card; the ledger lives in a thread of its own. So the answers
are read off a roll (peer/admission.py), which is made anew whenever the ledger or the slice has changed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from ubcp_p2p.errors import UbcpError
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.models.cost import cost_of
from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.peer.admission import Roll, roll_of
from ubcp_p2p.peer.seats import allocated
from ubcp_p2p.peer.serving.book import Book
from ubcp_p2p.swarm.admission import NO_LIMIT, Admission
from ubcp_p2p.swarm.seating import Seating

if TYPE_CHECKING:
    from ubcp_p2p.swarm.ledger import LiveLedger

log = logging.getLogger(__name__)

LOOK_S: Final = 0.5
LOOK_WAIT: Final = 20.0  # times what a look took: under 5 % of the ledger's thread


class Door:
    """That of one run. roll: None while all are let in."""

    def __init__(self, run: bytes, flop_per_sample: int, why_banned: Callable[[bytes], str]) -> None:
        self.run, self.flop_per_sample = run, flop_per_sample
        self.roll: Roll | None = None
        self._why_banned = why_banned
        self.admission = Admission(self._trains, self._reads, self._meets, self._weighs)

    def seats(self, round_: int, peers: Sequence[bytes], seats: int, /) -> Seating:
        """A swarm.seating.ChooseSeats: by paid work where the run is paid for."""
        return allocated(round_, peers, seats, verified=self.roll.units if self.roll is not None else None)

    def _trains(self, peer: bytes) -> str:
        return self.roll.why_no_group(peer) if self.roll is not None else ""

    def _reads(self, peer: bytes) -> str:
        return self.roll.why_no_state(peer) if self.roll is not None else ""

    def _meets(self, peer: bytes) -> str:
        """A ban is what this node alone has seen."""
        return self._why_banned(peer) if self.roll is not None else ""

    def _weighs(self, peer: bytes) -> int:
        return self.roll.weighs(peer) if self.roll is not None else NO_LIMIT


class Doorkeeper:
    """`serve` for the life of the daemon. book: the node's; node: its key; clock: Unix seconds."""

    def __init__(self, ledger: LiveLedger, book: Book, node: bytes, *, clock: Callable[[], float] = time.time) -> None:
        self._ledger, self._book, self._node, self._clock = ledger, book, node, clock
        self._doors: dict[bytes, Door] = {}
        self._seen: object = None  # what the rolls were made of

    async def open(self, run: bytes, recipe: Recipe) -> Door:
        """The door of a run that begins, after a first look. Raises StoreError."""
        door = Door(run, cost_of(recipe).flop_per_sample, self._ledger.why_banned)
        (door.roll,) = await self._ledger.read(lambda store: self._rolls(store, [door]))
        self._doors[run] = door
        return door

    def close(self, run: bytes) -> None:
        """The run has ended here."""
        self._doors.pop(run, None)

    async def serve(self) -> None:
        """Keep the rolls up to date until cancelled."""
        while True:
            began_s = time.monotonic()
            try:
                await self.look()
            except UbcpError as error:  # the rolls stay as they were
                log.warning("who is let in is not looked up now: %s", error.message)
            took_s = time.monotonic() - began_s
            await asyncio.sleep(max(LOOK_S, LOOK_WAIT * took_s))  # the slice changes without an event

    async def look(self) -> None:
        """Make the rolls anew if anything has changed. Raises StoreError."""
        doors = list(self._doors.values())
        if not doors:
            return
        seen = await self._ledger.read(self._signs)
        if (seen, doors) == self._seen:
            return
        rolls = await self._ledger.read(lambda store: self._rolls(store, doors))
        self._seen = seen, doors
        for door, roll in zip(doors, rolls, strict=True):
            door.roll = roll

    # -- in the thread of the ledger ------------------------------------------------------------------------------

    def _signs(self, store: Store) -> tuple[object, ...]:
        """What differs when a roll could."""
        ledger = store.ledger
        return ledger, ledger.entries, len(ledger.charters), tuple(ledger.frozen()), self._slice()

    def _rolls(self, store: Store, doors: Sequence[Door]) -> list[Roll | None]:
        slice_ = self._slice()
        self._book.read(store, slice_)
        return [
            roll_of(
                store.ledger, self._book.activity, door.run, slice_, node=self._node,
                flop_per_sample=door.flop_per_sample,
            )
            for door in doors
        ]  # fmt: skip

    def _slice(self) -> int:
        return self._ledger.charters.first.slice_at(self._clock())
