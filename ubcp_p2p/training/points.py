"""A state in mid round, and its bytes, of exactly the lengths that a recipe implies: strangers send them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ubcp_p2p.codec import MalformedMessage, Value, bytes_of, fields, number
from ubcp_p2p.training.state import FLOAT32_LE, ITEM_BYTES, InnerState, Vector, is_finite
from ubcp_p2p.training.trail import COUNT_MAX

_OVERHEAD_BYTES = 64 * 1024  # members, leaves and paths have 24 KiB at most


class Shape(NamedTuple):
    """The lengths that a recipe implies. memory: names of the inner optimizer's vectors, sorted."""

    parameters: int
    state_values: int
    memory: tuple[str, ...]
    stretch: int

    def bytes_max(self) -> int:
        """Of an opening. The hashes of pieces are fewer than the bytes of the pieces that are then left out."""
        vectors = self.state_values + 2 * self.parameters * (1 + len(self.memory))
        return vectors * ITEM_BYTES + _OVERHEAD_BYTES


class Point(NamedTuple):
    """A state in mid round: P parameters, and the inner optimizer's memory."""

    theta: Vector
    memory: InnerState


def raw(values: Vector | None) -> bytes:
    """A vector's bytes; none for None."""
    return b"" if values is None else values.tobytes()


def raw_memory(memory: InnerState) -> Value:
    """Its count of steps, and its vectors in the order of their names."""
    return [memory.steps, [memory.vectors[name].tobytes() for name in sorted(memory.vectors)]]


def vector_of(value: Value, length: int) -> Vector | None:
    """What `raw` made; raises MalformedMessage for anything but `length` finite values, or none."""
    data = bytes_of(value)
    if not data:
        return None
    if len(data) != length * ITEM_BYTES:
        raise MalformedMessage(f"a vector of {len(data)} bytes where the recipe has {length * ITEM_BYTES}")
    values = np.array(np.frombuffer(data, dtype=FLOAT32_LE))  # torch takes no read-only ones
    if not is_finite(values):
        raise MalformedMessage("a vector with non-finite values")
    return values


def memory_of(value: Value, shape: Shape) -> InnerState:
    """What `raw_memory` made; raises MalformedMessage where it is none of this shape."""
    steps, vectors = fields(value, 2)
    found = [vector_of(vector, shape.parameters) for vector in fields(vectors, len(shape.memory))]
    if any(vector is None for vector in found):
        raise MalformedMessage("an inner optimizer's memory without its values")
    return InnerState(
        number(steps, COUNT_MAX),
        {name: vector for name, vector in zip(shape.memory, found, strict=True) if vector is not None},
    )
