"""What a check finds, and what shows in the committed leaves alone. Imports no torch."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from ubcp_p2p.training.compare import PPM
from ubcp_p2p.training.opening import Claim, Opening


class Finding(StrEnum):
    """HONEST, or the kind of lie; UNOPENED: the peer did not show what its card commits it to."""

    HONEST = "honest"
    COUNT = "count"  # the card's samples are no number of whole steps of a round
    BASE = "base"  # the trail begins at another state than the card's
    OFFER = "offer"  # the trail ends at another tensor than the card's
    DATA = "data"  # on other items than the peer's own
    MEMORY = "memory"  # with an inner optimizer's memory that no training leaves behind
    STEPS = "steps"  # the stretch does not lead where it is said to lead
    UNOPENED = "unopened"


class Verdict(NamedTuple):
    """distance_ppm: how far the claimed end is from the one found again, over the stretch's length, in millionths."""

    finding: Finding
    distance_ppm: int
    words: str


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
