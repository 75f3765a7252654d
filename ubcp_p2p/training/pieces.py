"""A vector in pieces of equal length, named by the list of their hashes: so that some can be shown without the rest.

Who is shown the list knows by its name that it is the committed one, and by its hashes that the pieces are. numpy only.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

import numpy as np

from ubcp_p2p.codec import MalformedMessage, Value, bytes_of, encode, fields
from ubcp_p2p.training.state import FLOAT32_LE, ITEM_BYTES, Vector, blocks, is_finite

PIECE: Final = 1 << 14  # values; the last piece has what is left
DRAWN_SHARE: Final = 8  # one piece of so many is drawn,
DRAWN_MIN: Final = 8  # and at least so many, or all
SEED_BYTES: Final = 32
_HASH_BYTES: Final = 32


class Pieces(NamedTuple):
    """Some pieces of a vector. hashes: of all its pieces, 32 bytes each; values: of those that are shown, in order."""

    hashes: bytes
    values: Vector

    def value(self) -> Value:
        return [self.hashes, self.values.tobytes()]

    @classmethod
    def of(cls, value: Value, length: int, shown: tuple[int, ...]) -> Pieces:
        """Of a vector of `length`. Raises MalformedMessage unless exactly the pieces `shown` have their hashes."""
        hashes, data = (bytes_of(part) for part in fields(value, 2))
        places = slices(length)
        parts = [places[place] for place in shown]
        size = sum(part.stop - part.start for part in parts)
        if len(hashes) != count(length) * _HASH_BYTES or len(data) != size * ITEM_BYTES:
            raise MalformedMessage("not the pieces of a vector of this recipe that were drawn")
        values = np.array(np.frombuffer(data, dtype=FLOAT32_LE))
        found, at = cls(hashes, values), 0
        for place, part in zip(shown, parts, strict=True):
            piece = values[at : at + part.stop - part.start]
            at += len(piece)
            if _hash(piece) != hashes[place * _HASH_BYTES : (place + 1) * _HASH_BYTES]:
                raise MalformedMessage(f"piece {place} of a vector does not have its hash")
        if len(values) and not is_finite(values):
            raise MalformedMessage("a vector with non-finite values")
        return found


def count(length: int) -> int:
    """How many pieces a vector of this length has."""
    return -(-length // PIECE)


def slices(length: int) -> list[slice]:
    """Where the pieces of a vector of this length are."""
    return list(blocks(length, PIECE))


def drawn(seed: bytes, length: int) -> tuple[int, ...]:
    """Which pieces of a vector of this length `seed` (32 bytes) draws, rising: an eighth, or all where they are few."""
    pieces = count(length)
    order = sorted(range(pieces), key=lambda place: hashlib.sha256(seed + encode(place)).digest())
    return tuple(sorted(order[: max(DRAWN_MIN, -(-pieces // DRAWN_SHARE))]))


def hashes_of(vector: Vector) -> bytes:
    """The SHA-256 of each piece, one after the other."""
    return b"".join(_hash(vector[part]) for part in slices(len(vector)))


def pick(vector: Vector, shown: tuple[int, ...]) -> Vector:
    """A copy of these pieces, one after the other."""
    parts = slices(len(vector))
    return np.concatenate([vector[parts[place]] for place in shown])


def show(vector: Vector, shown: tuple[int, ...]) -> Pieces:
    """These pieces, with the hashes of all."""
    return Pieces(hashes_of(vector), pick(vector, shown))


def _hash(piece: Vector) -> bytes:
    return hashlib.sha256(piece.data).digest()
