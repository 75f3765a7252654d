"""The villain's part in the demo: what the honest nodes say of it in the end, and what it did to the model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ubcp_p2p.peer.demo import villain
from ubcp_p2p.peer.demo.board import HeldOut
from ubcp_p2p.peer.demo.books import Books
from ubcp_p2p.peer.demo.processes import NodeProcess
from ubcp_p2p.peer.demo.stage import RUN, Stage, figure
from ubcp_p2p.peer.demo.villain import Caught, Evidence
from ubcp_p2p.peer.demo.without import groups_of, train_without


class Trial(Stage):
    """A stage on which somebody may cheat."""

    def _evidence(self, honest: Sequence[NodeProcess], paymaster: NodeProcess) -> Evidence | None:
        """What the honest nodes say of the villain, before they are stopped; None where there is no villain."""
        if self._plan.villain is None:
            return None
        its = self._node(villain.NAME)
        frozen = set()
        for node in honest:
            status = node.status()
            if status and status["ledger"] and {its.account.hex(), its.public} & set(status["ledger"]["frozen"]):
                frozen.add(node.name)
        rows = self._call(paymaster, "runs")["requests"]
        barred = [check["words"] for row in rows for check in row["checks"] if check["node"] == its.public]
        return Evidence(
            accusations=self._board.accused.get(villain.NAME, []),
            frozen=frozen,
            refusals=villain.refusals(honest, its.account),
            barred=barred[0] if barred else "",
            others=len(honest),
        )

    def _judge(self, evidence: Evidence, found: Books, last: HeldOut, honest: Sequence[str]) -> Caught:
        """Caught, unpaid, and what it did to the model: by a run of the honest peers alone, where it had offers in."""
        assert self._plan.villain is not None
        caught, how = villain.judge(self._plan.villain, evidence)
        without = None
        if self._board.peers[villain.NAME].taken:
            with self._part("without"):
                without = self._train_without(honest)
        harm, noise = villain.harm(last, without)
        return Caught(self._plan.villain, caught, how, found.after[villain.NAME].earned, harm, noise)

    def _train_without(self, honest: Sequence[str]) -> HeldOut:
        self._say(
            "What did it do to the model? The same peers make the same rounds again, without the villain's offers."
        )
        keys = {name: bytes.fromhex(self._node(name).public) for name in honest}
        groups = groups_of(self._board.members, keys)

        def on_round(done: int) -> None:
            if done % max(1, len(groups) // 4) == 0:
                self._now(f"without the villain: {done} of {len(groups)} rounds")

        directory, device = self._swarm.directory, self._plan.device
        found = asyncio.run(train_without(self._recipe, RUN, groups, directory, device, on_round))
        self._say(f"Held-out loss without the villain: {figure(found)}.")
        return found
