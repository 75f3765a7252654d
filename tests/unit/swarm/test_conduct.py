"""Strikes, bans and token buckets."""

from __future__ import annotations

from ubcp_p2p.swarm.conduct import BAN_S, BAN_S_MAX, FORGIVEN_S, STRIKES_MAX, TRACKED_MAX, Buckets, Conduct

PEER = b"p" * 32


def banned_for(conduct: Conduct, now_s: float) -> float | None:
    """Strike until it is a ban."""
    for _ in range(STRIKES_MAX - 1):
        assert conduct.strike(PEER, "junk", now_s) is None
        assert not conduct.is_banned(PEER, now_s)
    return conduct.strike(PEER, "more junk", now_s)


def test_some_strikes_are_a_ban_that_ends() -> None:
    conduct = Conduct()
    assert banned_for(conduct, 100.0) == BAN_S
    assert conduct.is_banned(PEER, 100.0 + BAN_S - 0.1)
    assert not conduct.is_banned(PEER, 100.0 + BAN_S)
    ((peer, left_s, why),) = [(ban.peer, ban.left_s, ban.why) for ban in conduct.bans(101.0)]
    assert (peer, left_s, why) == (PEER, BAN_S - 1.0, "more junk")
    assert conduct.bans(100.0 + BAN_S) == []
    assert conduct.why_banned(PEER, 101.0) == "more junk"
    assert conduct.why_banned(PEER, 100.0 + BAN_S) == conduct.why_banned(b"q" * 32, 101.0) == ""


def test_a_ban_doubles_and_has_a_longest() -> None:
    conduct, now_s, lengths = Conduct(), 0.0, []
    for _ in range(15):
        seconds = banned_for(conduct, now_s)
        assert seconds is not None
        lengths.append(seconds)
        now_s += seconds
    assert lengths[:4] == [BAN_S, 2 * BAN_S, 4 * BAN_S, 8 * BAN_S]
    assert lengths[-1] == BAN_S_MAX


def test_strikes_long_ago_are_forgiven() -> None:
    conduct = Conduct()
    for number in range(10 * STRIKES_MAX):
        assert conduct.strike(PEER, "junk", number * (FORGIVEN_S + 1.0)) is None


def test_strikes_of_one_kind_can_count_for_all() -> None:
    conduct = Conduct()
    assert conduct.strike(PEER, "lies", 0.0, STRIKES_MAX) == BAN_S
    assert conduct.strike(PEER, "again", 1.0, STRIKES_MAX) is None  # it is ignored already


def test_strangers_do_not_push_out_who_is_banned() -> None:
    conduct = Conduct()
    banned_for(conduct, 0.0)
    for number in range(3 * TRACKED_MAX):
        conduct.strike(number.to_bytes(32, "big"), "junk", 1.0)
    assert conduct.is_banned(PEER, 1.0)
    assert len(conduct._records) <= TRACKED_MAX


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    buckets: Buckets[bytes] = Buckets(10.0, 20.0)
    assert sum(buckets.allow(b"a", 0.0) for _ in range(100)) == 20
    assert sum(buckets.allow(b"a", 1.0 + n / 1000) for n in range(1000)) == 19  # 1 s gave 10, the next second 9 more
    assert buckets.allow(b"b", 2.0)


def test_the_table_of_buckets_is_bounded_and_forgets_the_quiet() -> None:
    buckets: Buckets[int] = Buckets(1.0, 2.0)
    for _ in range(3):
        buckets.allow(-1, 1e6)
    for number in range(3 * TRACKED_MAX):
        buckets.allow(number, float(number))
    assert len(buckets._tokens) <= TRACKED_MAX
    assert not buckets.allow(-1, 1e6)


def test_what_is_above_the_rate_is_told_how_long_to_wait() -> None:
    buckets: Buckets[str] = Buckets(4.0, 2.0)
    assert [buckets.delay_s("a", 10.0) for _ in range(5)] == [0.0, 0.0, 0.25, 0.5, 0.75]
    assert buckets.delay_s("b", 10.0) == 0.0
    assert not buckets.has("a", 10.75) and not buckets.has("a", 10.9)
    assert buckets.has("a", 11.0)  # and takes nothing
    assert buckets.delay_s("a", 11.0) == 0.0
    assert buckets.delay_s("a", 100.0) == 0.0
