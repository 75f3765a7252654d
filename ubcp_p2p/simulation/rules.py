"""What every rule is: it sees the queue once a slice, each peer's choice is asked of it, and it is told what was done.

Peers decide one after the other, in an order drawn anew for each slice; each knows what those before it have taken,
as it would from their DECISIONs. The prices are those of the slice's beginning.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ubcp_p2p.simulation.world import Flags, Floats, Ids, Ints

Places = npt.NDArray[np.intp]


class Queue(NamedTuple):
    """The requests that compete in a slice, in rising order of id. asks: credits; came: its slice.

    waited: slices since it came or was last served. stamp: what the rule gave it when it came.
    newcomer: whether its user is one now.
    """

    slice: int
    request: Ints
    id: Ids
    user: Ints
    asks: Ints
    came: Ints
    waited: Ints
    stamp: Floats
    newcomer: Flags


class Done(NamedTuple):
    """What was done in a slice, a lease a row. leased: what was set aside for it; used: what it really needed."""

    slice: int
    user: Ints
    peer: Ints
    leased: Ints
    used: Ints


class Rule(Protocol):
    """One way to decide."""

    def stamp(self, users: Ints) -> Floats:
        """A number for each request that comes now, by its user: what the rule remembers of this moment."""
        ...

    def price(self, queue: Queue) -> None:
        """Once a slice, before any peer decides."""
        ...

    def choose(self, peer: int, budget: int, free: Flags) -> Places:
        """Places in the queue that a peer takes, of those that are `free`; together they ask for `budget` at most."""
        ...

    def settle(self, done: Done) -> None:
        """At the end of a slice."""
        ...


def first_fit(order: Places, asks: Ints, budget: int, free: Flags) -> Places:
    """In this order, whatever still fits."""
    rest = order[free[order]]
    taken = []
    while len(rest):
        fits = asks[rest] <= budget
        at = int(fits.argmax())
        if not fits[at]:
            break
        taken.append(int(rest[at]))
        budget -= int(asks[rest[at]])
        rest = rest[at + 1 :]
    return np.array(taken, dtype=np.intp)
