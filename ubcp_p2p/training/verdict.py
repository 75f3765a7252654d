"""What is checked, and what a check finds, as values. Imports neither torch nor numpy."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

PPM: Final = 10**6


class Claim(NamedTuple):
    """What a card says of a peer's work. steps: samples behind the offer over the batch; trail: see `trail_hash`."""

    run_id: bytes
    round: int
    peer: bytes
    base_hash: bytes
    steps: int
    offer_hash: bytes
    trail: bytes


class Finding(StrEnum):
    """HONEST, or the kind of lie; UNOPENED: the peer did not show what its card commits it to."""

    HONEST = "honest"
    COUNT = "count"  # the card's samples are no number of whole steps of a round
    BASE = "base"  # the trail begins at another state than the card's
    OFFER = "offer"  # the trail ends at another tensor than the card's
    DATA = "data"  # on other items than the peer's own
    MEMORY = "memory"  # with an inner optimizer's memory that counts other steps, or that no training leaves behind
    DROWNED = "drowned"  # no lie: this stretch's gradients do not show beside a large memory, or a tiny loss's rounding
    STEPS = "steps"  # the stretch does not lead where it is said to lead
    UNOPENED = "unopened"


class Verdict(NamedTuple):
    """distance_ppm: how far the claimed end is from the one found again, over the stretch's length, in millionths.

    allowed_ppm: how far honest peers may be on this very stretch, rounding included; 0 where no distance was judged.
    """

    finding: Finding
    distance_ppm: int
    words: str
    allowed_ppm: int = 0

    @property
    def is_lie(self) -> bool:
        """Whether evidence of it convicts the peer."""
        return self.finding not in (Finding.HONEST, Finding.UNOPENED, Finding.DROWNED)
