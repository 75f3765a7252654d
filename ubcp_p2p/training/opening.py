"""An opening: one stretch of a peer's trail with all that is needed to walk it again, as bytes. Imports no torch.

It holds the leaves that matter with their paths (the first, the stretch's two ends, the last), and the states at the
ends: the whole base state where the stretch begins the round or ends it, else parameters; the inner optimizer's memory
at both ends; the offer where the stretch ends it. How much of the state at the end is shown is the asker's to say
(`ends`). Read from strangers, so every length must be exactly what the recipe implies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ubcp_p2p.codec import MalformedMessage, Value, bytes_of, decode, encode, fields, hash_of, items, number
from ubcp_p2p.ledger.merkle import is_included
from ubcp_p2p.training.ends import DrawnEnd, End, WholeEnd, as_asked, end_of, end_value
from ubcp_p2p.training.limits import MEMBERS_MAX
from ubcp_p2p.training.points import Point, Shape, memory_of, raw, raw_memory, vector_of
from ubcp_p2p.training.state import InnerState, Vector, offer_hash, state_hash
from ubcp_p2p.training.trail import PROOF_MAX, Leaf, marks, memory_hash, parameters_hash, proof_of, root_of, trail_hash
from ubcp_p2p.training.verdict import PPM, Claim, Finding, Verdict

_PEER_BYTES_MAX = 64


@dataclass(frozen=True)
class Opening:
    """See the module. index: of the stretch; leaves: index → (leaf, path); base, before: None if absent.

    before: parameters at the stretch's beginning, where that is not the base.
    """

    members: tuple[bytes, ...]
    root: bytes
    index: int
    leaves: dict[int, tuple[Leaf, tuple[bytes, ...]]]
    base: Vector | None
    before: Vector | None
    before_memory: InnerState
    end: End

    def to_bytes(self) -> bytes:
        leaves: list[Value] = [[index, leaf.value(), list(path)] for index, (leaf, path) in sorted(self.leaves.items())]
        return encode(
            [
                list(self.members), self.root, self.index, leaves, raw(self.base), raw(self.before),
                raw_memory(self.before_memory), end_value(self.end),
            ]
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, data: bytes, shape: Shape) -> Opening:
        """Raises MalformedMessage for anything but finite vectors of exactly the recipe's lengths."""
        members, root, index, leaves, base, before, before_memory, end = fields(
            decode(data, bytes_max=shape.bytes_max()), 8
        )
        found: dict[int, tuple[Leaf, tuple[bytes, ...]]] = {}
        for row in items(leaves, 4):
            place, leaf, path = fields(row, 3)
            found[number(place)] = Leaf.of(leaf), tuple(hash_of(node) for node in items(path, PROOF_MAX))
        return cls(
            tuple(_peer(member) for member in items(members, MEMBERS_MAX)), hash_of(root), number(index), found,
            vector_of(base, shape.state_values), vector_of(before, shape.parameters), memory_of(before_memory, shape),
            end_of(end, shape),
        )  # fmt: skip

    def as_asked(self, wanted: bytes) -> Opening:
        """Of a whole one, what an asker wants: see `ends.as_asked`. Raises MalformedMessage, also for a part of one."""
        if not isinstance(self.end, WholeEnd):
            raise MalformedMessage("a part of an opening, where the whole should be")
        return replace(self, end=as_asked(self.end, wanted))

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
        assert isinstance(self.end, WholeEnd)
        theta = self.end.after
        if theta is None:
            assert self.base is not None and self.end.offer is not None
            theta = self.base[:parameters] - self.end.offer
        return self.start(parameters), Point(theta, self.end.memory)

    def drawn_ends(self, redone: Point) -> tuple[Point, Point, Point]:
        """What is shown, of the states that the stretch leads from and to, as claimed and as `redone`; of an opening
        with a drawn end that `require_committed` passed."""
        assert isinstance(self.end, DrawnEnd)
        start = self.start(len(redone.theta))
        return self.end.of_point(start), self.end.point(self.base), self.end.of_point(redone)


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
        WholeEnd(base[:parameters] - after.theta if at_end else None, None if at_end else after.theta, after.memory),
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
    first, at_end, end = index == 0, index + 1 == last, opening.end
    if (opening.base is not None, opening.before is not None) != (first or at_end, not first):
        raise MalformedMessage("not the states that such a stretch is opened with")
    if end is not None and (end.offer is not None, end.after is not None) != (at_end, not at_end):
        raise MalformedMessage("not the states that such a stretch is opened with")
    before, after = opening.leaves[index][0], opening.leaves[index + 1][0]
    pairs = [(memory_hash(opening.before_memory), before.memory)]
    if opening.base is not None:
        pairs.append((state_hash(claim.run_id, claim.round, opening.base.data), claim.base_hash))
    if opening.before is not None:
        pairs.append((parameters_hash(opening.before), before.name))
    if end is not None:
        parameters, memory = end.names()
        pairs.append((memory, after.memory))
        if parameters is not None:
            pairs.append((parameters, after.name))
        if end.offer is not None:
            pairs.append((offer_hash(end.offer.data), claim.offer_hash))
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
    return named == name and leaf.memory == memory_hash(redone.memory)


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


def _peer(value: Value) -> bytes:
    peer = bytes_of(value)
    if len(peer) > _PEER_BYTES_MAX:
        raise MalformedMessage(f"a member's name of {len(peer)} bytes")
    return peer
