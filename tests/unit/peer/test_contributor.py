"""A contributor against paymasters that pay, pay less, or send what is not its own: over real streams, no ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.swarm.made import KEYS, Wires, card, certificate, digest
from ubcp_p2p.codec import MalformedMessage, Value, decode, encode
from ubcp_p2p.errors import LocalIOError, UbcpError
from ubcp_p2p.ledger.activity import Asked
from ubcp_p2p.ledger.chain import NodeChain
from ubcp_p2p.ledger.entry import ZERO, Request, Voucher, voucher_digest
from ubcp_p2p.ledger.state import AllotFact, RequestFact
from ubcp_p2p.models.cost import UNIT_FLOP, cost_of
from ubcp_p2p.models.recipe import load_recipe, run_id
from ubcp_p2p.peer.paying.bill import Bill
from ubcp_p2p.peer.paying.contributor import Contributor
from ubcp_p2p.peer.paying.owed import ALLOT_S, BILLS_MAX, PAUSE_S, PAUSE_S_MAX
from ubcp_p2p.peer.paying.tab import BillRefused, NothingMore, NotYet
from ubcp_p2p.peer.paying.wire import PROTOCOL, Promise, Statement, What, answer, answered, asked, question, refusal
from ubcp_p2p.peer.paying.worker import Worker, in_turn
from ubcp_p2p.swarm.events import Committed
from ubcp_p2p.swarm.frames import Stream
from ubcp_p2p.swarm.quorum import NOBODY

ME, PAYMASTER, OTHER = KEYS[:3]
NETWORK = digest("network")
RECIPE = load_recipe("shakespeare-nano")
ALL_CHECKED = RECIPE.model_copy(update={"checks": RECIPE.checks.model_copy(update={"rate": 1.0})})
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


def books() -> Any:
    """What the rule of RECEIPTs reads of a ledger: one REQUEST, and one ALLOT to this node."""
    chain = NodeChain(ME.public, digest("owner"))
    chain.opening = digest("opening")
    charter = SimpleNamespace(grace_slices=1, peak_of={"cpu": 10**9}.get)
    allot = AllotFact(
        digest("allot"), ASKED.id, PAYMASTER.public, digest("other"), chain.opening, 10**6, 1, 1
    )  # fmt: skip
    return SimpleNamespace(
        network=NETWORK,
        charters=SimpleNamespace(network=NETWORK, first=SimpleNamespace(slice_at=lambda now_s: 1, period_slices=10)),
        allots={allot.id: allot}, branch_of={ME.public: chain}.get, contains_id=lambda id_: False,
        requests={ASKED.id: RequestFact(ASKED.id, ASKED.author, 1, 10**6, 100, PAYMASTER.public, 0)},
        charter_at=lambda slice_: charter,
    )  # fmt: skip


class Till:
    """A contributor and its paymaster, who pays as `pay` says; held: rounds that it says to wait for checks."""

    def __init__(self, folder: Path, pay: Pay, *, key: Any = PAYMASTER) -> None:
        self.wires = Wires()
        self.stopped: list[str] = []
        self.billed, self.held = 0, 0
        self.refused: Value | None = None  # what is said to bills instead
        self.refuses: set[bytes] = set()  # these bills alone
        self.asked: list[bytes] = []
        self.greetings = 0
        self._pay, self._key = pay, key
        self.books = books()
        ledger: Any = SimpleNamespace(charters=self.books.charters, read=self._read)
        node: Any = self.wires.node(ME)
        self.contributor = Contributor(node, ledger, folder, "cpu", 3, self._stop)

    async def _read(self, function: Callable[[Any], Any]) -> Any:
        return function(SimpleNamespace(ledger=self.books, entry=lambda id_: None))

    async def _stop(self, asked_: Asked, why: str) -> None:
        self.stopped.append(why)

    async def open(self) -> Till:
        await self.wires.node(PAYMASTER).handle(PROTOCOL, self._serve)
        return self

    async def _serve(self, stream: Stream) -> None:
        what, request, payload = asked(await stream.receive(timeout_s=5.0))
        assert request == ASKED.id
        self.greetings += what is What.HELLO
        if what is What.BILL:
            self.asked.append(payload)
        if payload in self.refuses:
            await stream.send(refusal(BillRefused("not on the line")), timeout_s=5.0)
        elif what in (What.BILL, What.AGAIN) and self.refused is not None:
            await stream.send(self.refused, timeout_s=5.0)
        elif what in (What.BILL, What.AGAIN):
            self.billed += what is What.BILL
            made = self._pay(self.billed)
            promise = Promise(made, self._key.sign("voucher", voucher_digest(made)))
            await stream.send(answer(Statement(promise, self.held, "").to_value()), timeout_s=5.0)
        else:
            await stream.send(answer(b""), timeout_s=5.0)

    def trains(self, count: int, payer: bytes = ASKED.id) -> list[bytes]:
        """So many rounds are made; their bills."""
        done = []
        for round_ in range(count):
            made = certificate([ME, OTHER], [ME, OTHER], round_=round_, payer=payer)
            members = tuple(seat._replace(weight=COST.samples_per_round) for seat in made.group.members)
            whole = replace(made, group=replace(made.group, members=members))
            self.contributor.on_round(Committed(whole, None, ()))
            done.append(Bill(whole).to_bytes())
        return done

    async def bills(self) -> None:
        (job,) = self.contributor.jobs()
        await self.contributor._bill(job)

    async def rounds(self, count: int) -> None:
        for _ in range(count):
            self.trains(1)
            await self.bills()


@pytest.mark.asyncio
async def test_a_payer_that_pays_is_worked_for_and_its_voucher_survives(tmp_path: Path) -> None:
    till = await Till(tmp_path, voucher).open()
    job = till.contributor.work_for(ASKED, RECIPE)
    await till.rounds(40)
    assert (till.stopped, job.unpaid_rounds(0.0)) == ([], 0)
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
        (lambda rounds: voucher(rounds, paid=10**6 + rounds), PAYMASTER),
        (lambda rounds: voucher(rounds, units=0), PAYMASTER),
        (lambda rounds: voucher(rounds, device="a wonder"), PAYMASTER),
        (lambda rounds: voucher(rounds, seconds=0), PAYMASTER),
    ],
    ids=[
        "nothing",
        "half",
        "no more after round 20",
        "signature",
        "contributor",
        "request",
        "network",
        "falling",
        "above the ALLOT",
        "price",
        "device",
        "seconds",
    ],
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
async def test_a_voucher_without_its_allot_is_kept_and_counts_when_the_allot_is_here(tmp_path: Path) -> None:
    till = await Till(tmp_path, voucher).open()
    allots, till.books.allots = till.books.allots, {}
    job = till.contributor.work_for(ASKED, RECIPE)
    await till.rounds(20)
    assert (job.paid, till.stopped) == (0, [])
    assert job.credits == 20 * ROUND_FLOP // UNIT_FLOP
    assert job.late_s is not None
    assert job.is_overdue(job.late_s + ALLOT_S, 3)
    till.books.allots = allots
    await till.contributor._bill(job)
    assert (job.paid, job.unpaid_rounds(0.0)) == (job.credits, 0)


def test_what_is_unpaid_stays_unpaid_when_a_lease_comes_back(tmp_path: Path) -> None:
    contributor = Till(tmp_path, voucher).contributor
    job = contributor.work_for(ASKED, RECIPE)
    job.done += 5 * ROUND_FLOP + UNIT_FLOP
    assert contributor.work_for(ASKED, RECIPE) is job
    assert job.unpaid_rounds(0.0) == 5


@pytest.mark.asyncio
async def test_a_paymaster_that_never_answers_delays_its_own_pay_alone(tmp_path: Path) -> None:
    till = await Till(tmp_path, voucher).open()
    asked_first, greeted = asyncio.Event(), asyncio.Event()

    async def never(stream: Stream) -> None:
        asked_first.set()
        await asyncio.Event().wait()

    async def greets(stream: Stream) -> None:
        await till._serve(stream)
        greeted.set()

    await till.wires.node(OTHER).handle(PROTOCOL, never)
    await till.wires.node(PAYMASTER).handle(PROTOCOL, greets)
    till.contributor.work_for(ASKED._replace(id=digest("slow"), body=BODY._replace(paymaster=OTHER.public)), RECIPE)
    till.contributor.work_for(ASKED, RECIPE)
    serving = asyncio.create_task(till.contributor.serve())
    try:
        async with asyncio.timeout(5.0):
            await asked_first.wait()
            await greeted.wait()
    finally:
        serving.cancel()
        await asyncio.wait([serving])
    assert serving.cancelled()


@pytest.mark.asyncio
async def test_a_paymaster_that_is_away_costs_no_bill_until_the_limit(tmp_path: Path) -> None:
    till = Till(tmp_path, voucher)
    job = till.contributor.work_for(ASKED, RECIPE)
    await till.rounds(2)
    assert len(job.bills) == 2 <= BILLS_MAX
    await till.open()
    await till.rounds(1)
    assert (len(job.bills), till.billed) == (0, 3)


@pytest.mark.asyncio
async def test_a_bill_that_is_refused_costs_no_other(tmp_path: Path) -> None:
    till = await Till(tmp_path, voucher).open()
    job = till.contributor.work_for(ASKED, RECIPE)
    done = till.trains(5)
    till.refuses = {done[0], done[2]}
    await till.bills()
    assert (till.asked, till.billed, list(job.bills)) == (done, 3, [])
    assert job.credits == 3 * ROUND_FLOP // UNIT_FLOP


@pytest.mark.asyncio
async def test_a_voucher_that_is_none_costs_no_other_bill(tmp_path: Path) -> None:
    till = await Till(
        tmp_path, lambda rounds: voucher(rounds, contributor=(OTHER if rounds == 1 else ME).public)
    ).open()
    job = till.contributor.work_for(ASKED, RECIPE)
    done = till.trains(3)
    await till.bills()
    assert (till.asked, list(job.bills)) == (done[:1], done[1:])
    assert "not ours" in job.words
    await till.bills()
    assert (till.asked, list(job.bills)) == (done, [])


@pytest.mark.asyncio
async def test_a_question_that_is_refused_costs_no_bill(tmp_path: Path) -> None:
    """How do I stand? Nothing was billed yet. A round is committed meanwhile."""
    till = await Till(tmp_path, voucher).open()
    job = till.contributor.work_for(ASKED, RECIPE)
    job.held, job.greeted = 1, True
    done: list[bytes] = []

    async def refuses(stream: Stream) -> None:
        await stream.receive(timeout_s=5.0)
        done.extend(till.trains(1))
        await stream.send(refusal(BillRefused("nothing was billed yet")), timeout_s=5.0)

    await till.wires.node(PAYMASTER).handle(PROTOCOL, refuses)
    await till.bills()
    assert list(job.bills) == done != []


@pytest.mark.asyncio
async def test_not_now_is_asked_again_and_more_and_more_seldom(tmp_path: Path) -> None:
    till = await Till(tmp_path, voucher).open()
    job = till.contributor.work_for(ASKED, RECIPE)
    till.refused = refusal(NotYet("no lease of this node on that request holds now"))
    done = till.trains(2)
    for _ in range(2):
        await till.bills()  # the second time it is too early
    assert (till.asked, list(job.bills)) == (done[:1], done)
    assert "no lease" in job.words
    job.not_before_s, till.refused = 0.0, None
    await till.bills()
    assert (till.asked, till.greetings, list(job.bills)) == ([done[0], *done], 2, [])
    assert job.pause_s == PAUSE_S
    for _ in range(20):
        job.put_off(100.0)
    assert (job.pause_s, job.not_before_s) == (PAUSE_S_MAX, 100.0 + PAUSE_S_MAX)


@pytest.mark.asyncio
async def test_rounds_that_wait_for_their_checks_are_not_counted_against_the_payer(tmp_path: Path) -> None:
    till = await Till(tmp_path, lambda rounds: voucher(rounds, paid=0)).open()
    till.held = 128
    job = till.contributor.work_for(ASKED, ALL_CHECKED)
    await till.rounds(10)
    assert (till.stopped, job.held) == ([], 128)
    till.held = 2
    await till.rounds(1)
    assert "not in the paymaster's voucher" in till.stopped[0]


@pytest.mark.asyncio
async def test_who_says_to_hold_rounds_that_were_not_drawn_is_not_believed(tmp_path: Path) -> None:
    till = await Till(tmp_path, lambda rounds: voucher(rounds, paid=0)).open()
    till.held = 128
    till.contributor.work_for(
        ASKED, RECIPE.model_copy(update={"checks": RECIPE.checks.model_copy(update={"rate": 0.0})})
    )
    await till.rounds(5)
    assert "not in the paymaster's voucher" in till.stopped[0]


def test_every_round_that_the_node_was_in_is_billed_and_a_drawn_one_with_its_card(tmp_path: Path) -> None:
    """Also one whose end it has missed: nobody says "committed" of that."""
    contributor = Till(tmp_path, voucher).contributor
    runs: Any = SimpleNamespace(committed=[])
    Worker(runs, contributor)
    job = contributor.work_for(ASKED, ALL_CHECKED)
    cards = tuple(card(key, payer=payer).to_bytes() for payer in (ASKED.id, NOBODY) for key in (OTHER, ME))
    made = certificate([ME, OTHER], [ME, OTHER], payer=ASKED.id)
    others = [certificate([ME, OTHER], [ME, OTHER], payer=payer) for payer in (NOBODY, digest("of another"))]
    for committed in (made, certificate([OTHER], [OTHER], payer=ASKED.id), *others):
        for hear in runs.committed:
            hear(SimpleNamespace(), Committed(committed, None, cards))
    assert list(job.bills) == [Bill(made, card(ME, payer=ASKED.id)).to_bytes()]


def test_the_requests_for_a_run_are_named_in_turn_while_they_are_worked_for(tmp_path: Path) -> None:
    runs: Any = SimpleNamespace(committed=[])
    worker, run = Worker(runs, Till(tmp_path, voucher).contributor), run_id(BODY.run, BODY.recipe)
    other, elsewhere = digest("a second request"), digest("of another run")
    worker._held = {
        ASKED.id: ASKED, other: ASKED._replace(id=other),
        elsewhere: ASKED._replace(id=elsewhere, body=BODY._replace(run="poems")),
    }  # fmt: skip
    assert runs.payer(run, 0) == NOBODY  # none is begun yet
    worker._begun = {ASKED.id: "plays", other: "plays", elsewhere: "poems"}
    named = [runs.payer(run, round_) for round_ in range(4)]
    assert (set(named), named[:2]) == ({ASKED.id, other}, named[2:])
    del worker._held[other]
    assert {runs.payer(run, round_) for round_ in range(4)} == {ASKED.id}
    assert runs.payer(digest("a run of volunteers"), 0) == NOBODY


@given(st.sets(st.binary(min_size=32, max_size=32), max_size=8), st.integers(0, 10**6))
def test_each_request_has_its_turn(requests: set[bytes], round_: int) -> None:
    turns = [in_turn(requests, round_ + more) for more in range(max(1, len(requests)))]
    assert sorted(turns) == (sorted(requests) or [NOBODY])


@pytest.mark.asyncio
async def test_a_contributor_that_is_barred_stops_at_once(tmp_path: Path) -> None:
    till = await Till(tmp_path, voucher).open()
    job = till.contributor.work_for(ASKED, RECIPE)
    await till.rounds(2)
    till.refused = refusal(NothingMore("round 1 was no honest work"))
    await till.rounds(1)
    assert "no honest work" in till.stopped[0]
    assert (len(job.bills), job.credits) == (0, 2 * ROUND_FLOP // UNIT_FLOP)


@pytest.mark.asyncio
async def test_nobody_is_worked_for_where_nothing_is_billed_any_more(tmp_path: Path) -> None:
    contributor = Till(tmp_path, voucher).contributor
    left: list[str] = []

    class Runs:
        """Of a node that is in one run."""

        def __init__(self) -> None:
            self.committed: list[Any] = []

        def get(self, name: str) -> Any:
            return type("Run", (), {"stage": "training"})

        async def leave(self, name: str) -> None:
            left.append(name)

    runs: Any = Runs()
    worker = Worker(runs, contributor)
    contributor.work_for(ASKED, RECIPE)
    worker._held, worker._begun = {ASKED.id: ASKED}, {ASKED.id: "plays"}
    await worker.end("billing has stopped")
    assert left == ["plays"]
    await worker.obey([ASKED])
    assert worker.paid_by(ME.public) == []
    assert worker._held == {}
    assert [row["words"] for row in worker.status()] == ["billing has stopped"]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    with suppress(UbcpError):
        value = decode(data, bytes_max=1000)
        for read in (asked, answered, Promise.of, Statement.of):
            with suppress(UbcpError):
                read(value)


def test_messages_come_back() -> None:
    def over(value: Value) -> Value:
        return decode(encode(value), bytes_max=10_000)

    assert asked(over(question(What.BILL, ASKED.id, b"x"))) == (What.BILL, ASKED.id, b"x")
    assert answered(over(answer(b"y"))) == b"y"
    with pytest.raises(BillRefused, match="says: no"):
        answered(over(refusal(BillRefused("no"))))
    with pytest.raises(NothingMore, match="says: no"):
        answered(over(refusal(NothingMore("no"))))
    for error in (NotYet("later"), LocalIOError("later", hint="")):  # a full disk is no fault of the bill
        with pytest.raises(NotYet, match="says: later"):
            answered(over(refusal(error)))
    with pytest.raises(BillRefused) as refused:
        answered(over(refusal(MalformedMessage("no certificate"))))
    assert type(refused.value) is BillRefused
    with pytest.raises(MalformedMessage):
        answered(over([4, "no"]))
    with pytest.raises(MalformedMessage):
        asked(over([4, ASKED.id, b""]))
    made = voucher(5)
    promise = Promise(made, PAYMASTER.sign("voucher", voucher_digest(made)))
    assert Promise.of(over(promise.to_value())) == promise
    statement = Statement(promise, 3, "round 7 was not opened")
    assert Statement.of(over(statement.to_value())) == statement
