"""Whom a run lets in: what the peers of a run are asked about each other, and how a refusal is told (pure).

What decides is given from outside: a swarm knows no accounts. A refusal is only what one peer says about its own doing.
It changes nothing in whom others let in; who hears it from most of those that are there waits and asks again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeAlias

from ubcp_p2p.codec import MalformedMessage, Value
from ubcp_p2p.errors import NetworkError
from ubcp_p2p.log import printable

WORDS_MAX: Final = 300  # characters of a reason
PAUSE_S: Final = 1.0  # until a peer that refused is asked again; doubled each time
PAUSE_S_MAX: Final = 8.0  # a ledger that was behind has caught up long before
REFUSALS_MAX: Final = 1024
NO_LIMIT: Final = 2**63 - 1

Verdict: TypeAlias = Callable[[bytes], str]  # a peer's public key → "", or why it is out, in words
Limit: TypeAlias = Callable[[bytes], int]  # a peer's public key → the most samples that its offer can weigh in a round


def everybody(peer: bytes) -> str:
    """All are let in: as in a swarm that nobody pays for."""
    return ""


def unlimited(peer: bytes) -> int:
    """The recipe's own limit is enough."""
    return NO_LIMIT


@dataclass(frozen=True)
class Admission:
    """Whom one peer lets into one run.

    trains, weighs: who may be in a group, and its offer's greatest weight. All members go by what all of them know
    alike, or they would make different groups of one list of cards.
    reads: who may have the run's state; at least all who may train.
    meets: with whom this peer deals at all, by what it alone has seen: it decides what this peer gives and whom it
    leads, and never what a group is.
    """

    trains: Verdict = everybody
    reads: Verdict = everybody
    meets: Verdict = everybody
    weighs: Limit = unlimited

    def to_group(self, peer: bytes) -> str:
        """Why this peer does not lead `peer` into a group, or wait for it; "" when it does."""
        return self.meets(peer) or self.trains(peer)

    def to_state(self, peer: bytes) -> str:
        """Why `peer` gets no state from here; "" when it does."""
        return self.meets(peer) or self.reads(peer)

    def but_for(self, why: Verdict) -> Admission:
        """The same, without those of whom `why` has words: they train no more."""
        trains = self.trains
        return replace(self, trains=lambda peer: why(peer) or trains(peer))


OPEN: Final = Admission()


class NotAdmitted(NetworkError):
    """The other peer refuses this one; the message is its words."""


def refusal(words: str) -> Value:
    """The answer to who is out: told apart from all others by the text in it."""
    return [words[:WORDS_MAX]]


def unless_refused(answer: Value) -> Value:
    """The answer itself. Raises NotAdmitted with the words of a refusal."""
    if isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], str):
        raise NotAdmitted(heard(answer[0]))
    return answer


def heard(words: str) -> str:
    """What a stranger's words are kept and shown as."""
    return printable(words[:WORDS_MAX]).strip() or "no reason was given"


def words_of(answer: Value) -> str:
    """The words of an answer that is nothing else, "" included. Raises MalformedMessage."""
    if not isinstance(answer, list) or len(answer) != 1 or not isinstance(answer[0], str):
        raise MalformedMessage("no words where some belong")
    return heard(answer[0]) if answer[0] else ""


class Refusal(NamedTuple):
    """What a peer said last. Times are monotonic seconds."""

    words: str
    pause_s: float
    until_s: float  # it is not asked before


class Refusals:
    """Who refuses this peer now. Knows no clock: `now_s` is told."""

    def __init__(self) -> None:
        self._of: dict[bytes, Refusal] = {}

    def note(self, peer: bytes, words: str, now_s: float) -> None:
        if peer not in self._of and len(self._of) >= REFUSALS_MAX:
            self._of.clear()
        before = self._of.get(peer)
        pause_s = PAUSE_S if before is None else min(2.0 * before.pause_s, PAUSE_S_MAX)
        self._of[peer] = Refusal(words, pause_s, now_s + pause_s)

    def lift(self, peer: bytes) -> None:
        """It lets this peer in again."""
        self._of.pop(peer, None)

    def due(self, peers: Collection[bytes], now_s: float) -> list[bytes]:
        """Those of `peers` that refused, and may be asked again."""
        return [peer for peer in self.of(peers) if self._of[peer].until_s <= now_s]

    def by_most(self, peers: Collection[bytes]) -> bool:
        """Whether more than half of `peers` refuse: fewer could be liars, and the rest are enough to train with."""
        return 2 * len(self.of(peers)) > len(peers)

    def of(self, peers: Collection[bytes]) -> list[bytes]:
        """Those of `peers` that refuse, sorted."""
        return sorted(peer for peer in peers if peer in self._of)

    def why(self, peers: Collection[bytes]) -> str:
        """What most of those that refuse say; the least by the alphabet of as many."""
        counts = Counter(self._of[peer].words for peer in self.of(peers))
        return min(counts, key=lambda words: (-counts[words], words), default="")
