"""What may be asked for, by a made-up community: each refusal with its reason, and that a draft passes the rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.slices import id_of
from ubcp_p2p.allocator.feasible import room
from ubcp_p2p.charter.values import DeviceClass
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.ledger.activity import Activity, Asked
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.balances import Standing, StandingReport, standing
from ubcp_p2p.ledger.entry import ZERO, Close, Decision, Request
from ubcp_p2p.ledger.funds import Funds, funds
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import World
from ubcp_p2p.models.recipe import ChecksConfig, load_recipe
from ubcp_p2p.peer.asking.judge import Judged, draft, judge
from ubcp_p2p.peer.asking.prospect import UNKNOWN, Tried, prospect, tried
from ubcp_p2p.peer.asking.requests import open_requests
from ubcp_p2p.peer.asking.values import Known, Refused, Wish, deadline_slice, moment, wish_of
from ubcp_p2p.peer.serving.problem import Offer, assemble
from ubcp_p2p.peer.serving.supply import recent_leases, supply
from ubcp_p2p.units import MICROCREDITS

CREDIT = MICROCREDITS
RECIPE = load_recipe("digits-tiny")  # a peer's round is 1 GFLOP, 50 rounds: 50 µcredits a peer
WISH = Wish("plays", RECIPE, purpose="research")


class Scene:
    """Ann asks, and her node would pay; Ben's and Cid's machines serve."""

    def __init__(self, *, enrol: bool = True) -> None:
        self.world = World(7)
        self.ann = self.world.account("ann", enrol=enrol)
        self.ben, self.cid = (self.world.account(name) for name in ("ben", "cid"))
        self.ann_pc, self.ben_pc, self.cid_pc = (
            self.world.node(owner, name) for owner, name in ((self.ann, "ann"), (self.ben, "ben"), (self.cid, "cid"))
        )
        self.world.now = 40

    def asks(self, author: Author, paymaster: Author, run: str = "plays", **changes: object) -> Signed:
        end = self.world.now + 200
        body = Request(
            run, RECIPE.hash(), "research", 1, 8, 50, 100, end, end, 1000, paymaster.public, (), ()
        )._replace(**changes)  # type: ignore[arg-type]
        return self.world.write(author, body)

    def decides(self, node: Author, budget: int, slice_: int = 39) -> None:
        now, self.world.now = self.world.now, slice_
        self.world.write(node, Decision(slice_, budget, 1, (), (), ZERO))
        self.world.now = now

    def activity(self) -> Activity:
        found = Activity()
        for signed in self.world.entries:
            found.add(signed.entry)
        return found

    def funds(self, account: Author | None = None) -> Funds:
        found = funds(self.world.ledger, (account or self.ann).public, self.world.history, self.world.now)
        assert found is not None
        return found

    def known(self, **changes: object) -> Known:
        world, activity = self.world, self.activity()
        node = self.ann_pc.public
        return replace(
            Known(
                world.charter, world.now, self.funds(), node, standing(world.ledger, node, world.history),
                open_requests(world.ledger, activity, world.now),
                supply(
                    world.ledger, activity, recent_leases(world.ledger, activity, world.now), world.now, self.ann.public
                ),
            ),
            **changes,  # type: ignore[arg-type]
        )  # fmt: skip

    def judged(self, wish: Wish = WISH, **changes: object) -> Judged:
        known = self.known(**changes)
        return judge(draft(wish, known), wish.recipe, known, part=wish.part, again=wish.again)

    def refused(self, wish: Wish = WISH, **changes: object) -> Refused:
        with pytest.raises(Refused) as caught:
            self.judged(wish, **changes)
        assert caught.value.hint
        return caught.value


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_draft_is_what_the_ledger_takes(scene: Scene) -> None:
    scene.decides(scene.ben_pc, 30)
    scene.decides(scene.cid_pc, 20)
    judged = scene.judged(replace(WISH, peers_min=2))
    body = judged.body
    assert (judged.price_min, judged.price_max, body.credits) == (100, 400, 400)
    assert body.units == room(20, scene.world.charter.newcomer_permille)  # as much as two peers have room for
    assert body.deadline == body.expiry == 40 + scene.world.charter.period_slices
    assert judged.feasibility is not None
    assert (judged.feasibility.peers, judged.feasibility.lack) == (2, None)
    signed = scene.world.write(scene.ann, body)
    assert scene.funds().available == 10_000 * CREDIT - 400
    assert signed.entry.id in scene.world.ledger.requests


def test_what_an_account_has_counts_with_what_it_can_claim(scene: Scene) -> None:
    """Income of an own node, and what a paymaster has given back: exactly what the rule then finds."""
    world = scene.world
    asked = scene.asks(scene.ben, scene.ben_pc, credits=1000 * CREDIT)
    allot = world.allot(scene.ben_pc, asked, scene.ann_pc, 700 * CREDIT)
    world.receipt(scene.ann_pc, scene.ben_pc, allot, 600 * CREDIT)
    old = scene.asks(scene.ann, scene.ann_pc, credits=2000 * CREDIT, expiry=50, deadline=50)
    assert scene.funds().available == 8600 * CREDIT
    world.now = 51 + world.charter.grace_slices
    world.write(scene.ann_pc, Close(old.entry.id, (), 2000 * CREDIT))
    found = scene.funds()
    assert (len(found.income), len(found.closes), found.available) == (1, 1, 10_600 * CREDIT)
    assert scene.refused(replace(WISH, budget=found.available + 1)).reason == "balance"
    body = scene.judged(replace(WISH, budget=found.available)).body
    world.write(scene.ann, body)
    assert (scene.funds().available, scene.funds().income, scene.funds().closes) == (0, (), ())


def test_only_an_account_has_funds(scene: Scene) -> None:
    ledger, history = scene.world.ledger, scene.world.history
    assert funds(ledger, bytes(32), history, 40) is None
    assert funds(ledger, scene.ann_pc.public, history, 40) is None


def test_who_may_ask(scene: Scene) -> None:
    assert Scene(enrol=False).refused().reason == "not-enrolled"
    last = scene.funds().enrolment
    expired = scene.funds()._replace(enrolment=None, last=last)
    error = scene.refused(funds=expired)
    assert error.reason == "enrolment-expired"
    assert moment(scene.world.charter, 52 * scene.world.charter.period_slices) in error.message
    for how, reason in ((Standing.FROZEN, "frozen"), (Standing.INDEBTED, "indebted")):
        assert scene.refused(funds=scene.funds()._replace(standing=StandingReport(how, "because"))).reason == reason
    assert scene.refused(paymaster=None).reason == "paymaster"
    assert scene.refused(paymaster=StandingReport(Standing.FROZEN, "it has forked")).reason == "paymaster"


def test_a_forked_account_is_frozen(scene: Scene) -> None:
    head = scene.ann.head
    for run in ("one", "two"):
        scene.asks(Author(scene.world.charters.network, scene.ann.key, head=head), scene.ann_pc, run)
    assert scene.refused().reason == "frozen"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"purpose": "mining"}, "purpose"),
        ({"purpose": None}, "purpose"),
        ({"peers_min": 3, "peers_max": 2}, "peers"),
        ({"peers_max": 9}, "peers"),
        ({"deadline": "2026-01-01"}, "deadline"),  # the first day of the charter's time: over
        ({"deadline": "0h"}, "deadline"),
        ({"deadline": "2027-06-01"}, "deadline"),  # a request lives for four weeks
        ({"budget": 10_000 * CREDIT + 1}, "balance"),
        ({"budget": 49}, "too-small"),
        ({"budget": 99, "peers_min": 2}, "too-small"),
        ({"budget": 1, "peers_min": 2, "part": True}, "too-small"),  # not even one round of two
    ],
)
def test_refusals(scene: Scene, change: dict[str, object], reason: str) -> None:
    assert scene.refused(replace(WISH, **change)).reason == reason  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [{"deadline": "1h"}, {"deadline": "20d"}, {"budget": 10_000 * CREDIT}, {"budget": 50}, {"budget": 1, "part": True}],
)
def test_what_is_just_allowed(scene: Scene, change: dict[str, object]) -> None:
    scene.world.write(scene.ann, scene.judged(replace(WISH, **change)).body)  # type: ignore[arg-type]


def test_a_purpose_may_be_left_out_where_there_is_one(scene: Scene) -> None:
    unsaid = replace(WISH, purpose=None)
    assert "several purposes" in scene.refused(unsaid).message
    one = replace(scene.world.charter, purposes=("education",))
    assert scene.judged(unsaid, charter=one).body.purpose == "education"


def test_the_cap_of_a_period(scene: Scene) -> None:
    capped = scene.funds()._replace(cap=60)
    assert scene.refused(replace(WISH, budget=61), funds=capped).reason == "exposure"
    assert scene.judged(funds=capped).body.credits == 60  # the default is as much as may be


def test_a_name_is_taken_by_another_recipe_and_shared_with_the_same(scene: Scene) -> None:
    scene.asks(scene.ben, scene.ben_pc, "plays", credits=30)
    judged = scene.judged(replace(WISH, budget=20))  # 20 and Ben's 30 are the 50 of the smallest useful run
    assert (judged.others, judged.funders) == (30, 1)
    assert scene.refused(replace(WISH, budget=19)).reason == "too-small"
    scene.asks(scene.cid, scene.cid_pc, "films", recipe=bytes(32))
    assert scene.refused(replace(WISH, run="films")).reason == "name-taken"
    scene.asks(scene.ann, scene.ann_pc, "plays")
    assert scene.refused().reason == "asked-already"
    assert scene.judged(replace(WISH, again=True)).others == 30
    assert scene.judged(replace(WISH, run="other")).others == 0


def test_what_no_peers_could_do_is_refused_once_peers_have_said_what_they_have(scene: Scene) -> None:
    assert scene.judged(replace(WISH, peers_min=8)).feasibility is None  # nobody had anything to decide on
    scene.asks(scene.ben, scene.ben_pc, "a")
    scene.asks(scene.cid, scene.cid_pc, "b")
    scene.world.now = 43
    assert scene.refused().reason == "too-few-peers"  # who was asked and said nothing is not there
    scene.decides(scene.ben_pc, 30, 43)
    assert scene.judged().feasibility is not None
    assert scene.refused(replace(WISH, peers_min=2)).reason == "too-few-peers"
    scene.decides(scene.cid_pc, 0, 43)
    assert scene.refused(replace(WISH, peers_min=2)).reason == "too-few-peers"  # no room for a round
    tight = replace(WISH, deadline=moment(scene.world.charter, 45).removesuffix(" UTC"))
    assert deadline_slice(scene.world.charter, tight.deadline or "", 43) == 44
    assert scene.refused(tight).reason == "above-every-slice"  # 50 rounds, and room for 26 in one slice
    scene.decides(scene.ann_pc, 10**9, 43)
    assert scene.refused(replace(WISH, peers_min=2)).reason == "too-few-peers"  # one's own machine cannot be paid
    large = RECIPE.model_copy(update={"rounds": RECIPE.rounds.model_copy(update={"local_steps": 50_000})})
    assert "more than any peer has in a slice" in scene.refused(replace(WISH, recipe=large)).message


def test_work_that_nobody_checks_is_asked_for_by_the_payers_word_alone(scene: Scene) -> None:
    recipe = RECIPE.model_copy(update={"checks": ChecksConfig(rate=0.0)})
    wish = replace(WISH, recipe=recipe, budget=800)
    refused = scene.refused(wish)
    assert refused.reason == "unchecked" and "0.0001 credits" in refused.message  # an eighth
    assert "--accept-unchecked" in (refused.hint or "")
    known = scene.known()
    assert judge(draft(wish, known), recipe, known, accept_unchecked=True).body.credits == 800


def test_a_round_that_no_device_of_the_charter_makes_in_a_slice(scene: Scene) -> None:
    long = load_recipe("shakespeare-nano")
    long = long.model_copy(update={"rounds": long.rounds.model_copy(update={"local_steps": 2000})})  # 880 GFLOP
    slow = replace(scene.world.charter, devices=(DeviceClass("slow", 1),))
    error = scene.refused(replace(WISH, recipe=long, peers_max=1), charter=slow)
    assert error.reason == "above-every-slice" and "the fastest device of the charter gives 765" in error.message


def test_after_a_quiet_time_what_was_there_refuses_nobody(scene: Scene) -> None:
    scene.decides(scene.ben_pc, 30, 20)
    judged = scene.judged(replace(WISH, peers_min=2))
    assert judged.feasibility is not None
    assert judged.feasibility.peers == 1
    assert not scene.known().supply.recent


def test_the_expected_wait_is_what_the_allocator_says(scene: Scene) -> None:
    scene.decides(scene.ben_pc, 60)
    scene.decides(scene.cid_pc, 60)
    mine = Asked(id_of(1), scene.ann.public, 40, scene.judged(replace(WISH, peers_max=2)).body)

    def decided(*budgets: int) -> list[Tried]:
        offers = (Offer(scene.cid_pc.public, budget, budget) for budget in budgets)
        return tried(assemble(scene.world.ledger, scene.activity(), 41, offer, [mine]) for offer in offers)

    assert prospect(decided(60), mine.id, 1).words.startswith("accepted: 50 GFLOP")
    for number in range(4):
        scene.asks(scene.ben, scene.ben_pc, f"run {number}")
    late = prospect(decided(60), mine.id, 1)
    assert late.queue is not None
    assert late.wait_s is not None and late.wait_s > 0
    assert "not this slice: full" in late.words
    assert prospect(decided(60, 1000), mine.id, 1).wait_s == 0  # one peer will do, and one has room
    assert prospect(decided(60, 1000), mine.id, 2) == late  # both are needed: it waits for the other
    assert prospect([], mine.id, 1).words == UNKNOWN


@pytest.mark.parametrize("text", ["soon", "h", "-1h", "1.5h", "99999h", "2026-13-01", "²h", ""])
def test_a_deadline_that_is_none(scene: Scene, text: str) -> None:
    with pytest.raises(ConfigError):
        deadline_slice(scene.world.charter, text, 40)


@pytest.mark.slow
@given(st.integers(0, 10**6), st.integers(0, 10**4))
def test_all_of_the_last_slice_lies_before_the_deadline(now: int, hours: int) -> None:
    charter = World(1).charter
    last = deadline_slice(charter, f"{hours}h", now)
    assert (last - now) * charter.slice_s <= hours * 3600 < (last - now + 1) * charter.slice_s


@pytest.mark.parametrize(
    "change",
    [
        {"run": ""}, {"run": "x" * 65}, {"run": "a\nb"}, {"run": 5}, {"run": "../x"}, {"run": ".x"},
        {"budget": 0}, {"budget": 2**53}, {"budget": 1.5},
        {"budget": True}, {"urgency": 999}, {"urgency": 2001}, {"peers_min": 0}, {"peers_max": 10**9},
        {"purpose": "x" * 65}, {"purpose": "a\x1b[2J"}, {"deadline": "1" * 65}, {"recipe": "no = 1"},
        {"recipe": RECIPE.to_toml().replace("digits", "mystery")}, {"recipe": "x" * 70_000},
    ],
)  # fmt: skip
def test_hostile_fields_are_refused_in_words(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        wish_of({"run": "plays", "recipe": RECIPE.to_toml(), "budget": None, **change})


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 500), st.integers(1, 8), st.integers(0, 7), st.lists(st.integers(0, 60), max_size=2),
    st.sampled_from(["1h", "3h", "2d", None]), st.booleans(),
)  # fmt: skip
def test_whatever_is_not_refused_the_ledger_takes(
    budget: int, low: int, more: int, budgets: list[int], deadline: str | None, part: bool
) -> None:
    scene = Scene()
    for node, each in zip((scene.ben_pc, scene.cid_pc), budgets, strict=False):
        scene.decides(node, each)
    wish = replace(WISH, budget=budget, peers_min=low, peers_max=min(8, low + more), deadline=deadline, part=part)
    try:
        judged = scene.judged(wish)
    except Refused:
        return
    assert judged.price_min <= budget or part
    if budgets:
        assert sum(each > 0 for each in budgets) >= low
    scene.world.write(scene.ann, judged.body)


def test_a_recipe_that_names_a_file_of_this_machine(scene: Scene) -> None:
    recipe = load_recipe("fashion-cnn")
    local = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": "/etc/../home/me"})})
    assert local.hash() == recipe.hash()
    assert scene.refused(replace(WISH, recipe=local)).reason == "local-path"
    assert scene.judged(replace(WISH, recipe=recipe)).price_min == 240


@pytest.mark.parametrize("run", ["../x", "a/b", ".x", "a\x1b[2J", ""])
def test_a_name_that_was_signed_is_looked_at_too(scene: Scene, run: str) -> None:
    """A client of the API need not sign what was drafted for it."""
    known = scene.known()
    with pytest.raises(ConfigError, match="a run's name has"):
        judge(draft(WISH, known)._replace(run=run), RECIPE, known)


def test_another_recipe_than_the_signed_one(scene: Scene) -> None:
    known = scene.known()
    body = draft(WISH, known)
    other = load_recipe("shakespeare-nano")
    with pytest.raises(Refused, match="another recipe"):
        judge(body, other, known)
    checks: list[Callable[[], object]] = [lambda: judge(body._replace(paymaster=bytes(32)), RECIPE, known)]
    for check in checks:
        with pytest.raises(Refused, match="another paymaster"):
            check()
