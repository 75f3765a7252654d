"""What an opening shows of the state at its stretch's end: nothing, all of it, or pieces that the asker's seed draws.

Who comes to the same bits needs nothing. Another device's bits are known to be near by a part of them; a lie is shown
by the whole alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from ubcp_p2p.codec import MalformedMessage, Value, fields, hash_of, number
from ubcp_p2p.training.pieces import SEED_BYTES, Pieces, drawn, pick, show
from ubcp_p2p.training.points import Point, Shape, memory_of, raw, raw_memory, vector_of
from ubcp_p2p.training.state import InnerState, Vector
from ubcp_p2p.training.trail import COUNT_MAX, memory_hash, memory_name, parameters_hash, parameters_name

# How an asker says which it wants.
LEAN: Final = b"\0"
WHOLE: Final = b"\1"
_DRAWN: Final = b"\2"  # and the seed


def drawn_by(seed: bytes) -> bytes:
    """How an asker says that it wants the pieces which `seed` draws: 32 bytes that the other cannot foresee."""
    assert len(seed) == SEED_BYTES
    return _DRAWN + seed


@dataclass(frozen=True)
class WholeEnd:
    """All of it. offer: where the stretch ends the round; after: the parameters, where it does not."""

    offer: Vector | None
    after: Vector | None
    memory: InnerState

    def value(self) -> Value:
        return [raw(self.offer), raw(self.after), raw_memory(self.memory)]

    @classmethod
    def of(cls, value: Value, shape: Shape) -> WholeEnd:
        """Raises MalformedMessage."""
        offer, after, memory = fields(value, 3)
        length = shape.parameters
        return cls(vector_of(offer, length), vector_of(after, length), memory_of(memory, shape))

    def names(self) -> tuple[bytes | None, bytes]:
        """What names the parameters after and the memory in the trail's leaf; None for an offer."""
        return None if self.after is None else parameters_hash(self.after), memory_hash(self.memory)

    def drawn(self, seed: bytes) -> DrawnEnd:
        """The pieces of it which `seed` draws."""
        vectors = self.memory.vectors
        return DrawnEnd(
            seed,
            self.offer,
            None if self.after is None else show(self.after, drawn(seed, len(self.after))),
            self.memory.steps,
            {name: show(values, drawn(seed, len(values))) for name, values in vectors.items()},
        )


@dataclass(frozen=True)
class DrawnEnd:
    """Some pieces, the same of each vector, and the offer whole. See WholeEnd. steps: that the memory counts."""

    seed: bytes
    offer: Vector | None
    after: Pieces | None
    steps: int
    memory: dict[str, Pieces]

    def value(self) -> Value:
        after: Value = [] if self.after is None else self.after.value()
        return [
            self.seed, raw(self.offer), after, self.steps, [self.memory[name].value() for name in sorted(self.memory)]
        ]  # fmt: skip

    @classmethod
    def of(cls, value: Value, shape: Shape) -> DrawnEnd:
        """Raises MalformedMessage for anything but the very pieces that its seed draws."""
        seed, offer, after, steps, memory = fields(value, 5)
        length = shape.parameters
        shown = drawn(hash_of(seed), length)
        pieces = [Pieces.of(part, length, shown) for part in fields(memory, len(shape.memory))]
        return cls(
            hash_of(seed),
            vector_of(offer, length),
            None if after == [] else Pieces.of(after, length, shown),
            number(steps, COUNT_MAX),
            dict(zip(shape.memory, pieces, strict=True)),
        )

    def names(self) -> tuple[bytes | None, bytes]:
        """As of the whole."""
        memory = memory_name(self.steps, {name: pieces.hashes for name, pieces in self.memory.items()})
        return None if self.after is None else parameters_name(self.after.hashes), memory

    def point(self, base: Vector | None) -> Point:
        """What is shown, as if it were all. base: where the offer is shown, what it leads away from."""
        if self.after is not None:
            theta = self.after.values
        else:
            assert base is not None and self.offer is not None
            theta = base[: len(self.offer)] - self.offer
        return Point(theta, InnerState(self.steps, {name: pieces.values for name, pieces in self.memory.items()}))

    def of_point(self, point: Point) -> Point:
        """The same part of a whole state."""
        shown = drawn(self.seed, len(point.theta))
        memory = {name: pick(values, shown) for name, values in point.memory.vectors.items()}
        theta = point.theta if self.after is None else pick(point.theta, shown)
        return Point(theta, InnerState(point.memory.steps, memory))


End: TypeAlias = WholeEnd | DrawnEnd | None


def end_value(end: End) -> Value:
    return [] if end is None else end.value()


def end_of(value: Value, shape: Shape) -> End:
    """What `end_value` made. Raises MalformedMessage."""
    if value == []:
        return None
    if isinstance(value, list) and len(value) == 3:
        return WholeEnd.of(value, shape)
    return DrawnEnd.of(value, shape)


def as_asked(whole: WholeEnd, wanted: bytes) -> End:
    """What of it is wanted: LEAN, WHOLE or `drawn_by`. Raises MalformedMessage for what is none of these."""
    if wanted in (LEAN, WHOLE):
        return whole if wanted == WHOLE else None
    if wanted[:1] != _DRAWN or len(wanted) != 1 + SEED_BYTES:
        raise MalformedMessage("no way to open the end of a stretch")
    return whole.drawn(wanted[1:])
