"""Whom the members of a round name as its payer, as far as this peer has signed for it: nobody names two (pure).

What a payer is, and whether it pays, is no matter of a swarm: a name is 32 bytes. But a certificate has the names in
it, so a round could be billed twice only by two certificates of it. Who has voted for one name votes for no other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ubcp_p2p.swarm.quorum import NOBODY, Group, Place

ChoosePayer: TypeAlias = Callable[[int], bytes]  # a round → whom this peer's work in it is billed to


def nobody(round_: int) -> bytes:
    """A run that is not paid for."""
    return NOBODY


class Payers:
    """Of one round on one base; another place begins anew."""

    def __init__(self) -> None:
        self._place: Place | None = None
        self._named: dict[bytes, bytes] = {}  # member → payer

    def first(self, place: Place, peer: bytes, payer: bytes) -> bytes:
        """Whom `peer` has named first for the round that begins at `place`; `payer` where it had named nobody."""
        self._turn_to(place)
        return self._named.setdefault(peer, payer)

    def note(self, group: Group) -> None:
        """A vote on this group's round is about to be signed here."""
        for seat in group.members:
            self.first((group.round, group.base_hash), seat.peer, seat.payer)

    def contradicted(self, group: Group) -> tuple[bytes, ...]:
        """The members that name another payer than in a group of this round that was voted for here."""
        self._turn_to((group.round, group.base_hash))
        return tuple(seat.peer for seat in group.members if self._named.get(seat.peer, seat.payer) != seat.payer)

    def _turn_to(self, place: Place) -> None:
        if place != self._place:
            self._place, self._named = place, {}
