"""The REQUESTs that a paymaster has in memory: each is loaded once, and leaves while nobody works with it.

Two copies of one tab would pay twice, or forget what one of them has promised.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ubcp_p2p.errors import UbcpError
from ubcp_p2p.files import atomic_write, read_limited
from ubcp_p2p.ledger.entry import ZERO, Request
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.models.cost import cost_of
from ubcp_p2p.models.recipe import Recipe, run_id
from ubcp_p2p.models.unchecked import unchecked
from ubcp_p2p.peer.paying.job import Job
from ubcp_p2p.peer.paying.share import share_of
from ubcp_p2p.peer.paying.tab import TAB_BYTES_MAX, BillRefused, NotYet, Tab, Terms

if TYPE_CHECKING:
    from ubcp_p2p.swarm.ledger import LiveLedger

log = logging.getLogger(__name__)

JOBS_MAX: Final = 256
FETCHES_MAX: Final = 8  # recipes that are asked of peers at one time: anybody may name this node in a REQUEST


class Jobs:
    """paymaster: this node's key. folder: where tabs are kept."""

    def __init__(self, ledger: LiveLedger, paymaster: bytes, folder: Path) -> None:
        self._ledger, self._paymaster, self._folder = ledger, paymaster, folder
        self._jobs: dict[bytes, Job] = {}  # the longest unused first
        self._loading: dict[bytes, asyncio.Task[None]] = {}
        self._fetches = 0

    def get(self, request: bytes) -> Job | None:
        """A job that is in memory."""
        return self._jobs.get(request)

    def all(self) -> Collection[Job]:
        """Those in memory: all that have rounds on hold, and others that were used lately."""
        return list(self._jobs.values())

    @asynccontextmanager
    async def using(self, request: bytes) -> AsyncIterator[Job]:
        """The one job of a REQUEST, which stays in memory meanwhile.

        Raises BillRefused for what this node does not pay for, UbcpError for what cannot be read.
        """
        while (job := self._jobs.get(request)) is None:
            loading = self._loading.get(request)
            if loading is None:
                loading = self._loading[request] = asyncio.create_task(self._load(request))
                loading.add_done_callback(lambda task: self._loaded(request, task))
            await asyncio.shield(loading)  # of all who wait for it
        self._jobs[request] = self._jobs.pop(request)
        with job.in_use():
            yield job

    @asynccontextmanager
    async def beside(self, requests: Collection[bytes]) -> AsyncIterator[list[Job]]:
        """The jobs of those that anybody has billed, which stay in memory meanwhile; one whose tab cannot be read is
        left out, or it would hold up the others. Raises NotYet where there is no room for them."""
        async with AsyncExitStack() as stack:
            found = []
            for request in sorted(requests):
                if self._jobs.get(request) is None and not self.path(request).exists():
                    continue
                try:
                    found.append(await stack.enter_async_context(self.using(request)))
                except NotYet:
                    raise
                except UbcpError as error:
                    log.warning("the tab of the request %s… is not read now: %s", request.hex()[:16], error.message)
            yield found

    async def close(self) -> None:
        """Load nothing more."""
        tasks = list(self._loading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def keep(self, job: Job) -> None:
        """What the tab says is on the disk afterwards. Raises LocalIOError."""
        job.unkept = True
        await asyncio.to_thread(atomic_write, self.path(job.request), job.tab.to_bytes())
        job.unkept = False

    def on_disk(self) -> Iterator[tuple[bytes, Tab]]:
        """All tabs by REQUEST, without what the ledger says of them; one that cannot be read is left out."""
        for path in self._folder.glob("*.tab"):
            try:
                request = bytes.fromhex(path.stem)
                terms = Terms(request, ZERO, 0, 0, 0, 0, 0)
                yield request, Tab.from_bytes(read_limited(path, bytes_max=TAB_BYTES_MAX), terms)
            except (UbcpError, ValueError, FileNotFoundError) as error:
                log.warning("%s is not read: %s", path, error)

    def path(self, request: bytes) -> Path:
        """Of its tab."""
        return self._folder / f"{request.hex()}.tab"

    def _loaded(self, request: bytes, task: asyncio.Task[None]) -> None:
        del self._loading[request]
        if not task.cancelled():
            task.exception()  # whoever waited was told; perhaps all have hung up

    async def _load(self, request: bytes) -> None:
        hash_, is_here = await self._ledger.read(lambda store: self._needs(store, request))
        if not is_here and self._fetches >= FETCHES_MAX:
            raise NotYet("this node fetches other recipes now; ask again")
        self._fetches += not is_here
        try:
            recipe = await self._ledger.find(hash_, partial(Recipe.from_bytes, where="the recipe of a request"))
        finally:
            self._fetches -= not is_here
        if recipe is None:
            raise NotYet("this node does not have the recipe of that request")
        job = await self._ledger.read(lambda store: self._read(store, request, recipe))
        if len(self._jobs) >= JOBS_MAX:
            self._make_room()
        self._jobs[request] = job

    def _make_room(self) -> None:
        """Drop what was not used for the longest time. Raises NotYet where all are needed."""
        idle = (id_ for id_, job in self._jobs.items() if job.is_idle)
        longest = next(idle, None)
        if longest is None:
            raise NotYet("this node has as many requests to pay for as it can; ask again")
        del self._jobs[longest]

    def _needs(self, store: Store, request: bytes) -> tuple[bytes, bool]:
        """The hash of the recipe, and whether it is here."""
        recipe = self._body(store, request).recipe
        return recipe, store.blob(recipe) is not None

    def _body(self, store: Store, request: bytes) -> Request:
        fact, signed = store.ledger.requests.get(request), store.entry(request)
        if fact is None or signed is None or fact.paymaster != self._paymaster:
            raise BillRefused("this node is not the paymaster of such a request")
        body = signed.entry.body
        assert isinstance(body, Request)
        return body

    def _read(self, store: Store, request: bytes, recipe: Recipe) -> Job:
        body = self._body(store, request)
        cost = cost_of(recipe)
        terms = Terms(
            request, run_id(body.run, body.recipe), cost.flop_per_sample, cost.samples_per_round,
            recipe.rounds.peers_max, recipe.rounds.total, body.credits,
            share_of(body) if unchecked(recipe) else None,
        )  # fmt: skip
        allots: dict[bytes, tuple[bytes, int]] = {}
        own = (a for a in store.ledger.allots.values() if a.request == request and a.paymaster == self._paymaster)
        for allot in sorted(own, key=lambda allot: allot.seq):
            allots[allot.contributor] = (allot.id, allot.credits)
        path = self.path(request)
        tab = Tab(terms)
        if path.exists():
            tab = Tab.from_bytes(read_limited(path, bytes_max=TAB_BYTES_MAX), terms)
        closed = any(close.request == request for close in store.ledger.closes.values())
        return Job(terms, recipe, tab, allots, body.expiry, body.run, closed=closed)
