"""Where the ledger's commands need the allocator: a ledger and the allocator's rules do not know each other."""

from __future__ import annotations

from ubcp_p2p.allocator.allocation import allocate
from ubcp_p2p.allocator.blob import encode_problem, inputs_hash
from ubcp_p2p.allocator.decide import refusals
from ubcp_p2p.allocator.replay import Claim, replayed
from ubcp_p2p.ledger.activity import Activity
from ubcp_p2p.ledger.decisions import Decided
from ubcp_p2p.ledger.entry import Decision
from ubcp_p2p.ledger.facts import Facts, Judged
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.peer.serving.held import contradictions
from ubcp_p2p.peer.serving.problem import Offer, assemble

ASKED_PER_BUDGET = 2  # so many times what a synthetic node has room for is asked of it


def replay(blob: bytes, decided: Decided, facts: Facts) -> Judged:
    """A ledger.facts.Replay."""
    found, problem = replayed(blob, Claim(*decided.body))
    if problem is None:
        return Judged(found)
    return Judged(found, *contradictions(problem, decided.node, facts))


def synthetic(slice_: int, ledger: Ledger, activity: Activity, node: bytes) -> tuple[Decision, bytes]:
    """A ledger.synth.Deciding: a real decision by a node that has room for half of what is asked."""
    budget = sum(one.body.units for one in activity.requests.values()) // ASKED_PER_BUDGET
    problem = assemble(ledger, activity, slice_, Offer(node, budget, budget))
    allocation = allocate(problem)
    blob = encode_problem(problem)
    body = Decision(
        slice_, problem.budget, allocation.grid.granule, allocation.accepted_ids, refusals(allocation.reasons),
        inputs_hash(blob),
    )  # fmt: skip
    return body, blob
