"""What a check leads to, and who is told."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ubcp_p2p.swarm.quorum import Certificate
from ubcp_p2p.training.verdict import Verdict


@dataclass(frozen=True)
class Checked:
    """What this node found of `peer` in the round of `certificate`. evidence: the file of a blob that shows a lie."""

    certificate: Certificate
    peer: bytes
    verdict: Verdict
    evidence: Path | None


class Clients(Protocol):
    """Those for whom this node works."""

    def payers(self, run_id: bytes) -> Collection[bytes]:
        """The paymasters that pay for the run now: they may ask for openings as the validators may."""

    def report(self, run_id: bytes, checked: Checked) -> None:
        """Tell them what was found."""


class NoClients:
    """Of a node that works for nobody's credits."""

    def payers(self, run_id: bytes) -> Collection[bytes]:
        return ()

    def report(self, run_id: bytes, checked: Checked) -> None:
        pass
