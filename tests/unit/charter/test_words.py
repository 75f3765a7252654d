"""The charter in plain language."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from ubcp_p2p.allocator import problem
from ubcp_p2p.charter.draft import Answers, first, following
from ubcp_p2p.charter.fields import RESERVE_PERMILLE_MAX
from ubcp_p2p.charter.values import Allowance, Charter
from ubcp_p2p.charter.words import Line, changes, cost_lines, figure, lines, moment, span

STEWARDS = [bytes([n]) * 32 for n in (1, 2, 3)]
WITH_COSTS = Answers(
    "Lab", ("de",), STEWARDS, threshold=2, newcomer=2_500_000_000, currency="EUR", tariff=300_000, carbon_g=360
)
CHARTER = first(WITH_COSTS, epoch=1_767_225_600)


def said(charter: Charter, heading: str) -> str:
    return "; ".join(line.text for line in lines(charter) if line.heading == heading)


def test_who_and_how_many_must_sign() -> None:
    assert said(CHARTER, "stewards").startswith("2 of 3 must sign each enrolment and each new version; 0101")
    assert STEWARDS[2].hex() in said(CHARTER, "stewards")
    assert "open network" in said(replace(CHARTER, threshold=0), "stewards")


def test_what_people_get_and_for_how_long() -> None:
    assert said(CHARTER, "allowance") == (
        "every 7 days a member gets 10,000 credits, a newcomer 2,500 credits; "
        "what is not spent within 28 days is gone; of what was earned, within 182 days; "
        "nobody can commit more than 100,000 credits in 7 days"
    )
    assert said(CHARTER, "enrolment") == "for at most 364 days (52 periods), then anew"


def test_how_it_is_shared() -> None:
    assert said(CHARTER, "sharing") == (
        "a decision every 15 minutes; 15 % of each slice are kept for newcomers; past use counts half after 7 days; "
        "a request that has waited 1 day weighs double; receipts are taken until 1 day after a request's end"
    )
    assert "12.5 % of" in said(replace(CHARTER, newcomer_permille=125), "sharing")
    assert "nothing is kept for newcomers" in said(replace(CHARTER, threshold=0), "sharing")
    assert said(CHARTER, "purposes").endswith("research; never for crypto-mining, surveillance, weapons")
    assert said(replace(CHARTER, refused=()), "purposes").endswith("public-interest, research")


def test_what_a_credit_costs_and_why() -> None:
    first_, *rest = cost_lines(CHARTER)
    assert "at one price for everybody" in first_
    assert rest[0] == "its cost, at 0.3 EUR and 360 g CO2 per kWh:"
    at = rest.index(
        "gpu-consumer: 0.00133 EUR, of it 0.000938 for energy and 0.000396 for hardware; 3.12 Wh, 1.12 g CO2"
    )
    assert rest[at + 1] == "  by 25 s at 40,000 GFLOP/s, 450 W, 2,000 EUR for 35,040 hours"
    assert "no cost basis" in cost_lines(replace(CHARTER, cost=None))[1]


def test_changes_name_what_is_new_and_what_is_gone() -> None:
    after = replace(following(CHARTER, 9), allowance=Allowance(1_000_000, 2_500_000_000))
    assert changes(after, CHARTER) == [
        Line("allowance", "every 7 days a member gets 1 credits, a newcomer 2,500 credits"),
        Line("allowance", "no longer: every 7 days a member gets 10,000 credits, a newcomer 2,500 credits"),
    ]
    assert changes(following(CHARTER, 9), CHARTER) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(0), "0"), (Fraction(1, 3), "0.333"), (Fraction(2, 3), "0.667"), (Fraction(10000, 3), "3,330"),
        (Fraction(25), "25"), (Fraction(100), "100"), (Fraction(1, 10**9), "0.000000001"), (Fraction(9999), "10,000"),
        (Fraction(5, 2), "2.5"),
    ],
)  # fmt: skip
def test_figures(value: Fraction, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "1 second"), (59, "59 seconds"), (60, "1 minute"), (90, "90 seconds"), (900, "15 minutes"),
        (3600, "1 hour"), (5400, "90 minutes"), (86_400, "1 day"), (90_000, "25 hours"), (200_000, "2.31 days"),
        (7 * 86_400, "7 days"),
    ],
)  # fmt: skip
def test_spans(seconds: int, text: str) -> None:
    assert span(seconds) == text


def test_moments_beyond_the_calendar_have_words_too() -> None:
    assert moment(CHARTER, 1) == "2026-01-08 00:00 UTC"
    assert moment(CHARTER, 2**32 - 1) == "the start of period 4294967295"


def test_no_more_is_promised_to_newcomers_than_an_allocator_keeps() -> None:
    words = said(replace(CHARTER, newcomer_permille=900), "sharing")
    assert "50 % of each slice are kept for newcomers (the most that can be; the charter says 90 %)" in words
    assert RESERVE_PERMILLE_MAX == problem.RESERVE_PERMILLE_MAX
