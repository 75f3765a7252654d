"""A bill: its certificate alone, or with the card that was signed before the exchange and the state it began from."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.swarm.made import KEYS, OTHER_RUN, RUN, card, certificate, digest
from ubcp_p2p.codec import MalformedMessage, encode
from ubcp_p2p.peer.paying.bill import BILL_BYTES_MAX, Bill, bill_of
from ubcp_p2p.swarm.events import Committed
from ubcp_p2p.swarm.quorum import CARD_BYTES_MAX, CERTIFICATE_BYTES_MAX

A, B, C = KEYS[:3]
BASE = certificate([A, B], [A, B], round_=2, state=digest("base"))
ROUND = certificate([A, B], [A, B], round_=3)
CARD = card(A)
WHOLE = Bill(ROUND, CARD, BASE)
CARDS = tuple(card(key).to_bytes() for key in (B, C, A))


def read(bill: Bill) -> Bill:
    return Bill.from_bytes(bill.to_bytes(), RUN, members_max=8)


def test_a_bill_comes_back() -> None:
    first = certificate([A, B], [A, B], round_=0)
    clamped = card(A, weight=9)
    for bill in (WHOLE, Bill(ROUND), Bill(ROUND, clamped, BASE), Bill(first, card(A, round_=0))):
        assert read(bill) == bill


def test_the_card_goes_along_where_a_check_is_drawn() -> None:
    committed = Committed(ROUND, BASE, (b"junk", *CARDS))
    assert bill_of(committed, A.public, drawn=True) == WHOLE
    assert bill_of(committed, A.public, drawn=False) == Bill(ROUND)
    assert bill_of(committed, C.public, drawn=True).card is None  # it had no seat
    assert committed.card_of(B.public) == card(B)


@pytest.mark.parametrize(
    ("bill", "words"),
    [
        (Bill(ROUND, card(A, offer="other"), BASE), "nobody a seat"),
        (Bill(ROUND, card(C), BASE), "nobody a seat"),
        (Bill(ROUND, card(A, payer=digest("another")), BASE), "nobody a seat"),
        (Bill(ROUND, card(A, weight=7), BASE), "nobody a seat"),  # it would be paid for 8 samples and checked for 7
        (Bill(ROUND, card(A, round_=2), BASE), "nobody a seat"),
        (Bill(ROUND, card(A, base=digest("elsewhere")), BASE), "nobody a seat"),
        (Bill(ROUND, replace(CARD, run_id=OTHER_RUN).signed(A), BASE), "nobody a seat"),
        (Bill(ROUND, replace(CARD, weight=9), BASE), "card's signature"),
        (Bill(ROUND, CARD), "not that of the state"),
        (Bill(ROUND, CARD, certificate([A, B], [A, B], round_=1, state=digest("base"))), "not that of the state"),
        (Bill(ROUND, CARD, certificate([A, B], [A, B], round_=2)), "not that of the state"),
        (Bill(ROUND, CARD, certificate([A, B], [A], round_=2, state=digest("base"))), "no majority"),
        (Bill(certificate([A, B], [A])), "no majority"),
    ],
)
def test_parts_that_do_not_belong_together_are_no_bill(bill: Bill, words: str) -> None:
    with pytest.raises(MalformedMessage, match=words):
        read(bill)


def test_a_bill_of_the_greatest_parts_is_no_longer_than_allowed() -> None:
    parts = [bytes(CERTIFICATE_BYTES_MAX), bytes(CARD_BYTES_MAX), bytes(CERTIFICATE_BYTES_MAX)]
    assert len(encode([*parts])) <= BILL_BYTES_MAX


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        Bill.from_bytes(data, RUN, members_max=8)
