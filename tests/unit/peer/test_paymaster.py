"""A paymaster over real streams and a real store: who is answered, what is lost on the way, and how it ends."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.shop import RECIPE, ROUND_UNITS, SHIPPED, Shop
from ubcp_p2p.ledger.entry import Allot, Close
from ubcp_p2p.peer.paying import jobs
from ubcp_p2p.peer.paying.bill import Bill
from ubcp_p2p.peer.paying.closing import Closer
from ubcp_p2p.peer.paying.jobs import Jobs
from ubcp_p2p.peer.paying.tab import BillRefused, NothingMore, NotYet
from ubcp_p2p.peer.paying.wire import Statement, What

Opens = Callable[..., Awaitable[Shop]]


@pytest_asyncio.fixture
async def opens(tmp_path: Path) -> AsyncIterator[Opens]:
    made: list[Shop] = []

    async def make(**options: Any) -> Shop:
        made.append(await Shop(tmp_path, **options).open())
        return made[-1]

    yield make
    for shop in made:
        await shop.paymaster._jobs.close()
        shop.books.store.close()


def units(statement: Statement) -> int:
    return statement.promise.voucher.credits


@pytest.mark.asyncio
async def test_a_round_is_billed_and_promised(opens: Opens) -> None:
    shop = await opens()
    with pytest.raises(NotYet, match="before the first word"):
        await shop.bill("ben", 0)
    await shop.hello("ben")
    shop.seconds = 60
    assert units(await shop.bill("ben", 0)) == ROUND_UNITS
    assert len(shop.written(Allot)) == 1
    await shop.restart()
    assert ROUND_UNITS * 2 <= units(await shop.bill("ben", 1)) <= ROUND_UNITS * 2 + 1


@pytest.mark.asyncio
async def test_a_bill_whose_answer_was_lost_is_answered_again_and_paid_once(opens: Opens) -> None:
    shop = await opens()
    await shop.hello("ben")
    shop.seconds = 60
    first = await shop.bill("ben", 0)
    assert await shop.bill("ben", 0) == first
    await shop.restart()
    assert await shop.bill("ben", 0) == first
    second = await shop.bill("ben", 1)
    with pytest.raises(BillRefused, match="billed before"):
        await shop.bill("ben", 0)
    with pytest.raises(BillRefused, match="billed before"):
        await shop.bill("ben", 1, line="of others")
    assert await shop.bill("ben", 1) == second


@pytest.mark.asyncio
async def test_what_a_full_disk_has_refused_is_asked_again_and_promised_then(opens: Opens) -> None:
    shop = await opens()
    await shop.hello("ben")
    shop.seconds = 60
    kept = shop.tab().read_bytes()
    shop.tab().unlink()
    shop.tab().mkdir()  # nothing can be written there
    for what, payload in ((What.BILL, shop.made_bill("ben", 0)), (What.AGAIN, b"")):
        with pytest.raises(NotYet, match="no plain file"):
            await shop.ask("ben", what, payload)
    shop.tab().rmdir()
    shop.tab().write_bytes(kept)
    assert units(await shop.bill("ben", 0)) == ROUND_UNITS
    await shop.restart()
    assert units(Statement.of(await shop.ask("ben", What.AGAIN))) == ROUND_UNITS


@pytest.mark.asyncio
async def test_what_may_come_later_is_not_refused_for_good(opens: Opens) -> None:
    shop = await opens()
    await shop.hello("ben")
    shop.slice = 13
    with pytest.raises(NotYet, match="no lease"):
        await shop.bill("ben", 0)
    shop.slice = 21
    with pytest.raises(BillRefused, match="expired") as refused:
        await shop.bill("ben", 0)
    assert type(refused.value) is BillRefused


@pytest.mark.asyncio
async def test_a_request_whose_recipe_nobody_has_holds_up_nobody_else(opens: Opens) -> None:
    shop = await opens(requests=2)
    shop.books.store.drop_blobs([RECIPE.hash()])
    shop.books.nobody_answers.add(RECIPE.hash())
    slow = [asyncio.create_task(shop.hello(name, 1)) for name in ("ben", "cid")]
    await shop.books.arrived.wait()
    shop.books.nobody_answers.clear()
    shop.books.store.put_blob(RECIPE.to_bytes())
    await shop.hello("ben")
    assert not any(task.done() for task in slow)
    assert shop.books.fetched == [RECIPE.hash()]  # once for both
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


@pytest.mark.asyncio
async def test_so_many_recipes_are_fetched_at_once_and_no_more(opens: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "FETCHES_MAX", 1)
    shop = await opens(requests=2)
    shop.books.store.drop_blobs([RECIPE.hash()])
    shop.books.nobody_answers.add(RECIPE.hash())
    slow = asyncio.create_task(shop.hello("ben", 1))
    await shop.books.arrived.wait()
    with pytest.raises(NotYet, match="other recipes"):
        await shop.hello("ben")
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)


@pytest.mark.asyncio
async def test_a_recipe_that_nobody_has_may_come(opens: Opens) -> None:
    shop = await opens()
    shop.books.store.drop_blobs([RECIPE.hash()])
    with pytest.raises(NotYet, match="does not have the recipe"):
        await shop.hello("ben")
    shop.books.store.put_blob(RECIPE.to_bytes())
    await shop.hello("ben")


@pytest.mark.asyncio
async def test_a_recipe_that_cannot_be_kept_is_had_from_a_peer(opens: Opens) -> None:
    shop = await opens()
    shop.books.store.drop_blobs([RECIPE.hash()])
    shop.books.elsewhere[RECIPE.hash()] = RECIPE.to_bytes()
    await shop.hello("ben")
    assert shop.books.store.blob(RECIPE.hash()) is None


@pytest.mark.asyncio
async def test_what_comes_as_a_recipe_and_is_none_is_said(opens: Opens) -> None:
    hash_ = hashlib.sha256(b"no recipe").digest()
    shop = await opens(named=hash_)
    shop.books.elsewhere[hash_] = b"no recipe"
    with pytest.raises(NotYet, match="the recipe of a request"):
        await shop.hello("ben")
    assert shop.books.fetched == [hash_]


@pytest.mark.asyncio
async def test_a_round_with_two_certificates_is_paid_by_one_request_of_a_paymaster(opens: Opens) -> None:
    shop = await opens(requests=2, is_one_run=True)
    for number in (0, 1):
        await shop.hello("ben", number)
    await shop.hello("cid", 1)
    shop.seconds = 60
    await shop.bill("ben", 0, 0)
    await shop.bill("ben", 1, 1)
    await shop.bill("ben", 2, 0)
    with pytest.raises(BillRefused, match="another request for this run"):
        await shop.bill("ben", 2, 1)
    await shop.bill("cid", 2, 1)  # each contributor's rounds are its own
    assert units(await shop.bill("ben", 3, 1)) >= 2 * ROUND_UNITS
    await shop.restart()
    with pytest.raises(BillRefused, match="another request for this run"):
        await shop.bill("ben", 3, 0)
    shop.paymaster._jobs._jobs[shop.id(1)].closed = True  # nor after that one is closed
    with pytest.raises(BillRefused, match="another request for this run"):
        await shop.bill("ben", 3, 0)
    assert units(await shop.bill("ben", 4, 0)) >= 3 * ROUND_UNITS


@pytest.mark.asyncio
async def test_a_round_is_paid_by_the_request_that_its_certificate_names(opens: Opens) -> None:
    """So every paymaster says it, whether it has heard of the others or not: nothing of theirs is looked at."""
    shop = await opens(requests=2, is_one_run=True)
    shop.seconds = 60
    await shop.hello("ben", 1)
    with pytest.raises(BillRefused, match="names another payer") as refused:
        await shop.ask("ben", What.BILL, shop.made_bill("ben", 0, 0), 1)
    assert type(refused.value) is BillRefused  # for good: it will never name this one
    assert units(await shop.bill("ben", 1, 1)) == ROUND_UNITS
    await shop.hello("ben", 0)
    assert units(await shop.bill("ben", 0, 0)) == ROUND_UNITS


@pytest.mark.asyncio
async def test_a_tab_that_cannot_be_read_holds_up_no_other_request_for_its_run(opens: Opens) -> None:
    shop = await opens(requests=2, is_one_run=True)
    for number in (0, 1):
        await shop.hello("ben", number)
    shop.tab(1).write_bytes(b"not a tab")
    await shop.restart()
    shop.seconds = 60
    assert units(await shop.bill("ben", 0, 0)) == ROUND_UNITS


@pytest.mark.asyncio
async def test_a_request_is_in_memory_once_and_stays_while_it_is_used(
    opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "JOBS_MAX", 2)
    shop = await opens(requests=3)
    held: Jobs = shop.paymaster._jobs
    async with held.using(shop.id(0)) as one, held.using(shop.id(0)) as same:
        assert one is same
        for number in (1, 2, 1, 2):
            async with held.using(shop.id(number)):
                pass
        assert held.get(shop.id(0)) is one
        async with held.using(shop.id(1)):
            with pytest.raises(NotYet, match="as many requests"):
                async with held.using(shop.id(2)):
                    pass
    for number in (1, 2):
        async with held.using(shop.id(number)):
            pass
    assert held.get(shop.id(0)) is None
    assert len(held.all()) == 2


@pytest.mark.asyncio
async def test_two_who_come_at_once_find_one_tab(opens: Opens) -> None:
    shop = await opens()
    await asyncio.gather(shop.hello("ben"), shop.hello("cid"))
    (job,) = shop.paymaster._jobs.all()
    assert set(job.tab.accounts) == {shop.nodes[name].public for name in ("ben", "cid")}


@pytest.mark.asyncio
async def test_rounds_that_wait_keep_a_request_in_memory_after_a_restart_too(
    opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "JOBS_MAX", 1)
    checked = SHIPPED.model_copy(update={"checks": SHIPPED.checks.model_copy(update={"rate": 1.0})})
    shop = await opens(requests=2, recipe=checked)
    await shop.hello("ben")
    assert (await shop.bill("ben", 0)).held == 1
    await shop.restart()
    await shop.paymaster._closer.look()
    (job,) = shop.paymaster._jobs.all()
    assert job.request == shop.id()
    with pytest.raises(NotYet, match="as many requests"):
        await shop.hello("ben", 1)


@pytest.mark.asyncio
async def test_a_round_that_is_checked_is_billed_with_the_contributors_own_card(opens: Opens) -> None:
    checked = SHIPPED.model_copy(update={"checks": SHIPPED.checks.model_copy(update={"rate": 1.0})})
    shop = await opens(recipe=checked)
    await shop.hello("ben")
    for bill in (Bill(shop.round(0)).to_bytes(), shop.made_bill("cid", 0)):
        with pytest.raises(BillRefused, match="does not have the card"):
            await shop.ask("ben", What.BILL, bill)
    with pytest.raises(BillRefused, match="expected 3 fields"):
        await shop.ask("ben", What.BILL, shop.round(0).to_bytes())
    assert (await shop.bill("ben", 0)).held == 1
    (kept,) = (shop.folder / "paying" / "evidence").iterdir()
    assert kept.read_bytes() == shop.made_bill("ben", 0)
    await shop.restart()
    shop.paymaster._sweep()
    assert kept.exists()
    with pytest.raises(BillRefused, match="does not have the card"):  # nor does it go away by asking again
        await shop.ask("ben", What.BILL, Bill(shop.round(0)).to_bytes())
    assert kept.read_bytes() == shop.made_bill("ben", 0)
    kept.unlink()
    await shop.bill("ben", 0)  # once more, after a disk was full
    assert kept.exists()


@pytest.mark.asyncio
async def test_each_request_that_is_over_is_closed_whatever_is_wrong_with_another(opens: Opens) -> None:
    shop = await opens(requests=3, grace_slices=2)
    for number in range(3):
        await shop.hello("ben", number)
        shop.seconds += 60
        await shop.bill("ben", 0, number)
    worst = min(range(3), key=shop.id)  # the first of them
    shop.tab(worst).write_bytes(b"not a tab")
    await shop.restart()
    shop.slice = 22
    await shop.paymaster._closer.look()
    assert shop.written(Close) == []
    shop.slice = 23
    await shop.paymaster._closer.look()
    closed = {body.request: body for body in shop.written(Close)}
    assert set(closed) == {shop.id(number) for number in range(3) if number != worst}
    assert all([credits_ for _, credits_ in body.final] == [ROUND_UNITS] for body in closed.values())
    await shop.paymaster._closer.look()
    assert len(shop.written(Close)) == 2


@pytest.mark.asyncio
async def test_no_voucher_says_more_than_the_close_says(opens: Opens) -> None:
    """A bill is under way when the request is over, in a community without grace."""
    shop = await opens(grace_slices=0)
    for name in ("ben", "cid"):
        await shop.hello(name)
    shop.slice, gate = 20, asyncio.Event()
    shop.books.gates[Allot] = gate
    (job,) = shop.paymaster._jobs.all()
    job.tab.accounts[shop.nodes["ben"].public].flop = 10**17  # more than its ALLOT: it needs another one
    bill = asyncio.create_task(shop.bill("ben", 0))
    await shop.books.arrived.wait()
    late = asyncio.create_task(shop.bill("cid", 0))
    shop.slice = 21
    closing = asyncio.create_task(shop.paymaster._closer.look())
    async with asyncio.timeout(5.0):
        while job.users < 3:  # noqa: ASYNC110  # all of them have the job in their hands: nothing tells of that
            await asyncio.sleep(0)
    gate.set()
    paid = units(await bill)
    await closing
    with pytest.raises(BillRefused, match=r"expired|is closed"):
        await late
    (close,) = shop.written(Close)
    assert dict(close.final)[shop.world.opening(shop.nodes["ben"])] == paid > 0
    shop.slice = 20  # a clock that was set back opens nothing again
    with pytest.raises(NothingMore, match="is closed"):
        await shop.bill("ben", 1)
    await shop.restart()
    with pytest.raises(NothingMore, match="is closed"):
        await shop.bill("ben", 1)
    assert units(Statement.of(await shop.ask("ben", What.AGAIN))) == paid


@pytest.mark.asyncio
async def test_a_close_that_cannot_be_signed_now_is_no_draft(opens: Opens) -> None:
    shop = await opens(grace_slices=0)
    await shop.hello("ben")
    shop.slice = 21
    shop.books.writer._confirmed = False
    closer: Closer = shop.paymaster._closer
    for _ in range(2):
        await closer.look()
    assert shop.books.store.drafts(shop.nodes["ann"].public) == []
    shop.books.writer._confirmed = True
    await closer.look()
    assert len(shop.written(Close)) == 1


@pytest.mark.asyncio
async def test_what_nobody_has_billed_is_closed_without_its_recipe(opens: Opens) -> None:
    shop = await opens(grace_slices=0)
    shop.books.store.drop_blobs([RECIPE.hash()])
    shop.slice = 21
    await shop.paymaster._closer.look()
    assert [(body.final, body.returned) for body in shop.written(Close)] == [((), 1000 * 10**6)]
