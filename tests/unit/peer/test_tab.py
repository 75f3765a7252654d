"""A paymaster's tab: what is owed for which round; nobody is paid twice, above an ALLOT, or for a made-up line."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.swarm.made import KEYS, RUN, certificate, digest
from ubcp_p2p.codec import Value, decode, encode, fields, items
from ubcp_p2p.errors import UbcpError
from ubcp_p2p.ledger.entry import CONTRIBUTORS_MAX, ZERO
from ubcp_p2p.models.cost import UNIT_FLOP
from ubcp_p2p.peer.paying.holding import (
    HOLDS_PER_NODE_MAX,
    REPORT_ROUNDS,
    REPORT_S,
    REPORT_S_MAX,
    Hold,
    Stage,
    hold_of,
    is_overdue,
)
from ubcp_p2p.peer.paying.tab import (
    ROUNDS_AWAY,
    ROUNDS_KEPT,
    TAB_BYTES_MAX,
    BillRefused,
    NothingMore,
    Tab,
    Terms,
    allotment,
)
from ubcp_p2p.swarm.quorum import Certificate
from ubcp_p2p.verification.draw import Draw

A, B, C = KEYS[:3]
LEASED = frozenset(key.public for key in (A, B, C))
REQUEST = digest("request")
TERMS = Terms(REQUEST, RUN, flop_per_sample=UNIT_FLOP, weight_max=8, peers_max=4, rounds=10_000, credits=1_000)
PEAK = 1_000_000
EVIDENCE = digest("evidence")


def state(round_: int) -> bytes:
    return digest(f"state {round_}")


def done(round_: int, line: str = "") -> Certificate:
    """The round that began at number `round_`: A, B and C made it, with 8 samples each."""
    names = (A, B, C)
    after = digest(f"state {round_ + 1}{line}")
    return certificate(names, names, round_=round_, base=state(round_), state=after, payer=REQUEST)


def opened() -> Tab:
    tab = Tab(TERMS)
    for key in (A, B, C):
        tab.welcome(key.public, sha256(key.public).digest(), "cpu", 100)
    return tab


def test_a_round_is_owed_by_its_samples_and_once() -> None:
    tab = opened()
    tab.meter(A.public, done(0), LEASED)
    assert tab.due(A.public, 1_000, PEAK, 101).units == 8
    with pytest.raises(BillRefused, match="billed before"):
        tab.meter(A.public, done(0), LEASED)
    tab.meter(B.public, done(0), LEASED)
    tab.meter(A.public, done(1), LEASED)
    assert tab.due(A.public, 1_000, PEAK, 101).units == 16
    assert tab.due(B.public, 1_000, PEAK, 101).units == 8
    assert tab.due(C.public, 1_000, PEAK, 101).units == 0


def test_parts_of_a_unit_add_up() -> None:
    tab = Tab(TERMS._replace(flop_per_sample=UNIT_FLOP // 16))
    tab.welcome(A.public, digest("opening"), "cpu", 0)
    units = []
    for round_ in range(4):
        tab.meter(A.public, done(round_), LEASED)
        units.append(tab.due(A.public, 1_000, PEAK, 1).units)
    assert units == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("bill", "leased", "words"),
    [
        (replace(done(1), state_hash=digest("another")), LEASED, "another group's round"),
        (done(2, line="x"), LEASED, "not on the line"),
        (
            certificate([A, B, C], [A, B, C], round_=2, base=digest("elsewhere"), payer=REQUEST),
            LEASED,
            "not on the line",
        ),
        (certificate([B, C], [B, C], round_=2, base=state(2)), LEASED, "does not name this contributor"),
        (certificate([A, B, C], [A, B, C], round_=2, base=state(2), state=state(3)), LEASED, "another payer"),
        (certificate(KEYS[:5], KEYS[:5], round_=2, base=state(2), payer=REQUEST), LEASED, "5 where the recipe seats 4"),
        (done(2), frozenset({A.public}), "have no lease"),
        (done(TERMS.rounds), LEASED, "of a run of"),
        (done(5 + ROUNDS_AWAY), LEASED, "too far"),
    ],
)
def test_what_is_not_paid(bill: Certificate, leased: frozenset[bytes], words: str) -> None:
    """Round 1 and 3 of B were paid already; A has billed nothing since round 0."""
    tab = opened()
    tab.meter(A.public, done(0), LEASED)
    for round_ in (1, 3):
        tab.meter(B.public, done(round_), LEASED)
    before = tab.to_bytes()
    with pytest.raises(BillRefused, match=words):
        tab.meter(A.public, bill, leased)
    assert tab.to_bytes() == before
    tab.meter(A.public, done(2), LEASED)


def test_weights_above_the_recipe_are_clamped() -> None:
    tab = Tab(TERMS._replace(weight_max=3))
    tab.welcome(A.public, digest("opening"), "cpu", 0)
    tab.meter(A.public, done(0), LEASED)
    assert tab.due(A.public, 1_000, PEAK, 1).units == 3


def test_no_device_does_more_than_its_class_can() -> None:
    tab = opened()
    tab.meter(A.public, done(0), LEASED)
    due = tab.due(A.public, 1_000, 3, 102)
    assert (due.units, due.seconds) == (6, 2)
    tab.promise(A.public, due, EVIDENCE)
    assert tab.due(A.public, 1_000, 3, 50).seconds == 2  # a clock that was set back takes nothing back
    assert tab.due(A.public, 1_000, 3, 110).units == 8


def test_nothing_above_the_allot_and_never_less_than_was_promised() -> None:
    tab = opened()
    tab.meter(A.public, done(0), LEASED)
    due = tab.due(A.public, 5, PEAK, 101)
    assert (due.units, due.wanted) == (5, 8)
    tab.promise(A.public, due, EVIDENCE)
    assert tab.due(A.public, 0, PEAK, 101).units == 5


def test_a_tab_comes_back_from_its_bytes() -> None:
    tab = opened()
    for round_ in range(3):
        tab.meter(A.public, done(round_), LEASED)
    tab.promise(A.public, tab.due(A.public, 9, PEAK, 105), EVIDENCE)
    again = Tab.from_bytes(tab.to_bytes(), TERMS)
    assert again == tab
    with pytest.raises(BillRefused, match="another request"):
        Tab.from_bytes(tab.to_bytes(), TERMS._replace(request=digest("other")))


def test_a_tab_of_an_older_version_is_read() -> None:
    tab = opened()
    tab.meter(A.public, done(0), LEASED)
    request, accounts, places, holds = fields(decode(tab.to_bytes(), bytes_max=TAB_BYTES_MAX), 4)
    rows = [fields(row, 17) for row in items(accounts, CONTRIBUTORS_MAX)]
    old: list[Value] = [[*row[:7], *row[8:14], row[16]] for row in rows]
    for account in tab.accounts.values():
        account.billed = 0  # which is not known
    assert Tab.from_bytes(encode([request, old, places, holds]), TERMS) == tab
    with pytest.raises(UbcpError):
        Tab.from_bytes(encode([request, [rows[0][:15]], places, holds]), TERMS)


DRAWN = Draw(A.public, B.public, (2,))


def test_a_drawn_round_is_owed_when_its_check_is_over() -> None:
    tab = opened()
    tab.meter(A.public, done(0), LEASED, DRAWN, 100)
    tab.meter(A.public, done(1), LEASED)
    due = tab.due(A.public, 1_000, PEAK, 101)
    assert (due.units, due.rounds, due.wanted) == (8, 1, 16)  # an ALLOT has room for what is held
    with pytest.raises(BillRefused, match="billed before"):
        tab.meter(A.public, done(0), LEASED)
    tab.release(A.public, 0, honest=True)
    tab.release(A.public, 0, honest=True)
    due = tab.due(A.public, 1_000, PEAK, 101)
    assert (due.units, due.rounds, due.wanted) == (16, 2, 16)


def test_a_round_that_is_not_opened_is_not_owed_and_others_are() -> None:
    tab = opened()
    tab.meter(A.public, done(0), LEASED, DRAWN, 100)
    tab.withhold(A.public, 0, "round 0 is not paid", unopened=True, now_s=101)
    tab.release(A.public, 0, honest=True)
    tab.meter(A.public, done(1), LEASED)
    account = tab.accounts[A.public]
    assert (account.withheld, account.words) == (1, "round 0 is not paid")
    assert tab.due(A.public, 1_000, PEAK, 101)[0::3] == (8, 8)


def unopened(tab: Tab, *rounds: int, at_s: int) -> None:
    """A's rounds are drawn and billed in one second, and looked at in the next, when nothing is opened."""
    for round_ in rounds:
        tab.meter(A.public, done(round_), LEASED, DRAWN, at_s)
    for round_ in rounds:
        tab.withhold(A.public, round_, f"round {round_} is not paid", unopened=True, now_s=at_s + 1)


def test_who_opens_nothing_again_and_again_is_owed_no_round_more() -> None:
    tab = opened()
    unopened(tab, 0, at_s=100)
    unopened(tab, 1, at_s=200)
    tab.meter(A.public, done(2), LEASED, DRAWN, 250)  # waits
    tab = Tab.from_bytes(tab.to_bytes(), TERMS)
    assert not tab.accounts[A.public].barred
    unopened(tab, 3, at_s=300)
    account = tab.accounts[A.public]
    assert (account.withheld, account.proof, tab.held(A.public)) == (3, ZERO, [])
    with pytest.raises(NothingMore, match="did not open its work 3 times in a row; round 3 is not paid"):
        tab.meter(A.public, done(4), LEASED)


def test_a_machine_that_was_off_for_a_while_has_failed_once() -> None:
    tab = opened()
    unopened(tab, *range(10), at_s=100)
    unopened(tab, *range(10, 20), at_s=101)  # billed in the second in which it was found to be off
    unopened(tab, *range(20, 30), at_s=200)
    assert (tab.accounts[A.public].withheld, tab.accounts[A.public].barred) == (30, "")


@pytest.mark.parametrize(("honest", "barred"), [(True, False), (False, True)])
def test_only_an_honest_check_makes_up_for_what_was_not_opened(*, honest: bool, barred: bool) -> None:
    tab = opened()
    unopened(tab, 0, at_s=100)
    unopened(tab, 1, at_s=200)
    tab.meter(A.public, done(2), LEASED, DRAWN, 300)
    tab.release(A.public, 2, honest=honest)
    unopened(tab, 3, at_s=400)
    assert bool(tab.accounts[A.public].barred) is barred


def test_gradients_that_drown_bar_nobody() -> None:
    tab = opened()
    for round_ in range(10):
        tab.meter(A.public, done(round_), LEASED, DRAWN, 100 * (round_ + 1))
        tab.withhold(A.public, round_, "it drowns", unopened=False, now_s=100 * (round_ + 1) + 1)
    account = tab.accounts[A.public]
    assert (account.withheld, account.barred) == (10, "")


@given(st.lists(st.integers(1, 900), max_size=12))
def test_which_rounds_a_node_has_billed_is_known(steps: list[int]) -> None:
    tab = Tab(TERMS._replace(rounds=20_000))
    tab.welcome(A.public, digest("opening"), "cpu", 0)
    assert not tab.has_billed(A.public, 0) and not tab.has_billed(B.public, 0)
    billed = [sum(steps[: n + 1]) for n in range(len(steps))]
    for round_ in billed:
        tab.places.clear()  # its line is not what this is about
        tab.meter(A.public, done(round_), LEASED)
    last = max(billed, default=-1)
    tab = Tab.from_bytes(tab.to_bytes(), tab.terms)
    for round_ in range(last + 2):
        forgotten = last - round_ >= ROUNDS_KEPT
        assert tab.has_billed(A.public, round_) is (forgotten or round_ in billed)


def test_who_has_lied_is_owed_no_round_more() -> None:
    tab = opened()
    tab.meter(A.public, done(0), LEASED)
    for round_ in (1, 2):
        tab.meter(A.public, done(round_), LEASED, DRAWN, 100)
        tab.meter(B.public, done(round_), LEASED, DRAWN._replace(peer=B.public, validator=A.public), 100)
    tab.bar(A.public, "round 1 was no honest work", digest("proof"))
    tab.bar(A.public, "round 2 was none either", digest("more"))
    tab.release(A.public, 2, honest=True)
    assert tab.accounts[A.public].proof == digest("proof")
    with pytest.raises(NothingMore, match="no honest work"):
        tab.meter(A.public, done(3), LEASED)
    assert tab.due(A.public, 1_000, PEAK, 101)[0::3] == (8, 8)  # what was promised before stands
    assert [hold.round for hold in tab.held(B.public)] == [1, 2]
    assert Tab.from_bytes(tab.to_bytes(), TERMS) == tab


def test_so_many_rounds_wait_and_no_more() -> None:
    tab = opened()
    for round_ in range(HOLDS_PER_NODE_MAX):
        tab.meter(A.public, done(round_), LEASED, DRAWN, 100)
    before = tab.to_bytes()
    with pytest.raises(BillRefused, match="too many rounds wait"):
        tab.meter(A.public, done(HOLDS_PER_NODE_MAX), LEASED, DRAWN, 100)
    assert tab.to_bytes() == before
    assert Tab.from_bytes(before, TERMS) == tab


def test_a_hold_comes_back_and_says_what_the_certificate_says() -> None:
    hold = hold_of(done(3), DRAWN, 80, 100)
    seat = next(seat for seat in done(3).group.members if seat.peer == A.public)
    assert (hold.round, hold.base_hash, hold.weight) == (3, state(3), 8)
    assert (hold.offer, hold.trail, hold.stage) == (seat.offer, seat.trail, Stage.REPORT)
    alone = hold_of(done(3), DRAWN._replace(validator=None), 80, 100)
    assert alone.stage == Stage.OWN_LOOK  # there is nobody whose report could be waited for
    for made in (hold, alone, replace(hold, stage=Stage.EVIDENCE, evidence=EVIDENCE)):
        assert Hold.of(made.to_value()) == made


@pytest.mark.parametrize(
    ("newest", "waited_s", "ending", "overdue"),
    [
        (3, REPORT_S_MAX - 1, False, False),
        (3, REPORT_S_MAX, False, True),  # no round follows
        (3 + REPORT_ROUNDS, REPORT_S - 1, False, False),  # rounds are short
        (3 + REPORT_ROUNDS, REPORT_S, False, True),
        (2 + REPORT_ROUNDS, REPORT_S_MAX - 1, False, False),  # rounds are long
        (3, REPORT_S - 1, True, False),
        (3, REPORT_S, True, True),
    ],
)
def test_how_long_a_report_is_waited_for(newest: int, waited_s: int, ending: bool, overdue: bool) -> None:
    assert is_overdue(hold_of(done(3), DRAWN, 80, 100), newest, 100 + waited_s, ending=ending) is overdue


@given(st.binary(max_size=200))
def test_any_bytes_are_a_tab_or_refused(data: bytes) -> None:
    with pytest.raises(UbcpError):
        Tab.from_bytes(data, TERMS)


def test_so_many_contributors_and_rounds_are_kept_and_no_more() -> None:
    tab = Tab(TERMS)
    for number in range(CONTRIBUTORS_MAX):
        tab.welcome(digest(f"node {number}"), digest(f"opening {number}"), "cpu", 0)
    with pytest.raises(BillRefused, match="contributors at most"):
        tab.welcome(digest("one more"), digest("opening"), "cpu", 0)
    tab = opened()
    first = certificate([A], [A], round_=0, base=state(0), state=state(1), payer=REQUEST)
    for round_ in range(ROUNDS_KEPT + 10):
        group = replace(first.group, round=round_, base_hash=state(round_))
        tab.meter(A.public, replace(first, group=group, state_hash=state(round_ + 1)), LEASED)
    assert len(tab.places) == ROUNDS_KEPT


def test_the_round_before_is_the_one_that_was_paid() -> None:
    tab = opened()
    other = certificate([A, B], [A, B], round_=0, base=state(0), state=state(1))
    for base in (None, done(0), other):
        assert tab.is_on_line(base)  # nobody has billed it here
    tab.meter(A.public, done(0), LEASED)
    assert tab.is_on_line(None) and tab.is_on_line(done(0)) and tab.is_on_line(done(1))
    assert not tab.is_on_line(other)


openings = st.sampled_from([bytes([n]) * 32 for n in range(6)])


@given(st.integers(1, 10_000), st.integers(1, 64), st.lists(st.tuples(openings, st.integers(0, 20_000)), max_size=60))
def test_allots_never_exceed_the_request_and_never_fall(
    credits_: int, peers_max: int, wishes: list[tuple[bytes, int]]
) -> None:
    terms = TERMS._replace(credits=credits_, peers_max=peers_max)
    allots: dict[bytes, int] = {}
    for opening, wanted in wishes:
        before = allots.get(opening, 0)
        found = allotment(terms, allots, opening, wanted)
        assert found >= before
        others = sum(allots.values()) - before
        assert others + found <= credits_
        if found:
            allots[opening] = found
        assert found >= min(wanted, credits_ - others)  # what is free is to be had
