"""A validator's signed report of what it found of another's round (pure)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final

from ubcp_p2p.codec import MalformedMessage, Value, decode, encode, fields, hash_of, number, signature_of
from ubcp_p2p.keys import NodeKey, verify
from ubcp_p2p.ledger.entry import ZERO
from ubcp_p2p.swarm.quorum import ROUND_MAX
from ubcp_p2p.training.verdict import Finding

REPORT_BYTES_MAX: Final = 512
EVIDENCE_BYTES_MAX: Final = 512 << 20  # of one blob; what is larger a paymaster does not take in


@dataclass(frozen=True)
class Report:
    """What the validator found of `peer` in a round. evidence, size: hash and bytes of its blob, ZERO and 0 if none."""

    run_id: bytes
    round: int
    peer: bytes
    finding: Finding
    evidence: bytes = ZERO
    size: int = 0
    signature: bytes = b""

    def digest(self) -> bytes:
        return hashlib.sha256(b"ubcp/report/1\0" + encode(self._body())).digest()

    def signed(self, key: NodeKey) -> Report:
        return replace(self, signature=key.sign("report", self.digest()))

    def to_bytes(self) -> bytes:
        return encode([*self._body(), self.signature])

    def _body(self) -> list[Value]:
        return [self.run_id, self.round, self.peer, self.finding.value, self.evidence, self.size]

    @classmethod
    def from_bytes(cls, data: bytes, validator: bytes) -> Report:
        """Parse, and verify that `validator` signed it. Raises MalformedMessage."""
        run_id, round_, peer, finding, evidence, size, signature = fields(decode(data, bytes_max=REPORT_BYTES_MAX), 7)
        if not isinstance(finding, str) or finding not in set(Finding):
            raise MalformedMessage("a report of no known finding")
        report = cls(
            hash_of(run_id), number(round_, ROUND_MAX), hash_of(peer), Finding(finding), hash_of(evidence),
            number(size), signature_of(signature),
        )  # fmt: skip
        if not verify(validator, "report", report.digest(), report.signature):
            raise MalformedMessage("the report's signature is wrong")
        return report
