"""How long a request would wait: what the allocators of peers would say of it in the next slice. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ubcp_p2p.allocator.decide import Outcome, decide
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


def prospect(problems: Iterable[Problem], request: bytes, peers_min: int) -> Prospect:
    """problems: the next slice of each peer that is tried, with this request among its asks.

    As many as it needs must have accepted it: so it waits for the last of the first `peers_min`.
    """
    found: list[tuple[bool, int, Problem, Outcome]] = []
    for problem in problems:
        outcome = next((one for one in decide(problem).outcomes if one.id == request), None)
        if outcome is not None:
            found.append((outcome.wait_s is None, outcome.wait_s or 0, problem, outcome))
    found.sort(key=lambda row: row[:2])
    if not found:
        return Prospect(None, None, UNKNOWN)
    never, _, problem, outcome = found[min(peers_min, len(found)) - 1]
    ask = next(one for one in problem.asks if one.id == request)
    return Prospect(outcome.queue or None, None if never else outcome.wait_s, explain(problem, ask, outcome))
