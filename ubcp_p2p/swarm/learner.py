"""What a peer does for a run by itself: its local steps, its checkpoints, its turn to evaluate."""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from contextlib import suppress
from typing import Any

from ubcp_p2p.errors import ConfigError, LocalIOError, TrainingError
from ubcp_p2p.swarm.events import Observer, RunSettings
from ubcp_p2p.swarm.membership import Phase
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.standing import Follower
from ubcp_p2p.swarm.trainer import Evaluation, Offer, Trainer

log = logging.getLogger(__name__)

PATIENCE = 0.5  # a straggler offers what it has when the others waited this fraction of their own training time
PATIENCE_MIN_S = 1.0


class Learner(Follower):
    """A peer that trains on the state that it stands on, and keeps it."""

    def __init__(self, network: Network, trainer: Trainer, settings: RunSettings, observe: Observer) -> None:
        super().__init__(network, trainer, settings, observe)
        self.loss: float | None = None
        self._checkpointed_s = time.monotonic()
        self._unsaved = False  # the last checkpoint could not be written

    async def _train(self) -> Offer:
        """H local steps; fewer when the others have waited long enough for this peer."""
        members = self.certificate.group.peers if self.certificate else (*self.peers(), self._network.public)
        self.step = 0
        training = asyncio.ensure_future(self._trainer.train(self.round, sorted(members), self._on_progress))
        try:
            asked = False
            while not training.done():
                await asyncio.wait([training], timeout=0.2)
                if not asked and self._others_wait_too_long():
                    asked = True
                    log.info("the others are waiting: offering the %d steps done", self.step)
                    self._trainer.finish_early()
            offer = await training
        finally:
            training.cancel()
            with suppress(
                asyncio.CancelledError, TrainingError
            ):  # awaited also when it has failed: else asyncio complains
                await training
        self._train_s, self.loss = offer.seconds, offer.loss
        return offer

    def _others_wait_too_long(self) -> bool:
        companions = self._companions()
        beats = [self.view.members[peer].beat for peer in companions]
        if not beats or any(beat.phase == Phase.TRAINING for beat in beats):
            self._waiting_since_s = None
            return False
        if self._waiting_since_s is None:
            self._waiting_since_s = time.monotonic()
        typical_s = statistics.median(beat.train_ms for beat in beats) / 1000.0
        return time.monotonic() - self._waiting_since_s > max(PATIENCE_MIN_S, PATIENCE * typical_s)

    async def keep_checkpoint(self, *, due: bool = False) -> None:
        """Write a checkpoint when one is due. A full disk is said and survived: the older checkpoints stay."""
        if not due and time.monotonic() - self._checkpointed_s < self.settings.checkpoint_every_s:
            return
        self._say("checkpoint")
        extra = {"certificate": self.certificate.to_bytes().hex()} if self.certificate else {}
        try:
            path = await self._trainer.checkpoint(extra)
            self._unsaved = False
            self._say("checkpointed", path=str(path))
        except (LocalIOError, ConfigError) as error:
            self._unsaved = True
            log.error("no checkpoint: %s", error)
            self._say("checkpoint failed", reason=error.message, hint=error.hint or "")
        self._checkpointed_s = time.monotonic()

    def _is_my_turn_to_evaluate(self) -> bool:
        every = self.settings.evaluate_every
        if not every or (self.round % every and self.round != self.settings.rounds) or self.certificate is None:
            return False
        peers = self.certificate.group.peers
        return peers[(self.round // every) % len(peers)] == self._network.public

    async def _evaluate(self) -> Evaluation:
        result = await self._trainer.evaluate()
        self._say("evaluated", loss=result.loss, stderr=result.stderr, accuracy=result.accuracy, n=result.n)
        return result

    def _on_progress(self, progress: Any) -> None:
        self.step, self.loss = progress.step, progress.loss
        self._say("progress", step=progress.step, steps=progress.steps, loss=progress.loss)
