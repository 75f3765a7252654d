"""One slice's decision, with a reason and figures for every request. Pure: the same problem gives the same bytes."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

from ubcp_p2p.allocator.allocation import Allocation, Entry, allocate
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
    can be said. use_permille: of a fair share, what its user used, or its unit where
    that is worse (of_unit).
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

    The estimate takes every slice to be like this one, with nothing new. Before it go: each request with more value
    for its granules, once; and what runs now, for as long as it needs, but no longer than until one's own value has
    grown by waiting to the least that was accepted today (what is served does not grow).
    """
    entries, capacity, rules = allocation.entries, allocation.grid.capacity, allocation.problem.rules
    running = _Running([(entries[place].ask.slices_left - 1, entries[place].cost) for place in allocation.accepted])
    cut = min((_density(entries[place]) for place in allocation.open if place in allocation.accepted), default=0)
    refused = sorted(
        (-_density(entries[place]), place) for place in allocation.open if place not in allocation.accepted
    )
    found: dict[int, tuple[int, int | None]] = {}
    ahead = 0
    for queue, (density, place) in enumerate(refused, 1):
        grown = max(1, log2_ceil(cut, -density, rules.ageing_slices))
        ahead += entries[place].cost
        slices = -(-(running.work(grown) + ahead) // capacity)
        found[place] = queue, slices * rules.slice_s if slices <= WAIT_SLICES_MAX else None
    return found


def _density(entry: Entry) -> int:
    """Value for a granule, in Q16: never 0, as a cost is below 2^14."""
    return (entry.worth.value << 16) // entry.cost


class _Running:
    """What the accepted requests still need after this slice. rows: (slices, cost)."""

    def __init__(self, rows: list[tuple[int, int]]) -> None:
        rows.sort()
        self._slices = [slices for slices, _ in rows]
        self._work = [0, *accumulate(slices * cost for slices, cost in rows)]
        self._costs = [0, *accumulate(cost for _, cost in rows)]

    def work(self, slices: int) -> int:
        """Granules in the next `slices` slices."""
        ended = bisect_right(self._slices, slices)
        return self._work[ended] + slices * (self._costs[-1] - self._costs[ended])
