"""A contributor's bill for one round: its certificate, and where a check is drawn, what shows anybody what it claims.

The card is what the contributor signed before the exchange, the base certificate says whom the round's data is cut
among. With an opening they are evidence, so what a paymaster finds by its own look convinces others too. Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ubcp_p2p.codec import MalformedMessage, bytes_of, decode, encode, fields
from ubcp_p2p.swarm.events import Committed
from ubcp_p2p.swarm.quorum import CARD_BYTES_MAX, CERTIFICATE_BYTES_MAX, Card, Certificate

BILL_BYTES_MAX: Final = 2 * CERTIFICATE_BYTES_MAX + CARD_BYTES_MAX + 64


class Bill(NamedTuple):
    """card, base: of a round that is checked; base is None in a run's first round."""

    certificate: Certificate
    card: Card | None = None
    base: Certificate | None = None

    def to_bytes(self) -> bytes:
        card = b"" if self.card is None else self.card.to_bytes()
        base = b"" if self.base is None else self.base.to_bytes()
        return encode([self.certificate.to_bytes(), card, base])

    @classmethod
    def from_bytes(cls, data: bytes, run_id: bytes, *, members_max: int) -> Bill:
        """Parse, and verify all signatures and that the parts belong together. Raises MalformedMessage."""
        certified, signed, before = fields(decode(data, bytes_max=BILL_BYTES_MAX), 3)
        certificate = Certificate.from_bytes(bytes_of(certified), run_id, members_max=members_max)
        if not bytes_of(signed):
            return cls(certificate)
        card, group = Card.from_bytes(bytes_of(signed)), certificate.group
        # A group may clamp a weight; who is paid for more than its card says would be checked for less.
        seated = any(card.earns(seat) and seat.weight <= card.weight for seat in group.members)
        if not seated or (card.run_id, card.round, card.base_hash) != (run_id, group.round, group.base_hash):
            raise MalformedMessage("a card that gave nobody a seat in the round that is billed")
        base = None
        if bytes_of(before):
            base = Certificate.from_bytes(bytes_of(before), run_id, members_max=members_max)
        if (None if base is None else base.place) != ((card.round, card.base_hash) if card.round else None):
            raise MalformedMessage("the certificate is not that of the state that the round began from")
        return cls(certificate, card, base)


def bill_of(committed: Committed, peer: bytes, *, drawn: bool) -> Bill:
    """Of a round that `peer` was in."""
    if not drawn:
        return Bill(committed.certificate)
    return Bill(committed.certificate, committed.card_of(peer), committed.base)
