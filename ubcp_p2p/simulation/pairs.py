"""What cheating brings: one community twice, bit for bit the same but for the trick, and what the cheaters get more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from ubcp_p2p.errors import UbcpError
from ubcp_p2p.simulation.engine import Trace, live
from ubcp_p2p.simulation.rules import Rule
from ubcp_p2p.simulation.scenario import Scenario, pair_network
from ubcp_p2p.simulation.world import Ints, Kind, World, world_of

OURS: Final = "ours"
GAINS: Final = {
    "flooding": "many more jobs queued than others",
    "splitting": "each request cut into pieces",
    "underclaiming": "asks for half of what it uses",
    "overclaiming": "asks for twice what it uses",
    "sybils": "one person as many: what its unit gets more, which wants all of its share as it is",
    "sybils_idle_share": "the same in a unit that leaves a part of its share",
    "sybils_person": "one person as many: what this person gets more, from its own unit",
}
BOUNDED: Final = ("flooding", "splitting", "underclaiming", "overclaiming", "sybils")  # these are to be 2 % at most
BOUND: Final = 0.02
_BY_KIND: Final = {
    Kind.FLOODING: "flooding",
    Kind.SPLITTING: "splitting",
    Kind.UNDERCLAIMING: "underclaiming",
    Kind.OVERCLAIMING: "overclaiming",
}


class BoundBroken(UbcpError):
    """Cheating brings more than it may."""


def gains(scenario: Scenario, make: Callable[[World], Rule], seed: int) -> dict[str, float]:
    """For each of GAINS, what the cheaters got with the trick, divided by what they got without, less 1."""
    network, count = pair_network(scenario), scenario.pairs.cheaters

    def run(trick: Kind | None, cheaters: int, crowded: bool = False) -> tuple[World, Trace]:
        world = world_of(network, seed, trick, cheaters, crowded=crowded)
        return world, live(world, make(world))

    honest, before = run(None, count)
    found = {}
    for kind, name in _BY_KIND.items():
        world, after = run(kind, count)
        found[name] = _ratio(after.got[world.cheaters], before.got[honest.cheaters])
    world, after = run(Kind.SYBIL, count)
    found["sybils_idle_share"] = _ratio(of_units(world, after), of_units(honest, before))
    honest, before = run(None, 1, crowded=True)
    world, after = run(Kind.SYBIL, 1, crowded=True)
    found["sybils"] = _ratio(of_units(world, after), of_units(honest, before))
    found["sybils_person"] = _ratio(after.got[world.users_of(Kind.SYBIL)], before.got[honest.cheaters])
    return {name: found[name] for name in GAINS}


def broken(document: Mapping[str, Any]) -> None:
    """Raise BoundBroken where a trick brings more than the document's bound under our rule, in the mean over seeds."""
    gains_ = document["rules"][OURS]["gains"]
    over = [f"{name} {100 * gains_[name]['mean']:.1f} %" for name in document["bounded"]
            if gains_[name]["mean"] > document["bound"]]  # fmt: skip
    if over:
        raise BoundBroken(
            f"by our rule cheating brings more than {100 * document['bound']:.0f} %: {', '.join(over)}",
            hint="coarse jobs leave parts of slices that only cut ones fit into: docs/simulation.md",
        )


def of_units(world: World, trace: Trace) -> Ints:
    """What each user of the cheaters' units got."""
    members = np.isin(world.unit, world.unit[world.cheaters])
    got: Ints = trace.got[members]
    return got


def _ratio(after: Ints, before: Ints) -> float:
    return round(int(after.sum()) / max(1, int(before.sum())) - 1, 4)
