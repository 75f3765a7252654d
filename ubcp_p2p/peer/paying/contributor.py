"""A contributor's side: bills each round, keeps the newest voucher, writes receipts, and stops when nobody pays.

A voucher is on the disk before anything follows from it. One RECEIPT a slice and REQUEST, for what has grown: what a
payer that vanishes leaves is what its newest voucher says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ubcp_p2p.codec import decode, encode
from ubcp_p2p.errors import NetworkError, UbcpError
from ubcp_p2p.files import atomic_write, read_limited
from ubcp_p2p.keys import verify
from ubcp_p2p.ledger.activity import Asked
from ubcp_p2p.ledger.entry import Receipt, voucher_digest
from ubcp_p2p.ledger.faults import LedgerError, Pending
from ubcp_p2p.ledger.redeeming import check_redeemable
from ubcp_p2p.models.cost import UNIT_FLOP, cost_of
from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.peer.paying.bill import bill_of
from ubcp_p2p.peer.paying.owed import OWED_BYTES_MAX, PAUSE_S, Owed
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
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.events import Committed
from ubcp_p2p.verification.draw import draws_of

if TYPE_CHECKING:
    from ubcp_p2p.swarm.ledger import LiveLedger
    from ubcp_p2p.swarm.network import Network

log = logging.getLogger(__name__)

PROMISE_BYTES_MAX: Final = 1024
LOOK_S: Final = 1.0
AGAIN_S: Final = 2.0
BILLING_MAX: Final = 64  # paymasters that are asked at one time


class Contributor:
    """`serve` for the life of the daemon. rounds_unpaid_max: so many rounds are done for nothing at most.

    stop: told of a REQUEST that is worked for no longer, and why. clock: Unix seconds.
    """

    def __init__(
        self, network: Network, ledger: LiveLedger, folder: Path, device: str, rounds_unpaid_max: int,
        stop: Callable[[Asked, str], Awaitable[None]], *, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._network, self._ledger, self._folder, self._device = network, ledger, folder, device
        self._rounds_unpaid_max, self._stop, self._clock = rounds_unpaid_max, stop, clock
        self._jobs: dict[bytes, Owed] = {}
        self._news = asyncio.Event()

    async def recipe_of(self, asked: Asked) -> Recipe:
        """From here, or from a peer, by its hash. Raises UbcpError."""
        data = await self._ledger.find(asked.body.recipe)
        if data is None:
            raise NetworkError(
                f"no peer has the recipe of the run {asked.body.run!r}", hint="it is asked for again in the next slice"
            )
        return Recipe.from_bytes(data, f"the recipe of the run {asked.body.run!r}")

    def work_for(self, asked: Asked, recipe: Recipe) -> Owed:
        """Bill for this REQUEST from now on; what was promised and what was owed before a restart count."""
        job = self._jobs.get(asked.id)
        if job is None:
            job = self._jobs[asked.id] = Owed(asked, recipe, cost_of(recipe), self._kept(asked))
            job.done = job.credits * UNIT_FLOP
            self._recall(job)
        self._news.set()
        return job

    def jobs(self) -> list[Owed]:
        return list(self._jobs.values())

    def on_round(self, requests: list[bytes], committed: Committed) -> None:
        """A round was committed: billed to one of the REQUESTs that pay for the run, in turn."""
        certificate = committed.certificate
        jobs = [self._jobs[id_] for id_ in sorted(requests) if id_ in self._jobs]
        weight = next((seat.weight for seat in certificate.group.members if seat.peer == self._network.public), 0)
        if jobs and weight:
            job = jobs[certificate.round % len(jobs)]
            drawn = self._network.public in draws_of(certificate, job.recipe)
            bill = bill_of(committed, self._network.public, drawn=drawn).to_bytes()
            job.work(bill, weight * job.cost.flop_per_sample, time.monotonic(), drawn=drawn)
            self._news.set()

    async def serve(self) -> None:
        """Bill and write receipts until cancelled."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        slice_ = -1
        billing: dict[bytes, asyncio.Task[None]] = {}  # one each: a slow paymaster delays its own pay alone
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._news.clear()
                billing = {id_: task for id_, task in billing.items() if not task.done()}
                for job in self.jobs():
                    if job.asked.id not in billing and len(billing) < BILLING_MAX:
                        billing[job.asked.id] = tasks.create_task(self._bill(job))
                now = self._ledger.charters.first.slice_at(self._clock())
                if now != slice_:
                    slice_ = now
                    for job in self.jobs():
                        await self._write_receipt(job, now)
                try:
                    async with asyncio.timeout(LOOK_S):
                        await self._news.wait()
                except TimeoutError:
                    pass

    async def _bill(self, job: Owed) -> None:
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
            await self._stop(job.asked, error.message)
            return
        except NotYet as error:
            job.words, job.greeted = error.message, False  # it may have lost its tab
            job.put_off(time.monotonic())
        except UbcpError as error:
            job.words = error.message
        now_s = time.monotonic()
        if job.is_overdue(now_s, self._rounds_unpaid_max):
            unpaid = job.unpaid_rounds(now_s)
            why = (
                f"the work of {unpaid} rounds is not in the paymaster's voucher"
                f"{': ' + job.words if job.words else ''}; no more is done for it"
            )
            log.warning("%s: %s", job.asked.body.run, why)
            job.words, job.stopped = why, True
            await self._stop(job.asked, why)

    async def _ask_for_pay(self, job: Owed) -> None:
        """Raises NothingMore, NotYet, and other UbcpErrors where the same is to be asked again soon."""
        if job.promise is not None and job.paid < job.credits:  # it was kept: it counts once its ALLOT is here
            job.paid = max(job.paid, await self._worth(job.promise))
        if not job.greeted:
            await self._ask(job.asked, What.HELLO, self._device.encode())
            job.greeted = True
        while job.bills:
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
        await asyncio.to_thread(atomic_write, self._path(job.asked.id), encode(promise.to_value()))
        job.promise, job.words = promise, statement.words
        job.held, job.stated_s = statement.held, time.monotonic()
        job.paid = max(job.paid, worth)

    async def _worth(self, promise: Promise) -> int:
        """µcredits that a RECEIPT over this could hold; 0 while its ALLOT is not here. Raises BillRefused."""
        now = self._ledger.charters.first.slice_at(self._clock())
        node, receipt = self._network.public, Receipt(*promise)
        try:
            await self._ledger.read(lambda store: check_redeemable(store.ledger, node, now, receipt))
        except Pending:
            return 0
        except LedgerError as error:
            raise BillRefused(f"the paymaster sent a voucher that is worth nothing: {error.message}") from None
        return promise.voucher.credits

    async def _write_receipt(self, job: Owed, slice_: int) -> None:
        if job.promise is None or job.credits <= job.receipted:
            return
        try:
            if await self._ledger.may_write() and await self._ledger.write(Receipt(*job.promise)) is not None:
                job.receipted = job.credits
        except LedgerError as error:
            if error.code == "receipt-grows":  # written before a restart
                job.receipted = job.credits
            else:  # the ALLOT may not have arrived yet, or this slice has one: the next slice has it
                log.info("no receipt for %s in slice %d: %s", job.asked.body.run, slice_, error.message)

    async def _ask(self, asked: Asked, what: What, payload: bytes) -> Any:
        async with self._network.open(asked.body.paymaster, PROTOCOL, timeout_s=ANSWER_S) as stream:
            await stream.send(question(what, asked.id, payload), timeout_s=ANSWER_S, bytes_max=MESSAGE_BYTES_MAX)
            return answered(await stream.receive(timeout_s=ANSWER_S, bytes_max=MESSAGE_BYTES_MAX))

    def _path(self, request: bytes, kind: str = "voucher") -> Path:
        return self._folder / f"{request.hex()}.{kind}"

    async def _keep(self, job: Owed) -> None:
        """What is owed is on the disk before the paymaster is asked for it; a disk that is full stops no work."""
        job.unkept = False
        data = job.to_bytes(time.monotonic(), self._clock())
        try:
            await asyncio.to_thread(atomic_write, self._path(job.asked.id, "owed"), data)
        except UbcpError as error:
            job.unkept, job.words = True, error.message
            log.warning("what %s owes is not kept: %s", job.asked.body.run, error.message)

    def _recall(self, job: Owed) -> None:
        path = self._path(job.asked.id, "owed")
        if not path.exists():
            return
        try:
            job.recall(read_limited(path, bytes_max=OWED_BYTES_MAX), time.monotonic(), self._clock())
        except UbcpError as error:
            log.warning("what was owed for %s cannot be read: %s", job.asked.body.run, error.message)

    def _kept(self, asked: Asked) -> Promise | None:
        path = self._path(asked.id)
        if not path.exists():
            return None
        try:
            data = read_limited(path, bytes_max=PROMISE_BYTES_MAX)
            return Promise.of(decode(data, bytes_max=PROMISE_BYTES_MAX))
        except UbcpError as error:
            log.warning("the voucher of %s by %s cannot be read: %s", asked.body.run, short(asked.author), error)
            return None
