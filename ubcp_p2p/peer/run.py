"""One run on this node: its trainer and member, and what is told of it to those who follow."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from typing import Any, Final

from ubcp_p2p.errors import UbcpError
from ubcp_p2p.log import fields
from ubcp_p2p.models.recipe import Recipe, run_id
from ubcp_p2p.owner.values import PERMILLE
from ubcp_p2p.peer.kept import RunOptions
from ubcp_p2p.swarm import directory
from ubcp_p2p.swarm.run import Event, RunMember
from ubcp_p2p.training.process import TrainerProcess

log = logging.getLogger(__name__)

EVENTS_KEPT: Final = 2000
FOLLOWER_QUEUE_MAX: Final = 1000
ENDED: Final = ("failed", "left")
PAUSED: Final = "paused"  # by the owner's rules; goes on when they allow it


class Run:
    """One run on this node.

    `stage` is "starting", "running", "done", "paused", "failed" or "left"; `error` says why it failed, `resting` why
    it is paused or about to be.
    """

    def __init__(self, name: str, recipe: Recipe, options: RunOptions, *, resumed: bool = False) -> None:
        self.name = name
        self.recipe = recipe
        self.run_id = run_id(name, recipe.hash())
        self.options = options
        self.resumed = resumed  # by the node's start, and not by a person
        self.stage = "starting"
        self.error: UbcpError | None = None
        self.member: RunMember | None = None
        self.trainer: TrainerProcess | None = None
        self.task: asyncio.Task[None] | None = None
        self.leaving = False  # for good, or for the end of the node
        self.cancelled = False  # or cleaned up already: another cancel would break that off
        self.resting = ""
        self.retire_by_s: float | None = None  # monotonic: when a round that is to be finished has taken too long
        self.paced = PERMILLE  # what the trainer has been told
        self.evaluation: dict[str, Any] | None = None
        self.checkpoint_trouble: str | None = None
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
        self._followers: set[asyncio.Queue[dict[str, Any]]] = set()

    @property
    def data_hash(self) -> bytes:
        """What names the data that this node trains on: 32 bytes; none while the trainer starts, or of private data."""
        if self.recipe.private:
            return b""
        return bytes.fromhex(self.trainer.ready.data_sha256) if self.trainer is not None else b""

    def begin_anew(self) -> None:
        """As if it had not been here before, for those who follow it too; what it has learned is in its checkpoints."""
        self.stage, self.error, self.member, self.trainer, self.task = "starting", None, None, None, None
        self.cancelled, self.resting, self.retire_by_s, self.paced = False, "", None, PERMILLE

    def pause(self, words: str) -> None:
        """It rests, and has neither trainer nor task."""
        self.stage, self.trainer, self.resting, self.retire_by_s = PAUSED, None, words, None
        self.observe(Event("paused", self.member.round if self.member else 0, {"reason": words}))

    def leave(self) -> None:
        """It has ended."""
        self.stage, self.resting = "left", ""
        self.observe(Event("left", self.member.round if self.member else 0))

    def pace(self, permille: int) -> None:
        """Use this share of the device from now on."""
        if self.trainer is not None and self.paced != permille:
            self.trainer.pace(permille)
            self.paced = permille

    def claim(self) -> directory.Entry | None:
        """What this node claims of it in the DHT; None before it takes part, and when it has ended."""
        if self.member is None or self.stage in (*ENDED, PAUSED):
            return None
        recipe = self.recipe
        return directory.Entry(
            self.name, self.run_id, recipe.name, recipe.hash(), self.member.round, recipe.rounds.total, self.data_hash
        )

    def observe(self, event: Event) -> None:
        """Keep and pass on what the run member says."""
        document = {"kind": event.kind, "round": event.round, "time": round(time.time(), 3), **event.data}
        if event.kind == "evaluated":
            self.evaluation = {"round": event.round, **event.data}
        elif event.kind == "checkpoint failed":
            self.checkpoint_trouble = str(event.data.get("reason"))
        elif event.kind == "checkpointed":
            self.checkpoint_trouble = None
        elif event.kind == "done":
            self.stage = "done"
        if event.kind != "progress":
            self._events.append(document)
            log.info("run %s: %s", self.name, event.kind, extra=fields(run=self.name, **document))
        for follower in self._followers:
            if follower.qsize() < FOLLOWER_QUEUE_MAX:  # a follower that does not read loses events, not us memory
                follower.put_nowait(document)

    async def follow(self) -> AsyncIterator[dict[str, Any]]:
        """All events kept so far, then each as it comes, until the run is done or has ended."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for document in self._events:
            queue.put_nowait(document)
        self._followers.add(queue)
        try:
            while True:
                document = await queue.get()
                yield document
                if document["kind"] in ("done", "failed", "left"):
                    return
        finally:
            self._followers.discard(queue)

    def choose(self, options: RunOptions) -> None:
        """Change what this peer may choose for itself, from the next round on."""
        self.options = options
        if self.member is not None:
            self.member.settings = replace(
                self.member.settings, peers_min=options.peers_min, checkpoint_every_s=options.checkpoint_every_s
            )

    def status(self) -> dict[str, Any]:
        """JSON for people and programs."""
        member, rest = self.member, (*ENDED, PAUSED)
        return {
            "name": self.name,
            "recipe": self.recipe.name,
            "run_id": self.run_id.hex(),
            "stage": self.stage,
            "resumed": self.resumed,
            "resting": self.resting,
            "phase": None if member is None else self.stage if self.stage in rest else member.phase.name.lower(),
            "round": member.round if member else None,
            "rounds": self.recipe.rounds.total,
            "step": member.step if member else None,
            "steps": self.recipe.rounds.local_steps,
            "peers": len(member.peers()) + 1 if member else None,
            "loss": member.loss if member else None,
            "state_hash": member.base_hash.hex() if member else None,
            "retries": member.retries if member else None,
            "trainer_pid": self.trainer.pid if self.trainer else None,
            "device": self.trainer.ready.device if self.trainer else None,
            "sandbox": [asdict(layer) for layer in self.trainer.ready.sandbox] if self.trainer else None,
            "evaluation": self.evaluation,
            "refused": member.refused if member else "",
            "checkpoint_trouble": self.checkpoint_trouble,
            "error": {"message": self.error.message, "hint": self.error.hint} if self.error else None,
        }
