"""Small made-up communities for tests of the simulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ubcp_p2p.simulation.comparison import RULES
from ubcp_p2p.simulation.rules import Rule
from ubcp_p2p.simulation.scenario import Scenario, load, shipped_scenario, small
from ubcp_p2p.simulation.world import World

SMALL = small(load(shipped_scenario()))
MAKERS: Mapping[str, Callable[[World], Rule]] = RULES


def tiny(**tables: dict[str, Any]) -> Scenario:
    """A day of 24 slices, 60 people, 3 peers; some of everybody."""
    shape = SMALL.with_changes(
        days={"days": 1}, people={"users": 60, "units": 4, "heavy": 6, "newcomers": 5}, peers={"count": 3}
    )
    return shape.with_changes(**tables)
