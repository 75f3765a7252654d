"""Evidence: a peer's signed card and an opening of its trail, so that a stranger with the recipe can judge. No torch.

A blob proves a lie only: what it holds hangs on the signature of the card, so nobody can make evidence against a peer
that did what it says. The certificate alone does not: it is the word of the group that it names. That a peer did not
open its trail cannot be shown to strangers; they ask it themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ubcp_p2p.codec import MalformedMessage, bytes_of, decode, encode, fields, number
from ubcp_p2p.models.recipe import Recipe, run_id
from ubcp_p2p.swarm.quorum import CARD_BYTES_MAX, CERTIFICATE_BYTES_MAX, Card, Certificate
from ubcp_p2p.training.opening import Shape
from ubcp_p2p.training.verdict import PPM, Claim, Finding, Verdict

VERSION: Final = 2
EVIDENCE_KEPT: Final = 64  # blobs in one folder
NAME_BYTES_MAX: Final = 256  # of a run's name
_OVERHEAD_BYTES: Final = 4096


@dataclass(frozen=True)
class Evidence:
    """run: the run's name; certificate: of the state that the round began from, None in a run's first round."""

    run: str
    card: Card
    certificate: Certificate | None
    opening: bytes

    def to_bytes(self) -> bytes:
        certificate = b"" if self.certificate is None else self.certificate.to_bytes()
        return encode([VERSION, self.run, self.card.to_bytes(), certificate, self.opening])

    @classmethod
    def from_bytes(cls, data: bytes, recipe: Recipe, shape: Shape) -> Evidence:
        """Parse, and verify the signatures and that card, certificate and recipe belong together.

        Raises MalformedMessage: the blob is then evidence of nothing.
        """
        version, run, card, certificate, opening = fields(decode(data, bytes_max=bytes_max(shape)), 5)
        if number(version) != VERSION:
            raise MalformedMessage(f"evidence of version {number(version)}, not {VERSION}")
        if not isinstance(run, str) or len(run.encode()) > NAME_BYTES_MAX:
            raise MalformedMessage(f"expected a run's name of at most {NAME_BYTES_MAX} bytes")
        if len(bytes_of(card)) > CARD_BYTES_MAX or len(bytes_of(certificate)) > CERTIFICATE_BYTES_MAX:
            raise MalformedMessage("a card or a certificate longer than such are")
        if len(bytes_of(opening)) > shape.bytes_max():
            raise MalformedMessage("an opening longer than this recipe's are")
        signed = Card.from_bytes(bytes_of(card))
        if signed.run_id != run_id(run, recipe.hash()):
            raise MalformedMessage(f"a card of another run than {run!r} of {recipe.name}")
        base = None
        if bytes_of(certificate):
            base = Certificate.from_bytes(bytes_of(certificate), signed.run_id, members_max=recipe.rounds.peers_max)
        if (None if base is None else base.place) != ((signed.round, signed.base_hash) if signed.round else None):
            raise MalformedMessage("the certificate is not that of the state that the card names")
        return cls(run, signed, base, bytes_of(opening))

    @property
    def members(self) -> tuple[bytes, ...] | None:
        """Whom the round's data is cut among; None in a run's first round, where nothing public says it.

        As the blob has it: anybody can sign for a state in the names of a group that he makes up. Who knows the group
        that made the state goes by that.
        """
        return None if self.certificate is None else self.certificate.group.peers


def bytes_max(shape: Shape) -> int:
    """Of a blob."""
    return shape.bytes_max() + CARD_BYTES_MAX + CERTIFICATE_BYTES_MAX + _OVERHEAD_BYTES


def claim_of(card: Card, recipe: Recipe) -> Claim | Verdict:
    """What a card claims of its round; the verdict, if its weight alone is a lie."""
    steps, rest = divmod(card.weight, recipe.inner.batch)
    if rest or not 1 <= steps <= recipe.rounds.local_steps:
        words = f"{card.weight} samples are no 1 to {recipe.rounds.local_steps} steps of {recipe.inner.batch}"
        return Verdict(Finding.COUNT, PPM**2, words)
    return Claim(card.run_id, card.round, card.peer, card.base_hash, steps, card.offer_hash, card.trail)
