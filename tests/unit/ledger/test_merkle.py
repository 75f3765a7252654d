"""A tree that grows, and proofs of what is in it; roots are in ledger/vectors/merkle.json."""

from __future__ import annotations

import pytest

from ubcp_p2p.ledger.merkle import (
    EMPTY,
    SIZE_MAX,
    Frontier,
    inclusion_proof,
    is_included,
    leaf_hash,
    node_hash,
    root_of,
)

LEAVES = [bytes([n]) * n for n in range(40)]


def _by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1, word for word."""
    if not leaves:
        return EMPTY
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(_by_definition(leaves[:k]), _by_definition(leaves[k:]))


def test_a_growing_root_is_that_of_the_definition() -> None:
    frontier = Frontier()
    for size in range(len(LEAVES)):
        assert frontier.root() == _by_definition(LEAVES[:size]) == root_of(LEAVES[:size])
        assert frontier.size == size
        frontier.append(LEAVES[size])


def test_a_frontier_goes_on_where_it_was_left() -> None:
    for size in range(len(LEAVES)):
        first = Frontier()
        for leaf in LEAVES[:size]:
            first.append(leaf)
        second = Frontier(first.size, first.nodes)
        for leaf in LEAVES[size:]:
            second.append(leaf)
        assert second.root() == _by_definition(LEAVES)
        assert len(first.nodes) == size.bit_count()


def test_a_leaf_is_no_node() -> None:
    assert leaf_hash(LEAVES[1] + LEAVES[2]) != node_hash(LEAVES[1], LEAVES[2])


@pytest.mark.parametrize(("size", "nodes"), [(1, []), (0, [bytes(32)]), (3, [bytes(32)]), (1, [bytes(31)]), (-1, []),
                                             (SIZE_MAX + 1, [bytes(32)] * 2)])  # fmt: skip
def test_a_frontier_that_cannot_be_is_refused(size: int, nodes: list[bytes]) -> None:
    with pytest.raises(ValueError, match="perfect subtrees"):
        Frontier(size, nodes)


@pytest.mark.parametrize("size", range(1, 40))
def test_every_leaf_is_included_and_no_other(size: int) -> None:
    leaves, root = LEAVES[:size], root_of(LEAVES[:size])
    for index, leaf in enumerate(leaves):
        proof = inclusion_proof(leaves, index)
        assert is_included(leaf, index, size, proof, root)
        assert not is_included(leaf + b"x", index, size, proof, root)
        assert not is_included(leaf, index, size, [*proof, root], root)
        assert not any(is_included(leaf, other, size, proof, root) for other in range(-1, size + 1) if other != index)
        assert size == 1 or not is_included(leaf, index, size, proof[:-1], root)
