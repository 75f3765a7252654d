"""Purses: what is spent first, what burns, what comes back, and that nothing is made or lost."""

from __future__ import annotations

import pytest

from ubcp_p2p.ledger.faults import LedgerError
from ubcp_p2p.ledger.purse import ALLOWANCE, EARNED, Purse, Reserve, Vintage

OLD = Vintage(2, 0, ALLOWANCE)
NEW = Vintage(3, 1, ALLOWANCE)
WAGE = Vintage(3, 0, EARNED)
ONE, TWO = b"1" * 32, b"2" * 32


def _purse() -> Purse:
    """Made in another order than it is spent in."""
    purse = Purse()
    purse.add(NEW, 100)
    purse.add(WAGE, 30)
    purse.add(OLD, 50)
    return purse


def test_the_sources_are_told_apart() -> None:
    purse = _purse()
    assert (purse.issued, purse.earned, purse.available) == (150, 30, 180)
    assert (ALLOWANCE, EARNED) == (0, 1)  # of the order in which one is spent (SPEC §8.2)


def test_what_expires_first_is_spent_first_then_the_older_period() -> None:
    purse = _purse()
    purse.reserve(ONE, 70)
    assert purse.reserves[ONE] == Reserve(((OLD, 50), (WAGE, 20)), 0)
    assert purse.vintages == {WAGE: 10, NEW: 100}
    purse.reserve(TWO, 110)
    assert purse.reserves[TWO].parts == ((WAGE, 10), (NEW, 100))
    assert purse.vintages == {}
    assert purse.reserved == 180
    purse.check()


def test_a_whole_vintage_leaves_nothing_behind() -> None:
    purse = _purse()
    purse.reserve(ONE, 50)
    assert OLD not in purse.vintages
    purse.add(NEW, 0)
    purse.add(OLD, 0)
    assert OLD not in purse.vintages


def test_an_uncovered_reserve_is_a_mistake_unless_it_may_be_debt() -> None:
    with pytest.raises(AssertionError):
        _purse().reserve(ONE, 181)
    purse = _purse()
    purse.reserve(ONE, 181, overdraw=True)
    assert (purse.debt, purse.reserves[ONE].uncovered, purse.reserves[ONE].amount) == (1, 1, 181)
    purse.check()


def test_what_expires_is_burned() -> None:
    purse = _purse()
    assert purse.expire(1) == 0
    assert purse.expire(2) == 50
    assert purse.burned == 50
    assert purse.expire(3) == 130
    assert purse.available == 0
    purse.check()


def test_debt_is_repaid_before_anything_burns() -> None:
    purse = Purse()
    purse.reserve(ONE, 70, overdraw=True)
    purse.add(OLD, 50)
    purse.add(NEW, 40)
    assert purse.expire(2) == 0  # the 50 that would burn repay
    assert (purse.debt, purse.vintages) == (0, {NEW: 20})
    purse.check()


def test_debt_above_what_there_is_takes_all_of_it() -> None:
    purse = Purse()
    purse.reserve(ONE, 70, overdraw=True)
    purse.add(NEW, 40)
    purse.repay()
    assert (purse.debt, purse.vintages) == (30, {})
    purse.repay()
    assert purse.debt == 30
    purse.check()


def test_a_close_gives_back_the_youngest_part_first() -> None:
    purse = _purse()
    purse.reserve(ONE, 120)  # 50, 30 and 40
    purse.close(ONE, 60)
    assert purse.vintages == {NEW: 100, WAGE: 20}
    assert (purse.released, purse.reserves) == (60, {})
    purse.check()


def test_a_close_of_nothing_and_of_all() -> None:
    purse = _purse()
    purse.reserve(ONE, 60)
    purse.reserve(TWO, 60)
    purse.close(ONE, 0)
    assert purse.released == 60
    purse.close(TWO, 60)
    assert (purse.released, purse.available) == (60, 120)
    purse.check()


@pytest.mark.parametrize(
    ("repaid", "returned", "debt", "burned", "available"),
    [
        (0, 20, 10, 0, 0),
        (0, 30, 0, 0, 0),
        (0, 50, 0, 0, 20),
        (10, 30, 0, 10, 0),
        (30, 20, 0, 20, 0),
        (30, 80, 0, 30, 50),
    ],
)
def test_a_close_of_what_was_debt(repaid: int, returned: int, debt: int, burned: int, available: int) -> None:
    """50 of 80 were covered: what comes back takes back the debt of 30, and burns as far as that was repaid."""
    purse = Purse()
    purse.add(OLD, 50)
    purse.reserve(ONE, 80, overdraw=True)
    purse.add(NEW, repaid)
    purse.repay()
    purse.close(ONE, returned)
    assert (purse.debt, purse.burned, purse.available, purse.released) == (debt, burned, available, 80 - returned)
    purse.check()


def test_a_copy_shares_nothing() -> None:
    purse = _purse()
    purse.reserve(ONE, 10)
    other = purse.copy()
    assert other == purse
    other.close(ONE, 0)
    other.add(NEW, 1)
    assert (purse.reserved, purse.vintages[NEW], purse.released) == (10, 100, 0)


def test_what_does_not_sum_to_zero_is_found() -> None:
    purse = _purse()
    for field in ("issued", "earned", "released", "burned", "debt"):
        wrong = purse.copy()
        setattr(wrong, field, getattr(wrong, field) + 1)
        with pytest.raises(LedgerError) as error:
            wrong.check()
        assert error.value.code == "zero-sum"
    purse.check()
