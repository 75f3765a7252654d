"""What a paymaster does with reports, evidence and silence: over real streams, with verdicts of the test."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.swarm.made import KEYS, Wires, certificate, digest
from ubcp_p2p.codec import MalformedMessage
from ubcp_p2p.errors import NetworkError, UbcpError
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.ledger.activity import Asked
from ubcp_p2p.ledger.database import StoreError
from ubcp_p2p.ledger.entry import ZERO, Request
from ubcp_p2p.models.recipe import load_recipe, run_id
from ubcp_p2p.peer.checking.values import Checked
from ubcp_p2p.peer.paying import settling
from ubcp_p2p.peer.paying.bill import Bill
from ubcp_p2p.peer.paying.cabinet import Cabinet, Place
from ubcp_p2p.peer.paying.holding import REPORT_S_MAX, Stage
from ubcp_p2p.peer.paying.job import Job
from ubcp_p2p.peer.paying.report import Report
from ubcp_p2p.peer.paying.reporter import Reporter
from ubcp_p2p.peer.paying.settling import AGAIN_S, FALSE_REPORTS_MAX, UNSURE_S_MAX, Settler
from ubcp_p2p.peer.paying.tab import UNOPENED_MAX, BillRefused, Tab, Terms
from ubcp_p2p.peer.paying.verifier import CannotJudge, Unsure
from ubcp_p2p.peer.paying.wire import ANSWER_S, PROTOCOL, asked, refusal
from ubcp_p2p.swarm.frames import Stream
from ubcp_p2p.swarm.openings import Openings
from ubcp_p2p.swarm.quorum import Card, Certificate, Seat, vote_digest
from ubcp_p2p.training.ends import WHOLE
from ubcp_p2p.training.shape import shape_of
from ubcp_p2p.training.verdict import Finding, Verdict
from ubcp_p2p.verification.draw import Draw
from ubcp_p2p.verification.evidence import Evidence

PAYMASTER, A, B, C = KEYS[:4]  # A is checked, B was drawn
RECIPE = load_recipe("digits-tiny")
RUN = run_id("plays", RECIPE.hash())
BODY = Request("plays", RECIPE.hash(), "research", 1, 8, 100, 10**6, 100, 100, 1000, PAYMASTER.public, (), ())
ASKED = Asked(digest("request"), digest("payer"), 1, BODY)
HONEST = Verdict(Finding.HONEST, 0, "it leads where it is said to lead")
LIE = Verdict(Finding.STEPS, 10**6, "it leads elsewhere")
DROWNED = Verdict(Finding.DROWNED, 0, "its gradients do not show")
SILENT = Verdict(Finding.UNOPENED, 0, "it did not open")
BATCH = RECIPE.inner.batch


def signed(weight: int = BATCH, round_: int = 0) -> tuple[Card, Certificate]:
    """A's card of a round, and the certificate of the group of A, B and C."""
    card = Card(RUN, round_, digest("base"), A.public, weight, digest("offer"), 10, digest("trail"), ASKED.id)
    made = certificate([A, B, C], [A, B], round_=round_, base=digest("base"))
    seats = tuple(
        Seat(seat.peer, weight if seat.peer == A.public else BATCH, card.offer_hash, card.trail, card.payer)
        for seat in made.group.members
    )
    group = replace(made.group, run_id=RUN, members=seats)
    votes = tuple(sorted((k.public, k.sign("vote", vote_digest(group.digest, made.state_hash))) for k in (A, B)))
    return card.signed(A), Certificate(group, made.state_hash, votes)


def led_to_base(members: list[NodeKey]) -> Certificate:
    """That these made round 0, which round 1 began from."""
    made = certificate(members, [], round_=0, state=digest("base"))
    group = replace(made.group, run_id=RUN)
    voted = vote_digest(group.digest, made.state_hash)
    return Certificate(group, made.state_hash, tuple(sorted((k.public, k.sign("vote", voted)) for k in members)))


class Office:
    """A paymaster with one round of A on hold; verdict: what its verifier says of any opening."""

    def __init__(
        self, folder: Path, *, weight: int = BATCH, validator: bytes | None = B.public, round_: int = 0
    ) -> None:
        self.wires, self.folder, self.place = Wires(), folder, Place(ASKED.id, A.public, round_)
        self.card, self.certificate = signed(weight, round_)
        base = led_to_base([A, B]) if round_ else None
        self.members: Any = None  # that a judge was told of last
        self.verdict: Verdict | None = None  # None: it cannot judge
        self.unsure = False  # nobody says whether its data are the run's
        self.judged = 0
        self.blobs: list[bytes] = []
        self.is_full = False  # the ledger's store of blobs
        self.now_s = 1000
        terms = Terms(ASKED.id, RUN, 10**9, 10**6, 8, 50, 1000)
        tab = Tab(terms)
        tab.welcome(A.public, digest("opening"), "cpu", 0)
        drawn = Draw(A.public, validator, (0,))
        leased = frozenset(key.public for key in (A, B, C))
        tab.meter(A.public, self.certificate, leased, drawn, self.now_s)
        self.job = Job(terms, RECIPE, tab, {}, 100, "plays")
        self.cabinet = Cabinet(folder / "desk")
        self.cabinet.put_bill(self.place, Bill(self.certificate, self.card, base).to_bytes())
        self.kept = tab.to_bytes()
        self.owed, self.settled, self.opening = asyncio.Event(), asyncio.Event(), asyncio.Event()  # B, A; both asked
        self.asked: set[bytes] = set()
        self.asking = asyncio.Event()  # somebody was asked to open
        self.gate: asyncio.Event | None = None  # what a judge waits for
        self.judging = self.judging_most = 0
        ledger: Any = SimpleNamespace(keep=self._keep_blob)
        node: Any = self.wires.node(PAYMASTER)
        self.settler = Settler(node, ledger, self, self.cabinet, self._settled, clock=lambda: self.now_s)  # type: ignore[arg-type]
        self.said: list[bytes] = []

    async def judge(self, name: object, recipe: object, claim: object, members: object, *others: object) -> Verdict:
        """As Verifier.judge."""
        self.members = members
        self.judged += 1
        self.judging += 1
        self.judging_most = max(self.judging, self.judging_most)
        if self.gate is not None:
            await self.gate.wait()
        self.judging -= 1
        if self.unsure:
            raise Unsure("nobody says which data the run has")
        if self.verdict is None:
            raise CannotJudge("no data")
        return self.verdict

    async def _keep_blob(self, blob: bytes) -> bytes:
        if self.is_full:
            raise StoreError("no room for more blobs")
        self.blobs.append(blob)
        return hashlib.sha256(blob).digest()

    async def _settled(self, job: Job, node: bytes) -> None:
        self.kept = job.tab.to_bytes()
        (self.owed if node == B.public else self.settled).set()

    def restart(self) -> None:
        """The paymaster goes on from its disk."""
        terms, node, ledger = self.job.terms, self.wires.node(PAYMASTER), self.settler._ledger
        self.job = Job(terms, RECIPE, Tab.from_bytes(self.kept, terms), {}, 100, "plays")
        self.cabinet = Cabinet(self.folder / "desk")
        self.settler = Settler(node, ledger, self, self.cabinet, self._settled, clock=lambda: self.now_s)  # type: ignore[arg-type]

    def files(self) -> set[str]:
        """The kinds of files that are kept."""
        return {path.suffix for path in (self.folder / "desk").iterdir()}

    def also_b(self) -> None:
        """A round of B is on hold, too."""
        card = Card(RUN, 0, digest("base"), B.public, BATCH, digest("offer"), 10, digest("trail"), ASKED.id)
        place = Place(ASKED.id, B.public, 0)
        self.cabinet.put_bill(place, Bill(self.certificate, card.signed(B)).to_bytes())
        leased = frozenset(key.public for key in (A, B, C))
        self.job.tab.welcome(B.public, digest("opening of B"), "cpu", 0)
        self.job.tab.meter(B.public, self.certificate, leased, Draw(B.public, None, (0,)), self.now_s)

    async def open(self) -> Office:
        await self.wires.node(PAYMASTER).handle(PROTOCOL, self._serve)
        return self

    async def _serve(self, stream: Stream) -> None:
        _, request, payload = asked(await stream.receive(timeout_s=ANSWER_S))
        assert request == ASKED.id
        try:
            await self.settler.hear(self.job, stream, payload)
        except NetworkError:
            raise
        except UbcpError as error:
            await stream.send(refusal(error), timeout_s=ANSWER_S)

    async def report(self, verdict: Verdict, blob: bytes | None = None, *, who: Any = B) -> None:
        """A validator's report, as its Reporter sends it. Raises what the validator is told."""
        reporter = Reporter(self.wires.node(who), who, lambda run: [ASKED])
        path = self.folder / "blob"
        if blob is not None:
            path.write_bytes(blob)
        digest_ = ZERO if blob is None else hashlib.sha256(blob).digest()
        made = Report(RUN, self.card.round, A.public, verdict.finding, digest_, len(blob or b"")).signed(who)
        await reporter._send(ASKED, made, blob or b"")

    async def look(self, *, ending: bool = False) -> None:
        """One look of the settler at the round on hold."""
        for (node, _), hold in list(self.job.tab.holds.items()):
            await self.settler._settle(self.job, node, hold, ending=ending)

    async def opens(self, data: bytes = b"an opening", *, who: Any = A, after: asyncio.Event | None = None) -> None:
        """A opens its trail to whoever asks."""

        async def opened(trail: bytes, stretch: int, end: bytes) -> bytes:
            assert end == WHOLE
            self.asked.add(who.public)
            self.asking.set()
            if len(self.asked) == 2:
                self.opening.set()
            if after is not None:
                await after.wait()
            return data

        node: Any = self.wires.node(who)
        await Openings(node, RUN, shape_of(RECIPE).bytes_max(), opened, lambda *asked_: True).open()

    def state(self) -> tuple[str, int]:
        """What became of the round, and rounds that are owed: by what is on the disk."""
        tab = Tab.from_bytes(self.kept, self.job.terms)
        account = tab.accounts[A.public]
        held = [hold.stage.name for hold in tab.held(A.public)]
        what = held[0] if held else "barred" if account.barred else "withheld" if account.withheld else "owed"
        return what, account.rounds

    def lie(self) -> bytes:
        """Evidence that A's card is a lie by itself."""
        return Evidence("plays", self.card, None, b"").to_bytes()


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "ASK_PAUSES_S", (0.0, 0.0))


@pytest.mark.asyncio
async def test_an_honest_report_frees_the_round_and_is_taken_once(tmp_path: Path) -> None:
    office = await Office(tmp_path).open()
    assert office.state() == ("REPORT", 0)
    office.job.tab.accounts[A.public].unopened = UNOPENED_MAX - 1
    await office.report(HONEST)
    assert office.state() == ("owed", 1)
    await office.report(HONEST)
    assert (office.state(), office.judged, office.files()) == (("owed", 1), 0, set())
    assert office.job.tab.accounts[A.public].unopened == 0


@pytest.mark.asyncio
async def test_only_who_was_drawn_is_heard_of_a_round_that_was_billed(tmp_path: Path) -> None:
    office = await Office(tmp_path).open()
    with pytest.raises(BillRefused, match="another member was drawn"):
        await office.report(HONEST, who=C)
    assert office.state() == ("REPORT", 0)
    forged = Report(RUN, 0, A.public, Finding.HONEST).signed(C)
    reporter = Reporter(office.wires.node(B), B, lambda run: [ASKED])
    with pytest.raises(BillRefused, match="signature"):
        await reporter._send(ASKED, forged, b"")
    later = Report(RUN, 1, A.public, Finding.HONEST).signed(B)
    with pytest.raises(BillRefused, match="has not been billed"):
        await reporter._send(ASKED, later, b"")


@pytest.mark.asyncio
async def test_evidence_that_holds_bars_the_contributor(tmp_path: Path) -> None:
    office = await Office(tmp_path, weight=BATCH + 1).open()
    blob = office.lie()
    await office.report(Verdict(Finding.COUNT, 0, "17 samples"), blob)
    assert office.state() == ("EVIDENCE", 0)
    await office.look()
    assert office.state() == ("barred", 0)
    assert office.blobs == [blob]
    account = office.job.tab.accounts[A.public]
    assert account.proof == hashlib.sha256(blob).digest()
    assert (tmp_path / "desk" / f"{account.proof.hex()}.evidence").read_bytes() == blob


@pytest.mark.asyncio
async def test_a_group_that_a_validator_has_made_up_does_not_say_whom_the_data_is_cut_among(tmp_path: Path) -> None:
    office = await Office(tmp_path, round_=1).open()
    made_up = Evidence("plays", office.card, led_to_base([B, C]), b"")
    assert made_up.members == tuple(sorted((B.public, C.public)))
    await office.report(LIE, made_up.to_bytes())
    office.verdict = HONEST
    await office.look()
    assert office.judged == 1
    assert office.members == tuple(sorted((A.public, B.public)))


@pytest.mark.asyncio
@pytest.mark.parametrize("blob", [b"no evidence at all", None], ids=["junk", "another card's"])
async def test_evidence_that_does_not_hold_costs_a_delay(tmp_path: Path, blob: bytes | None) -> None:
    office = await Office(tmp_path).open()
    await office.opens()
    other = Card(RUN, 0, digest("base"), C.public, 1, digest("offer"), 10, digest("trail")).signed(C)
    await office.report(LIE, blob or Evidence("plays", other, None, b"").to_bytes())
    await office.look()
    assert office.state() == ("OWN_LOOK", 0)
    assert office.files() == {".bill"}
    office.verdict = HONEST
    await office.look()
    assert (office.state(), office.blobs) == (("owed", 1), [])


@pytest.mark.asyncio
async def test_a_validator_that_accuses_falsely_again_and_again_is_asked_for_no_evidence(tmp_path: Path) -> None:
    office = await Office(tmp_path).open()
    office.job.false_reports[B.public] = FALSE_REPORTS_MAX
    await office.report(LIE, b"junk")
    assert office.state() == ("OWN_LOOK", 0)
    assert office.files() == {".bill"}


@pytest.mark.asyncio
async def test_evidence_that_was_found_to_convict_just_before_a_restart_convicts(tmp_path: Path) -> None:
    office = await Office(tmp_path, weight=BATCH + 1).open()
    blob = office.lie()
    await office.report(Verdict(Finding.COUNT, 0, "17 samples"), blob)
    office.cabinet.keep(office.place, hashlib.sha256(blob).digest())
    await office.look()
    assert office.state() == ("barred", 0)
    assert office.cabinet.kept(hashlib.sha256(blob).digest()).read_bytes() == blob


@pytest.mark.asyncio
async def test_evidence_that_is_gone_is_not_held_against_its_validator(tmp_path: Path) -> None:
    office = await Office(tmp_path).open()
    await office.report(LIE, b"junk")
    office.cabinet.drop_coming(office.place)
    await office.look()
    assert (office.state(), office.job.false_reports) == (("OWN_LOOK", 0), {})


@pytest.mark.asyncio
async def test_evidence_of_a_round_that_was_settled_otherwise_is_deleted(tmp_path: Path) -> None:
    office = await Office(tmp_path).open()
    await office.opens()
    office.verdict = HONEST
    await office.report(LIE, b"junk")
    hold = office.job.tab.holds[A.public, 0]
    await office.settler._look(office.job, A.public, hold)
    assert (office.state(), office.files()) == (("owed", 1), set())


@pytest.mark.asyncio
async def test_evidence_with_another_hash_than_was_reported_is_not_kept(tmp_path: Path) -> None:
    office = await Office(tmp_path).open()
    made = Report(RUN, 0, A.public, Finding.STEPS, digest("other"), 4).signed(B)
    with pytest.raises(BillRefused, match="does not have the hash"):
        await Reporter(office.wires.node(B), B, lambda run: [ASKED])._send(ASKED, made, b"junk")
    assert office.state() == ("REPORT", 0)


@pytest.mark.asyncio
@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize(
    ("verdict", "opens", "becomes"),
    [
        (HONEST, True, ("owed", 1)),
        (LIE, True, ("barred", 0)),
        (SILENT, True, ("withheld", 0)),
        (None, True, ("owed", 1)),  # it cannot be recomputed here: the payer's risk
        (HONEST, False, ("withheld", 0)),
    ],
    ids=["honest", "a lie", "another opening", "cannot judge", "silence"],
)
async def test_a_report_that_nothing_was_opened_makes_the_paymaster_look(
    tmp_path: Path, verdict: Verdict | None, opens: bool, becomes: tuple[str, int]
) -> None:
    office = await Office(tmp_path).open()
    if opens:
        await office.opens()
    office.verdict = verdict
    await office.report(SILENT)
    assert office.state() == ("OWN_LOOK", 0)
    await office.look()
    assert (office.state(), office.judged) == (becomes, int(opens))
    assert office.files() == ({".evidence"} if becomes[0] == "barred" else set())


@pytest.mark.asyncio
@pytest.mark.parametrize("weight", [BATCH, BATCH + 1], ids=["its work", "its card alone"])
async def test_what_a_paymaster_finds_by_its_own_look_convinces_others(tmp_path: Path, weight: int) -> None:
    office = Office(tmp_path, validator=None, weight=weight)
    await office.opens(b"an opening")
    office.verdict = LIE
    await office.look()
    assert (office.state(), office.judged) == (("barred", 0), int(weight == BATCH))
    (blob,) = office.blobs
    proof = office.job.tab.accounts[A.public].proof
    assert office.cabinet.kept(proof).read_bytes() == blob
    evidence = Evidence.from_bytes(blob, RECIPE, shape_of(RECIPE))
    assert (evidence.card, evidence.opening) == (office.card, b"an opening" if weight == BATCH else b"")


@pytest.mark.asyncio
@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize(("verdict", "becomes"), [(SILENT, "barred"), (DROWNED, "withheld")])
async def test_who_opens_nothing_earns_nothing_more_and_who_drowns_may(
    tmp_path: Path, verdict: Verdict, becomes: str
) -> None:
    office = Office(tmp_path, validator=None)
    office.job.tab.accounts[A.public].unopened = UNOPENED_MAX - 1
    await office.opens()
    office.verdict = verdict
    await office.look()
    assert (office.state(), office.files()) == ((becomes, 0), set())


@pytest.mark.asyncio
@pytest.mark.parametrize("sent", [True, False], ids=["a validator's evidence", "its own look"])
async def test_a_store_that_is_full_frees_no_liar(tmp_path: Path, *, sent: bool) -> None:
    office = await Office(tmp_path, validator=B.public if sent else None).open()
    await office.opens()
    office.verdict, office.is_full = LIE, True
    if sent:
        await office.report(LIE, office.lie())
    await office.look()
    assert (office.state(), office.judged, office.files()) == (("barred", 0), 1, {".evidence"})


@pytest.mark.asyncio
async def test_evidence_that_cannot_be_kept_frees_no_liar(tmp_path: Path) -> None:
    office = await Office(tmp_path).open()
    office.verdict = LIE
    blob = office.lie()
    office.cabinet.kept(hashlib.sha256(blob).digest()).mkdir()  # nothing can be put there
    await office.report(LIE, blob)
    await office.look()
    assert (office.state(), office.judged) == (("barred", 0), 1)


@pytest.mark.asyncio
@pytest.mark.parametrize("sent", [True, False], ids=["a validator's evidence", "its own look"])
@pytest.mark.parametrize("speaks", [True, False], ids=["they speak later", "they stay silent"])
async def test_who_seems_to_lie_is_not_paid_while_nobody_says_which_data_the_run_has(
    tmp_path: Path, *, sent: bool, speaks: bool
) -> None:
    office = await Office(tmp_path, validator=B.public if sent else None).open()
    await office.opens()
    office.unsure, office.verdict = True, LIE
    if sent:
        await office.report(LIE, office.lie())
    await office.settler._settle_all(office.job, A.public, ending=False)
    assert (office.state(), office.files()) == (("EVIDENCE", 0), {".bill", ".coming"})
    office.asked.clear()
    office.restart()
    office.unsure = not speaks
    office.now_s += UNSURE_S_MAX - 1
    await office.look()
    assert office.asked == set()  # its opening is here
    assert office.state() == (("barred" if speaks else "EVIDENCE"), 0)
    if speaks:
        proof = office.job.tab.accounts[A.public].proof
        evidence = Evidence.from_bytes(office.cabinet.kept(proof).read_bytes(), RECIPE, shape_of(RECIPE))
        assert evidence.opening == (b"" if sent else b"an opening")
        return
    office.now_s += 1
    await office.look()
    assert (office.state(), office.judged, office.files()) == (("owed", 1), 3, set())
    assert "which data the run has" in office.job.tab.accounts[A.public].words


@pytest.mark.asyncio
async def test_who_is_put_off_is_not_settled_again_before_its_time(tmp_path: Path) -> None:
    office = Office(tmp_path, validator=None)
    office.also_b()
    await office.opens()
    await office.opens(who=B)
    office.unsure = True
    (hold,) = office.job.tab.held(A.public)
    office.job.tab.holds[A.public, 1] = replace(hold, round=1)  # which would be paid: its bill is not there
    await office.settler._settle_all(office.job, A.public, ending=False)
    assert [hold.stage for hold in office.job.tab.held(A.public)] == [Stage.EVIDENCE, Stage.OWN_LOOK]
    office.unsure, office.verdict = False, LIE
    office.settled.clear()
    for later_s, done, becomes in (
        (AGAIN_S - 1, office.owed, ("EVIDENCE", 0)),  # B is looked at meanwhile
        (AGAIN_S, office.settled, ("barred", 0)),
    ):
        office.now_s = 1000 + int(later_s)
        serving = asyncio.create_task(office.settler.serve(lambda: [office.job], lambda: 1))
        async with asyncio.timeout(10.0):
            await done.wait()
        serving.cancel()
        await asyncio.wait([serving])
        assert office.state() == becomes


@pytest.mark.asyncio
async def test_a_round_whose_bill_is_gone_is_paid_and_it_is_said(tmp_path: Path) -> None:
    office = Office(tmp_path, validator=None)
    office.cabinet.drop(office.place)
    await office.look()
    assert (office.state(), office.judged) == (("owed", 1), 0)
    assert "not on this disk" in office.job.tab.accounts[A.public].words


@pytest.mark.asyncio
@pytest.mark.parametrize("overdue", [lambda office: office.look(), lambda office: office.look(ending=True)])
async def test_a_validator_that_says_nothing_is_not_waited_for_for_ever(
    tmp_path: Path, overdue: Callable[[Office], Any]
) -> None:
    office = await Office(tmp_path).open()
    await office.opens()
    office.verdict = HONEST
    await office.look()
    assert office.state() == ("REPORT", 0)
    office.now_s += REPORT_S_MAX
    await overdue(office)
    assert office.state() == ("owed", 1)


@pytest.mark.asyncio
async def test_a_round_without_a_validator_is_looked_at_at_once(tmp_path: Path) -> None:
    office = Office(tmp_path, validator=None)
    await office.opens()
    office.verdict = HONEST
    await office.look()
    assert (office.state(), office.judged) == (("owed", 1), 1)


@pytest.mark.asyncio
async def test_a_reporter_says_it_again_until_the_round_was_billed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ubcp_p2p.peer.paying.reporter.PAUSES_S", (0.0,) * 5)
    office = await Office(tmp_path).open()
    hold = office.job.tab.holds.pop((A.public, 0))
    office.job.tab.accounts[A.public].last_round = -1
    reporter = Reporter(office.wires.node(B), B, lambda run: [ASKED])
    reporter.report(RUN, Checked(office.certificate, A.public, HONEST, None))
    (task,) = reporter._under_way
    while len(office.wires.node(B).opened) < 2:
        office.wires.asked.clear()
        await office.wires.asked.wait()
    office.job.tab.holds[A.public, 0] = hold
    await task
    assert office.state() == ("owed", 1)
    assert reporter.payers(RUN) == {PAYMASTER.public}
    await reporter.close()


def test_a_report_comes_back_and_nothing_else_is_one() -> None:
    made = Report(RUN, 7, A.public, Finding.STEPS, digest("blob"), 300).signed(B)
    assert Report.from_bytes(made.to_bytes(), B.public) == made
    with pytest.raises(MalformedMessage, match="signature"):
        Report.from_bytes(replace(made, round=8).to_bytes(), B.public)
