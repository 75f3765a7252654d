"""Trails for tests: small made-up ones, and the signed cards and certificates around real ones (bench/cheats.py)."""

from __future__ import annotations

import hashlib

import numpy as np

from bench.cheats import KEYS, PEERS, Swarm, Work
from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.swarm.quorum import Card, Certificate, Group, Seat, vote_digest
from ubcp_p2p.training.opening import Opening, make_opening
from ubcp_p2p.training.points import Point, Shape
from ubcp_p2p.training.state import FLOAT32_LE, InnerState, Vector, offer_hash, state_hash
from ubcp_p2p.training.trail import Leaf, marks, memory_hash, parameters_hash, root_of, trail_hash
from ubcp_p2p.training.verdict import Claim
from ubcp_p2p.verification.evidence import Evidence

SHAPE = Shape(3, 6, ("exp_avg", "exp_avg_sq"), 2)
RUN, PEER = hashlib.sha256(b"run").digest(), b"me"
MEMBERS = (b"me", b"other")


def values(count: int, seed: int) -> Vector:
    return np.random.default_rng(seed).standard_normal(count).astype(FLOAT32_LE)


def made_up(steps: int, index: int, shape: Shape = SHAPE) -> tuple[Claim, Opening]:
    """A consistent opening of stretch `index` of a trail of noise."""
    base, length = values(shape.state_values, 0), shape.parameters
    points = [
        Point(
            base[:length] if place == 0 else values(length, place + 1),
            InnerState(step, {name: values(length, 100 * place + i) for i, name in enumerate(shape.memory)}),
        )
        for place, step in enumerate(marks(steps, shape.stretch))
    ]
    offer = base[:length] - points[-1].theta
    names = [
        state_hash(RUN, 7, base.data),
        *(parameters_hash(point.theta) for point in points[1:-1]),
        offer_hash(offer.data),
    ]
    leaves = [
        Leaf(step, name, memory_hash(point.memory))
        for step, name, point in zip(marks(steps, shape.stretch), names, points, strict=True)
    ]
    claim = Claim(RUN, 7, PEER, names[0], steps, names[-1], trail_hash(MEMBERS, root_of(leaves)))
    return claim, make_opening(MEMBERS, leaves, index, base, points[index], points[index + 1])


def in_second_round(recipe: Recipe, name: str) -> Swarm:
    """A swarm in the first round that has a certificate."""
    swarm = Swarm(recipe, name)
    swarm.advance()
    swarm.advance()
    return swarm


def card_of(work: Work, *, weight: int | None = None, batch: int = 16) -> Card:
    """The card that the peer signs for its work."""
    claim = work.claim
    card = Card(
        claim.run_id, claim.round, claim.base_hash, claim.peer, claim.steps * batch if weight is None else weight,
        claim.offer_hash, work.offer.nbytes, claim.trail,
    )  # fmt: skip
    return card.signed(KEYS[claim.peer])


def certificate_of(swarm: Swarm) -> Certificate | None:
    """Of the state that the swarm's present round began from."""
    if swarm.round == 0:
        return None
    claims = {peer: work.claim for peer, work in swarm.before.items()}
    rows = tuple(Seat(peer, 64, claims[peer].offer_hash, claims[peer].trail) for peer in PEERS)
    group = Group(swarm.run_id, swarm.round - 1, claims[PEERS[0]].base_hash, rows)
    vote = vote_digest(group.digest, swarm.base_hash)
    return Certificate(group, swarm.base_hash, tuple((peer, KEYS[peer].sign("vote", vote)) for peer in PEERS[:2]))


def evidence_of(swarm: Swarm, work: Work, index: int) -> Evidence:
    opening = work.open(index)
    assert opening is not None
    return Evidence(swarm.name, card_of(work), certificate_of(swarm), opening.to_bytes())
