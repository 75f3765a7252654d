"""What an account may earn of work that nobody checks: a share, however many nodes it has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.swarm.made import RUN, digest
from ubcp_p2p.ledger.entry import Request
from ubcp_p2p.peer.paying.share import capped, limit_of, share_of
from ubcp_p2p.peer.paying.tab import Terms, allotment

A, B, C, D, E, F = OPENINGS = tuple(digest(name) for name in "abcdef")
KIN = {A: frozenset({A, B, C}), B: frozenset({A, B, C}), C: frozenset({A, B, C})}  # one account's; others have one each
TERMS = Terms(digest("request"), RUN, 1, 8, 4, 100, credits=1000, share=250)
CHECKED = TERMS._replace(share=None)


def asked(credits_: int, peers_max: int) -> Request:
    none = bytes(32)
    return Request("plays", none, "research", 1, peers_max, 1, credits_, 9, 9, 1000, none, (), ())


def test_a_share_is_an_equal_one_among_the_most_peers() -> None:
    assert [share_of(asked(1000, peers)) for peers in (1, 3, 8)] == [1000, 333, 125]
    assert share_of(asked(2, 8)) == 1  # of a request that can pay anything at all


def test_other_nodes_of_an_account_have_of_the_same_share() -> None:
    allots = {A: 100, B: 50, D: 200}
    assert [limit_of(TERMS, allots, each, KIN.get(each, frozenset({each}))) for each in (A, C, D)] == [200, 100, 250]
    assert limit_of(TERMS, {A: 250}, B, KIN[B]) == 0
    assert limit_of(CHECKED, allots, C, KIN[C]) == 1000


def test_who_has_its_share_is_told_why_nothing_follows() -> None:
    assert capped(TERMS, 250, 249) is None
    assert "capped: nobody checks" in (capped(TERMS, 250, 250) or "")
    assert "0.00025 credits" in (capped(TERMS, 0, 0) or "")
    assert capped(CHECKED, 1000, 1000) is None  # the REQUEST itself is used up: another matter


@given(
    st.integers(1, 10_000), st.integers(1, 8), st.lists(st.tuples(st.sampled_from(OPENINGS), st.integers(0, 20_000)))
)
def test_no_account_is_ever_allotted_more_than_its_share(
    credits_: int, peers_max: int, wishes: list[tuple[bytes, int]]
) -> None:
    terms = TERMS._replace(credits=credits_, peers_max=peers_max, share=share_of(asked(credits_, peers_max)))
    assert terms.share is not None
    allots: dict[bytes, int] = {}
    for opening, wanted in wishes:
        kin = KIN.get(opening, frozenset({opening}))
        before, limit = allots.get(opening, 0), limit_of(terms, allots, opening, kin)
        found = allotment(terms, allots, opening, wanted, limit)
        assert found >= before
        free = credits_ - sum(allots.values()) + before
        assert found >= min(wanted, limit, free)  # what its share and the REQUEST leave is to be had
        if found:
            allots[opening] = found
        assert sum(allots.get(each, 0) for each in kin) <= terms.share
        assert sum(allots.values()) <= credits_
