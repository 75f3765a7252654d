"""A first charter from few answers, and the version after it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.charter.draft import Answers, epoch_at, first, following, majority
from ubcp_p2p.charter.values import CharterError, Charters, SignedCharter, Unit, check_follows


def test_a_name_is_enough() -> None:
    charter = first(Answers("Commons"), epoch=0)
    assert Charters(SignedCharter(charter)).network == charter.id
    assert charter.cost is None and charter.exposure_cap == 10 * charter.allowance.member


def test_answers_may_come_in_any_order_and_twice() -> None:
    keys = [bytes([2]) * 32, bytes([1]) * 32, bytes([2]) * 32]
    one = first(Answers("x", ("pt", "en"), keys, 1, purposes=("b", "a"), units=(Unit("z", 1), Unit("é", 2))), epoch=0)
    assert one.stewards == (bytes([1]) * 32, bytes([2]) * 32)
    assert (one.languages, one.purposes, [unit.name for unit in one.units]) == (("en", "pt"), ("a", "b"), ["z", "é"])


def test_what_cannot_be_is_refused_with_its_key() -> None:
    with pytest.raises(CharterError) as caught:
        first(Answers("x", threshold=1), epoch=0)
    assert caught.value.key == "threshold"


def test_the_next_version_follows_and_says_the_same() -> None:
    before = first(Answers("x"), epoch=0)
    after = following(before, 7)
    check_follows(after, before)
    assert (after.number, after.previous, after.effective) == (2, before.id, 7)
    with pytest.raises(CharterError, match="does not follow"):
        check_follows(following(before, 0), before)


def test_a_majority() -> None:
    assert [majority(n) for n in range(8)] == [0, 1, 2, 2, 3, 3, 4, 4]


@given(st.floats(86_400.0 * 4, 4e9))
def test_weeks_begin_on_mondays(now_s: float) -> None:
    epoch = epoch_at(now_s)
    assert 0 <= now_s - epoch < 7 * 86_400
    moment = datetime.fromtimestamp(epoch, UTC)
    assert (moment.weekday(), moment.hour, moment.minute, moment.second) == (0, 0, 0, 0)
