"""What a node holds of one liar: by which evidence, from which round on, who says that it shuns it, who was told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low
from typing import Final, Protocol

PAUSE_S: Final = 1.0  # until a peer that was not ready is asked again; doubled each time
PAUSE_S_MAX: Final = 8.0  # who comes into its first round is to hear of it soon
TRIES_MAX: Final = 8  # to reach a peer that is there
VOICES_MAX: Final = 256  # whose word of the end is kept


class Members(Protocol):
    """What is asked of a RunMember."""

    round: int

    def peers(self) -> list[bytes]: ...

    def knows(self, peer: bytes) -> bool: ...

    def shun(self, peer: bytes, from_round: int, left_s: float) -> None: ...

    def strike(self, peer: bytes) -> None: ...


@dataclass
class Told:
    """How far one peer has been told. Times are monotonic seconds."""

    is_done: bool = False  # there is no more to say to it
    tries: int = 0  # that did not reach it
    pause_s: float = PAUSE_S
    next_s: float = 0.0

    def put_off(self, now_s: float) -> None:
        self.next_s, self.pause_s = now_s + self.pause_s, min(2.0 * self.pause_s, PAUSE_S_MAX)

    def failed(self, now_s: float) -> None:
        self.tries += 1
        self.is_done = self.tries >= TRIES_MAX
        self.put_off(now_s)


@dataclass
class Conviction:
    """evidence: its file, named by its hash; from_round: the first without the liar; source: who brought it.

    ends: by who says that it is convinced, this node too where the lie is fresh: when it lets the liar in again
    (monotonic). The lower median counts, so that the hour ends alike for all and few can neither end nor renew it.
    """

    evidence: Path
    from_round: int
    source: bytes | None
    ends: dict[bytes, float]
    told: dict[bytes, Told] = field(default_factory=dict)
    is_shunned: bool = False
    is_struck: bool = False

    @property
    def over_s(self) -> float:
        return median_low(self.ends.values())

    def backed(self, peer: bytes, end_s: float) -> None:
        """`peer` says that it is convinced too. Only its first word of the end counts: nobody renews the hour."""
        if len(self.ends) < VOICES_MAX:
            self.ends.setdefault(peer, end_s)
