"""Where the ledger's commands need the allocator: a ledger and the allocator's rules do not know each other."""

from __future__ import annotations

from collections.abc import Sequence

from ubcp_p2p.allocator.allocation import allocate
from ubcp_p2p.allocator.blob import encode_problem, inputs_hash
from ubcp_p2p.allocator.decide import refusals
from ubcp_p2p.allocator.problem import Applicant, Ask, UnitUse, problem_of
from ubcp_p2p.allocator.replay import Claim, disagreements
from ubcp_p2p.charter.values import Charter
from ubcp_p2p.ledger.activity import Asked
from ubcp_p2p.ledger.decisions import Decided
from ubcp_p2p.ledger.entry import Decision
from ubcp_p2p.peer.serving.rules import rules_of

ASKED_PER_BUDGET = 2  # so many times what a synthetic node has room for is asked of it


def replay(blob: bytes, decided: Decided) -> tuple[str, ...]:
    """A ledger.decisions.Replay."""
    return disagreements(blob, Claim(*decided.body))


def synthetic(slice_: int, charter: Charter, asked: Sequence[Asked]) -> tuple[Decision, bytes]:
    """A ledger.synth.Deciding: a real decision on these requests, by a node that has room for half of them."""
    unit = charter.units[0].name
    problem = problem_of(
        slice=slice_,
        rules=rules_of(charter),
        budget=sum(one.body.units for one in asked) // ASKED_PER_BUDGET,
        units=[UnitUse(unit, 1, 0)],
        applicants=[Applicant(author, unit, False, 0) for author in {one.author for one in asked}],
        asks=[
            Ask(one.id, one.author, one.body.purpose, one.body.units, 1, max(0, slice_ - one.slice), one.body.urgency)
            for one in asked
        ],
    )
    allocation = allocate(problem)
    blob = encode_problem(problem)
    body = Decision(
        slice_, problem.budget, allocation.grid.granule, allocation.accepted_ids, refusals(allocation.reasons),
        inputs_hash(blob),
    )  # fmt: skip
    return body, blob
