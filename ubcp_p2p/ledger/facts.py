"""What entries say for certain of a REQUEST and of a node, for whoever holds inputs of decisions against them. Pure.

Certain is what no other entry can change: an entry itself, and what is before it on its branch. Whoever knew the
entry knew that too, whatever else it had heard, or is left out here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from ubcp_p2p.ledger.activity import Activity, Asked
from ubcp_p2p.ledger.chain import NodeChain
from ubcp_p2p.ledger.decisions import Decided
from ubcp_p2p.ledger.entry import Enrol
from ubcp_p2p.ledger.state import History, Ledger


class Facts:
    """Of one ledger; what its accounts have written is read when it is first asked for."""

    def __init__(self, ledger: Ledger, history: History) -> None:
        self.charters = ledger.charters
        self._ledger, self._history = ledger, history
        self._activity = Activity()
        self._read: set[bytes] = set()

    def asked(self, request: bytes) -> Asked | None:
        """A REQUEST; None where no valid one is here."""
        fact = self._ledger.requests.get(request)
        if fact is None:
            return None
        if fact.author not in self._read:
            self._read.add(fact.author)
            for signed in self._history(fact.author):
                self._activity.add(signed.entry)
        return self._activity.requests[request]

    def enrolled_before(self, request: bytes, slice_: int) -> Enrol | None:
        """The enrolment before a REQUEST on its branch that covers a slice's period. Of one that `asked` has found."""
        return self._activity.enrolled_before(request, self._ledger.period(slice_))

    def owner(self, node: bytes) -> bytes | None:
        """Of a node whose chain has not forked: another branch may have another owner."""
        match self._ledger.chains.get(node, ()):
            case [NodeChain() as chain]:
                return chain.owner
        return None


class Judged(NamedTuple):
    """What is wrong with one decision, in words; empty when it is right.

    inputs: in what it is not what its inputs (the blob) give. claims: in what these contradict what is signed.
    unknown: how many of the requests in them are not in this ledger.
    """

    inputs: tuple[str, ...]
    claims: tuple[str, ...] = ()
    unknown: int = 0


# A decision held against its inputs, and these against what is certain.
Replay: TypeAlias = Callable[[bytes, Decided, Facts], Judged]
