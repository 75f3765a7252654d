"""What waiting for cleaner power has saved on this node since it started: an estimate, from its own decisions. Pure.

The energy of a lease is what the charter's cost basis says of the device class; what the grid had when a request was
first held here, and when it was accepted, is what this node's source of carbon said then.
"""

from __future__ import annotations

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

    charter: Charter
    device_class: str
    savings: Savings = field(default_factory=lambda: Savings(0, 0))
    _first: dict[bytes, int] = field(default_factory=dict)  # REQUEST → g/kWh when it was first held here

    def note(self, problem: Problem, decision: Decision) -> None:
        """Take one slice in; where carbon is unknown nothing is counted."""
        self._first = {ask.id: self._first[ask.id] for ask in problem.asks if ask.id in self._first}
        if problem.carbon is None:
            return
        work = []
        for outcome in decision.outcomes:
            if outcome.reason is Reason.HELD:
                self._first.setdefault(outcome.id, problem.carbon)
            elif outcome.accepted:
                energy = joules_of(self.charter, self.device_class, outcome.units)
                if energy is not None:
                    work.append(Worked(energy, problem.carbon, self._first.get(outcome.id, problem.carbon)))
        new = saved(work)
        self.savings = Savings(self.savings.emitted_mg + new.emitted_mg, self.savings.unmoved_mg + new.unmoved_mg)
