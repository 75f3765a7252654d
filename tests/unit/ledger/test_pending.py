"""Who waits for what: nobody is woken too early, nobody is forgotten, and there is a bound on everything."""

from __future__ import annotations

import pytest

from ubcp_p2p.ledger import pending
from ubcp_p2p.ledger.pending import MISSING_MAX, Waiting


def _id(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_only_who_lacks_nothing_more_is_woken() -> None:
    waiting = Waiting()
    waiting.add(1, [_id(1), _id(2)], 10)
    waiting.add(2, [_id(1)], 10)
    assert waiting.missing() == [_id(1), _id(2)]
    assert waiting.arrived(_id(1)) == [2]
    assert waiting.missing() == [_id(2)]
    assert waiting.arrived(_id(3)) == []
    assert waiting.arrived(_id(2)) == [1]
    assert len(waiting) == 2  # until they are removed
    waiting.remove(1)
    waiting.remove(2)
    waiting.remove(2)
    assert len(waiting) == 0 and waiting.overflow() == []


def test_who_is_woken_and_lacks_something_else_waits_again() -> None:
    waiting = Waiting()
    waiting.add(1, [_id(1)], 10)
    assert waiting.arrived(_id(1)) == [1]
    waiting.add(1, [_id(2)], 10)
    assert waiting.missing() == [_id(2)]
    assert waiting.arrived(_id(2)) == [1]


def test_a_removed_one_is_not_woken() -> None:
    waiting = Waiting()
    waiting.add(1, [_id(1), _id(2)], 10)
    waiting.add(2, [_id(1)], 10)
    waiting.remove(1)
    assert waiting.missing() == [_id(1)]
    assert waiting.arrived(_id(1)) == [2]


def test_one_waits_for_few_at_once() -> None:
    waiting = Waiting()
    waiting.add(1, [_id(i) for i in range(MISSING_MAX + 5)], 10)
    assert len(waiting.missing()) == MISSING_MAX


def test_the_oldest_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Waiting()
    for number in (5, 3, 4):
        waiting.add(number, [_id(number)], 100)
    assert waiting.overflow() == []
    monkeypatch.setattr(pending, "COUNT_MAX", 2)
    assert waiting.overflow() == [3]
    monkeypatch.setattr(pending, "BYTES_MAX", 199)
    assert waiting.overflow() == [3, 4]
