"""The same entries say the same, whoever counts and in whatever order; and parts add up to the whole."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.ledger import Replica, shuffled
from tests.support.story import STEPS, Story
from ubcp_p2p.ledger.activity import Activity
from ubcp_p2p.ledger.entry import Request
from ubcp_p2p.ledger.stats import Figures, Span, Statistics, statistics, waits_of
from ubcp_p2p.ledger.stats_document import document, lines

pytestmark = pytest.mark.slow
SOME = settings(max_examples=settings().max_examples // 2)


def _activity(story: Story, seed: int | None = None) -> Activity:
    entries = list(story.scene.entries)
    if seed is not None:
        entries += entries[::3]
        random.Random(seed).shuffle(entries)
    activity = Activity()
    for signed in entries:
        activity.add(signed.entry)
    return activity


def _span(story: Story, rng: random.Random) -> Span:
    newest = story.scene.ledger.period(story.scene.ledger.slice)
    return Span(*sorted((rng.randint(0, newest), rng.randint(0, newest))))


def _stats(story: Story, activity: Activity, span: Span) -> Statistics:
    return statistics(activity, story.scene.ledger, span)


@SOME
@given(STEPS, st.integers(0, 999))
def test_any_order_gives_the_same_document(steps: list[int], seed: int) -> None:
    """Forks, heals and reopened nodes among them; what is against the rules comes to another peer too."""
    story = Story(steps)
    span = _span(story, random.Random(seed))
    charters = story.scene.charters
    stats = _stats(story, _activity(story), span)
    mixed = _stats(story, _activity(story, seed), span)
    assert document(mixed, charters) == document(stats, charters)
    assert lines(mixed, charters) == lines(stats, charters)

    peer = Replica(charters)
    for part in shuffled(story.told, seed):
        peer.take(part)
    activity = Activity()
    for chains in peer.ledger.chains.values():
        for signed in peer.history(chains[0].author):
            activity.add(signed.entry)
    assert document(statistics(activity, peer.ledger, span), charters) == document(stats, charters)


@SOME
@given(STEPS)
def test_work_is_what_the_ledger_has_paid(steps: list[int]) -> None:
    story = Story(steps)
    ledger, activity = story.scene.ledger, _activity(story)
    for id_ in ledger.requests:
        paid = sum(ledger.paid.get(id_, {}).values())
        assert activity.done(id_) == paid
        assert sum(work.units for work in activity.work() if work.request == id_) == paid
    newest = ledger.period(ledger.slice)
    total = sum(sum(row.values()) for row in ledger.paid.values())
    assert _stats(story, activity, Span(0, newest)).total.units == total
    assert sum(_stats(story, activity, Span(n, n)).total.units for n in range(newest + 1)) == total


@SOME
@given(STEPS)
def test_every_request_was_of_an_enrolled_account(steps: list[int]) -> None:
    story = Story(steps)
    activity = _activity(story)
    for id_, request in activity.requests.items():
        period = story.scene.ledger.period(request.slice)
        enrolment = activity.enrolment(id_, period)
        assert enrolment is not None
        assert enrolment.first <= period < enrolment.until


@SOME
@given(STEPS)
def test_periods_have_all_requests_and_leases_once(steps: list[int]) -> None:
    story = Story(steps)
    activity, ledger = _activity(story), story.scene.ledger
    last = ledger.period(max([ledger.slice, *(one.body.slice for one in activity.decisions.values())]))
    each = [_stats(story, activity, Span(n, n)) for n in range(last + 1)]
    whole = _stats(story, activity, Span(0, last))
    asked = sum(isinstance(signed.entry.body, Request) for signed in story.scene.entries)
    assert sum(one.total.requests for one in each) == whole.total.requests == asked == len(activity.requests)
    for name in ("leases", "units", "unserved", "overdue"):
        assert sum(getattr(one.total, name) for one in each) == getattr(whole.total, name)
    assert sum(one.nodes.budget_offered for one in each) == whole.nodes.budget_offered
    for one in (*each, whole):
        _check_sense(one.total)
        assert one.nodes.budget_leased <= one.nodes.budget_offered
        assert one.nodes.owners <= one.nodes.nodes <= one.nodes.decisions


def _check_sense(figures: Figures) -> None:
    assert figures.served.requests <= figures.accepted_of <= figures.requests
    assert figures.overdue <= figures.waiting.requests
    assert figures.units_unknown <= figures.units
    parts = figures.newcomers
    assert parts.requests <= figures.requests and parts.leases <= figures.leases and parts.units <= figures.units
    assert figures.accounts <= figures.requests + figures.leases + figures.units


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=250), st.randoms(use_true_random=False))
def test_a_rank_is_the_least_that_so_many_do_not_exceed(slices: list[int], rng: Any) -> None:
    shuffled_ = list(slices)
    rng.shuffle(shuffled_)
    waits = waits_of(shuffled_)
    assert waits == waits_of(slices)
    for percent, value in ((50, waits.p50), (90, waits.p90), (99, waits.p99), (100, waits.longest)):
        assert value in slices
        assert 100 * sum(one <= value for one in slices) >= percent * len(slices)
        assert 100 * sum(one < value for one in slices) < percent * len(slices)
