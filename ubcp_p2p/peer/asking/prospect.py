"""How long a request would wait: what the allocators of peers would say of it in the next slice. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ubcp_p2p.allocator.decide import Decision, Outcome, decide
from ubcp_p2p.allocator.problem import Problem
from ubcp_p2p.allocator.words import explain

ASKED_MAX: Final = 8  # peers whose decision is tried, those with the largest budgets; each costs up to a second

UNKNOWN: Final = "nobody has asked lately, so that nobody has said what it has: the first slices will show"


class Prospect(NamedTuple):
    """queue: its place among those that do not fit, None where it would be accepted. wait_s: None: nobody can say.

    words: the allocator's own, of the peer on which it depends.
    """

    queue: int | None
    wait_s: int | None
    words: str


Tried = tuple[Problem, Decision]


def tried(problems: Iterable[Problem]) -> list[Tried]:
    """The decision on each: the next slice of a peer."""
    return [(problem, decide(problem)) for problem in problems]


def prospect(decisions: Iterable[Tried], request: bytes, peers_min: int) -> Prospect:
    """Of one REQUEST. As many peers as it needs must have accepted it: it waits for the last of the first ones."""
    found: list[tuple[bool, int, Problem, Outcome]] = []
    for problem, decision in decisions:
        outcome = next((one for one in decision.outcomes if one.id == request), None)
        if outcome is not None:
            found.append((outcome.wait_s is None, outcome.wait_s or 0, problem, outcome))
    found.sort(key=lambda row: row[:2])
    if not found:
        return Prospect(None, None, UNKNOWN)
    never, _, problem, outcome = found[min(peers_min, len(found)) - 1]
    ask = next(one for one in problem.asks if one.id == request)
    return Prospect(outcome.queue or None, None if never else outcome.wait_s, explain(problem, ask, outcome))
