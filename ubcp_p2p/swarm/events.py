"""What a run is, and what is told of it as it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ubcp_p2p.codec import MalformedMessage
from ubcp_p2p.swarm.admission import OPEN, Admission
from ubcp_p2p.swarm.payers import ChoosePayer, nobody
from ubcp_p2p.swarm.quorum import Card, Certificate
from ubcp_p2p.swarm.seating import ChooseSeats, drawn


@dataclass(frozen=True)
class RunSettings:
    """What a run is.

    The same for all its members, except `peers_min` and `checkpoint_every_s`, which are this peer's. seats: who gets
    one, when more ask than there are. admission: whom this peer lets in. payer: whom it bills a round to.
    """

    name: str
    run_id: bytes
    recipe: str
    recipe_hash: bytes
    rounds: int
    peers_max: int
    weight_max: int  # the most samples that H local steps can be made of
    evaluate_every: int = 0
    peers_min: int = 1
    checkpoint_every_s: float = 10.0
    seats: ChooseSeats = drawn
    admission: Admission = OPEN
    payer: ChoosePayer = nobody


@dataclass(frozen=True)
class Event:
    """Something that happened in a run.

    `kind` is the place, `data` its figures (JSON types only). Times are seconds.
    """

    kind: str
    round: int
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Committed:
    """A round that this peer was in. base: of the state that it began from, None before the first certificate.

    cards: as they were gathered, the group's among them: what the members signed before they saw anybody's offer.
    """

    certificate: Certificate
    base: Certificate | None
    cards: tuple[bytes, ...]

    def card_of(self, peer: bytes) -> Card | None:
        """The card that gave `peer` its seat; None where it is not among those that were gathered."""
        seat = self.certificate.group.seat_of(peer)
        for data in self.cards:
            try:
                card = Card.from_bytes(data)
            except MalformedMessage:
                continue
            if seat is not None and card.earns(seat):
                return card
        return None


Observer = Callable[[Event], None]
