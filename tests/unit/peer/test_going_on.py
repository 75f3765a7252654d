"""A contributor that goes on: after a restart, a full disk, with many REQUESTs. Real streams, store and paymaster."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.shop import RECIPE, ROUND_UNITS, Books, Shop
from tests.unit.peer.test_contributor import ASKED, PAYMASTER, Till, voucher
from tests.unit.peer.test_contributor import RECIPE as TILL_RECIPE
from tests.unit.swarm.made import digest
from ubcp_p2p.errors import UbcpError
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.ledger.activity import Asked
from ubcp_p2p.ledger.database import StoreError
from ubcp_p2p.ledger.entry import Body, Receipt, Request
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import DEVICE
from ubcp_p2p.ledger.writer import ForkedBackup, Writer, WrongClock
from ubcp_p2p.peer.node import PayingPart, serve_each
from ubcp_p2p.peer.paying.contributor import BILLING_MAX, Contributor
from ubcp_p2p.peer.paying.owed import WAIT_S
from ubcp_p2p.peer.paying.shelf import Shelf
from ubcp_p2p.peer.paying.tab import BillRefused
from ubcp_p2p.peer.paying.wire import PROTOCOL, What, asked, refusal
from ubcp_p2p.swarm.events import Committed
from ubcp_p2p.swarm.frames import Stream

pytestmark = pytest.mark.slow  # some wait for the next look, a second later

PATIENCE_S = 20.0
Opens = Callable[..., Awaitable[Shop]]


class Machine:
    """Ben's, as a node that begins has it: its own writer on the shop's ledger. troubles: what writing meets first."""

    def __init__(self, shop: Shop, *, rounds_unpaid_max: int = 5) -> None:
        self.shop, self.folder = shop, shop.folder / "ben"
        self.written, self.stopped = asyncio.Event(), asyncio.Event()
        self.troubles: list[UbcpError] = []
        books: Books = copy.copy(shop.books)
        author = shop.nodes["ben"]
        assert isinstance(author.key, NodeKey)
        books.writer = Writer(books.store, author.key)
        self._books, self._write = books, books.write
        ledger: Any = books
        ledger.write, ledger.may_write = self.write, self.may_write
        self.contributor = Contributor(
            shop.node("ben"), ledger, self.folder, DEVICE, rounds_unpaid_max, self._stop, clock=shop.clock
        )

    async def may_write(self) -> bool:
        """Not at the first question: then peers say how far they know this chain."""
        found = self._books.writer.standing.value == "confirmed"
        head = self.shop.nodes["ben"].head
        assert head is not None
        self._books.writer.confirm([[head]])
        return found

    async def write(self, body: Body) -> Signed | None:
        if self.troubles:
            raise self.troubles.pop(0)
        signed = await self._write(body)
        self.written.set()
        return signed

    async def _stop(self, asked_: Asked, why: str) -> None:
        self.stopped.set()

    def asked(self) -> Asked:
        entry = self.shop.requests[0].entry
        assert isinstance(entry.body, Request)
        return Asked(entry.id, entry.author, entry.slice, entry.body)

    def trains(self, count: int) -> None:
        for round_ in range(count):
            self.contributor.on_round(Committed(self.shop.round(round_), None, ()))

    def receipts(self) -> list[int]:
        """µcredits."""
        bodies = [signed.entry.body for signed in self.shop.books.store.chain(self.shop.nodes["ben"].public)]
        return [body.voucher.credits for body in bodies if isinstance(body, Receipt)]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.contributor.serve())
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield
        finally:
            assert not task.done()
            task.cancel()
            await asyncio.wait([task])


@pytest_asyncio.fixture
async def opens(tmp_path: Path) -> AsyncIterator[Opens]:
    made: list[Shop] = []

    async def make(**options: Any) -> Shop:
        shop = await Shop(tmp_path, **options).open()
        made.append(shop)
        (tmp_path / "ben").mkdir()
        await shop.hello("ben")
        shop.seconds = 60
        return shop

    yield make
    for shop in made:
        await shop.paymaster._jobs.close()
        shop.books.store.close()


async def with_voucher(shop: Shop) -> Machine:
    """Ben's machine was paid for a round, and was ended before a RECEIPT was written."""
    machine = Machine(shop)
    Shelf(machine.folder).keep_promise(shop.id(), (await shop.bill("ben", 0)).promise)
    return machine


async def with_bills(shop: Shop, count: int, **options: Any) -> Machine:
    """Ben's machine has done so many rounds that nobody has heard of, and was ended."""
    before = Machine(shop)
    job = before.contributor.work_for(before.asked(), RECIPE)
    before.trains(count)
    await before.contributor._keep(job)
    return Machine(shop, **options)


@pytest.mark.asyncio
async def test_a_voucher_is_redeemed_after_a_restart_when_no_lease_holds_any_more(opens: Opens) -> None:
    shop = await opens()
    machine = await with_voucher(shop)
    shop.slice = 21  # past the expiry, within the grace
    async with machine.serving():
        await machine.written.wait()
    assert machine.receipts() == [ROUND_UNITS]
    (job,) = machine.contributor.jobs()
    assert (job.worked, job.receipted) == (False, ROUND_UNITS)


@pytest.mark.asyncio
async def test_bills_are_sent_after_a_restart_without_a_lease_and_redeemed_in_the_last_slice(opens: Opens) -> None:
    shop = await opens(grace_slices=0)
    machine = await with_bills(shop, 1)
    shop.slice = 20
    async with machine.serving():
        await machine.written.wait()
    assert machine.receipts() == [ROUND_UNITS]


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [StoreError("disk full"), WrongClock("wrong"), ForkedBackup("forked")])
async def test_a_receipt_that_cannot_be_written_is_tried_again_and_said_once(
    opens: Opens, caplog: pytest.LogCaptureFixture, error: UbcpError
) -> None:
    machine = await with_voucher(await opens())
    machine.troubles = [error, error]
    async with machine.serving():
        await machine.written.wait()
    assert machine.receipts() == [ROUND_UNITS]
    said = [row.message for row in caplog.records if "no receipts are written now" in row.message]
    assert said == [f"no receipts are written now: {error.message}"]


@pytest.mark.asyncio
async def test_a_voucher_that_comes_while_a_receipt_is_written_is_not_taken_for_written(opens: Opens) -> None:
    shop = await opens()
    machine = await with_voucher(shop)
    later = (await shop.bill("ben", 1)).promise
    shop.books.gates[Receipt] = asyncio.Event()
    async with machine.serving():
        await shop.books.arrived.wait()
        (job,) = machine.contributor.jobs()
        job.promise = later
        shop.books.gates[Receipt].set()
        await machine.written.wait()
    assert job.receipted == ROUND_UNITS < job.credits


@pytest.mark.asyncio
async def test_bills_that_nobody_takes_any_more_are_dropped(opens: Opens) -> None:
    shop = await opens()
    machine = await with_bills(shop, 2)
    shop.slice = 21
    await machine.contributor._take_stock(21)
    (job,) = machine.contributor.jobs()
    await machine.contributor._bill(job)
    assert list(job.bills) == []
    assert "expired" in job.words


@pytest.mark.asyncio
async def test_a_paymaster_that_is_away_is_asked_seldom_where_no_lease_holds(opens: Opens) -> None:
    shop = await opens()
    machine = await with_bills(shop, 2)
    await shop.node("ann").unhandle(PROTOCOL)
    await machine.contributor._take_stock(11)
    (job,) = machine.contributor.jobs()
    await machine.contributor._bill(job)
    assert (len(job.bills), job.asks(time.monotonic())) == (2, False)
    machine.contributor.work_for(machine.asked(), RECIPE)
    await machine.contributor._bill(job)
    assert (len(job.bills), job.asks(time.monotonic())) == (2, True)


@pytest.mark.asyncio
async def test_what_is_over_is_asked_for_no_more(opens: Opens) -> None:
    shop = await opens(grace_slices=2)
    machine = await with_bills(shop, 2)
    await machine.contributor._take_stock(11)
    asked_for: list[int] = []
    for shop.slice in (22, 23):
        async with asyncio.TaskGroup() as tasks:
            billing: dict[bytes, asyncio.Task[None]] = {}
            machine.contributor._look(tasks, billing)
            asked_for.append(len(billing))
        (job,) = machine.contributor.jobs()
        job.bills.append(b"one more")
    assert asked_for == [1, 0]


@pytest.mark.asyncio
async def test_who_is_left_in_the_middle_of_its_bills_hears_no_other(tmp_path: Path) -> None:
    till = await Till(tmp_path, voucher).open()
    job = till.contributor.work_for(ASKED, TILL_RECIPE)
    done = till.trains(3)

    async def answers(stream: Stream) -> None:
        await till._serve(stream)
        job.stopped = bool(till.asked)

    await till.wires.node(PAYMASTER).handle(PROTOCOL, answers)
    await till.bills()
    assert (till.asked, list(job.bills)) == (done[:1], done[1:])


@pytest.mark.asyncio
async def test_who_holds_no_lease_is_not_left_for_what_was_unpaid_before(opens: Opens) -> None:
    shop = await opens()
    machine = await with_bills(shop, 3, rounds_unpaid_max=1)
    shop.slice = 13  # no lease in this slice, nor in the one before
    await machine.contributor._take_stock(13)
    (job,) = machine.contributor.jobs()
    await machine.contributor._bill(job)
    assert ("no lease" in job.words, job.stopped, len(job.bills)) == (True, False, 3)
    assert not job.asks(time.monotonic())
    shop.slice = 20
    assert machine.contributor.work_for(machine.asked(), RECIPE) is job
    await machine.contributor._bill(job)
    assert (list(job.bills), job.stopped, machine.stopped.is_set()) == ([], False, False)
    assert job.credits >= 3 * ROUND_UNITS


@pytest.mark.asyncio
async def test_what_is_past_expiry_and_grace_is_let_alone_and_a_period_later_forgotten(opens: Opens) -> None:
    shop = await opens(grace_slices=2)
    machine = await with_voucher(shop)
    period = shop.world.charter.period_slices
    unknown, foreign = machine.folder / f"{digest('unknown').hex()}.owed", machine.folder / "mine.voucher"
    for path in (unknown, foreign):
        path.write_bytes(b"x")
    kept = set(machine.folder.iterdir())
    await machine.contributor._take_stock(23)
    assert (machine.contributor.jobs(), set(machine.folder.iterdir())) == ([], kept)
    await machine.contributor._take_stock(22)
    (job,) = machine.contributor.jobs()
    assert (job.is_over(22), job.is_over(23)) == (False, True)
    await machine.contributor._take_stock(22 + period)
    assert (machine.contributor.jobs(), set(machine.folder.iterdir())) == ([job], kept)
    await machine.contributor._take_stock(23 + period)
    assert (machine.contributor.jobs(), set(machine.folder.iterdir())) == ([], {unknown, foreign})


@pytest.mark.asyncio
async def test_a_recipe_that_is_missing_holds_up_no_other(opens: Opens) -> None:
    shop = await opens(requests=2)
    machine = await with_voucher(shop)
    blob = RECIPE.to_bytes()
    shop.books.store.drop_blobs([RECIPE.hash()])
    with pytest.raises(UbcpError, match="no peer has the recipe"):
        await machine.contributor._take_stock(11)
    shop.books.store.put_blob(blob)
    await machine.contributor._take_stock(11)
    assert [job.credits for job in machine.contributor.jobs()] == [ROUND_UNITS]


@pytest.mark.asyncio
async def test_who_asks_again_and_again_takes_no_turn_from_others(tmp_path: Path) -> None:
    till = Till(tmp_path, voucher)
    wanted = {digest(f"request {number}") for number in range(BILLING_MAX + 6)}
    heard: set[bytes] = set()
    all_heard = asyncio.Event()

    async def refuses(stream: Stream) -> None:
        what, request, _ = asked(await stream.receive(timeout_s=PATIENCE_S))
        assert what is What.HELLO
        heard.add(request)
        if heard == wanted:
            all_heard.set()
        await stream.send(refusal(BillRefused("no")), timeout_s=PATIENCE_S)

    await till.wires.node(PAYMASTER).handle(PROTOCOL, refuses)
    for request in wanted:
        till.contributor.work_for(ASKED._replace(id=request), TILL_RECIPE)
    serving = asyncio.create_task(till.contributor.serve())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await all_heard.wait()
    finally:
        serving.cancel()
        await asyncio.wait([serving])


@pytest.mark.asyncio
async def test_a_paymaster_that_does_not_end_its_answers_is_left_at_last(tmp_path: Path) -> None:
    till = Till(tmp_path, voucher)
    asked_it, left = asyncio.Event(), asyncio.Event()

    async def never(stream: Stream) -> None:
        asked_it.set()
        await asyncio.Event().wait()

    async def stop(asked_: Asked, why: str) -> None:
        till.stopped.append(why)
        left.set()

    till.contributor._stop = stop
    await till.wires.node(PAYMASTER).handle(PROTOCOL, never)
    job = till.contributor.work_for(ASKED, TILL_RECIPE)
    serving = asyncio.create_task(till.contributor.serve())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asked_it.wait()
            job.waits_s = time.monotonic() - WAIT_S  # a minute has passed
            till.trains(5)
            await left.wait()
    finally:
        serving.cancel()
        await asyncio.wait([serving])
    assert job.stopped
    assert len(till.stopped) == 1
    assert "the work of 5 rounds is not in the paymaster's voucher" in till.stopped[0]


@pytest.mark.asyncio
async def test_a_part_of_paying_that_ends_by_a_bug_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    ended, went_on = asyncio.Event(), asyncio.Event()

    async def fails() -> None:
        raise AssertionError("a bug")

    async def goes_on() -> None:
        await ended.wait()
        for _ in range(5):  # turns of the loop in which it could be cancelled
            await asyncio.sleep(0)
        went_on.set()

    async def told(words: str) -> None:
        assert words in troubles
        ended.set()

    troubles: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        parts = [
            PayingPart("billing", fails, "it earns nothing", told),
            PayingPart("paying", goes_on, "it pays nobody"),
        ]
        await serve_each(parts, troubles)
    assert went_on.is_set()
    assert "billing has stopped" in caplog.text
    words = "billing has stopped by an error, which is in the log: it earns nothing; start the node again"
    assert troubles == [words]
