"""Who of those that ask gets a seat in a round's group, when more ask than it has: what chooses, and the plain draw.

Every member chooses for itself, and all must choose alike: by nothing but the round, who asks and how many seats there
are, and by what all know alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class Seating(NamedTuple):
    """seated: the best first. refused: why not, in words."""

    seated: tuple[bytes, ...]
    refused: Mapping[bytes, str]


class ChooseSeats(Protocol):
    """Whose choice it is. Peers are public keys, each once, in any order."""

    def __call__(self, round_: int, peers: Sequence[bytes], seats: int, /) -> Seating: ...


def lot(round_: int, peer: bytes) -> bytes:
    """What a peer draws in a round; the lowest come first. Anew each round, so that nobody is shut out for ever."""
    return hashlib.sha256(round_.to_bytes(8, "big") + peer).digest()


def drawn(round_: int, peers: Sequence[bytes], seats: int) -> Seating:
    """By lot alone: for a swarm that knows nothing of its members' work."""
    order = sorted(peers, key=lambda peer: lot(round_, peer))
    words = f"all {seats} seats of this round are taken, and {len(order)} asked; the draw is made anew each round"
    return Seating(tuple(order[:seats]), dict.fromkeys(order[seats:], words))
