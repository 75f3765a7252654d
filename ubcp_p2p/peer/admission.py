"""Whom a run that is paid for lets in, by one look at the ledger: who holds a lease of it, and who pays for it. Pure.

The allocators' verdict is the leases: whoever reads the same ledger comes to the same answers. Of a run that this node
neither works for by a lease nor pays for there is no roll: it stays open to all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ubcp_p2p.ledger.activity import Activity, Asked
from ubcp_p2p.ledger.leases import RECENT_SLICES, recent_holders
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.models.cost import UNIT_FLOP
from ubcp_p2p.models.recipe import run_id
from ubcp_p2p.swarm.admission import NO_LIMIT
from ubcp_p2p.units import AMOUNT_MAX

WORK_SLICES: Final = 4  # of receipts that count for a seat; those of this slice are still on their way

NO_NODE = "this run is paid for by a community, and its ledger has no node with this key: its owner opens one first"
NODE_FROZEN = "this node is frozen: it has signed two entries with one number"
OWNER_FROZEN = "the account that owns this node is frozen: it has signed two entries with one number"
NOT_ENROLLED = "the account that owns this node is not enrolled in this period: its stewards enrol it"
NO_LEASE = (
    "this run is paid for, and who trains it holds a lease of its request: this node holds none in this slice or the "
    "one before; a node gets one by serving its community ([serving] in config.toml)"
)


@dataclass(frozen=True)
class Roll:
    """What the ledger says of all nodes, for one run in one slice.

    owners: node → account. holders: whose leases of the run hold, in this slice or the one before. payers: the askers'
    nodes and their paymasters. units: GFLOP that were paid in the last slices for this run. samples: the most that the
    device class can do in a slice, of nodes whose class a RECEIPT has named.
    """

    owners: Mapping[bytes, bytes]
    enrolled: frozenset[bytes]
    frozen: frozenset[bytes]
    holders: frozenset[bytes]
    payers: frozenset[bytes]
    units: Mapping[bytes, int]
    samples: Mapping[bytes, int]

    def why_no_group(self, node: bytes) -> str:
        """Why this node may not train with the others, in words; "" when it may."""
        if why := self._why_unwelcome(node):
            return why
        if not self._is_enrolled(node):
            return NOT_ENROLLED
        return "" if node in self.holders else NO_LEASE

    def why_no_state(self, node: bytes) -> str:
        """Why this node may not have the state; "" when it may.

        Whose enrolment has run out may still fetch what it has paid for.
        """
        why = self.why_no_group(node)
        return "" if node in self.payers and not self._why_unwelcome(node) else why

    def weighs(self, node: bytes) -> int:
        """The most samples that this node's offer may weigh in a round."""
        return self.samples.get(node, NO_LIMIT)

    def _why_unwelcome(self, node: bytes) -> str:
        if node not in self.owners:
            return NO_NODE
        if node in self.frozen:
            return NODE_FROZEN
        return OWNER_FROZEN if self.owners[node] in self.frozen else ""

    def _is_enrolled(self, node: bytes) -> bool:
        return self.owners[node] in self.enrolled


def roll_of(
    ledger: Ledger, activity: Activity, run: bytes, slice_: int, *, node: bytes, flop_per_sample: int
) -> Roll | None:
    """For the run with this id; None where `node` neither holds a lease of it nor pays for it."""
    asked = [
        one
        for one in activity.requests.values()
        if one.body.deadline >= slice_ - RECENT_SLICES and run_id(one.body.run, one.body.recipe) == run
    ]
    if not asked:
        return None
    owners, frozen = dict(activity.owners), frozenset(ledger.frozen())
    held = frozenset[bytes]().union(*recent_holders(ledger, activity, asked, slice_).values())
    authors = {one.author for one in asked}
    payers = {each for each, owner in owners.items() if owner in authors} | {one.body.paymaster for one in asked}
    if node not in held | payers:
        return None
    period = ledger.period(slice_)
    units, samples = _work(ledger, activity, asked, slice_, flop_per_sample)
    return Roll(
        owners,
        frozenset(owner for owner in set(owners.values()) if ledger.is_enrolled(owner, period)),
        frozen,
        held,
        frozenset(payers),
        units,
        samples,
    )


def _work(
    ledger: Ledger, activity: Activity, asked: Iterable[Asked], slice_: int, flop_per_sample: int
) -> tuple[dict[bytes, int], dict[bytes, int]]:
    """(units of the last slices, most samples in a slice), of nodes with RECEIPTs of this run."""
    units: Counter[bytes] = Counter()
    named: dict[bytes, tuple[int, str]] = {}
    for one in asked:
        for work in activity.work_of(one.id):
            named[work.node] = max(named.get(work.node, (-1, "")), (work.slice, work.device))
            if slice_ - WORK_SLICES <= work.slice < slice_:
                units[work.node] = min(units[work.node] + work.units, AMOUNT_MAX)
    charter = ledger.charter_at(slice_)
    samples: dict[bytes, int] = {}
    for node, (_, device) in named.items():
        peak = charter.peak_of(device)
        if peak is not None:
            samples[node] = max(1, peak * charter.slice_s * UNIT_FLOP // flop_per_sample)
    return dict(units), samples
