"""Checks others' work in one run, as the draw after each round says, and shows this node's own to who was drawn.

One check at a time, between the trainer's other commands: a check costs a fifth of a round, and the group's next round
waits for nobody's check longer than for one.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ubcp_p2p.codec import MalformedMessage
from ubcp_p2p.errors import NetworkError, TrainingError, UbcpError
from ubcp_p2p.files import keep_newest
from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.peer.checking.accusations import Accusations
from ubcp_p2p.peer.checking.shown import Shown
from ubcp_p2p.peer.checking.values import Checked, Clients
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.events import Committed, Event
from ubcp_p2p.swarm.exchange import LINK_BYTES_PER_S_MIN
from ubcp_p2p.swarm.quorum import Card
from ubcp_p2p.training.ends import LEAN, WHOLE, drawn_by
from ubcp_p2p.training.pieces import SEED_BYTES
from ubcp_p2p.training.process import TrainerProcess
from ubcp_p2p.training.shape import shape_of
from ubcp_p2p.training.verdict import Finding, Verdict
from ubcp_p2p.verification.draw import Draw, draws_of
from ubcp_p2p.verification.evidence import EVIDENCE_KEPT, Evidence, claim_of

log = logging.getLogger(__name__)

QUEUE_MAX: Final = 16  # checks that wait: more, and this node cannot keep up
ASK_PAUSES_S: Final = (
    0.5,
    1.0,
    2.0,
    4.0,
)  # between tries: the checked peer may see the commit later than its validator
ASK_S: Final = 30.0  # for an answer to begin, beside two of this node's rounds: its trainer may be at work
ASK_S_MAX: Final = 3600.0


@dataclass(frozen=True)
class _Task:
    committed: Committed
    draw: Draw


class Checker:
    """`on_commit` hears of rounds, `serve` checks until cancelled.

    name: the run's. folder: for evidence. observe: hears of each check, as of what else happens in the run.
    accusations: pass on what is found.
    """

    def __init__(
        self, me: bytes, trainer: TrainerProcess, name: str, recipe: Recipe, shown: Shown, folder: Path,
        observe: Callable[[Event], None], clients: Callable[[], Clients], accusations: Accusations,
    ) -> None:  # fmt: skip
        self._accusations = accusations
        self._me, self._trainer, self._name, self._recipe = me, trainer, name, recipe
        self._shown, self._folder, self._observe, self._clients = shown, folder, observe, clients
        self._shape = shape_of(recipe)
        self._other_bits: set[bytes] = set()  # who computes otherwise: a part of each end is asked for at once
        self._queue: asyncio.Queue[_Task] = asyncio.Queue(QUEUE_MAX)
        self._committed_s, self._round_s = time.monotonic(), 0.0

    def on_commit(self, committed: Committed) -> None:
        """Show what was drawn of this node's own work; note what it is to check."""
        now_s = time.monotonic()
        self._round_s, self._committed_s = now_s - self._committed_s, now_s
        self._accusations.on_commit(committed)
        group = committed.certificate.group
        for peer, drawn in draws_of(committed.certificate, self._recipe).items():
            if peer == self._me:
                trail = next(seat.trail for seat in group.members if seat.peer == peer)
                askers = {*self._clients().payers(group.run_id), *([drawn.validator] if drawn.validator else [])}
                self._shown.show(trail, drawn.stretches, askers, self._trainer.open)
            if drawn.validator == self._me:
                try:
                    self._queue.put_nowait(_Task(committed, drawn))
                except asyncio.QueueFull:
                    self._say("check dropped", group.round, peer=peer.hex(), words=f"{QUEUE_MAX} others wait already")

    async def serve(self) -> None:
        """Check what is drawn, one at a time, and pass on what is found, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._accusations.serve())
            tasks.create_task(self._check_drawn())

    async def _check_drawn(self) -> None:
        while True:
            task = await self._queue.get()
            round_, peer = task.committed.certificate.group.round, task.draw.peer
            try:
                await self._check(task)
            except UbcpError as error:  # of this node's own: nobody is accused for it
                log.warning("the check of %s in round %d failed: %s", short(peer), round_, error.message)
                self._say("check failed", round_, peer=peer.hex(), words=error.message)
            except Exception:  # a bug: training goes on
                log.exception("the check of %s in round %d failed", short(peer), round_)

    async def _check(self, task: _Task) -> None:
        committed, peer = task.committed, task.draw.peer
        group, base = committed.certificate.group, committed.base
        card = committed.card_of(peer)
        if card is None:
            raise TrainingError("the card of the checked peer is not here")
        if base is None and group.round:
            self._say("check dropped", group.round, peer=peer.hex(), words="no certificate of the state before")
            return
        verdict, opening = await self._judge(card, None if base is None else base.group.peers, task.draw.stretches)
        path = None
        if verdict.is_lie:
            blob = Evidence(self._name, card, base, opening).to_bytes()
            path = self._folder / f"{hashlib.sha256(blob).hexdigest()}.evidence"
            await asyncio.to_thread(keep_newest, path, blob, EVIDENCE_KEPT)
        self._say(
            "checked", group.round, peer=peer.hex(), finding=verdict.finding.value, words=verdict.words,
            distance_ppm=verdict.distance_ppm, stretches=list(task.draw.stretches),
            evidence=None if path is None else str(path),
        )  # fmt: skip
        if path is not None:
            self._accusations.convict(peer, path, verdict)
        self._clients().report(group.run_id, Checked(committed.certificate, peer, verdict, path))

    async def _judge(
        self, card: Card, members: tuple[bytes, ...] | None, stretches: tuple[int, ...]
    ) -> tuple[Verdict, bytes]:
        """The first finding that is not honest, or the last; with the opening that it is of."""
        claim = claim_of(card, self._recipe)
        if isinstance(claim, Verdict):
            return claim, b""
        verdict, opening = Verdict(Finding.UNOPENED, 0, "nothing was opened"), b""
        for stretch in stretches:
            try:
                seed = secrets.token_bytes(SEED_BYTES)
                for end in self._ends(card.peer, seed):
                    opening = await self._ask(card.peer, card.trail, stretch, end)
                    verdict = await self._trainer.check(claim, members, opening, seed)
                    # A part tells that all is well, and what shows in the leaves; of the steps the whole alone.
                    if verdict.finding not in (Finding.UNOPENED, Finding.STEPS):
                        break
                    self._other_bits.add(card.peer)
            except (NetworkError, MalformedMessage) as error:
                return Verdict(Finding.UNOPENED, 0, f"it did not open stretch {stretch}: {error.message}"), b""
            if verdict.finding != Finding.HONEST:
                break
        return verdict, opening

    def _ends(self, peer: bytes, seed: bytes) -> tuple[bytes, ...]:
        """How much of a stretch's end to ask for, until it tells: the same bits need none, another device's a part."""
        part = drawn_by(seed)
        return (part, WHOLE) if peer in self._other_bits else (LEAN, part, WHOLE)

    async def _ask(self, peer: bytes, trail: bytes, stretch: int, end: bytes) -> bytes:
        total_s = ASK_S + 2 * self._round_s + self._shape.bytes_max() / LINK_BYTES_PER_S_MIN
        ask = partial(self._shown.openings.ask, peer, trail, stretch, total_s=min(total_s, ASK_S_MAX), end=end)
        for pause_s in ASK_PAUSES_S:
            try:
                return await ask()
            except NetworkError as error:
                log.info("%s does not open stretch %d yet: %s", short(peer), stretch, error.message)
                await asyncio.sleep(pause_s)
        return await ask()

    def _say(self, kind: str, round_: int, **data: object) -> None:
        self._observe(Event(kind, round_, data))
