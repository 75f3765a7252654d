"""Shards are disjoint, cover the data, and are the same for all who know the same members."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.models.shards import shard, step_indices

RUN = bytes(range(32))
peers = st.binary(min_size=1, max_size=38)
members_lists = st.lists(peers, min_size=2, max_size=8, unique=True)
rounds = st.integers(0, 2**64 - 1)
sizes = st.integers(0, 3000)


@given(members_lists, peers, rounds, sizes)
def test_members_and_newcomer_share_all_items_without_overlap(
    members: list[bytes], newcomer: bytes, round_: int, n_items: int
) -> None:
    newcomer = newcomer + b"\0" + b"".join(members)  # longer than any member: none of them
    parts = [shard(RUN, round_, peer, members, n_items) for peer in [*members, newcomer]]
    assert sorted(np.concatenate(parts).tolist()) == list(range(n_items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(members_lists, rounds, st.integers(1, 3000), st.randoms(use_true_random=False))
def test_order_of_members_does_not_matter(members: list[bytes], round_: int, n_items: int, random: object) -> None:
    shuffled = list(members)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for peer in members:
        assert np.array_equal(shard(RUN, round_, peer, members, n_items), shard(RUN, round_, peer, shuffled, n_items))


@given(members_lists, peers, peers, rounds)
def test_any_two_newcomers_have_the_last_slot(members: list[bytes], one: bytes, two: bytes, round_: int) -> None:
    first, second = (shard(RUN, round_, peer + b"".join(members) + b"\0", members, 500) for peer in (one, two))
    assert np.array_equal(first, second)


@given(peers, rounds, sizes)
def test_a_peer_alone_has_everything(peer: bytes, round_: int, n_items: int) -> None:
    for members in ([], [peer], [peer, peer]):
        assert sorted(shard(RUN, round_, peer, members, n_items).tolist()) == list(range(n_items))


def test_rounds_and_runs_shuffle_differently() -> None:
    first = shard(RUN, 0, b"a", [], 1000)
    assert not np.array_equal(first, shard(RUN, 1, b"a", [], 1000))
    assert not np.array_equal(first, shard(RUN[::-1], 0, b"a", [], 1000))


def test_the_order_is_pinned() -> None:
    """Peers of different versions must agree: if this fails, the shards of every running run have changed."""
    mine = shard(RUN, 7, b"b", [b"c", b"a", b"b"], 10_000)
    assert mine.dtype == np.int64
    assert (
        hashlib.sha256(mine.astype("<i8").tobytes()).hexdigest()
        == "872fcf97a510e5b7bd87722199f96e954b6da6e1917c5c1cab2fc5138586edca"
    )


@given(st.integers(1, 50), st.integers(0, 1000), st.integers(1, 64))
def test_steps_walk_through_the_shard_and_start_again(size: int, step: int, batch: int) -> None:
    mine = shard(RUN, 0, b"a", [], size)
    expected = [int(mine[i % size]) for i in range(step * batch, (step + 1) * batch)]
    assert step_indices(mine, step, batch).tolist() == expected


def test_steps_do_not_repeat_an_item_before_the_shard_ends() -> None:
    mine = shard(RUN, 0, b"a", [], 96)
    seen = np.concatenate([step_indices(mine, step, 8) for step in range(12)])
    assert sorted(seen.tolist()) == list(range(96))
