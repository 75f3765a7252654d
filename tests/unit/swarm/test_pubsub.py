"""The rate limit of gossip: a flood is cut to the rate, and nobody else pays for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.swarm.pubsub import AUTHORS_MAX, BURST, RATE_PER_S_MAX, _allowed

Allowance = dict[bytes, tuple[float, float]]


def passed(times_s: list[float], sender: bytes = b"a", allowance: Allowance | None = None) -> int:
    book: Allowance = {} if allowance is None else allowance
    return sum(_allowed(book, sender, now_s) for now_s in times_s)


@given(st.lists(st.floats(0.0, 30.0), max_size=400))
def test_no_more_than_burst_and_rate_ever_pass(times_s: list[float]) -> None:
    times_s.sort()
    span_s = times_s[-1] - times_s[0] if times_s else 0.0
    assert passed(times_s) <= BURST + RATE_PER_S_MAX * span_s + 1.0


@given(st.integers(41, 2000))
def test_one_who_floods_still_gets_the_rate(per_s: int) -> None:
    """Refused messages cost nothing: else 41 a second would pass as none a second."""
    seconds = 10
    count = passed([n / per_s for n in range(per_s * seconds)])
    assert abs(count - min(per_s * seconds, BURST + RATE_PER_S_MAX * seconds)) <= RATE_PER_S_MAX * 0.1 + 2


def test_silence_saves_up_no_more_than_a_burst() -> None:
    book: Allowance = {}
    assert passed([0.0], b"a", book) == 1
    assert passed([3600.0] * 1000, b"a", book) == BURST


def test_heartbeats_always_pass() -> None:
    assert passed([n / 4.0 for n in range(4000)]) == 4000


def test_a_flood_costs_its_author_only() -> None:
    book: Allowance = {}
    passed([0.0] * 1000, b"flood", book)
    assert not _allowed(book, b"flood", 0.0)
    assert passed([0.0] * 10, b"quiet", book) == 10


def test_the_book_of_authors_is_bounded() -> None:
    book: Allowance = {}
    for number in range(2 * AUTHORS_MAX + 10):
        _allowed(book, number.to_bytes(4, "big"), 0.0)
    assert len(book) <= AUTHORS_MAX
