"""One slice's decision, with a reason and figures for every request. Pure: the same problem gives the same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from ubcp_p2p.allocator.allocation import Allocation, allocate
from ubcp_p2p.allocator.displacement import NEAR, displaced
from ubcp_p2p.allocator.fixed import log2_ceil
from ubcp_p2p.allocator.problem import Ask, Problem, Reason
from ubcp_p2p.codec import Value, encode

VERSION: Final = 1
WAIT_SLICES_MAX: Final = 2**20  # no estimate goes further: 30 years of quarter hours


class Outcome(NamedTuple):
    """What one request got.

    units: its quantum; cost: in granules; value: U. All three are 0 where it was out before it was weighed.
    displaces: (least, most) per mille of its own value by which accepting it would lower the value of the whole;
    equal where exact; None for all but `FULL`, and where it fits into no set. queue: its place among the `FULL`, from
    1; 0 for others. wait_s: seconds until it is expected to be accepted, an estimate; 0 when it is, None when nothing
    can be said. use_permille: what its user, or its unit where that is worse, used and has queued before it, of a
    fair share.
    """

    id: bytes
    reason: Reason
    units: int = 0
    cost: int = 0
    value: int = 0
    displaces: tuple[int, int] | None = None
    queue: int = 0
    wait_s: int | None = None
    use_permille: int = 0
    of_unit: bool = False

    @property
    def accepted(self) -> bool:
        return self.reason is Reason.ACCEPTED


@dataclass(frozen=True)
class Decision:
    """budget, used, reserve_unused in units; used: the quanta accepted. value: ΣU. outcomes: in rising order of id.

    reserve_unused is what the next slice's problem has as `reserve_carried`.
    """

    slice: int
    budget: int
    granule: int
    value: int
    used: int
    reserve_unused: int
    outcomes: tuple[Outcome, ...]

    @property
    def accepted(self) -> tuple[bytes, ...]:
        """Ids, rising: as a DECISION entry has them."""
        return tuple(outcome.id for outcome in self.outcomes if outcome.accepted)

    @property
    def refused(self) -> tuple[tuple[str, int], ...]:
        """(reason, count), rising by reason: as a DECISION entry has them."""
        return refusals(outcome.reason for outcome in self.outcomes)

    def to_bytes(self) -> bytes:
        """Canonical bytes of everything in it."""
        outcomes: list[Value] = [
            [
                one.id, str(one.reason), one.units, one.cost, one.value, list(one.displaces or ()), one.queue,
                [] if one.wait_s is None else [one.wait_s], one.use_permille, int(one.of_unit),
            ]
            for one in self.outcomes
        ]  # fmt: skip
        frame: list[Value] = [VERSION, self.slice, self.budget, self.granule, self.value, self.used,
                              self.reserve_unused, outcomes]  # fmt: skip
        return encode(frame)


def refusals(reasons: Iterable[Reason]) -> tuple[tuple[str, int], ...]:
    """How many were refused for what, rising by reason."""
    counts = Counter(str(reason) for reason in reasons if reason is not Reason.ACCEPTED)
    return tuple(sorted(counts.items()))


def decide(problem: Problem, *, near: int = NEAR) -> Decision:
    """Weigh all requests of the slice; the displacement of the `near` refused ones closest to the cut is exact."""
    allocation = allocate(problem)
    figures = _figures(allocation, near)
    outcomes = tuple(
        figures.get(ask.id) or Outcome(ask.id, reason, wait_s=_wait_outside(problem, ask, reason))
        for ask, reason in zip(problem.asks, allocation.reasons, strict=True)
    )
    return Decision(
        slice=problem.slice,
        budget=problem.budget,
        granule=allocation.grid.granule,
        value=allocation.value,
        used=sum(allocation.entries[place].quantum for place in allocation.accepted),
        reserve_unused=allocation.reserve_unused,
        outcomes=outcomes,
    )


def _wait_outside(problem: Problem, ask: Ask, reason: Reason) -> int | None:
    """Seconds for what was not weighed: a held request waits for its cleaner slice, of the others nothing is known."""
    if reason is Reason.HELD and ask.cleaner is not None:
        return min(ask.cleaner.slices_ahead, WAIT_SLICES_MAX) * problem.rules.slice_s
    return None


def _figures(allocation: Allocation, near: int) -> dict[bytes, Outcome]:
    """The outcomes of all that competed, by id."""
    loss = displaced(allocation.instance, allocation.solution, near)
    found = {}
    for place in allocation.accepted:
        found[allocation.entries[place].ask.id] = _outcome(allocation, place, Reason.ACCEPTED, wait_s=0)
    waits = _waits(allocation)
    for index, place in enumerate(allocation.open):
        if place in allocation.accepted:
            continue
        least, most = int(loss.least[index]), int(loss.most[index])
        value = allocation.entries[place].worth.value
        displaces = None if least < 0 else (-(-1000 * least // value), -(-1000 * most // value))
        queue, wait_s = waits[place]
        one = _outcome(allocation, place, Reason.FULL, displaces=displaces, queue=queue, wait_s=wait_s)
        found[one.id] = one
    return found


def _outcome(
    allocation: Allocation,
    place: int,
    reason: Reason,
    *,
    displaces: tuple[int, int] | None = None,
    queue: int = 0,
    wait_s: int | None,
) -> Outcome:
    entry = allocation.entries[place]
    value, share, of_unit = entry.worth
    use_permille = 1000 * share.use // share.part
    return Outcome(
        entry.ask.id, reason, entry.quantum, entry.cost, value, displaces, queue, wait_s, use_permille, of_unit
    )


def _waits(allocation: Allocation) -> dict[int, tuple[int, int | None]]:
    """Queue position and expected seconds of each refused entry, by its place.

    Two ways to the front, and the shorter counts. The queue drains: all that has more value for its granules goes
    first, for as many slices as it needs, nothing new comes, and every slice is like this one. Or its value grows by
    waiting to what the cut is today.
    """
    entries, capacity, rules = allocation.entries, allocation.grid.capacity, allocation.problem.rules
    relaxed = allocation.solution.relaxed
    refused = [place for place in range(len(entries)) if place not in allocation.accepted]
    index_of = {place: index for index, place in enumerate(allocation.open)}
    density = {place: (entries[place].worth.value << 16) // entries[place].cost for place in refused}
    ahead = sum(entries[place].cost * (entries[place].ask.slices_left - 1) for place in allocation.accepted)
    found: dict[int, tuple[int, int | None]] = {}
    for queue, place in enumerate(sorted(refused, key=lambda place: (-density[place], place)), 1):
        entry = entries[place]
        slices = WAIT_SLICES_MAX + 1
        if capacity:
            slices = -(-(ahead + entry.cost) // capacity)
        if relaxed.reduced[index_of[place]] < 0:
            grown = log2_ceil(relaxed.price * entry.cost, entry.worth.value, rules.ageing_slices)
            slices = min(slices, max(1, grown))
        ahead += entry.cost * entry.ask.slices_left
        found[place] = queue, slices * rules.slice_s if slices <= WAIT_SLICES_MAX else None
    return found
