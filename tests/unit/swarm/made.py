"""Keys, cards, certificates and standings made for the tests of the swarm."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from ubcp_p2p.keys import NodeKey
from ubcp_p2p.swarm.quorum import Card, Certificate, Group, Standing, vote_digest

RUN = hashlib.sha256(b"a run").digest()
OTHER_RUN = hashlib.sha256(b"another run").digest()
OFFER_BYTES = 4096


def key(number: int) -> NodeKey:
    return NodeKey(hashlib.sha256(b"node %d" % number).digest())


def digest(words: str) -> bytes:
    return hashlib.sha256(words.encode()).digest()


KEYS = [key(number) for number in range(12)]


def card(who: NodeKey, *, round_: int = 3, base: bytes = digest("base"), weight: int = 8, offer: str = "offer") -> Card:
    return Card(RUN, round_, base, who.public, weight, digest(offer), OFFER_BYTES).signed(who)


def group(members: Iterable[bytes], *, round_: int = 3, base: bytes = digest("base")) -> Group:
    return Group(RUN, round_, base, tuple((peer, 8, digest("offer")) for peer in sorted(members)))


def certificate(
    members: Sequence[NodeKey], signers: Sequence[NodeKey], *, round_: int = 3, base: bytes = digest("base"),
    state: bytes = digest("state"),
) -> Certificate:  # fmt: skip
    """A certificate with real signatures for the state that round `round_` led to."""
    made = group((k.public for k in members), round_=round_, base=base)
    signed = vote_digest(made.digest, state)
    return Certificate(made, state, tuple(sorted((k.public, k.sign("vote", signed)) for k in signers)))


def unsigned(members: Iterable[bytes], signers: Iterable[bytes], round_: int, base: bytes, state: bytes) -> Standing:
    """Standing on the state after `round_`, with empty signatures: `choose` is given verified certificates only."""
    made = group(members, round_=round_, base=base)
    return Standing(state, Certificate(made, state, tuple((peer, b"") for peer in sorted(signers))))
