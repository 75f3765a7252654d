"""What waiting for cleaner power has saved on this node since it started: an estimate, from its own decisions. Pure.

The energy of a lease is what the charter in force says of the device class, what the grid had is what this node's
source of carbon said then. A request that was held once runs all its later slices of work one place later than without
waiting: each of them is compared with the earliest place that none before it has taken, as in a queue.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ubcp_p2p.allocator.decide import Decision
from ubcp_p2p.allocator.problem import Problem, Reason
from ubcp_p2p.carbon.choose import Savings, Worked, saved
from ubcp_p2p.charter.values import Charter


def joules_of(charter: Charter, device_class: str, units: int) -> int | None:
    """The energy of `units` GFLOP on such a device, rounded down; None where the charter says nothing of it."""
    row = charter.cost_of(device_class)
    return None if row is None else units * row.power_mw // (row.sustained * 1000)


@dataclass
class CarbonBook:
    """Fed with each slice's decision. What was never held counts alike with and without waiting."""

    device_class: str
    savings: Savings = field(default_factory=lambda: Savings(0, 0))
    _places: dict[bytes, deque[int]] = field(default_factory=dict)  # REQUEST → g/kWh of slices it could have run in

    def note(self, charter: Charter, problem: Problem, decision: Decision) -> None:
        """Take one slice in; where carbon is unknown nothing is counted. charter: the version in force in the slice."""
        self._places = {ask.id: self._places[ask.id] for ask in problem.asks if ask.id in self._places}
        if problem.carbon is None:
            return
        work = []
        for outcome in decision.outcomes:
            if outcome.reason is Reason.HELD:
                self._places.setdefault(outcome.id, deque()).append(problem.carbon)
            elif outcome.accepted:
                places = self._places.get(outcome.id, deque())
                places.append(problem.carbon)  # so never empty, and no longer than the request was held
                first = places.popleft()
                energy = joules_of(charter, self.device_class, outcome.units)
                if energy is not None:
                    work.append(Worked(energy, problem.carbon, first))
        new = saved(work)
        self.savings = Savings(self.savings.emitted_mg + new.emitted_mg, self.savings.unmoved_mg + new.unmoved_mg)
