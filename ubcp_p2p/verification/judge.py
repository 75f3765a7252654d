"""Judges an opening in a process of its own: a trainer, sandboxed, started for this and ended. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.training.process import TrainerProcess, TrainerSpec
from ubcp_p2p.training.sandbox.values import SandboxSpec
from ubcp_p2p.training.verdict import Claim, Verdict


class Judgement(NamedTuple):
    """A verdict, and on which data it was found: on other data honest work looks like a lie."""

    verdict: Verdict
    data_name: str
    data_sha256: str
    notes: tuple[str, ...]


async def judge_apart(
    recipe: Recipe, claim: Claim, members: tuple[bytes, ...] | None, opening: bytes, folder: Path,
    *, device: str = "cpu", threads: int = 0, sandbox: SandboxSpec = SandboxSpec(),  # noqa: B008  # frozen
) -> Judgement:  # fmt: skip
    """See TrainerProcess.check. folder: for the process, which keeps nothing in it.

    Raises ConfigError where the recipe's data or the device is not to be had, LocalIOError, TrainingError.
    """
    spec = TrainerSpec(
        recipe_toml=recipe.to_toml(),
        run_id=claim.run_id,
        peer=claim.peer,
        device=device,
        threads=threads,
        checkpoint_dir=folder,
        checkpoints_kept=1,
        sandbox=sandbox,
    )
    async with await TrainerProcess.start(spec, resume=False) as trainer:
        verdict = await trainer.check(claim, members, opening)
        ready = trainer.ready
        return Judgement(verdict, ready.data_name, ready.data_sha256, ready.notes)
