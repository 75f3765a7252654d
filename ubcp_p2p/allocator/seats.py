"""Who gets a seat in a run's averaging group: the allocator's solver with a cost of one granule each. Pure.

A peer is worth the work that was verified of it in the last 20 rounds, and one more, so that a newcomer is worth
something.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ubcp_p2p.allocator.bounds import instance_of
from ubcp_p2p.allocator.decide import Outcome
from ubcp_p2p.allocator.displacement import displaced
from ubcp_p2p.allocator.problem import ASKS_MAX, GRANULES_MAX, ID_BYTES, STANDING, BadProblem, Reason
from ubcp_p2p.allocator.solver import solve
from ubcp_p2p.allocator.utility import to_scale
from ubcp_p2p.units import AMOUNT_MAX

ROUNDS: Final = 20  # how far back verified work counts


class Candidate(NamedTuple):
    """A peer that asks for a seat. verified: units in the last `ROUNDS` rounds. standing: as of an `Ask`."""

    id: bytes
    verified: int
    standing: Reason | None = None


def decide_seats(candidates: Iterable[Candidate], seats: int) -> tuple[Outcome, ...]:
    """An outcome for each candidate, in rising order of id. Raises BadProblem for what breaks a limit.

    A refused one's queue position is among the refused; when a seat gets free depends on who leaves, so no wait is
    expected.
    """
    rows = sorted(candidates, key=lambda candidate: candidate.id)
    _check(rows, seats)
    open_ = [row for row in rows if row.standing is None]
    values = to_scale([row.verified + 1 for row in open_])
    instance = instance_of([1] * len(open_), values, seats)
    solution = solve(instance)
    loss = displaced(instance, solution)
    refused = sorted((-value, place) for place, value in enumerate(values) if not solution.taken[place])
    queue = {place: number for number, (_, place) in enumerate(refused, 1)}
    found = {row.id: Outcome(row.id, row.standing) for row in rows if row.standing is not None}
    for place, (row, value) in enumerate(zip(open_, values, strict=True)):
        if solution.taken[place]:
            found[row.id] = Outcome(row.id, Reason.ACCEPTED, 1, 1, value, wait_s=0)
            continue
        least, most = int(loss.least[place]), int(loss.most[place])
        displaces = None if least < 0 else (-(-1000 * least // value), -(-1000 * most // value))
        found[row.id] = Outcome(row.id, Reason.FULL, 1, 1, value, displaces, queue[place])
    return tuple(found[row.id] for row in rows)


def _check(rows: list[Candidate], seats: int) -> None:
    if type(seats) is not int or not 0 <= seats <= GRANULES_MAX:
        raise BadProblem("seats", f"must be an integer from 0 to {GRANULES_MAX}")
    if len(rows) > ASKS_MAX:
        raise BadProblem("candidates", f"{len(rows)}; at most {ASKS_MAX} are allowed")
    for place, row in enumerate(rows):
        if len(row.id) != ID_BYTES or (place and row.id == rows[place - 1].id):
            raise BadProblem("candidates", f"each has an id of {ID_BYTES} bytes, of its own")
        if type(row.verified) is not int or not 0 <= row.verified <= AMOUNT_MAX:
            raise BadProblem("candidates", f"verified units are an integer from 0 to {AMOUNT_MAX}")
        if row.standing is not None and row.standing not in STANDING:
            raise BadProblem("candidates", f"{row.standing!r} is no standing")
