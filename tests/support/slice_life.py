"""Many slices in a row: requests come, wait, are served for one slice and are charged, as on a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ubcp_p2p.allocator.allocation import Allocation, allocate
from ubcp_p2p.allocator.problem import Applicant, Ask, Rules, UnitUse, problem_of
from ubcp_p2p.allocator.usage import Charge, charged, decayed_use


class Member(NamedTuple):
    unit: str
    newcomer: bool = False


class SliceLife:
    """A queue over time. members: who is in which unit; units that are not in `weights` have weight 1."""

    def __init__(
        self, rules: Rules, budget: int, *, capacity: int | None = None, weights: Mapping[str, int] | None = None
    ) -> None:
        self.slice = 0
        self.queue: dict[bytes, Ask] = {}
        self.members: dict[bytes, Member] = {}
        self.charges: list[Charge] = []
        self.served: dict[bytes, int] = {}  # units, by user
        self._rules, self._budget, self._capacity = rules, budget, capacity
        self._weights = dict(weights or {})
        self._carried = 0
        self._fronts: dict[bytes | str, tuple[bytes, int]] = {}  # the first request of users and units, and since when

    def use(self) -> Mapping[bytes, int]:
        return decayed_use(self.charges, now=self.slice, half_life=self._rules.half_life_slices)

    def step(self, arrivals: Iterable[Ask] = ()) -> Allocation:
        """One slice: `arrivals` join the queue, it is decided, what is accepted is done and leaves."""
        self.queue |= {ask.id: ask for ask in arrivals}
        use = self.use()
        active = {ask.applicant for ask in self.queue.values()} | {user for user, units in use.items() if units}
        stalled = self._stalled()
        rows = [Applicant(user, *self.members[user], use.get(user, 0), stalled.get(user, 0)) for user in active]
        names = {row.unit for row in rows}
        totals = {name: sum(row.use for row in rows if row.unit == name) for name in names}
        found = allocate(
            problem_of(
                slice=self.slice, rules=self._rules, budget=self._budget, capacity=self._capacity,
                reserve_carried=self._carried, applicants=rows, asks=self.queue.values(),
                units=[
                    UnitUse(name, self._weights.get(name, 1), units, stalled.get(name, 0))
                    for name, units in totals.items()
                ],
            )
        )  # fmt: skip
        for place in found.accepted:
            ask, quantum = found.entries[place].ask, found.entries[place].quantum
            self.charges.append(Charge(ask.applicant, self.slice, charged(quantum, ask.urgency)))
            self.served[ask.applicant] = self.served.get(ask.applicant, 0) + quantum
            del self.queue[ask.id]
        self._carried = found.reserve_unused
        self.slice += 1
        self.queue = {id_: ask._replace(waited=ask.waited + 1) for id_, ask in self.queue.items()}
        return found

    def _stalled(self) -> Mapping[bytes | str, int]:
        """For how many slices the first request of each user and unit has been the first."""
        fronts: dict[bytes | str, bytes] = {}
        for ask in sorted(self.queue.values(), key=lambda ask: (-ask.waited, ask.id)):
            fronts.setdefault(ask.applicant, ask.id)
            fronts.setdefault(self.members[ask.applicant].unit, ask.id)
        before = self._fronts
        self._fronts = {
            key: (front, before[key][1] if key in before and before[key][0] == front else self.slice)
            for key, front in fronts.items()
        }
        return {key: self.slice - since for key, (_, since) in self._fronts.items()}
