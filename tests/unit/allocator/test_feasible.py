"""What no choice of the allocators can make possible, and nothing else, is refused beforehand."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.allocator.feasible import Lack, Need, feasible, room
from ubcp_p2p.allocator.problem import GRANULES_MAX

NEED = Need(quantum_min=10, quantum=100, total=1000, peers_min=2, peers_max=3, slices=5)


@pytest.mark.parametrize(
    ("need", "budgets", "peers", "lack"),
    [
        (NEED, [100, 100], 2, None),
        (NEED, [100, 99], 2, Lack.TIME),  # 199 in a slice: 1000 take six
        (NEED._replace(slices=6), [100, 99], 2, None),
        (NEED, [400, 60, 40, 90], 4, None),  # the best three: 100 + 90 + 60
        (NEED, [100], 1, Lack.PEERS),
        (NEED, [], 0, Lack.PEERS),
        (NEED, [100, 9], 1, Lack.PEERS),  # no room for a round on the second
        (NEED, [9, 9], 0, Lack.ROUND),
        (NEED._replace(peers_max=2), [90, 90, 90], 3, Lack.TIME),
    ],
)
def test_examples(need: Need, budgets: list[int], peers: int, lack: Lack | None) -> None:
    found = feasible(need, budgets, 0)
    assert (found.peers, found.lack) == (peers, lack)


def test_newcomers_keep_their_part_of_a_slice() -> None:
    assert room(1000, 0) == 1000
    assert room(1000, 150) == 850
    assert feasible(NEED._replace(quantum_min=851, quantum=900), [1000, 1000], 150).lack is Lack.ROUND


budgets_of = st.lists(st.integers(0, 40), max_size=5)
needs = st.builds(
    lambda low, more, total, peers, extra, slices: Need(low, low + more, total, peers, peers + extra, slices),
    st.integers(1, 20), st.integers(0, 30), st.integers(1, 200), st.integers(1, 4), st.integers(0, 2),
    st.integers(1, 6),
)  # fmt: skip


@pytest.mark.slow
@given(needs, budgets_of, st.sampled_from([0, 100, 500]))
def test_it_is_refused_exactly_where_no_group_can_do_it(need: Need, budgets: list[int], reserve: int) -> None:
    rooms = [room(budget, reserve) for budget in budgets]
    groups = [
        group for count in range(need.peers_min, need.peers_max + 1) for group in combinations(rooms, count)
        if all(each >= need.quantum_min for each in group)
    ]  # fmt: skip
    possible = any(need.slices * sum(min(each, need.quantum) for each in group) >= need.total for group in groups)
    assert (feasible(need, budgets, reserve).lack is None) == possible


@pytest.mark.slow
@given(needs, budgets_of, st.integers(0, 10 * GRANULES_MAX))
def test_another_peer_makes_nothing_impossible(need: Need, budgets: list[int], more: int) -> None:
    before, after = feasible(need, budgets, 0), feasible(need, [*budgets, more], 0)
    assert before.peers <= after.peers <= before.peers + 1
    assert before.per_slice <= after.per_slice
    if before.lack is None:
        assert after.lack is None
        assert after.slices <= before.slices
