"""Which items of a data set a peer trains on in a round: disjoint, deterministic, agreed without a word. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def shard(run_id: bytes, round: int, peer: bytes, members: Sequence[bytes], n_items: int) -> NDArray[np.int64]:
    """The items (of 0 … n_items−1, shuffled) that `peer` trains on in `round`.

    A permutation keyed by (run_id, round) is cut into len(members) + 1 slots whose sizes differ by at most one. The
    i-th of the sorted members has slot i; a peer that is not a member, such as one that joins in mid-round, has the
    last. A peer that knows of nobody else (no members, or itself alone) has everything. Slots are disjoint and cover
    all items; with fewer items than slots the last ones are empty.

    The order comes from raw Philox output and a stable sort: both are guaranteed not to change between NumPy versions
    and platforms, which `Generator.permutation` is not (NEP 19).
    """
    assert n_items >= 0 and round >= 0
    key = hashlib.sha256(b"ubcp/shard/1\0" + run_id + round.to_bytes(8, "big")).digest()
    stream = np.random.Philox(key=np.frombuffer(key[:16], dtype="<u8").astype(np.uint64))
    draws: NDArray[np.uint64] = stream.random_raw(n_items)
    order = np.argsort(draws, kind="stable").astype(np.int64)
    ranked = sorted(set(members))
    if not ranked or ranked == [peer]:
        return order
    slots = len(ranked) + 1
    slot = ranked.index(peer) if peer in ranked else slots - 1
    return order[_cut(n_items, slots, slot) : _cut(n_items, slots, slot + 1)]


def step_indices(mine: NDArray[np.int64], step: int, batch: int) -> NDArray[np.int64]:
    """The `batch` items of local step `step` (from 0), in the shard's order, from its start again when it ends.

    `mine` is what `shard` returned and must not be empty.
    """
    assert len(mine) > 0 and step >= 0 and batch >= 1
    positions = np.arange(step * batch, (step + 1) * batch) % len(mine)
    return mine.take(positions)


def _cut(n_items: int, slots: int, index: int) -> int:
    """Where slot `index` begins: the first n_items % slots slots have one item more."""
    return index * (n_items // slots) + min(index, n_items % slots)
