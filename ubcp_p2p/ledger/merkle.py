"""Merkle trees of RFC 6962 §2.1: roots, a root that grows, inclusion and consistency proofs (SPEC §9). Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

EMPTY: Final = hashlib.sha256(b"").digest()
SIZE_MAX: Final = 2**48
# Copied, not made anew for each of millions of nodes.
_LEAF: Final = hashlib.sha256(b"\0")
_NODE: Final = hashlib.sha256(b"\1")


class Frontier:
    """A tree that only grows: the roots of its perfect subtrees, largest first. O(log n) memory."""

    def __init__(self, size: int = 0, nodes: Sequence[bytes] = ()) -> None:
        if not 0 <= size <= SIZE_MAX or len(nodes) != size.bit_count() or any(len(node) != 32 for node in nodes):
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} perfect subtrees, not {len(nodes)}")
        self.size = size
        self._nodes = list(nodes)

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """With `size`, all that is needed to go on later."""
        return tuple(self._nodes)

    def append(self, data: bytes) -> None:
        """Add one leaf with this content."""
        self.extend((data,))

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaves with these contents."""
        leaf, inner, nodes, size = _LEAF.copy, _NODE.copy, self._nodes, self.size
        for data in leaves:  # the hashes written out: it runs for every entry of an audit
            digest = leaf()
            digest.update(data)
            node = digest.digest()
            bits = size
            while bits & 1:
                digest = inner()
                digest.update(nodes.pop())
                digest.update(node)
                node = digest.digest()
                bits >>= 1
            nodes.append(node)
            size += 1
        self.size = size

    def root(self) -> bytes:
        """32 bytes; SHA-256 of nothing for the empty tree."""
        if not self._nodes:
            return EMPTY
        node = self._nodes[-1]
        for left in reversed(self._nodes[:-1]):
            node = node_hash(left, node)
        return node


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The root over leaves with these contents."""
    frontier = Frontier()
    frontier.extend(leaves)
    return frontier.root()


def root_of_sorted(ids: bytes) -> bytes:
    """The root over these ids of 32 bytes each, sorted."""
    return root_of(sorted(ids[i : i + 32] for i in range(0, len(ids), 32)))


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """RFC 6962 §2.1.1: the hashes that lead from leaf `index` to the root."""
    if len(leaves) <= 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*inclusion_proof(leaves[:split], index), root_of(leaves[split:])]
    return [*inclusion_proof(leaves[split:], index - split), root_of(leaves[:split])]


def is_included(data: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows that leaf `index` of the tree with this size and root has this content (RFC 9162)."""
    if not 0 <= index < size:
        return False
    node, first, last = leaf_hash(data), index, size - 1
    for sibling in proof:
        if last == 0:
            return False
        if first & 1 or first == last:
            node = node_hash(sibling, node)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        first, last = first >> 1, last >> 1
    return last == 0 and node == root


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1
