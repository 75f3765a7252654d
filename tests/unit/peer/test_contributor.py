"""A contributor against paymasters that pay, pay less, or send what is not its own: over real streams, no ledger."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.swarm.made import KEYS, Wires, certificate, digest
from ubcp_p2p.codec import MalformedMessage, Value, decode, encode
from ubcp_p2p.errors import UbcpError
from ubcp_p2p.ledger.activity import Asked
from ubcp_p2p.ledger.entry import ZERO, Request, Voucher, voucher_digest
from ubcp_p2p.models.cost import UNIT_FLOP, cost_of
from ubcp_p2p.models.recipe import load_recipe
from ubcp_p2p.peer.paying.contributor import BILLS_MAX, Contributor
from ubcp_p2p.peer.paying.tab import BillRefused
from ubcp_p2p.peer.paying.wire import PROTOCOL, Promise, What, answer, answered, asked, question, refusal
from ubcp_p2p.swarm.frames import Stream

ME, PAYMASTER, OTHER = KEYS[:3]
NETWORK = digest("network")
RECIPE = load_recipe("shakespeare-nano")
COST = cost_of(RECIPE)
ROUND_FLOP = COST.samples_per_round * COST.flop_per_sample
BODY = Request(
    "plays", RECIPE.hash(), "research", 1, 8, 100, 10**6, 100, 100, 1000, PAYMASTER.public, (), ()
)  # fmt: skip
ASKED = Asked(digest("request"), digest("payer"), 1, BODY)

Pay = Callable[[int], Voucher]  # rounds billed so far → what the voucher says


def voucher(rounds: int, *, paid: int | None = None, **changes: Any) -> Voucher:
    units = rounds * ROUND_FLOP // UNIT_FLOP if paid is None else paid
    made = Voucher(
        NETWORK, PAYMASTER.public, ASKED.id, digest("allot"), ME.public, units, units, rounds, "cpu", 60, ZERO
    )
    return made._replace(**changes)


class Till:
    """A contributor and its paymaster, who pays as `pay` says."""

    def __init__(self, folder: Path, pay: Pay, *, key: Any = PAYMASTER) -> None:
        self.wires = Wires()
        self.stopped: list[str] = []
        self.billed = 0
        self._pay, self._key = pay, key
        ledger: Any = SimpleNamespace(charters=SimpleNamespace(network=NETWORK))
        node: Any = self.wires.node(ME)
        self.contributor = Contributor(node, ledger, folder, "cpu", 3, self._stop)

    async def _stop(self, asked_: Asked, why: str) -> None:
        self.stopped.append(why)

    async def open(self) -> Till:
        await self.wires.node(PAYMASTER).handle(PROTOCOL, self._serve)
        return self

    async def _serve(self, stream: Stream) -> None:
        what, request, _ = asked(await stream.receive(timeout_s=5.0))
        assert request == ASKED.id
        if what is What.BILL:
            self.billed += 1
            made = self._pay(self.billed)
            promise = Promise(made, self._key.sign("voucher", voucher_digest(made)))
            await stream.send(answer(promise.to_value()), timeout_s=5.0)
        else:
            await stream.send(answer(b""), timeout_s=5.0)

    async def rounds(self, count: int) -> None:
        for round_ in range(count):
            made = certificate([ME, OTHER], [ME, OTHER], round_=round_)
            members = tuple(seat._replace(weight=COST.samples_per_round) for seat in made.group.members)
            self.contributor.on_round([ASKED.id], replace(made, group=replace(made.group, members=members)))
            (job,) = self.contributor.jobs()
            await self.contributor._bill(job)


@pytest.mark.asyncio
async def test_a_payer_that_pays_is_worked_for_and_its_voucher_survives(tmp_path: Path) -> None:
    till = await Till(tmp_path, voucher).open()
    job = till.contributor.work_for(ASKED, RECIPE)
    await till.rounds(40)
    assert (till.stopped, job.unpaid_rounds) == ([], 0)
    assert job.credits == 40 * ROUND_FLOP // UNIT_FLOP > 0
    again = (await Till(tmp_path, voucher).open()).contributor.work_for(ASKED, RECIPE)
    assert again.promise == job.promise


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("pay", "key"),
    [
        (lambda rounds: voucher(rounds, paid=0), PAYMASTER),
        (lambda rounds: voucher(rounds, paid=rounds * ROUND_FLOP // UNIT_FLOP // 2), PAYMASTER),
        (lambda rounds: voucher(min(rounds, 20)), PAYMASTER),
        (voucher, OTHER),  # signed by somebody else
        (lambda rounds: voucher(rounds, contributor=OTHER.public), PAYMASTER),
        (lambda rounds: voucher(rounds, request=digest("another")), PAYMASTER),
        (lambda rounds: voucher(rounds, network=digest("another")), PAYMASTER),
        (lambda rounds: voucher(10, paid=max(0, 10 - rounds)), PAYMASTER),
    ],
    ids=["nothing", "half", "no more after round 20", "signature", "contributor", "request", "network", "falling"],
)
async def test_a_payer_that_does_not_pay_is_left_and_little_is_lost(tmp_path: Path, pay: Pay, key: Any) -> None:
    till = await Till(tmp_path, pay, key=key).open()
    job = till.contributor.work_for(ASKED, RECIPE)
    done = 0
    while not till.stopped:
        await till.rounds(1)
        done += 1
        assert done < 200
    lost = done * ROUND_FLOP - job.credits * UNIT_FLOP
    assert lost <= 4 * ROUND_FLOP + 2 * UNIT_FLOP  # three rounds, the one that shows it, and parts of a unit
    assert "not in the paymaster's voucher" in till.stopped[0]


@pytest.mark.asyncio
async def test_a_paymaster_that_is_away_costs_no_bill_until_the_limit(tmp_path: Path) -> None:
    till = Till(tmp_path, voucher)
    job = till.contributor.work_for(ASKED, RECIPE)
    await till.rounds(2)
    assert len(job.bills) == 2 <= BILLS_MAX
    await till.open()
    await till.rounds(1)
    assert (len(job.bills), till.billed) == (0, 3)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    with suppress(UbcpError):
        value = decode(data, bytes_max=1000)
        for read in (asked, answered, Promise.of):
            with suppress(UbcpError):
                read(value)


def test_messages_come_back() -> None:
    def over(value: Value) -> Value:
        return decode(encode(value), bytes_max=10_000)

    assert asked(over(question(What.BILL, ASKED.id, b"x"))) == (What.BILL, ASKED.id, b"x")
    assert answered(over(answer(b"y"))) == b"y"
    with pytest.raises(BillRefused, match="says: no"):
        answered(over(refusal("no")))
    with pytest.raises(MalformedMessage):
        asked(over([2, ASKED.id, b""]))
    made = voucher(5)
    promise = Promise(made, PAYMASTER.sign("voucher", voucher_digest(made)))
    assert Promise.of(over(promise.to_value())) == promise
