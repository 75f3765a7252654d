"""Who else is in the run, at which round and in which phase: heartbeats over gossip, and what to conclude (pure view).

A heartbeat is authenticated by GossipSub (its author is a node key) and is still only a claim: it decides whom to wait
for, never what the model becomes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from ubcp_p2p.codec import decode, encode, fields, hash_of, number
from ubcp_p2p.swarm.admission import Verdict, everybody
from ubcp_p2p.swarm.quorum import ROUND_MAX

BEAT_S = 0.5
BEAT_BYTES_MAX = 256
MEMBERS_SEEN_MAX = 256
SILENCE_MIN_S = 2.0  # four beats: shorter accused peers on a busy 2-core machine (loop lag up to 0.4 s, measured)
SILENCE_MAX_S = 10.0
FORGET_S = 60.0
STRIKE_S_MAX = 3600.0


class Phase(IntEnum):
    JOINING = 0
    TRAINING = 1
    READY = 2  # has an offer, waits for the group
    ROUND = 3  # in matchmaking, exchange or vote
    DONE = 4  # the run's last round is committed; serves its state
    LEAVING = 5


@dataclass(frozen=True)
class Beat:
    """One heartbeat. `train_ms`: how long this peer's local steps take; `sequence` only grows within one process."""

    run_id: bytes
    sequence: int
    round: int
    phase: Phase
    base_hash: bytes
    step: int
    train_ms: int

    def to_bytes(self) -> bytes:
        return encode(
            [self.run_id, self.sequence, self.round, int(self.phase), self.base_hash, self.step, self.train_ms]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Beat:
        """Raises MalformedMessage."""
        run_id, sequence, round_, phase, base_hash, step, train_ms = fields(decode(data, bytes_max=BEAT_BYTES_MAX), 7)
        return cls(
            hash_of(run_id), number(sequence), number(round_, ROUND_MAX), Phase(number(phase, Phase.LEAVING)),
            hash_of(base_hash), number(step), number(train_ms),
        )  # fmt: skip


@dataclass
class Member:
    """What is known of one other peer of the run. Times are monotonic seconds."""

    beat: Beat
    heard_s: float
    gap_s: float = BEAT_S  # smoothed time between beats
    deviation_s: float = 0.0
    struck_until_s: float = 0.0  # misbehaved: not waited for until then
    strikes: int = 0
    was_connected: bool = False

    def silence_allowed_s(self) -> float:
        """How long this peer may be silent before it counts as gone: adapts to the beats that were really heard."""
        return min(max(SILENCE_MIN_S, self.gap_s + 8.0 * self.deviation_s), SILENCE_MAX_S)


@dataclass
class View:
    """All other peers of one run. Pure: every method takes `now_s`.

    why_not: who is out is not there, whatever it says: not waited for, not asked, without a voice.
    """

    run_id: bytes
    me: bytes
    why_not: Verdict = everybody
    members: dict[bytes, Member] = field(default_factory=dict)

    def hear(self, peer: bytes, beat: Beat, now_s: float, *, connected: bool) -> bool:
        """Take a heartbeat in; False when it is ours, old, of another run or of who is out, or the view is full.

        connected: `peer` is connected to us now. Such a one takes the place of one that never was: names cost nothing.
        """
        if peer == self.me or beat.run_id != self.run_id:
            return False
        member = self.members.get(peer)
        if member is None:
            if self.why_not(peer):
                return False
            if len(self.members) >= MEMBERS_SEEN_MAX and not (connected and self._forget_a_name()):
                return False
            self.members[peer] = Member(beat, now_s, was_connected=connected)
            return True
        member.was_connected |= connected
        if beat.sequence <= member.beat.sequence:
            return False
        gap_s = min(now_s - member.heard_s, SILENCE_MAX_S)
        if gap_s > 0.5 * BEAT_S:  # beats sent at a change of phase come early and say nothing about the network
            member.deviation_s += 0.1 * (abs(gap_s - member.gap_s) - member.deviation_s)
            member.gap_s += 0.1 * (gap_s - member.gap_s)
        member.beat, member.heard_s = beat, now_s
        return True

    def _forget_a_name(self) -> bool:
        """Drop the one heard longest ago of those that were never connected; False when there is none."""
        names = [(member.heard_s, peer) for peer, member in self.members.items() if not member.was_connected]
        if names:
            del self.members[min(names)[1]]
        return bool(names)

    def strike(self, peer: bytes, now_s: float, seconds: float) -> None:
        """Stop waiting for `peer` for a while: it lied, hung or sent garbage. Each strike lasts twice as long."""
        member = self.members.get(peer)
        if member is not None:
            member.struck_until_s = max(member.struck_until_s, now_s + min(seconds * 2.0**member.strikes, STRIKE_S_MAX))
            member.strikes = min(member.strikes + 1, 16)

    def forgive(self, peers: Iterable[bytes]) -> None:
        """A round was made with `peers`: each takes one strike back, else a long run shuts out all who had bad days."""
        for peer in peers:
            if peer in self.members:
                self.members[peer].strikes = max(0, self.members[peer].strikes - 1)

    def struck(self, now_s: float) -> set[bytes]:
        return {peer for peer, member in self.members.items() if member.struck_until_s > now_s}

    def drop_silent(self, now_s: float) -> None:
        for peer in [p for p, m in self.members.items() if now_s - m.heard_s > FORGET_S]:
            del self.members[peer]

    def alive(self, now_s: float, connected: Iterable[bytes]) -> list[bytes]:
        """Peers that are there.

        Heard lately, not leaving; one whose connection broke counts as gone after two beats.
        """
        linked = set(connected)
        result = []
        for peer, member in self.members.items():
            silent_s = now_s - member.heard_s
            gone = member.was_connected and peer not in linked and silent_s > 2.0 * BEAT_S
            member.was_connected |= peer in linked
            here = member.beat.phase != Phase.LEAVING and silent_s <= member.silence_allowed_s() and not gone
            if here and not self.why_not(peer):
                result.append(peer)
        return sorted(result)

    def companions(self, now_s: float, connected: Iterable[bytes], round_: int, base_hash: bytes) -> list[bytes]:
        """Live peers at the same round of the same branch, in good standing: with whom a round can be made."""
        return [
            peer
            for peer in self.alive(now_s, connected)
            if self.members[peer].struck_until_s <= now_s
            and self.members[peer].beat.round == round_
            and self.members[peer].beat.base_hash == base_hash
            and self.members[peer].beat.phase in (Phase.TRAINING, Phase.READY, Phase.ROUND)
        ]

    def coming(self, now_s: float, connected: Iterable[bytes], round_: int, previous_hash: bytes) -> list[bytes]:
        """Live peers that were last heard one round behind on this very line.

        About to commit what we just committed.
        """
        return [
            peer
            for peer in self.alive(now_s, connected)
            if self.members[peer].struck_until_s <= now_s
            and (self.members[peer].beat.round, self.members[peer].beat.base_hash) == (round_ - 1, previous_hash)
        ]

    def strangers(self, now_s: float, connected: Iterable[bytes], round_: int, base_hash: bytes) -> list[bytes]:
        """Live peers that stand elsewhere: ahead, behind, or on another state of this round.

        Those behind count: a fast peer on a branch of its own would else never hear that the majority is elsewhere.
        """
        return [
            peer
            for peer in self.alive(now_s, connected)
            if self.members[peer].beat.phase != Phase.JOINING
            and (self.members[peer].beat.round, self.members[peer].beat.base_hash) != (round_, base_hash)
        ]
