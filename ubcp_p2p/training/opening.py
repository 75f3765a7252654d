"""An opening: one stretch of a peer's trail with all that is needed to walk it again, as bytes. Imports no torch.

It holds the leaves that matter with their paths (the first, the stretch's two ends, the last), and the states at the
ends: the whole base state where the stretch begins the round or ends it, else parameters; the inner optimizer's memory
at both ends; the offer where the stretch ends it. A lean one leaves out the state at the end: who comes to the same
bits needs no more. Read from strangers, so every length must be exactly what the recipe implies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ubcp_p2p.codec import MalformedMessage, Value, bytes_of, decode, encode, fields, hash_of, items, number
from ubcp_p2p.ledger.merkle import is_included
from ubcp_p2p.training.limits import MEMBERS_MAX
from ubcp_p2p.training.state import FLOAT32_LE, ITEM_BYTES, InnerState, Vector, is_finite, offer_hash, state_hash
from ubcp_p2p.training.trail import (
    COUNT_MAX,
    PROOF_MAX,
    Leaf,
    marks,
    memory_hash,
    parameters_hash,
    proof_of,
    root_of,
    trail_hash,
)
from ubcp_p2p.training.verdict import PPM, Claim, Finding, Verdict

_PEER_BYTES_MAX = 64
_OVERHEAD_BYTES = 64 * 1024  # members, leaves and paths have 24 KiB at most


class Shape(NamedTuple):
    """The lengths that a recipe implies. memory: names of the inner optimizer's vectors, sorted."""

    parameters: int
    state_values: int
    memory: tuple[str, ...]
    stretch: int

    def bytes_max(self) -> int:
        """Of an opening."""
        vectors = self.state_values + 2 * self.parameters * (1 + len(self.memory))
        return vectors * ITEM_BYTES + _OVERHEAD_BYTES


class Point(NamedTuple):
    """A state in mid round: P parameters, and the inner optimizer's memory."""

    theta: Vector
    memory: InnerState


@dataclass(frozen=True)
class Opening:
    """See the module. index: of the stretch; leaves: index → (leaf, path); base, before, offer, after: None if absent.

    before, after: parameters at a stretch's end that is neither the base nor the offer.
    """

    members: tuple[bytes, ...]
    root: bytes
    index: int
    leaves: dict[int, tuple[Leaf, tuple[bytes, ...]]]
    base: Vector | None
    before: Vector | None
    before_memory: InnerState
    offer: Vector | None
    after: Vector | None
    after_memory: InnerState

    def to_bytes(self) -> bytes:
        leaves: list[Value] = [[index, leaf.value(), list(path)] for index, (leaf, path) in sorted(self.leaves.items())]
        return encode(
            [
                list(self.members), self.root, self.index, leaves, _raw(self.base), _raw(self.before),
                _raw_memory(self.before_memory), _raw(self.offer), _raw(self.after), _raw_memory(self.after_memory),
            ]
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, data: bytes, shape: Shape) -> Opening:
        """Raises MalformedMessage for anything but finite vectors of exactly the recipe's lengths."""
        members, root, index, leaves, base, before, before_memory, offer, after, after_memory = fields(
            decode(data, bytes_max=shape.bytes_max()), 10
        )
        found: dict[int, tuple[Leaf, tuple[bytes, ...]]] = {}
        for row in items(leaves, 4):
            place, leaf, path = fields(row, 3)
            found[number(place)] = Leaf.of(leaf), tuple(hash_of(node) for node in items(path, PROOF_MAX))
        return cls(
            tuple(_peer(member) for member in items(members, MEMBERS_MAX)), hash_of(root), number(index), found,
            _vector(base, shape.state_values), _vector(before, shape.parameters), _memory(before_memory, shape),
            _vector(offer, shape.parameters), _vector(after, shape.parameters),
            _NOTHING if offer == after == b"" and after_memory == [0, []] else _memory(after_memory, shape),
        )  # fmt: skip

    @property
    def is_lean(self) -> bool:
        """Whether the state at the end is left out."""
        return self.offer is None and self.after is None and not self.after_memory.steps

    def lean(self) -> Opening:
        """The same without the state at the end: half the bytes."""
        return replace(self, offer=None, after=None, after_memory=_NOTHING)

    def start(self, parameters: int) -> Point:
        """The state that the stretch leads from."""
        theta = self.before
        if theta is None:
            assert self.base is not None
            theta = self.base[:parameters]
        return Point(theta, self.before_memory)

    def ends(self, parameters: int) -> tuple[Point, Point]:
        """The states that the stretch leads from and to, as claimed; of a whole opening that `require_committed`
        passed."""
        end = self.after
        if end is None:
            assert self.base is not None and self.offer is not None
            end = self.base[:parameters] - self.offer
        return self.start(parameters), Point(end, self.after_memory)


def places(index: int, last: int) -> tuple[int, ...]:
    """The leaves that an opening of stretch `index` shows, of a trail whose last leaf is `last`."""
    return tuple(sorted({0, index, index + 1, last}))


def make_opening(
    members: Sequence[bytes], leaves: Sequence[Leaf], index: int, base: Vector, before: Point, after: Point
) -> Opening:
    """Open stretch `index` of a trail. base: the whole state that the round began from."""
    last = len(leaves) - 1
    at_end, parameters = index + 1 == last, len(before.theta)
    return Opening(
        tuple(members),
        root_of(leaves),
        index,
        {place: (leaves[place], proof_of(leaves, place)) for place in places(index, last)},
        base if index == 0 or at_end else None,
        before.theta if index else None,
        before.memory,
        base[:parameters] - after.theta if at_end else None,
        None if at_end else after.theta,
        after.memory,
    )


def require_committed(claim: Claim, opening: Opening, shape: Shape) -> None:
    """Raise MalformedMessage unless all of `opening` is what the card's trail and hashes commit its signer to."""
    places_of_leaves = marks(claim.steps, shape.stretch)
    last, index = len(places_of_leaves) - 1, opening.index
    if trail_hash(opening.members, opening.root) != claim.trail:
        raise MalformedMessage("not the members and the tree that the card's trail names")
    if index >= last or tuple(sorted(opening.leaves)) != places(index, last):
        raise MalformedMessage(f"not the leaves of a stretch of {last}")
    for place, (leaf, path) in opening.leaves.items():
        if leaf.step != places_of_leaves[place] or not is_included(leaf.content(), place, last + 1, path, opening.root):
            raise MalformedMessage(f"leaf {place} is not the tree's")
    first, end = index == 0, index + 1 == last
    present = tuple(part is not None for part in (opening.base, opening.before, opening.offer, opening.after))
    whole = not opening.is_lean
    if present != (first or end, not first, end and whole, not end and whole):
        raise MalformedMessage("not the states that such a stretch is opened with")
    before, after = opening.leaves[index][0], opening.leaves[index + 1][0]
    pairs = [(_memory_name(opening.before_memory), before.memory)]
    if whole:
        pairs.append((_memory_name(opening.after_memory), after.memory))
    if opening.base is not None:
        pairs.append((state_hash(claim.run_id, claim.round, opening.base.data), claim.base_hash))
    if opening.before is not None:
        pairs.append((parameters_hash(opening.before), before.name))
    if opening.offer is not None:
        pairs.append((offer_hash(opening.offer.data), claim.offer_hash))
    if opening.after is not None:
        pairs.append((parameters_hash(opening.after), after.name))
    if any(found != committed for found, committed in pairs):
        raise MalformedMessage("a state does not have the hash that was committed to")


def leads_to_the_same(claim: Claim, opening: Opening, redone: Point) -> bool:
    """Whether the state found again is to the bit the one that the stretch's last leaf names."""
    last = max(opening.leaves)
    leaf = opening.leaves[opening.index + 1][0]
    if opening.index + 1 == last:
        assert opening.base is not None
        named, name = claim.offer_hash, offer_hash((opening.base[: len(redone.theta)] - redone.theta).data)
    else:
        named, name = leaf.name, parameters_hash(redone.theta)
    return named == name and leaf.memory == _memory_name(redone.memory)


def fault_in_leaves(claim: Claim, opening: Opening, members: tuple[bytes, ...] | None) -> Verdict | None:
    """The lie that the leaves of a committed opening show without any computing, or None. members: see `judge`."""
    last = max(opening.leaves)
    if opening.leaves[0][0].name != claim.base_hash:
        return Verdict(Finding.BASE, PPM**2, "the trail begins at another state than the one that the card names")
    if opening.leaves[last][0].name != claim.offer_hash:
        return Verdict(Finding.OFFER, PPM**2, "the trail ends at another tensor than the one that the card names")
    if members is not None and opening.members != members:
        return Verdict(Finding.DATA, PPM**2, "the data was cut among others than the members that the base's group had")
    return None


_NOTHING = InnerState(0, {})  # the memory at the end, in a lean opening


def _memory_name(memory: InnerState) -> bytes:
    return memory_hash(memory.steps, memory.vectors)


def _raw(values: Vector | None) -> bytes:
    return b"" if values is None else values.tobytes()


def _raw_memory(memory: InnerState) -> Value:
    return [memory.steps, [memory.vectors[name].tobytes() for name in sorted(memory.vectors)]]


def _peer(value: Value) -> bytes:
    peer = bytes_of(value)
    if len(peer) > _PEER_BYTES_MAX:
        raise MalformedMessage(f"a member's name of {len(peer)} bytes")
    return peer


def _vector(value: Value, length: int) -> Vector | None:
    data = bytes_of(value)
    if not data:
        return None
    if len(data) != length * ITEM_BYTES:
        raise MalformedMessage(f"a vector of {len(data)} bytes where the recipe has {length * ITEM_BYTES}")
    values = np.array(np.frombuffer(data, dtype=FLOAT32_LE))  # torch takes no read-only ones
    if not is_finite(values):
        raise MalformedMessage("a vector with non-finite values")
    return values


def _memory(value: Value, shape: Shape) -> InnerState:
    steps, vectors = fields(value, 2)
    found = [_vector(vector, shape.parameters) for vector in fields(vectors, len(shape.memory))]
    if any(vector is None for vector in found):
        raise MalformedMessage("an inner optimizer's memory without its values")
    return InnerState(
        number(steps, COUNT_MAX),
        {name: vector for name, vector in zip(shape.memory, found, strict=True) if vector is not None},
    )
