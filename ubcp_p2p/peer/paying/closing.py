"""Closes the REQUESTs of a paymaster whose expiry and grace are over: by exactly what its vouchers say."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ubcp_p2p.errors import UbcpError
from ubcp_p2p.ledger.chain import NodeChain
from ubcp_p2p.ledger.entry import Close
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.peer.paying.jobs import Jobs

if TYPE_CHECKING:
    from ubcp_p2p.swarm.ledger import LiveLedger

log = logging.getLogger(__name__)


class Closer:
    """paymaster: this node's key. clock: Unix seconds."""

    def __init__(
        self, ledger: LiveLedger, paymaster: bytes, jobs: Jobs, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._ledger, self._paymaster, self._jobs, self._clock = ledger, paymaster, jobs, clock
        self._looked: set[bytes] = set()  # whose tabs were in memory once: what they hold is settled since
        self._written: set[bytes] = set()  # a CLOSE may be a draft for a while

    async def look(self) -> None:
        """Load what waits for checks since before a restart, and close what is over; one that fails stops no other.

        Raises StoreError.
        """
        over, begun = await self._ledger.read(self._open)
        self._looked &= begun
        for request in sorted(begun - self._looked):
            try:
                async with self._jobs.using(request):
                    self._looked.add(request)
            except UbcpError as error:
                log.warning("the tab of the request %s… is not read now: %s", request.hex()[:16], error.message)
        self._written &= over
        if over and not await self._ledger.may_write():
            return  # a CLOSE that waited as a draft would say what is owed now, and not then
        for request in sorted(over - self._written):
            try:
                await self._close(request)
            except UbcpError as error:
                log.warning("the request %s… is not closed now: %s", request.hex()[:16], error.message)

    async def _close(self, request: bytes) -> None:
        if self._jobs.get(request) is None and not self._jobs.path(request).exists():
            await self._write(request, {})  # nobody has billed it
            return
        async with self._jobs.using(request) as job, job.lock:
            if job.tab.holds:
                return  # they are settled first
            was_closed, job.closed = job.closed, True  # from here on nothing more is promised
            try:
                await self._write(request, {a.opening: a.units for a in job.tab.accounts.values()})
            except BaseException:
                job.closed = was_closed
                raise

    async def _write(self, request: bytes, promised: Mapping[bytes, int]) -> None:
        body = await self._ledger.read(lambda store: self._body(store, request, promised))
        if await self._ledger.write(body) is not None:
            log.info("closed the request %s…: %d µcredits go back", request.hex()[:16], body.returned)
        self._written.add(request)

    def _open(self, store: Store) -> tuple[set[bytes], set[bytes]]:
        """The REQUESTs that nobody has closed: those whose expiry and grace are over, and those with a tab here."""
        ledger, now = store.ledger, self._slice()
        if not isinstance(ledger.branch_of(self._paymaster), NodeChain):
            return set(), set()
        closed = {close.request for close in ledger.closes.values()}
        own = [f for f in ledger.requests.values() if f.paymaster == self._paymaster and f.id not in closed]
        over = {fact.id for fact in own if now > fact.expiry + ledger.charter_at(fact.slice).grace_slices}
        return over, {fact.id for fact in own if self._jobs.path(fact.id).exists()}

    def _body(self, store: Store, request: bytes, promised: Mapping[bytes, int]) -> Close:
        """By the vouchers that this node has signed, and what RECEIPTs say of ones that it has forgotten."""
        ledger, own = store.ledger, store.ledger.branch_of(self._paymaster)
        assert isinstance(own, NodeChain)
        paid, allots = ledger.paid.get(request, {}), own.allots.get(request, {})
        final = tuple(
            (opening, min(limit, max(promised.get(opening, 0), paid.get(opening, 0))))
            for opening, limit in sorted(allots.items())
        )
        return Close(request, final, ledger.requests[request].credits - sum(credits_ for _, credits_ in final))

    def _slice(self) -> int:
        return self._ledger.charters.first.slice_at(self._clock())
