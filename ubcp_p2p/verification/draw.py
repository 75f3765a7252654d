"""Who is checked after a round, by whom, and on which stretches: drawn from the round's own result (pure).

The seed is a hash of the group and of the state that the group voted on. It depends on every member's offer, so nobody
who signs a card before seeing the others' offers can know it then; and everybody with the certificate draws alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.models.unchecked import rate_ppm
from ubcp_p2p.swarm.quorum import Certificate
from ubcp_p2p.training.trail import stretch_steps, stretches
from ubcp_p2p.training.verdict import PPM

STRETCHES_MAX: Final = 64  # of one check; a round of common recipes has five


@dataclass(frozen=True)
class CheckRule:
    """A run's setting. rate_ppm: q, the chance of a peer to be checked in a round; stretches: opened in each check.

    Raises ConfigError for numbers outside their limits.
    """

    rate_ppm: int = 20_000
    stretches: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rate_ppm <= PPM or not 1 <= self.stretches <= STRETCHES_MAX:
            raise ConfigError(
                f"checks of {self.rate_ppm} in a million rounds on {self.stretches} stretches cannot be",
                hint=f"use a rate of 0 to {PPM} and 1 to {STRETCHES_MAX} stretches",
            )


class Draw(NamedTuple):
    """One member's check. validator: None when nobody else is there; stretches: rising indices."""

    peer: bytes
    validator: bytes | None
    stretches: tuple[int, ...]


def seed_of(certificate: Certificate) -> bytes:
    """The public seed of a committed round, 32 bytes; whichever majority's signatures the certificate holds."""
    return hashlib.sha256(b"ubcp/check/1\0" + certificate.group.digest + certificate.state_hash).digest()


def draw(seed: bytes, peer: bytes, members: Sequence[bytes], stretches: int, rule: CheckRule) -> Draw | None:
    """The check of `peer`, whose trail has so many stretches, or None. members: who may validate; `peer` never does."""
    if int.from_bytes(_hash(seed, b"rate", peer)[:8], "big") * PPM >= rule.rate_ppm << 64:
        return None
    others = sorted(set(members) - {peer}, key=lambda other: _hash(seed, b"validator", peer, other))
    order = sorted(range(stretches), key=lambda index: _hash(seed, b"stretch", peer, index.to_bytes(8, "big")))
    return Draw(peer, others[0] if others else None, tuple(sorted(order[: rule.stretches])))


def rule_of(recipe: Recipe) -> CheckRule:
    """What a recipe says of checks: none where its data are private."""
    return CheckRule(rate_ppm(recipe), recipe.checks.stretches)


def draws_of(certificate: Certificate, recipe: Recipe) -> dict[bytes, Draw]:
    """All checks of a committed round, by who is checked: everybody who has the certificate draws alike.

    How many stretches a trail has follows from the weight; one that is no whole number of steps is a lie in itself
    (`evidence.claim_of`), and whatever is opened of it shows the card.
    """
    seed, rule = seed_of(certificate), rule_of(recipe)
    steps_max, peers = recipe.rounds.local_steps, certificate.group.peers
    found = {}
    for seat in certificate.group.members:
        steps = min(max(1, seat.weight // recipe.inner.batch), steps_max)
        drawn = draw(seed, seat.peer, peers, stretches(steps, stretch_steps(steps_max)), rule)
        if drawn is not None:
            found[seat.peer] = drawn
    return found


def _hash(seed: bytes, *parts: bytes) -> bytes:
    """Parts of one kind have one length, so that no two lists of them run together."""
    return hashlib.sha256(seed + b"\0".join(parts)).digest()
