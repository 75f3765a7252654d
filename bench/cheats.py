"""What honest and cheating peers commit to and open, made by real local steps: for bench/verification.py and its tests.

A `Swarm` trains a recipe with three honest peers, round by round, in one process. Each cheat takes the part of the
first peer in a round: it has its seat, its data and its memory, and commits to a trail of its own making.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch

from ubcp_p2p.keys import NodeKey
from ubcp_p2p.models.recipe import Recipe, run_id
from ubcp_p2p.models.task import Task, build_task
from ubcp_p2p.training.ends import WholeEnd
from ubcp_p2p.training.inner import InnerLoop
from ubcp_p2p.training.opening import Opening
from ubcp_p2p.training.outer import OuterRule, outer_step
from ubcp_p2p.training.points import Point
from ubcp_p2p.training.recorder import Recorder, Trail, open_stretch, take
from ubcp_p2p.training.shape import shape_of
from ubcp_p2p.training.state import InnerState, Vector, offer_hash, state_hash
from ubcp_p2p.training.verdict import Claim

Go: TypeAlias = Callable[[InnerLoop, Point, int, int], None]
CPU = torch.device("cpu")
KEYS = {key.public: key for key in (NodeKey(hashlib.sha256(b"peer %d" % number).digest()) for number in range(3))}
PEERS = tuple(sorted(KEYS))
CHEAT = PEERS[0]


@dataclass(frozen=True)
class Work:
    """A peer's round: what its card says, and how it opens a stretch (None: it does not)."""

    claim: Claim
    offer: Vector
    trail: Trail
    open: Callable[[int], Opening | None]
    members: tuple[bytes, ...] | None = PEERS  # as the validator knows them

    def stretches(self) -> int:
        return len(self.trail.leaves) - 1


class HalfTask:
    """A task whose batches have the first half of their items, twice."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def batch(self, indices: Any, rng: np.random.Generator) -> Any:
        half = indices[: max(1, len(indices) // 2)]
        return self._task.batch(np.resize(half, len(indices)), rng)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)


@dataclass
class Swarm:
    """Three honest peers of one run. works: of the last round, by peer; before: of the round before that.

    device: what they train on.
    """

    recipe: Recipe
    name: str
    round: int = 0
    peers: tuple[bytes, ...] = PEERS
    recorder: type[Recorder] = Recorder
    device: torch.device = CPU
    works: dict[bytes, Work] = field(default_factory=dict)
    before: dict[bytes, Work] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.task = build_task(self.recipe)
        self.loop = InnerLoop(self.recipe, self.task, self.device)
        self.half = InnerLoop(self.recipe, HalfTask(self.task), self.device)  # type: ignore[arg-type]
        self.run_id = run_id(self.name, self.recipe.hash())
        self.shape = shape_of(self.recipe)
        self.steps = self.recipe.rounds.local_steps
        outer = self.recipe.outer
        self._rule = OuterRule(outer.optimizer, outer.lr, outer.momentum)
        self.state: Vector = np.zeros(self.shape.state_values, dtype=np.float32)
        self.state[: self.shape.parameters] = self.loop.read()
        fresh = self.loop.save()
        self.memories: dict[bytes, InnerState] = dict.fromkeys(PEERS, fresh)
        self.stale: Vector = self.state  # the state of the round before
        self.memory_before = fresh  # the cheat's, as the present round found it

    def advance(self) -> None:
        """One honest round of all three; `works` are theirs, `state` is still the one that the round began from."""
        if self.works:
            self._commit()
        self.before, self.works = self.works, {}
        self.memory_before = self.memories[CHEAT]
        for peer in self.peers:
            self.works[peer] = self.honest(peer)
            self.memories[peer] = self.loop.save()

    def _commit(self) -> None:
        offers = [(self.works[peer].offer, self.works[peer].claim.steps) for peer in self.peers]
        after = np.empty_like(self.state)
        outer_step(self.state, offers, self._rule, after)
        self.stale, self.state = self.state, after
        self.round += 1

    @property
    def base_hash(self) -> bytes:
        return state_hash(self.run_id, self.round, self.state.data)

    @property
    def theta(self) -> Vector:
        return self.state[: self.shape.parameters]

    def honest(self, peer: bytes) -> Work:
        """All local steps of `peer` in the present round."""
        return self.record(peer, self.loop, self.theta, self._walker(peer))

    def record(
        self, peer: bytes, loop: InnerLoop, start: Vector, go: Go,
        offer: Callable[[Vector], Vector] | None = None,
    ) -> Work:  # fmt: skip
        """A trail that begins at `start`; go(loop, first state, first, last) brings `loop` from one mark to the next.

        offer(last parameters): what is offered; else the base less those.
        """
        loop.write(start)
        loop.restore(self.memories[peer] if not self.works.get(peer) else self.memory_before)
        recorder = self.recorder(loop, self.shape.stretch, self.steps)
        first_point = take(loop)
        for first in range(0, self.steps, self.shape.stretch):
            last = min(first + self.shape.stretch, self.steps)
            go(loop, first_point, first, last)
            recorder.after_step(last)
        ended = np.array(loop.read())
        offered = (self.theta - ended) if offer is None else offer(ended)
        trail = recorder.finish(
            self.run_id, self.round, peer, PEERS, self.state, self.base_hash, offer_hash(offered.data)
        )
        return self.work(peer, trail, offered, loop)

    def work(self, peer: bytes, trail: Trail, offered: Vector, loop: InnerLoop) -> Work:
        """The card and the openings of a recorded trail; the last stretch is opened with what was offered."""
        claim = Claim(self.run_id, self.round, peer, self.base_hash, self.steps, offer_hash(offered.data), trail.hash())

        def opened(index: int) -> Opening:
            opening = open_stretch(loop, trail, index)
            end = opening.end
            assert isinstance(end, WholeEnd)
            return opening if end.offer is None else replace(opening, end=replace(end, offer=offered))

        return Work(claim, offered, trail, opened)

    def _walker(self, peer: bytes) -> Go:
        def go(loop: InnerLoop, start: Point, first: int, last: int) -> None:
            loop.run(self.run_id, self.round, peer, PEERS, _on, first=first, last=last)

        return go

    def _coast(self, loop: InnerLoop, start: Point, first: int, last: int) -> None:
        """What costs nothing: steps without data, as if every gradient were zero."""
        with torch.no_grad():
            for step in range(first, last):
                lr = self.recipe.learning_rate(self.round * self.steps + step)
                loop._optimizer.step(loop._theta, torch.zeros_like(loop._theta), lr)

    # -- the cheats: each the work of CHEAT in the present round, after `advance` --------------------------------------

    def no_work(self) -> Work:
        """It lets its momentum carry it, and offers where that leads."""
        return self.record(CHEAT, self.loop, self.theta, self._coast)

    def along(self, goal: Vector, memory: InnerState) -> Work:
        """A straight line to base − goal, with a memory that turns into `memory`: made up without a step."""

        def go(loop: InnerLoop, start: Point, first: int, last: int) -> None:
            part = np.float32(last / self.steps)
            loop.write(self.theta - goal * part)
            vectors = {
                name: values + (memory.vectors[name] - values) * part for name, values in start.memory.vectors.items()
            }
            loop.restore(InnerState(start.memory.steps + last, vectors))

        return self.record(CHEAT, self.loop, self.theta, go, lambda ended: goal)

    def own_last_offer(self) -> Work:
        """It offers again what it offered in the round before."""
        return self.along(np.array(self.before[CHEAT].offer), self.memory_before)

    def half_batch(self) -> Work:
        """Every step on the first half of its items."""
        return self.record(CHEAT, self.half, self.theta, self._walker(CHEAT))

    def copied_tensor(self) -> Work:
        """It offers what another peer offers, and makes a trail up."""
        return self.along(np.array(self.works[PEERS[1]].offer), self.memories[PEERS[1]])

    def copied_trail(self) -> Work:
        """It offers what another peer offers, commits to that peer's trail, and opens it as that peer does."""
        other = self.works[PEERS[1]]
        return replace(other, claim=other.claim._replace(peer=CHEAT))

    def stale_parameters(self) -> Work:
        """All its steps, from the state of the round before."""
        stale = self.stale[: self.shape.parameters]
        return self.record(CHEAT, self.loop, stale, self._walker(CHEAT), lambda ended: stale - ended)

    def random_tensor(self) -> Work:
        """Noise of the norm of its honest offer, and a trail made up for it."""
        return self.along(self._noise(), self.memories[CHEAT])

    def random_tensor_after_work(self) -> Work:
        """All its steps; then it commits to noise of the same norm instead of what they led to."""
        noise = self._noise()
        return self.record(CHEAT, self.loop, self.theta, self._walker(CHEAT), lambda ended: noise)

    def last_stretches_skipped(self, skipped: int) -> Work:
        """It coasts through the last `skipped` stretches."""
        begin, walk_on = self.steps - skipped * self.shape.stretch, self._walker(CHEAT)

        def go(loop: InnerLoop, start: Point, first: int, last: int) -> None:
            (self._coast if first >= begin else walk_on)(loop, start, first, last)

        return self.record(CHEAT, self.loop, self.theta, go)

    def one_step_of_each_skipped(self) -> Work:
        """It coasts through the last step of each stretch."""
        walk_on = self._walker(CHEAT)

        def go(loop: InnerLoop, start: Point, first: int, last: int) -> None:
            if last - first > 1:
                walk_on(loop, start, first, last - 1)
            self._coast(loop, start, last - 1, last)

        return self.record(CHEAT, self.loop, self.theta, go)

    def foretold(self) -> Work:
        """It coasts on a memory so large that no gradient would show beside it."""
        honest = self.memory_before
        sizes = {"exp_avg": 1e12, "exp_avg_sq": 1e24}
        big = {name: np.full_like(values, sizes.get(name, 0.0)) for name, values in honest.vectors.items()}
        self.memory_before = InnerState(honest.steps, big)
        try:
            return self.record(CHEAT, self.loop, self.theta, self._coast)
        finally:
            self.memory_before = honest

    def _noise(self) -> Vector:
        honest = self.works[CHEAT].offer
        noise = np.random.default_rng(self.round).standard_normal(len(honest), dtype=np.float32)
        return (noise * np.float32(np.linalg.norm(honest) / np.linalg.norm(noise))).astype(np.float32)


def _on(step: int, steps: int, mean_loss: object) -> bool:
    return True


# What the table calls it → how the cheat works. Those of the list first.
CHEATS: dict[str, Callable[[Swarm], Work]] = {
    "no work: coasts on its momentum": Swarm.no_work,
    "no work: its own last offer again, a made-up trail": Swarm.own_last_offer,
    "half of each batch": Swarm.half_batch,
    "another's tensor, a made-up trail": Swarm.copied_tensor,
    "another's tensor and its trail": Swarm.copied_trail,
    "stale parameters: all steps from the state before": Swarm.stale_parameters,
    "random tensor of the right norm, a made-up trail": Swarm.random_tensor,
    "random tensor of the right norm, after all the work": Swarm.random_tensor_after_work,
    "the last stretch skipped": lambda swarm: swarm.last_stretches_skipped(1),
    "the last two stretches skipped": lambda swarm: swarm.last_stretches_skipped(2),
    "the last step of each stretch skipped": Swarm.one_step_of_each_skipped,
    "no work: a memory that foretells the steps": Swarm.foretold,
}
