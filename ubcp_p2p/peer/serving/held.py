"""The inputs of a decision held against what is signed: what no honest node can have got wrong (SPEC §12.1). Pure.

What a node had heard of by then nobody else knows: who had used how much, what was closed, forked or owed, when a
request had come. So a claim is held here against one entry, and against what is before that entry on its branch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Final

from ubcp_p2p.allocator.problem import Applicant, Ask, Problem, Reason
from ubcp_p2p.charter.values import Charter
from ubcp_p2p.ledger.activity import Asked
from ubcp_p2p.ledger.facts import Facts
from ubcp_p2p.peer.serving.problem import largest, slices_for, unit_in
from ubcp_p2p.peer.serving.rules import rules_of

WORDS_MAX: Final = 8  # contradictions that are named; 10,000 asks can have as many


def contradictions(problem: Problem, node: bytes, facts: Facts) -> tuple[tuple[str, ...], int]:
    """In words, in what these inputs of a node's decision contradict what is signed; and how many asks are not here."""
    found = []
    charter = _charter(problem, facts)
    if charter is None:
        found.append("rules, units or weights of no version of the charter that was in force by then")
    known = {ask.id: asked for ask in problem.asks if (asked := facts.asked(ask.id)) is not None}
    fits, owner = largest(problem.budget_max, problem.rules.newcomer_permille), facts.owner(node)
    for ask in problem.asks:
        if (asked := known.get(ask.id)) is not None:
            found += [f"request {ask.id.hex()[:16]}…: {what}" for what in _of_ask(ask, asked, problem.slice, fits)]
            if asked.author == owner:
                found.append(f"request {ask.id.hex()[:16]}… is of the node's own account")
    if charter is not None:
        found += _places(problem, charter, known.keys(), facts)
    if len(found) > WORDS_MAX:
        found[WORDS_MAX:] = [f"and {len(found) - WORDS_MAX} more"]
    return tuple(found), len(problem.asks) - len(known)


def _charter(problem: Problem, facts: Facts) -> Charter | None:
    """The version whose rules these are. One that the node had not heard of yet is none that it had to go by."""
    units = [(unit.name, unit.weight) for unit in problem.units]
    for version in reversed(facts.charters.versions):
        charter = version.charter
        if charter.effective > problem.slice // charter.period_slices:
            continue
        rules = rules_of(charter)
        if problem.rules == rules and units == [(unit.name, unit.weight) for unit in charter.units]:
            return charter
    return None


def _of_ask(ask: Ask, asked: Asked, slice_: int, fits: int) -> Iterator[str]:
    """What an ask says of its REQUEST. Less than the quantum, or no wait at all, may be what was known then."""
    body = asked.body
    for name, said, true in (
        ("account", ask.applicant.hex()[:16], asked.author.hex()[:16]), ("purpose", ask.purpose, body.purpose),
        ("urgency", ask.urgency, body.urgency), ("least quantum", ask.units_min, 1),
    ):  # fmt: skip
        if said != true:
            yield f"{name} {said}, in the REQUEST {true}"
    if not asked.slice <= slice_ <= body.deadline:
        yield f"it could be asked for in slices {asked.slice} to {body.deadline} alone"
    if ask.waited > slice_ - asked.slice >= 0:
        yield f"has waited {ask.waited} slices since slice {asked.slice}"
    most = min(body.units, body.credits)
    if ask.units > most:
        yield f"a quantum of {ask.units}, in the REQUEST {most} at most"
        return
    # What is left is as much as the quantum, or where that is whole, as all credits at most.
    least, longest = ask.units, body.credits if ask.units == body.units else ask.units
    if not slices_for(least, body, fits) <= ask.slices_left <= slices_for(longest, body, fits):
        yield f"{ask.slices_left} slices left for {least} to {longest} units"
    if ask.cleaner is not None and slice_ + ask.cleaner.slices_ahead + ask.slices_left - 1 > body.deadline:
        yield "held until after its deadline"
    if ask.standing is Reason.TOO_FEW_PEERS and body.peers_min == 1:
        yield "refused for too few peers, and one is enough"


def _places(problem: Problem, charter: Charter, known: Collection[bytes], facts: Facts) -> Iterator[str]:
    """Unit and class of whoever asks, where they follow from what is before a REQUEST that the node has weighed."""
    asks: dict[bytes, list[Ask]] = defaultdict(list)
    for ask in problem.asks:
        asks[ask.applicant].append(ask)
    for user in problem.applicants:
        if all(ask.id in known for ask in asks[user.id]):  # else one that is not here may have decided it
            yield from _place(user, asks[user.id], problem.slice, charter, facts)


def _place(user: Applicant, asks: list[Ask], slice_: int, charter: Charter, facts: Facts) -> Iterator[str]:
    enrolments = (facts.enrolled_before(ask.id, slice_) for ask in asks)  # asks rise by id
    enrolled = next((one for one in enrolments if one is not None), None)
    if enrolled is None:
        return
    true = unit_in(charter, enrolled.unit), enrolled.newcomer
    if (user.unit, user.newcomer) != true:
        yield f"account {user.id.hex()[:16]}… is enrolled as {'newcomer' if true[1] else 'member'} of {true[0]!r}"
    if any(ask.standing is Reason.NOT_ENROLLED for ask in asks):
        yield f"account {user.id.hex()[:16]}… is enrolled in that slice"
