"""What a payer owes a contributor: what of it may wait, and what a restart leaves of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.peer.test_contributor import ALL_CHECKED, ASKED, COST, RECIPE, ROUND_FLOP, Till, voucher
from tests.unit.swarm.made import digest
from ubcp_p2p.codec import MalformedMessage
from ubcp_p2p.models.cost import UNIT_FLOP
from ubcp_p2p.peer.paying.owed import BILLS_MAX, DRAWN_ROUNDS, DRAWN_S, PAUSE_S, WAIT_S, Owed
from ubcp_p2p.peer.paying.tab import NothingMore
from ubcp_p2p.peer.paying.wire import refusal


@pytest.mark.asyncio
async def test_what_a_payer_owes_survives_a_restart(tmp_path: Path) -> None:
    till = await Till(tmp_path, lambda rounds: voucher(rounds, paid=0)).open()
    job = till.contributor.work_for(ASKED, RECIPE)
    await till.rounds(3)
    assert (till.stopped, job.unpaid_rounds(0.0)) == ([], 3)
    again = await Till(tmp_path, lambda rounds: voucher(rounds, paid=0)).open()
    assert again.contributor.work_for(ASKED, RECIPE).unpaid_rounds(0.0) == 3
    await again.rounds(1)
    assert "the work of 4 rounds is not in the paymaster's voucher" in again.stopped[0]
    third = await Till(tmp_path, lambda rounds: voucher(rounds, paid=0)).open()
    third.contributor.work_for(ASKED, RECIPE)
    await third.bills()
    assert third.stopped  # without one round more


@pytest.mark.asyncio
async def test_bills_that_a_paymaster_has_not_heard_survive_a_restart_and_its_pay_is_taken(tmp_path: Path) -> None:
    tmp_path.joinpath("mine").mkdir()
    till = Till(tmp_path / "mine", voucher)
    till.contributor.work_for(ASKED, RECIPE)
    await till.rounds(5)  # nobody is there, and that is too much
    assert len(till.stopped) == 1
    again = await Till(tmp_path / "mine", voucher).open()
    job = again.contributor.work_for(ASKED, RECIPE)
    assert len(job.bills) == 5
    await again.bills()
    assert (again.billed, again.stopped, job.unpaid_rounds(0.0)) == (5, [], 0)
    assert job.credits == 5 * ROUND_FLOP // UNIT_FLOP


@pytest.mark.asyncio
async def test_who_was_barred_is_owed_nothing_after_a_restart(tmp_path: Path) -> None:
    till = await Till(tmp_path, lambda rounds: voucher(rounds, paid=0)).open()
    till.contributor.work_for(ASKED, RECIPE)
    await till.rounds(2)
    till.refused = refusal(NothingMore("round 1 was no honest work"))
    await till.rounds(1)
    job = Till(tmp_path, voucher).contributor.work_for(ASKED, RECIPE)
    assert (job.unpaid_rounds(0.0), list(job.bills)) == (0, [])


def test_what_is_owed_comes_back_with_the_age_of_what_waits() -> None:
    job = Owed(ASKED, ALL_CHECKED, COST, held=7)
    for number in range(BILLS_MAX + 1):
        job.work(b"bill %d" % number, 1000, 50.0, drawn=number % 2 == 0)
    again = Owed(ASKED, ALL_CHECKED, COST)
    again.recall(job.to_bytes(60.0, 1000.0), 5.0, 1030.0)
    assert (again.done, again.rounds, again.held, again.bills) == (job.done, job.rounds, 7, job.bills)
    assert list(again.drawn) == [(5.0 - 40.0, flop) for _, flop in job.drawn]
    future = Owed(ASKED, ALL_CHECKED, COST)
    future.recall(job.to_bytes(60.0, 1000.0), 5.0, 900.0)  # a clock that was set back
    assert all(at_s == 5.0 for at_s, _ in future.drawn)
    with pytest.raises(MalformedMessage, match="another request"):
        Owed(ASKED._replace(id=digest("other")), RECIPE, COST).recall(job.to_bytes(60.0, 1000.0), 0.0, 0.0)


@given(st.binary(max_size=200))
def test_any_bytes_are_what_is_owed_or_refused(data: bytes) -> None:
    job = Owed(ASKED, RECIPE, COST)
    with pytest.raises(MalformedMessage):
        job.recall(data, 0.0, 0.0)
    assert job == Owed(ASKED, RECIPE, COST)


def test_a_file_that_cannot_be_read_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / f"{ASKED.id.hex()}.owed").write_bytes(b"\x90")
    job = Till(tmp_path, voucher).contributor.work_for(ASKED, RECIPE)
    assert job.unpaid_rounds(0.0) == 0


def test_held_rounds_may_be_young_or_few() -> None:
    job = Owed(ASKED, ALL_CHECKED, COST, held=100)
    job.drawn.extend((float(second), 1) for second in range(60))
    assert job.waiting(59.0) == 60
    assert job.waiting(DRAWN_S + 29.5) == 30
    assert job.waiting(DRAWN_S + 1000.0) == DRAWN_ROUNDS
    job.held = 3
    assert job.waiting(0.0) == 3


def test_more_than_the_limit_is_unpaid_for_a_minute_at_most() -> None:
    job = Owed(ASKED, RECIPE, COST, done=5 * ROUND_FLOP)
    assert not job.is_kept_waiting(100.0, 5)
    job.done += 2 * ROUND_FLOP
    assert not job.is_kept_waiting(200.0, 5)
    assert not job.is_kept_waiting(200.0 + WAIT_S - 0.1, 5)
    assert job.is_kept_waiting(200.0 + WAIT_S, 5)
    job.paid = 7 * ROUND_FLOP
    assert not job.is_kept_waiting(201.0 + WAIT_S, 5)
    job.paid = 0
    assert not job.is_kept_waiting(202.0 + WAIT_S, 5)  # counted anew


def test_a_job_is_asked_for_only_where_there_is_something_to_ask() -> None:
    job = Owed(ASKED, RECIPE, COST)
    assert job.asks(100.0)  # its first word
    job.greeted = True
    assert not job.asks(100.0)
    job.work(b"bill", 1, 100.0, drawn=False)
    assert job.asks(100.0)
    job.unkept = False
    assert job.asks(100.0)
    job.put_off(100.0)
    assert not job.asks(100.0 + PAUSE_S / 2)
    assert job.asks(100.0 + PAUSE_S)
    job.stopped = True
    assert not job.asks(200.0)
    job.unkept = True
    assert job.asks(200.0)  # of the disk
