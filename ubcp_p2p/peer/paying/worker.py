"""Does what this node's leases promise: begins the runs that they are for, bills their rounds, and ends them again."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from ubcp_p2p.errors import UbcpError
from ubcp_p2p.ledger.activity import Asked
from ubcp_p2p.models.recipe import run_id
from ubcp_p2p.peer.kept import RunOptions
from ubcp_p2p.peer.paying.contributor import Contributor
from ubcp_p2p.peer.run import ENDED
from ubcp_p2p.swarm.quorum import NOBODY
from ubcp_p2p.units import credits_text

if TYPE_CHECKING:
    from ubcp_p2p.peer.run import Run
    from ubcp_p2p.peer.runs import Runs
    from ubcp_p2p.swarm.events import Committed

log = logging.getLogger(__name__)


def in_turn(requests: Collection[bytes], round_: int) -> bytes:
    """Which of the REQUESTs has its turn in this round; NOBODY where there is none."""
    return sorted(requests)[round_ % len(requests)] if requests else NOBODY


class Worker:
    """Between leases, runs and bills."""

    def __init__(self, runs: Runs, contributor: Contributor) -> None:
        self._runs, self._contributor = runs, contributor
        self._begun: dict[bytes, str] = {}  # REQUEST → the run that was begun for it here
        self._refused: set[bytes] = set()  # REQUESTs whose payer does not pay
        self._held: dict[bytes, Asked] = {}
        self._troubles: dict[bytes, str] = {}
        self._ended = ""  # why nothing is billed any more
        runs.committed.append(self.on_commit)
        runs.payer = self.payer_of

    def paid_by(self, run: bytes) -> list[Asked]:
        """The REQUESTs that pay for the run with this id, and that this node has a lease on."""
        return [asked for asked in self._held.values() if run_id(asked.body.run, asked.body.recipe) == run]

    def payer_of(self, run: bytes, round_: int) -> bytes:
        """Whom this node's work in a round of the run with this id is billed to: those that pay for it, in turn."""
        return in_turn([asked.id for asked in self.paid_by(run) if asked.id in self._begun], round_)

    async def obey(self, held: Sequence[Asked]) -> None:
        """These are the REQUESTs on which this node's leases of the slice hold."""
        self._held = {asked.id: asked for asked in held if asked.id not in self._refused and not self._ended}
        for asked in self._held.values():
            if asked.id not in self._begun:
                await self._begin(asked)
        for request in [id_ for id_ in self._begun if id_ not in self._held]:
            await self._end(request)

    async def stop_for(self, asked: Asked, why: str) -> None:
        """A payer that does not pay is worked for no more, until this node is started again."""
        self._refused.add(asked.id)
        self._troubles[asked.id] = why
        self._held.pop(asked.id, None)
        if asked.id in self._begun:
            await self._end(asked.id)

    async def end(self, why: str) -> None:
        """Nothing is billed any more: nobody is worked for, since no limit would hold."""
        self._ended = why
        await self.obey([])

    def on_commit(self, run: Run, committed: Committed) -> None:
        """Bill each round that this node was in, also one whose end it has missed."""
        self._contributor.on_round(committed)

    async def _begin(self, asked: Asked) -> None:
        body = asked.body
        try:
            recipe = await self._contributor.recipe_of(asked)
            run = await self._runs.start(body.run, recipe, RunOptions(peers_min=max(1, body.peers_min)))
        except UbcpError as error:
            self._troubles[asked.id] = error.message
            log.warning("the run %s of a lease is not begun: %s", body.run, error.message)
            return
        self._troubles.pop(asked.id, None)
        self._begun[asked.id] = run.name
        self._contributor.work_for(asked, recipe)
        log.info("a lease of %s… holds: in the run %s now", asked.id.hex()[:16], body.run)

    async def _end(self, request: bytes) -> None:
        name = self._begun.pop(request)
        if name in self._begun.values():  # another REQUEST pays for it
            return
        try:
            if self._runs.get(name).stage not in (*ENDED, "done"):
                await self._runs.leave(name)
        except UbcpError as error:
            log.info("the run %s was left already: %s", name, error.message)

    def status(self) -> list[dict[str, Any]]:
        """JSON for `ubcp status`: what is earned with each REQUEST."""
        rows = [
            {
                "request": job.asked.id.hex(), "run": job.asked.body.run, "rounds": job.rounds, "earned": job.credits,
                "earned_words": f"{credits_text(job.credits)} credits", "receipted": job.receipted,
                "unpaid_rounds": job.unpaid_rounds(time.monotonic()), "held_rounds": job.held,
                "words": self._ended or self._troubles.get(job.asked.id, job.words),
            }
            for job in self._contributor.jobs()
        ]  # fmt: skip
        known = {row["request"] for row in rows}
        return rows + [
            {"request": id_.hex(), "run": "", "rounds": 0, "earned": 0, "earned_words": "nothing", "receipted": 0,
             "unpaid_rounds": 0, "held_rounds": 0, "words": words}
            for id_, words in self._troubles.items() if id_.hex() not in known
        ]  # fmt: skip
