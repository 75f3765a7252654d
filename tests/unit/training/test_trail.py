"""A trail's stretches, and its tree."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.codec import MalformedMessage
from ubcp_p2p.ledger.merkle import is_included
from ubcp_p2p.training.limits import LEAVES_MAX, STEPS_MAX, STRETCH_STEPS_MAX
from ubcp_p2p.training.trail import PROOF_MAX, Leaf, marks, proof_of, root_of, stretch_steps, trail_hash

hashes = st.binary(min_size=32, max_size=32)


@given(st.integers(1, STEPS_MAX), st.data())
def test_stretches_cover_the_steps_and_none_is_long(local_steps: int, data: st.DataObject) -> None:
    stretch = stretch_steps(local_steps)
    assert 1 <= stretch <= STRETCH_STEPS_MAX
    taken = data.draw(st.integers(1, local_steps))  # a peer in haste takes fewer
    found = marks(taken, stretch)
    assert (found[0], found[-1]) == (0, taken)
    lengths = [after - before for before, after in pairwise(found)]
    assert set(lengths[:-1]) <= {stretch}
    assert 1 <= lengths[-1] <= stretch
    assert len(found) <= LEAVES_MAX


@pytest.mark.parametrize(("local_steps", "stretch"), [(1, 1), (4, 1), (25, 5), (50, 10), (51, 10), (500, 10)])
def test_a_common_round_has_five_stretches(local_steps: int, stretch: int) -> None:
    assert stretch_steps(local_steps) == stretch


@given(st.lists(hashes, min_size=2, max_size=40), st.data())
def test_a_leaf_is_shown_and_no_other(names: list[bytes], data: st.DataObject) -> None:
    leaves = [Leaf(step, name, bytes(32)) for step, name in enumerate(names)]
    index = data.draw(st.integers(0, len(leaves) - 1))
    path, root = proof_of(leaves, index), root_of(leaves)
    assert len(path) <= PROOF_MAX
    assert is_included(leaves[index].content(), index, len(leaves), path, root)
    other = Leaf(index, names[index], b"\1" * 32)
    assert not is_included(other.content(), index, len(leaves), path, root)
    assert not is_included(leaves[index].content(), (index + 1) % len(leaves), len(leaves), path, root)


@given(st.lists(st.binary(max_size=38), max_size=8), hashes, st.integers(0, 31))
def test_the_hash_tells_members_and_trees_apart(members: list[bytes], root: bytes, place: int) -> None:
    other = root[:place] + bytes([root[place] ^ 1]) + root[place + 1 :]
    assert len({trail_hash(members, root), trail_hash([*members, b"x"], root), trail_hash(members, other)}) == 3


def test_a_leaf_is_read_back_and_its_limits_are_kept() -> None:
    leaf = Leaf(STEPS_MAX, b"\1" * 32, b"\2" * 32)
    assert Leaf.of(leaf.value()) == leaf
    for bad in ([STEPS_MAX + 1, b"\1" * 32, b"\2" * 32], [0, b"\1" * 31, b"\2" * 32], [0, b"\1" * 32], b""):
        with pytest.raises(MalformedMessage):
            Leaf.of(bad)  # type: ignore[arg-type]  # what a stranger may send
