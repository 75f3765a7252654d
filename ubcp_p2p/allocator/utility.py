"""What each request is worth in this slice: U = d · ∫ 2^(−max over levels of (x ∕ S − wait ∕ A)) dx from v to v + E.

Levels are the user and its unit; v is what was used and what is queued before, S the fair part: docs/allocator.md.
Pure.

Being an integral, the value of a job is that of its pieces together, however it is split. Each level has a wait of its
own: how long the first of its requests has been the first. If every request brought its own wait along, a long queue
would be worth more than a short one for its length alone, and a unit would gain by inventing people to queue up
(measured: 30 of them took nine tenths from a unit of one).

Exponents are Q96, weights Q64. All exponents are counted from the largest one, and all values are cut to one scale, so
that their sum is below 2^50 (exact in a DOUBLE, and no sum of ours overflows 64 bits); each is at least 1: else heavy
users would starve beside idle capacity.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from ubcp_p2p.allocator.fixed import EXPONENT_BITS, LOG2_E, ONE, VALUE_BITS, exp2_neg, exponent, times_exp2_neg
from ubcp_p2p.allocator.problem import Ask
from ubcp_p2p.allocator.shares import Share, Standing

SUM_BITS: Final = 50
WEIGHT_BITS: Final = 64  # of LOG2_E


class Piece(NamedTuple):
    """A part of a quantum at one level: worth weight (Q64 units) · 2^(rise − fall) (both Q96)."""

    weight: int
    rise: int
    fall: int


class Worth(NamedTuple):
    """value: U in the slice's own scale. share: the user's, or the unit's where that one used more of it."""

    value: int
    share: Share
    of_unit: bool


class Level(NamedTuple):
    """Where a request's quantum begins, for its user or for its unit: v, S, and wait ∕ A in Q96."""

    used: int
    part: int
    rise: int


def worths(
    asks: Sequence[Ask], quanta: Sequence[int], people: Mapping[bytes, Standing], ageing: int
) -> tuple[Worth, ...]:
    """Of every request that competes, in their order; `quanta` are their E, in units.

    What is queued before a request is what waits longer, and of equally long waiting what has the lower id.
    """
    queued: dict[bytes | str, int] = defaultdict(int)
    pieces: list[tuple[Piece, ...]] = [()] * len(asks)
    for place in sorted(range(len(asks)), key=lambda place: (-asks[place].waited, asks[place].id)):
        ask, quantum = asks[place], quanta[place]
        of_user, of_unit, name = people[ask.applicant]
        user, unit = (
            Level(
                share.use + queued[key],
                share.part,
                0 if queued[key] else exponent(min(ask.waited, share.stalled), ageing),  # the first alone waits
            )
            for key, share in ((ask.applicant, of_user), (name, of_unit))
        )
        pieces[place] = pieces_of(user, unit, quantum, ask.urgency)
        queued[ask.applicant] += quantum
        queued[name] += quantum
    values = scaled(pieces)
    return tuple(_worth(value, people[ask.applicant]) for value, ask in zip(values, asks, strict=True))


def _worth(value: int, standing: Standing) -> Worth:
    of_user, of_unit, _ = standing
    unit_is_worse = of_unit.use * of_user.part > of_user.use * of_unit.part
    return Worth(value, of_unit if unit_is_worse else of_user, unit_is_worse)


def pieces_of(user: Level, unit: Level, quantum: int, urgency: int) -> tuple[Piece, ...]:
    """The quantum, cut where the user's x ∕ S − wait ∕ A overtakes the unit's; the unit's S is not the smaller one.

    Both grow by the same work, the user's no slower: so there is one such point at most.
    """
    # By how much the unit's is ahead, times both S: in Q96.
    ahead = (unit.used * user.part - user.used * unit.part << EXPONENT_BITS) + (
        (user.rise - unit.rise) * user.part * unit.part
    )
    if ahead <= 0:
        at_unit = 0
    elif unit.part == user.part:
        at_unit = quantum
    else:
        at_unit = min(quantum, ahead // (unit.part - user.part << EXPONENT_BITS))
    parts = ((unit, 0, at_unit), (user, at_unit, quantum - at_unit))
    return tuple(
        Piece(urgency * weight(length, level.part), level.rise, -exponent(-(level.used + start), level.part))
        for level, start, length in parts
        if length
    )


def weight(quantum: int, part: int) -> int:
    """∫ 2^(−x ∕ part) dx over 0 … quantum: part · (1 − 2^(−quantum ∕ part)) ∕ ln 2, in Q64; 2^−40 of it off at most."""
    return part * (ONE - exp2_neg(exponent(quantum, part))) * LOG2_E >> VALUE_BITS


def scaled(pieces: Sequence[Sequence[Piece]]) -> list[int]:
    """The values in one scale: all at least 1, their sum below 2^50 (for up to 10,000 of them)."""
    if not pieces:
        return []
    largest = max(piece.rise - piece.fall for row in pieces for piece in row)
    raw = [sum(times_exp2_neg(piece.weight, largest - piece.rise + piece.fall) for piece in row) for row in pieces]
    return to_scale(raw)


def to_scale(raw: Sequence[int]) -> list[int]:
    """Shifted right until their sum is below 2^49, then raised to 1 where they are less."""
    shift = max(0, sum(raw).bit_length() - (SUM_BITS - 1))
    return [max(1, value >> shift) for value in raw]


assert EXPONENT_BITS >= 64, "a quantum of one unit in a part of 2^53 must have digits left"
