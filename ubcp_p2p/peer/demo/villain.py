"""What each villain does, and how it is told whether it was caught: by what honest nodes say, never by its own word.

The hostile code is in `villains`, which only the villain's own process loads.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ubcp_p2p.peer.demo.board import Accusation, HeldOut
from ubcp_p2p.peer.demo.processes import NodeProcess

NAME: Final = "villain"
PROGRAM: Final = "ubcp_p2p.peer.demo.villains"
LOG_NAME: Final = "ubcp.log"
LOG_BYTES_MAX: Final = 64 << 20
HARM_MAX: Final = 0.05  # of the held-out loss: more than that is no unharmed model


@dataclass(frozen=True)
class Cast:
    """serves: it takes leases of the run. does: in words. seen: the kinds of accusation that convict it."""

    does: str
    serves: bool
    seen: tuple[str, ...]


VILLAINS: Final[Mapping[str, Cast]] = {
    "freeloader": Cast("takes no step, and offers what the group moved by in the round before", True, ("checked",)),
    "copycat": Cast("takes no step, and offers what another peer offered in the round before", True, ("checked",)),
    "nan-sender": Cast("offers NaN: one in an average, and the model is lost", True, ("rejected",)),
    "weight-inflator": Cast("takes no step, and claims a billion samples in each round", True, ("checked",)),
    "state-liar": Cast("takes part in no round, and serves noise to whoever comes late", True, ("bad state",)),
    "forker": Cast("signs two requests with one number, each over all that it has", False, ()),
    "overspender": Cast("asks for ten times what it has", False, ()),
}


@dataclass(frozen=True)
class Evidence:
    """What the honest say of the villain. frozen: of these nodes, who has frozen it; refusals: words of their logs.

    barred: why the paymaster pays it nothing, in its words. others: how many honest nodes were there to see.
    """

    accusations: Sequence[Accusation]
    frozen: Collection[str]
    refusals: Sequence[str]
    barred: str
    others: int


@dataclass(frozen=True)
class Caught:
    """How it ended. paid: µcredits, by the ledger. harm: how much higher the loss is than without it, relative.

    noise: standard error of that; 0 where no offer of it could reach the model.
    """

    kind: str
    caught: bool
    how: str
    paid: int
    harm: float
    noise: float


def judge(kind: str, evidence: Evidence) -> tuple[bool, str]:
    """Whether it was caught, and how, in words."""
    if kind == "forker":
        caught = len(evidence.frozen) == evidence.others
        return caught, f"{len(evidence.frozen)} of {evidence.others} honest nodes have the proof, and froze its account"
    if kind == "overspender":
        caught = len(evidence.refusals) > 0
        words = evidence.refusals[0] if caught else "nobody refused its request"
        return caught, f"{len(evidence.refusals)} honest nodes refused its request: {words}"
    against = [one for one in evidence.accusations if one.kind in VILLAINS[kind].seen]
    if not against:
        return False, "nobody saw it"
    by, first = sorted({one.by for one in against}), against[0]
    said = f"{', '.join(by)} caught it, first in round {first.round}: {first.words}"
    return True, said + (f". The paymaster: {evidence.barred}" if evidence.barred else "")


def harm(with_it: HeldOut, without: HeldOut | None) -> tuple[float, float]:
    """The relative difference of two losses, and its standard error; none where there was no offer to do harm."""
    if without is None:
        return 0.0, 0.0
    noise = (with_it.stderr**2 + without.stderr**2) ** 0.5 / without.loss
    return (with_it.loss - without.loss) / without.loss, noise


def refusals(nodes: Sequence[NodeProcess], account: bytes) -> list[str]:
    """For each honest node that has refused an entry of this account: why, as its log says."""
    found = []
    for node in nodes:
        for message in _messages(node):
            if message.startswith("refused: entry ") and f" of {account.hex()[:16]}: " in message:
                found.append(message.split(": ", 2)[2])
                break
    return found


def _messages(node: NodeProcess) -> Iterator[str]:
    with (node.profile.log / LOG_NAME).open("rb") as file:
        for line in file.read(LOG_BYTES_MAX).splitlines():
            try:
                row: dict[str, Any] = json.loads(line)
            except ValueError:  # the line that is being written
                continue
            yield str(row.get("message", ""))
