"""The comparison: one peer alone, with the same recipe, seed and number of local steps as each peer of the swarm.

Alone, the outer optimizer has nobody to average with, so it may help or hinder. Both ways are trained, side by side:
with the recipe's own outer optimizer, and without any (plain training); the better one is what the swarm must beat.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ubcp_p2p.models.recipe import OuterConfig, Recipe, run_id
from ubcp_p2p.peer.demo.board import HeldOut
from ubcp_p2p.training.process import Progress, TrainerProcess, TrainerSpec

OnSteps = Callable[[str, int], None]


@dataclass(frozen=True)
class Alone:
    """How one way of training alone went: the held-out losses from round 0 to the last."""

    way: str
    curve: tuple[HeldOut, ...]

    @property
    def last(self) -> HeldOut:
        return self.curve[-1]


def ways(recipe: Recipe) -> dict[str, Recipe]:
    """The ways to train `recipe` alone, by name."""
    plain = recipe.model_copy(update={"outer": OuterConfig(optimizer="sgd", lr=1.0)})
    own = f"{recipe.outer.optimizer} outer steps"
    return {own: recipe, "plain training": plain} if recipe.outer != plain.outer else {"plain training": plain}


async def train_alone(recipe: Recipe, directory: Path, device: str, on_steps: OnSteps) -> list[Alone]:
    """Train each way in a trainer process of its own, all at once. on_steps(way, local steps done).

    Raises what TrainerProcess raises. The processes are gone at the end, also after a cancel.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_train(way, variant, directory / f"alone-{index}", device, on_steps))
                for index, (way, variant) in enumerate(ways(recipe).items())
            ]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None  # one of them in words is what a person can use
    return [task.result() for task in tasks]


async def _train(way: str, recipe: Recipe, directory: Path, device: str, on_steps: OnSteps) -> Alone:
    peer = hashlib.sha256(b"the peer of ubcp demo that trains alone").digest()
    spec = TrainerSpec(
        recipe_toml=recipe.to_toml(),
        run_id=run_id("alone", recipe.hash()),
        peer=peer,
        device=device,
        threads=1,
        checkpoint_dir=directory,
        checkpoints_kept=1,
    )
    steps, total, every = recipe.rounds.local_steps, recipe.rounds.total, recipe.evaluation.every

    def progress(seen: Progress) -> None:
        on_steps(way, seen.round * steps + seen.step)

    async with await TrainerProcess.start(spec, resume=False) as trainer:
        curve = [await _measure(trainer)]
        for round_ in range(total):
            offer = await trainer.train(round_, [peer], progress)
            with offer.buffer:
                await trainer.apply([(offer.buffer, offer.weight)])
            await trainer.commit()
            if round_ + 1 == total or (every and (round_ + 1) % every == 0):
                curve.append(await _measure(trainer))
    return Alone(way, tuple(curve))


async def _measure(trainer: TrainerProcess) -> HeldOut:
    result = await trainer.evaluate()
    return HeldOut(trainer.round, result.loss, result.stderr)
