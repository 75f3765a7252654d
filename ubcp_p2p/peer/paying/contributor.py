"""A contributor's side: bills each round, keeps the newest voucher, writes receipts, and stops when nobody pays.

A voucher is on the disk before anything follows from it. One RECEIPT a slice and REQUEST, for what has grown: what a
payer that vanishes leaves is what its newest voucher says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
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
from ubcp_p2p.models.cost import UNIT_FLOP, Cost, cost_of
from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.peer.paying.holding import HOLDS_PER_NODE_MAX
from ubcp_p2p.peer.paying.tab import BillRefused, NothingMore
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
from ubcp_p2p.swarm.quorum import Certificate
from ubcp_p2p.verification.draw import draws_of

if TYPE_CHECKING:
    from ubcp_p2p.swarm.ledger import LiveLedger
    from ubcp_p2p.swarm.network import Network

log = logging.getLogger(__name__)

BILLS_MAX: Final = 64
PROMISE_BYTES_MAX: Final = 1024
LOOK_S: Final = 1.0
# What a paymaster may hold back for checks, and is not counted against it: so many drawn rounds, and all this young.
DRAWN_ROUNDS: Final = 16
DRAWN_S: Final = 120.0
AGAIN_S: Final = 2.0
ALLOT_S: Final = 10.0  # so long an ALLOT may be on its way: gossip is no slower, and a pull follows what it loses
BILLING_MAX: Final = 64  # paymasters that are asked at one time


@dataclass
class Job:
    """A REQUEST that this node works for. done: FLOP, what was promised before included. bills: the oldest first.

    held: rounds that the paymaster says to wait for a check; drawn: (monotonic seconds, FLOP) of those that may.
    paid: µcredits of the newest voucher that a RECEIPT could hold; a later one may wait for its ALLOT. late_s: since
    when more than the limit is unpaid.
    """

    asked: Asked
    recipe: Recipe
    cost: Cost
    promise: Promise | None = None
    done: int = 0
    rounds: int = 0
    greeted: bool = False
    paid: int = 0
    late_s: float | None = None
    receipted: int = 0  # µcredits of the last RECEIPT
    words: str = ""
    held: int = 0
    stated_s: float = 0.0
    drawn: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=HOLDS_PER_NODE_MAX))
    bills: deque[bytes] = field(default_factory=lambda: deque(maxlen=BILLS_MAX))

    @property
    def credits(self) -> int:
        return self.promise.voucher.credits if self.promise is not None else 0

    def waiting(self, now_s: float) -> int:
        """FLOP that the paymaster may hold back: of rounds that were drawn, and that it says to wait for checks."""
        newest = list(reversed(self.drawn))[: self.held]
        return sum(flop for place, (at_s, flop) in enumerate(newest) if place < DRAWN_ROUNDS or now_s - at_s < DRAWN_S)

    def unpaid_rounds(self, now_s: float) -> int:
        """So many rounds' work is not in a voucher that is worth something, rounded up, but for what may wait and the
        part of a unit that no voucher can hold."""
        missing = self.done - self.waiting(now_s) - (self.paid + 1) * UNIT_FLOP
        return -(-max(0, missing) // (self.cost.flop_per_sample * self.cost.samples_per_round))

    def is_overdue(self, now_s: float, rounds_max: int) -> bool:
        """Whether more is unpaid than may be; a voucher whose ALLOT is on its way has some seconds from then on."""
        if self.unpaid_rounds(now_s) <= rounds_max:
            self.late_s = None
            return False
        if self.late_s is None:
            self.late_s = now_s
        return self.credits <= self.paid or now_s - self.late_s >= ALLOT_S


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
        self._jobs: dict[bytes, Job] = {}
        self._news = asyncio.Event()

    async def recipe_of(self, asked: Asked) -> Recipe:
        """From here, or from a peer, by its hash. Raises UbcpError."""
        data = await self._ledger.find(asked.body.recipe)
        if data is None:
            raise NetworkError(
                f"no peer has the recipe of the run {asked.body.run!r}", hint="it is asked for again in the next slice"
            )
        return Recipe.from_bytes(data, f"the recipe of the run {asked.body.run!r}")

    def work_for(self, asked: Asked, recipe: Recipe) -> Job:
        """Bill for this REQUEST from now on; a voucher from before a restart counts, and what is unpaid since then."""
        job = self._jobs.get(asked.id)
        if job is None:
            job = self._jobs[asked.id] = Job(asked, recipe, cost_of(recipe), self._kept(asked))
            job.done = job.credits * UNIT_FLOP
        self._news.set()
        return job

    def jobs(self) -> list[Job]:
        return list(self._jobs.values())

    def on_round(self, requests: list[bytes], certificate: Certificate) -> None:
        """A round was committed: billed to one of the REQUESTs that pay for the run, in turn."""
        jobs = [self._jobs[id_] for id_ in sorted(requests) if id_ in self._jobs]
        weight = next((seat.weight for seat in certificate.group.members if seat.peer == self._network.public), 0)
        if jobs and weight:
            job = jobs[certificate.round % len(jobs)]
            job.bills.append(certificate.to_bytes())
            job.done += weight * job.cost.flop_per_sample
            if self._network.public in draws_of(certificate, job.recipe):
                job.drawn.append((time.monotonic(), weight * job.cost.flop_per_sample))
            job.rounds += 1
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

    async def _bill(self, job: Job) -> None:
        try:
            if job.promise is not None and job.paid < job.credits:  # it was kept: it counts once its ALLOT is here
                job.paid = max(job.paid, await self._worth(job.promise))
            if not job.greeted:
                await self._ask(job.asked, What.HELLO, self._device.encode())
                job.greeted = True
            while job.bills:
                statement = Statement.of(await self._ask(job.asked, What.BILL, job.bills[0]))
                job.bills.popleft()
                await self._take(job, statement)
            if job.held and time.monotonic() - job.stated_s >= AGAIN_S:
                await self._take(job, Statement.of(await self._ask(job.asked, What.AGAIN, b"")))
        except NothingMore as error:
            log.warning("%s: %s; no more is done for it", job.asked.body.run, error.message)
            job.words, job.done, job.held = error.message, job.paid * UNIT_FLOP, 0
            job.bills.clear()
            await self._stop(job.asked, error.message)
        except BillRefused as error:
            job.words = error.message
            if job.greeted and job.bills:
                job.bills.popleft()  # it will not be paid, however often it is asked
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
            job.words, job.done = why, job.paid * UNIT_FLOP
            job.bills.clear()
            await self._stop(job.asked, why)

    async def _take(self, job: Job, statement: Statement) -> None:
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

    async def _write_receipt(self, job: Job, slice_: int) -> None:
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

    def _path(self, request: bytes) -> Path:
        return self._folder / f"{request.hex()}.voucher"

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
