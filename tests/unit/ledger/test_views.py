"""What people read of an entry."""

from __future__ import annotations

import pytest

from ubcp_p2p.ledger.entry import (
    ZERO,
    Allot,
    Body,
    Checkpoint,
    Close,
    Decision,
    Enrol,
    Heal,
    Kind,
    OpenAccount,
    OpenNode,
    Position,
    Receipt,
    Request,
    Rotate,
    Voucher,
)
from ubcp_p2p.ledger.parse import make
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.views import entry_words, when
from ubcp_p2p.ledger.world import World
from ubcp_p2p.units import MICROCREDITS

A, B = bytes.fromhex("aa" * 32), bytes.fromhex("bb" * 32)
VOUCHER = Voucher(ZERO, A, B, A, B, 5 * MICROCREDITS, 5 * MICROCREDITS, 1, "gpu", 60, ZERO)
WORDS: list[tuple[Body, str]] = [
    (OpenAccount(ZERO), "opened the account"),
    (OpenNode(Position(A, 0, B)), "opened the node; its owner is aaaaaaaaaaaaaaaa…"),
    (Enrol(True, "school", 2, 5, ZERO), "enrolled as newcomer of school, periods 2 to 4"),
    (
        Request("my run", ZERO, "x", 1, 1, 1, 1_500_000, 0, 0, 1000, A, (), ()),
        "reserved 1.5 credits for the run 'my run'",
    ),
    (
        Decision(7, 1, 1, (A,), (("late", 2), ("poor", 3)), ZERO),
        "decided about slice 7: 1 accepted, 5 refused",
    ),
    (Allot(A, B, MICROCREDITS), "allotted up to 1 credits of aaaaaaaaaaaaaaaa… to the node of bbbbbbbbbbbbbbbb…"),
    (Receipt(VOUCHER, bytes(64)), "received 5 credits in all for bbbbbbbbbbbbbbbb…"),
    (Close(A, ((B, 1),), 2 * MICROCREDITS), "closed aaaaaaaaaaaaaaaa…: 2 credits return"),
    (Checkpoint(9, ZERO, ZERO), "checkpoint of 9 entries"),
    (Rotate(A, ZERO), "changed the key to aaaaaaaaaaaaaaaa…"),
    (Heal(((1, A),), (B,)), "healed a fork: 1 branches abandoned, 1 ids refused"),
]


@pytest.mark.parametrize(("body", "words"), WORDS)
def test_what_an_entry_does(body: Body, words: str) -> None:
    entry, _ = make(ZERO, A, 0, ZERO, 0, body)
    assert entry_words(entry) == words


def test_no_kind_is_without_words() -> None:
    assert {make(ZERO, A, 0, ZERO, 0, body)[0].kind for body, _ in WORDS} == set(Kind)


def test_times_for_people() -> None:
    ledger = Ledger(World(0).charters)
    assert when(ledger, 5) == "2026-01-01 01:15"
    assert when(ledger, 2**32 - 1) == "9999-12-31 23:59"
