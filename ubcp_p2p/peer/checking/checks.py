"""The checks of all runs of one node: a checker for each while it trains, and what it has opened, to the node's end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from ubcp_p2p.models.recipe import Recipe, run_id
from ubcp_p2p.peer.checking.accusations import Accusations
from ubcp_p2p.peer.checking.checker import Checker
from ubcp_p2p.peer.checking.conviction import Members
from ubcp_p2p.peer.checking.shown import Shown
from ubcp_p2p.peer.checking.values import Clients, NoClients
from ubcp_p2p.swarm.admission import Admission
from ubcp_p2p.swarm.events import Event
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.training.process import TrainerProcess
from ubcp_p2p.training.shape import shape_of


class Checks:
    """clients: for whom the node works; set once they are known."""

    def __init__(self, network: Network) -> None:
        self.clients: Clients = NoClients()
        self._network = network
        self._shown: dict[bytes, Shown] = {}  # by run id

    async def checker(
        self, name: str, recipe: Recipe, folder: Path, trainer: TrainerProcess, member: Members, admission: Admission,
        observe: Callable[[Event], None],
    ) -> Checker:  # fmt: skip
        """Of the run called `name`, whose folder that is: to be told of its rounds, and served while it trains."""
        run = run_id(name, recipe.hash())
        shown = self._shown.get(run)
        if shown is None:
            shown = self._shown[run] = Shown(self._network, run, shape_of(recipe), folder / "openings")
            await shown.open()
        evidence = folder / "evidence"
        accusations = Accusations(self._network, name, recipe, trainer, member, admission.to_group, evidence, observe)
        return Checker(
            self._network.public, trainer, name, recipe, shown, evidence, observe, lambda: self.clients, accusations
        )

    async def close(self) -> None:
        """Answer nobody any more."""
        await asyncio.gather(*(shown.close() for shown in self._shown.values()))
