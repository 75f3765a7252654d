"""Rounds whose pay waits for a check: what is known of each, and when the paymaster looks for itself. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from ubcp_p2p.codec import MalformedMessage, Value, bytes_of, fields, hash_of, items, number
from ubcp_p2p.ledger.entry import ZERO
from ubcp_p2p.swarm.quorum import ROUND_MAX, WEIGHT_MAX, Certificate
from ubcp_p2p.verification.draw import STRETCHES_MAX, Draw

HOLDS_MAX: Final = 1024  # of one REQUEST: 300 KB of its tab
HOLDS_PER_NODE_MAX: Final = 128
# A validator checks after its own next round. It has four rounds of the run, and half a minute where rounds are short.
REPORT_ROUNDS: Final = 4
REPORT_S: Final = 30
REPORT_S_MAX: Final = 3600  # where no round follows
_FLOP_MAX: Final = 2**63 - 1
_STRETCH_MAX: Final = 2**20


class Stage(IntEnum):
    """What a hold waits for."""

    REPORT = 0  # of the validator that was drawn
    EVIDENCE = 1  # that the validator has sent, to be verified here
    OWN_LOOK = 2  # the paymaster asks the contributor itself


@dataclass(frozen=True)
class Hold:
    """One drawn round of one contributor. flop: what it is worth; weight, offer, trail: of its seat.

    since_s: Unix seconds of the bill. validator: None where nobody else was in the group. evidence: the blob's hash.
    """

    round: int
    flop: int
    since_s: int
    base_hash: bytes
    weight: int
    offer: bytes
    trail: bytes
    validator: bytes | None
    stretches: tuple[int, ...]
    stage: Stage = Stage.REPORT
    evidence: bytes = ZERO

    def to_value(self) -> Value:
        return [
            self.round, self.flop, self.since_s, self.base_hash, self.weight, self.offer, self.trail,
            self.validator or b"", list(self.stretches), int(self.stage), self.evidence,
        ]  # fmt: skip

    @classmethod
    def of(cls, value: Value) -> Hold:
        """Raises MalformedMessage."""
        round_, flop, since_s, base, weight, offer, trail, validator, stretches, stage, evidence = fields(value, 11)
        found = tuple(number(index, _STRETCH_MAX) for index in items(stretches, STRETCHES_MAX))
        if not found:
            raise MalformedMessage("a check of no stretch")
        return cls(
            number(round_, ROUND_MAX), number(flop, _FLOP_MAX), number(since_s), hash_of(base),
            number(weight, WEIGHT_MAX), hash_of(offer), hash_of(trail),
            hash_of(validator) if bytes_of(validator) else None, found, Stage(number(stage, max(Stage))),
            hash_of(evidence),
        )  # fmt: skip


def hold_of(certificate: Certificate, drawn: Draw, flop: int, now_s: int) -> Hold:
    """What waits when a round that was drawn for a check is billed."""
    group = certificate.group
    seat = next(seat for seat in group.members if seat.peer == drawn.peer)
    stage = Stage.OWN_LOOK if drawn.validator is None else Stage.REPORT
    return Hold(
        group.round, flop, now_s, group.base_hash, seat.weight, seat.offer, seat.trail, drawn.validator,
        drawn.stretches, stage,
    )  # fmt: skip


def is_overdue(hold: Hold, newest: int, now_s: int, *, ending: bool) -> bool:
    """Whether the validator's report is waited for no longer.

    newest: the newest round that anybody has billed. ending: the REQUEST has expired: no round follows.
    """
    waited_s = now_s - hold.since_s
    later = ending or newest >= hold.round + REPORT_ROUNDS
    return waited_s >= REPORT_S_MAX or (later and waited_s >= REPORT_S)
