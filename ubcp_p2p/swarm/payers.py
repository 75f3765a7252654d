"""Whom the members of a round name as its payer, as far as this peer has signed for it: nobody names two (pure).

What a payer is, and whether it pays, is no matter of a swarm: a name is 32 bytes. But a certificate has the names in
it, so a round could be billed twice only by two certificates of it. Who has voted for one name votes for no other; so
whoever did vote for both, or is named with both, has lied.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

from ubcp_p2p.swarm.quorum import NOBODY, Certificate, Group, Place

ChoosePayer: TypeAlias = Callable[[int], bytes]  # a round → whom this peer's work in it is billed to

PLACES_KEPT: Final = 16  # a peer may go back a round with its branch
T = TypeVar("T")
NAMES_S: Final = 600.0  # who was started again and works for other leases now must not stop a pair for ever


def nobody(round_: int) -> bytes:
    """A run that is not paid for."""
    return NOBODY


class Payers:
    """Of the last rounds, by the state that each began from. Knows no clock: `now_s` is told."""

    def __init__(self) -> None:
        self._named: OrderedDict[Place, tuple[float, dict[bytes, bytes]]] = OrderedDict()  # place → since, by member
        self._mine: OrderedDict[Place, bytes] = OrderedDict()  # as long as it may be tried: others' clocks differ

    def mine(self, place: Place, payer: bytes) -> bytes:
        """Whom this peer has named first for the round that begins at `place`; `payer` where it had named nobody."""
        named = self._mine.get(place, NOBODY)
        if named == NOBODY:
            named = self._mine[place] = payer
        _keep_newest(self._mine)
        return named

    def note(self, group: Group, now_s: float) -> None:
        """A vote on this group's round is about to be signed here."""
        named = self._at(group.place, now_s)
        for seat in group.members:
            if seat.payer != NOBODY:
                named.setdefault(seat.peer, seat.payer)

    def contradicted(self, group: Group, now_s: float) -> tuple[bytes, ...]:
        """The members that name another payer than in a group of this round that was voted for here."""
        named = self._at(group.place, now_s)
        return tuple(seat.peer for seat in group.members if _are_two(named.get(seat.peer, NOBODY), seat.payer))

    def _at(self, place: Place, now_s: float) -> dict[bytes, bytes]:
        since_s, named = self._named.get(place, (now_s, {}))
        if now_s - since_s > NAMES_S:
            since_s, named = now_s, {}
        self._named[place] = since_s, named
        _keep_newest(self._named)
        return named


def two_faced(one: Certificate, other: Certificate) -> set[bytes]:
    """Who is named with two payers in two certificates of one round, and has signed both.

    A signature is a peer's own, and an honest peer names one payer: nobody is found for what others have made up.
    """
    if one.group.place != other.group.place:
        return set()
    named = {seat.peer: seat.payer for seat in one.group.members}
    both = {seat.peer for seat in other.group.members if _are_two(named.get(seat.peer, NOBODY), seat.payer)}
    return both.intersection(one.signers, other.signers)


def _keep_newest(places: OrderedDict[Place, T]) -> None:
    while len(places) > PLACES_KEPT:
        places.popitem(last=False)


def _are_two(one: bytes, other: bytes) -> bool:
    """Whether both could be billed."""
    return one != other and NOBODY not in (one, other)
