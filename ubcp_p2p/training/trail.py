"""A peer's trail: the states along its local steps, committed to by one hash before the exchange. Imports no torch.

A round's local steps are cut into stretches. The states between them are the leaves of an RFC 6962 Merkle tree; its
root and the members that the data was cut among make the trail's hash, which the peer signs on its card. The first leaf
names the round's base by the hash that the group voted on, the last one the offer by its hash: so a trail that does not
begin at the common state or end at the offered tensor shows in the leaves alone, whichever stretch is looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ubcp_p2p.codec import Value, encode, fields, hash_of, number
from ubcp_p2p.ledger import merkle
from ubcp_p2p.training.limits import LEAVES_MAX, STEPS_MAX, STRETCH_STEPS_MAX
from ubcp_p2p.training.pieces import hashes_of
from ubcp_p2p.training.state import InnerState, Vector

# A check costs its validator one stretch, about a fifth of a round; a skipped stretch is found with probability 1/5.
STRETCHES: Final = 5
PROOF_MAX: Final = LEAVES_MAX.bit_length()
COUNT_MAX: Final = 2**48  # inner steps over a whole run


@dataclass(frozen=True)
class Leaf:
    """The state after `step` local steps. name: hash of the parameters, of the base (first) or of the offer (last)."""

    step: int
    name: bytes
    memory: bytes

    def value(self) -> Value:
        return [self.step, self.name, self.memory]

    def content(self) -> bytes:
        """What the tree holds."""
        return encode(self.value())

    @classmethod
    def of(cls, value: Value) -> Leaf:
        """Raises MalformedMessage."""
        step, name, memory = fields(value, 3)
        return cls(number(step, STEPS_MAX), hash_of(name), hash_of(memory))


def stretch_steps(local_steps: int) -> int:
    """Steps of one stretch, in a round of `local_steps`."""
    return min(STRETCH_STEPS_MAX, -(-local_steps // STRETCHES))


def marks(steps: int, stretch: int) -> tuple[int, ...]:
    """After how many steps a leaf is taken: 0, then every `stretch` steps, and the last step taken."""
    return (*range(0, steps, stretch), steps)


def stretches(steps: int, stretch: int) -> int:
    """How many stretches `steps` steps make."""
    return -(-steps // stretch)


def parameters_hash(theta: Vector) -> bytes:
    """SHA-256 that names parameters in the middle of a round. 32 bytes."""
    return parameters_name(hashes_of(theta))


def parameters_name(hashes: bytes) -> bytes:
    """The same of parameters whose pieces have these hashes (`pieces.hashes_of`)."""
    return hashlib.sha256(b"ubcp/trail-parameters/2\0" + hashes).digest()


def memory_hash(memory: InnerState) -> bytes:
    """SHA-256 that names an inner optimizer's memory. 32 bytes."""
    return memory_name(memory.steps, {name: hashes_of(values) for name, values in memory.vectors.items()})


def memory_name(steps: int, hashes: Mapping[str, bytes]) -> bytes:
    """The same of a memory whose vectors' pieces have these hashes. A recipe says how many each vector has."""
    digest = hashlib.sha256(b"ubcp/trail-memory/2\0" + steps.to_bytes(8, "big"))
    for name in sorted(hashes):
        digest.update(name.encode() + b"\0" + hashes[name])
    return digest.digest()


def trail_hash(members: Sequence[bytes], root: bytes) -> bytes:
    """What a card carries: the tree, and whom the data was cut among (`models.shards`). 32 bytes."""
    return hashlib.sha256(b"ubcp/trail/1\0" + encode([list(members), root])).digest()


def root_of(leaves: Sequence[Leaf]) -> bytes:
    """The root of the tree over these leaves."""
    return merkle.root_of(leaf.content() for leaf in leaves)


def proof_of(leaves: Sequence[Leaf], index: int) -> tuple[bytes, ...]:
    """What shows that leaf `index` is in the tree."""
    return tuple(merkle.inclusion_proof([leaf.content() for leaf in leaves], index))
