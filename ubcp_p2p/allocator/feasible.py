"""Whether peers that are there could do a request at all: for who submits one, before it is signed. Pure.

It refuses only what no choice of the allocators can make possible: whatever they do, no more peers than there are take
part, and none gives more in a slice than its budget has room for.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from ubcp_p2p.allocator.problem import grid


class Lack(StrEnum):
    """Why it cannot be done."""

    ROUND = "no-slice-for-a-round"  # what one peer has to do at once is more than any peer has room for
    PEERS = "too-few-peers"
    TIME = "above-every-slice"  # more per slice than all that may take part could give together


class Need(NamedTuple):
    """quantum_min: the least that is of use at once, units; quantum: the most that is asked of a peer and slice.

    total: units of the whole. slices: how many there are until its deadline.
    """

    quantum_min: int
    quantum: int
    total: int
    peers_min: int
    peers_max: int
    slices: int


class Feasibility(NamedTuple):
    """peers: how many could serve it. per_slice: units that those who may take part give together in a slice, at most.

    slices: how many it takes at least; 0 where it cannot be done at all. lack: None where it can be done.
    """

    peers: int
    per_slice: int
    slices: int
    lack: Lack | None


def room(budget: int, newcomer_permille: int) -> int:
    """The largest quantum that a peer with this budget has room for in a slice, units: as the allocator cuts it."""
    return grid(budget, newcomer_permille).fits


def feasible(need: Need, budgets: Iterable[int], newcomer_permille: int) -> Feasibility:
    """budgets: units of a slice, of each peer."""
    rooms = sorted((room(budget, newcomer_permille) for budget in budgets), reverse=True)
    useful = [each for each in rooms if each >= need.quantum_min]
    per_slice = sum(min(need.quantum, each) for each in useful[: need.peers_max])
    if len(rooms) >= need.peers_min and not useful:
        return Feasibility(0, 0, 0, Lack.ROUND)
    if len(useful) < need.peers_min:
        return Feasibility(len(useful), per_slice, 0, Lack.PEERS)
    slices = -(-need.total // per_slice)
    return Feasibility(len(useful), per_slice, slices, Lack.TIME if slices > need.slices else None)
