"""A contributor's side: bills each round, keeps the newest voucher, writes receipts, and stops when nobody pays.

A voucher is on the disk before anything follows from it. One RECEIPT a slice and REQUEST, for what has grown: what a
payer that vanishes leaves is what its newest voucher says. A restart goes on with what is on the disk, lease or not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ubcp_p2p.errors import NetworkError, UbcpError
from ubcp_p2p.keys import verify
from ubcp_p2p.ledger.activity import Asked
from ubcp_p2p.ledger.entry import Receipt, Request, voucher_digest
from ubcp_p2p.ledger.faults import LedgerError, Pending
from ubcp_p2p.ledger.redeeming import check_redeemable
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.models.cost import UNIT_FLOP, cost_of
from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.peer.paying.bill import bill_of
from ubcp_p2p.peer.paying.owed import AGAIN_S, PAUSE_S, Owed
from ubcp_p2p.peer.paying.shelf import Shelf
from ubcp_p2p.peer.paying.tab import BillRefused, NothingMore, NotYet
from ubcp_p2p.peer.paying.wire import (
    ANSWER_S,
    MESSAGE_BYTES_MAX,
    PROTOCOL,
    Promise,
    Statement,
    What,
    answered,
    question,
)
from ubcp_p2p.swarm.events import Committed
from ubcp_p2p.verification.draw import draws_of

if TYPE_CHECKING:
    from ubcp_p2p.swarm.ledger import LiveLedger
    from ubcp_p2p.swarm.network import Network

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
STOCK_S: Final = 10.0  # how often the disk is held against the ledger, which may learn of a REQUEST late
BILLING_MAX: Final = 64  # paymasters that are asked at one time


class Contributor:
    """`serve` for the life of the daemon. rounds_unpaid_max: so many rounds are done for nothing at most.

    stop: told of a REQUEST that is worked for no longer, and why. clock: Unix seconds.
    """

    def __init__(
        self, network: Network, ledger: LiveLedger, folder: Path, device: str, rounds_unpaid_max: int,
        stop: Callable[[Asked, str], Awaitable[None]], *, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._network, self._ledger, self._shelf, self._device = network, ledger, Shelf(folder), device
        self._rounds_unpaid_max, self._stop, self._clock = rounds_unpaid_max, stop, clock
        self._jobs: dict[bytes, Owed] = {}
        self._last = b""  # whose turn to be asked was the last one
        self._trouble = ""  # why no RECEIPT is written, as the log has it
        self._news = asyncio.Event()

    async def recipe_of(self, asked: Asked) -> Recipe:
        """From here, or from a peer, by its hash. Raises UbcpError."""
        parse = partial(Recipe.from_bytes, where=f"the recipe of the run {asked.body.run!r}")
        recipe = await self._ledger.find(asked.body.recipe, parse)
        if recipe is None:
            raise NetworkError(
                f"no peer has the recipe of the run {asked.body.run!r}", hint="it is asked for again in the next slice"
            )
        return recipe

    def work_for(self, asked: Asked, recipe: Recipe) -> Owed:
        """Bill for this REQUEST from now on; what was promised and what was owed before a restart count."""
        job = self._job(asked, recipe)
        job.begin()
        self._news.set()
        return job

    def jobs(self) -> list[Owed]:
        return list(self._jobs.values())

    def on_round(self, committed: Committed) -> None:
        """A round was committed: billed to the REQUEST that this node has named on its card, if it named one."""
        certificate, me = committed.certificate, self._network.public
        seat = certificate.group.seat_of(me)
        job = self._jobs.get(seat.payer) if seat is not None else None
        if seat is not None and job is not None:
            drawn = me in draws_of(certificate, job.recipe)
            bill = bill_of(committed, me, drawn=drawn).to_bytes()
            job.work(bill, seat.weight * job.cost.flop_per_sample, time.monotonic(), drawn=drawn)
            self._news.set()

    async def serve(self) -> None:
        """Bill and write receipts until cancelled."""
        self._shelf.open()
        billing: dict[bytes, asyncio.Task[None]] = {}  # one each: a slow paymaster delays its own pay alone
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_stock())
            while True:
                self._news.clear()
                billing = {id_: task for id_, task in billing.items() if not task.done()}
                self._look(tasks, billing)
                await self._write_receipts()
                try:
                    async with asyncio.timeout(LOOK_S):
                        await self._news.wait()
                except TimeoutError:
                    pass

    def _look(self, tasks: asyncio.TaskGroup, billing: dict[bytes, asyncio.Task[None]]) -> None:
        """Ask those that have something to be asked, in turn; and leave whoever pays too little, asked or not."""
        now_s, slice_ = time.monotonic(), self._slice()
        for job in self._in_turn():
            id_ = job.asked.id
            if job.is_over(slice_):
                continue
            asks = id_ in billing or job.asks(now_s)
            if asks and id_ not in billing and len(billing) < BILLING_MAX:
                billing[id_] = tasks.create_task(self._bill(job))
                self._last = id_
            if not job.worked or job.stopped:
                continue
            if job.is_kept_waiting(now_s, self._rounds_unpaid_max) or (not asks and self._is_overdue(job, now_s)):
                self._give_up(job, now_s)
                tasks.create_task(self._leave(job))

    def _in_turn(self) -> list[Owed]:
        """All, from the one on whose turn the last look has ended."""
        jobs, ids = self.jobs(), list(self._jobs)
        place = ids.index(self._last) + 1 if self._last in self._jobs else 0
        return jobs[place:] + jobs[:place]

    async def _bill(self, job: Owed) -> None:
        worked = job.worked  # a lease that begins meanwhile is asked for anew, before anybody is left
        if job.unkept:
            await self._keep(job)
        if job.stopped:
            return
        try:
            if time.monotonic() >= job.not_before_s:
                await self._ask_for_pay(job)
        except NothingMore as error:
            log.warning("%s: %s; no more is done for it", job.asked.body.run, error.message)
            job.words = error.message
            job.write_off()
            await self._keep(job)
            await self._leave(job)
            return
        except NotYet as error:
            job.words, job.greeted = error.message, False  # it may have lost its tab
            job.put_off(time.monotonic())
        except UbcpError as error:
            job.words = error.message
            if not worked:
                job.put_off(time.monotonic())
        now_s = time.monotonic()
        if worked and not job.stopped and self._is_overdue(job, now_s):
            self._give_up(job, now_s)
            await self._leave(job)

    def _is_overdue(self, job: Owed, now_s: float) -> bool:
        return job.is_overdue(now_s, self._rounds_unpaid_max)

    def _give_up(self, job: Owed, now_s: float) -> None:
        why = (
            f"the work of {job.unpaid_rounds(now_s)} rounds is not in the paymaster's voucher"
            f"{': ' + job.words if job.words else ''}; no more is done for it"
        )
        log.warning("%s: %s", job.asked.body.run, why)
        job.words, job.stopped = why, True

    async def _leave(self, job: Owed) -> None:
        await self._stop(job.asked, job.words)

    async def _ask_for_pay(self, job: Owed) -> None:
        """Raises NothingMore, NotYet, and other UbcpErrors where the same is to be asked again soon."""
        if job.promise is not None and job.paid < job.credits:  # it was kept: it counts once its ALLOT is here
            job.paid = max(job.paid, await self._worth(job.promise))
        if not job.greeted:
            await self._ask(job.asked, What.HELLO, self._device.encode())
            job.greeted = True
        while job.bills and not job.stopped:
            bill = job.bills[0]
            try:
                statement = Statement.of(await self._ask(job.asked, What.BILL, bill))
            except (NothingMore, NotYet):
                raise
            except BillRefused as error:  # this one is not paid, however often it is asked; the next one may be
                job.words = error.message
                job.settle(bill)
                continue
            job.settle(bill)
            await self._take(job, statement)
        if job.held and time.monotonic() - job.stated_s >= AGAIN_S:
            await self._take(job, Statement.of(await self._ask(job.asked, What.AGAIN, b"")))
        job.pause_s = PAUSE_S

    async def _take(self, job: Owed, statement: Statement) -> None:
        """Keep a voucher that is ours, well signed, worth something, and not less than before. Raises BillRefused."""
        promise = statement.promise
        voucher, body = promise.voucher, job.asked.body
        if (
            voucher.network != self._ledger.charters.network
            or voucher.paymaster != body.paymaster
            or voucher.request != job.asked.id
            or voucher.contributor != self._network.public
            or not verify(body.paymaster, "voucher", voucher_digest(voucher), promise.signature)
        ):
            raise BillRefused("the paymaster sent a voucher that is not ours, or is not signed by it")
        before = job.promise.voucher if job.promise is not None else voucher
        if voucher.credits < before.credits or voucher.rounds < before.rounds or voucher.seconds < before.seconds:
            raise BillRefused("the paymaster sent a voucher over less than before")
        worth = await self._worth(promise)
        await asyncio.to_thread(self._shelf.keep_promise, job.asked.id, promise)
        job.promise, job.words = promise, statement.words
        job.held, job.stated_s = statement.held, time.monotonic()
        job.paid = max(job.paid, worth)

    async def _worth(self, promise: Promise) -> int:
        """µcredits that a RECEIPT over this could hold; 0 while its ALLOT is not here. Raises BillRefused."""
        now, node, receipt = self._slice(), self._network.public, Receipt(*promise)
        try:
            await self._ledger.read(lambda store: check_redeemable(store.ledger, node, now, receipt))
        except Pending:
            return 0
        except LedgerError as error:
            raise BillRefused(f"the paymaster sent a voucher that is worth nothing: {error.message}") from None
        return promise.voucher.credits

    async def _write_receipts(self) -> None:
        """One a slice and REQUEST. What no rule forbids is tried again at the next look: nobody else writes it."""
        slice_ = self._slice()
        for job in self.jobs():
            if job.looked == slice_ or job.is_over(slice_):
                continue
            try:
                await self._write_receipt(job, slice_)
            except UbcpError as error:  # the disk, the clock, a forked backup: no fault of the voucher
                job.words = f"no receipts are written now: {error.message}"
                if job.words != self._trouble:
                    log.error("%s%s", job.words, f"; {error.hint}" if error.hint else "")
                self._trouble = job.words

    async def _write_receipt(self, job: Owed, slice_: int) -> None:
        """Raises what `LiveLedger.write` raises, but for LedgerError."""
        promise, is_last = job.promise, slice_ == job.last  # in the last slice, what comes late is in time too
        if promise is None or promise.voucher.credits <= job.receipted:
            if not is_last:
                job.looked = slice_
            return
        try:
            if not await self._ledger.may_write():
                return
            if await self._ledger.write(Receipt(*promise)) is not None:
                job.receipted, self._trouble = promise.voucher.credits, ""
            job.looked = slice_
        except LedgerError as error:
            if error.code == "receipt-grows":  # written before a restart
                job.receipted = promise.voucher.credits
            elif is_last and error.code == "unknown-reference":  # the ALLOT may arrive yet
                return
            else:  # it may have not arrived yet, or this slice has a RECEIPT: the next slice has it
                log.info("no receipt for %s in slice %d: %s", job.asked.body.run, slice_, error.message)
            job.looked = slice_

    async def _ask(self, asked: Asked, what: What, payload: bytes) -> Any:
        async with self._network.open(asked.body.paymaster, PROTOCOL, timeout_s=ANSWER_S) as stream:
            await stream.send(question(what, asked.id, payload), timeout_s=ANSWER_S, bytes_max=MESSAGE_BYTES_MAX)
            return answered(await stream.receive(timeout_s=ANSWER_S, bytes_max=MESSAGE_BYTES_MAX))

    async def _keep(self, job: Owed) -> None:
        """What is owed is on the disk before the paymaster is asked for it; a disk that is full stops no work."""
        job.unkept = False
        data = job.to_bytes(time.monotonic(), self._clock())
        try:
            await asyncio.to_thread(self._shelf.keep_owed, job.asked.id, data)
        except UbcpError as error:
            job.unkept, job.words = True, error.message
            log.warning("what %s owes is not kept: %s", job.asked.body.run, error.message)

    def _slice(self) -> int:
        return self._ledger.charters.first.slice_at(self._clock())

    # -- what a restart left, and what is over -------------------------------------------------------------------

    async def _keep_stock(self) -> None:
        words = ""
        while True:
            try:
                await self._take_stock(self._slice())
                words = ""
            except UbcpError as error:
                if error.message != words:
                    log.warning("what was owed before a restart is not all read yet: %s", error.message)
                words = error.message
            await asyncio.sleep(STOCK_S)

    async def _take_stock(self, slice_: int) -> None:
        """Go on with what is on the disk and can still be had; a period after it cannot, forget it.

        Raises UbcpError where a recipe is missing, when all others are done; StoreError.
        """
        wanted = {*await asyncio.to_thread(self._shelf.requests), *self._jobs}
        missing: UbcpError | None = None
        for asked, last in await self._ledger.read(lambda store: self._look_up(store, wanted)):
            job = self._jobs.get(asked.id)
            if slice_ > last + self._ledger.charters.first.period_slices:
                self._jobs.pop(asked.id, None)
                await asyncio.to_thread(self._shelf.forget, asked.id)
            elif job is not None:
                job.last = last
            elif slice_ <= last:
                try:
                    recipe = await self.recipe_of(asked)
                except UbcpError as error:
                    missing = error
                    continue
                if asked.id not in self._jobs:  # no lease has begun meanwhile
                    job = self._job(asked, recipe)
                    job.last, job.greeted = last, True  # without a lease it would be turned away
                    self._news.set()
        if missing is not None:
            raise missing

    def _look_up(self, store: Store, wanted: Iterable[bytes]) -> list[tuple[Asked, int]]:
        """Those that the ledger has, with the last slice that takes a RECEIPT. In the ledger's thread."""
        found = []
        for id_ in wanted:
            signed = store.entry(id_) if id_ in store.ledger.requests else None
            if signed is not None and isinstance(body := signed.entry.body, Request):
                asked = Asked(id_, signed.entry.author, signed.entry.slice, body)
                found.append((asked, body.expiry + store.ledger.charter_at(asked.slice).grace_slices))
        return found

    def _job(self, asked: Asked, recipe: Recipe) -> Owed:
        job = self._jobs.get(asked.id)
        if job is None:
            job = self._jobs[asked.id] = Owed(asked, recipe, cost_of(recipe), self._shelf.promise(asked))
            job.done = job.credits * UNIT_FLOP
            self._shelf.recall(job, time.monotonic(), self._clock())
        return job
