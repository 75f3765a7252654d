"""Whether a published decision follows from its published inputs: invariant 14 of the audit. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ubcp_p2p.allocator.allocation import allocate
from ubcp_p2p.allocator.blob import MalformedProblem, decode_problem, inputs_hash
from ubcp_p2p.allocator.decide import refusals
from ubcp_p2p.allocator.problem import Problem


class Claim(NamedTuple):
    """What a DECISION entry says (ledger/SPEC.md §6). Of a decision on several entries: their accepted ids together."""

    slice: int
    budget: int
    granule: int
    accepted: Sequence[bytes]
    refused: Sequence[tuple[str, int]]
    inputs: bytes


class Replayed(NamedTuple):
    """disagreements: in words, in what a claim is not what its inputs give; empty when it is right.

    problem: what the inputs are, None where they are none.
    """

    disagreements: tuple[str, ...]
    problem: Problem | None = None


def replayed(blob: bytes, claim: Claim) -> Replayed:
    """The claim held against its inputs."""
    if inputs_hash(blob) != claim.inputs:
        return Replayed(("the inputs have another hash than the decision names",))
    try:
        problem = decode_problem(blob)
    except MalformedProblem as error:
        return Replayed((f"the inputs are no problem of a slice: {error.message}",))
    allocation = allocate(problem)
    found = []
    for name, said, true in (
        ("slice", claim.slice, problem.slice),
        ("budget", claim.budget, problem.budget),
        ("granule", claim.granule, allocation.grid.granule),
    ):
        if said != true:
            found.append(f"{name} {said}, by the inputs {true}")
    said_ids, true_ids = set(claim.accepted), set(allocation.accepted_ids)
    if len(said_ids) != len(claim.accepted):
        found.append("a request is accepted twice")
    if wrong := sorted(said_ids - true_ids):
        found.append(f"{len(wrong)} accepted that the rules refuse, first {wrong[0].hex()}")
    if left_out := sorted(true_ids - said_ids):
        found.append(f"{len(left_out)} refused that the rules accept, first {left_out[0].hex()}")
    expected = refusals(allocation.reasons)
    if tuple(claim.refused) != expected:
        words = ", ".join(f"{count} {reason}" for reason, count in expected) or "none"
        found.append(f"other counts of refusals than by the inputs: {words}")
    return Replayed(tuple(found), problem)
