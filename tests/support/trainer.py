"""Trainer processes for tests: small recipes, rounds, and what a process holds open."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import psutil

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.models.recipe import Recipe, load_recipe, run_id
from ubcp_p2p.training.process import Offer, Progress, TrainerProcess, TrainerSpec
from ubcp_p2p.training.state import Vector, vector

ME, OTHER = b"peer-me", b"peer-other"


def recipe(*, rounds: dict[str, object] | None = None, inner: dict[str, object] | None = None) -> Recipe:
    base = load_recipe("digits-tiny")
    return base.model_copy(
        update={
            "rounds": base.rounds.model_copy(update=rounds or {}),
            "inner": base.inner.model_copy(update=inner or {}),
        }
    )


LONG = recipe(rounds={"local_steps": 100_000, "total": 100})  # minutes: a train that has to be ended


def spec_of(chosen: Recipe, folder: Path, **changes: object) -> TrainerSpec:
    fields: dict[str, object] = {
        "recipe_toml": chosen.to_toml(),
        "run_id": run_id("test", chosen.hash()),
        "peer": ME,
        "device": "cpu",
        "threads": 1,
        "checkpoint_dir": folder,
        "checkpoints_kept": 2,
    }
    return TrainerSpec(**{**fields, **changes})  # type: ignore[arg-type]


def ignore(progress: Progress) -> None:
    """For tests that do not look at progress."""


async def first_progress(trainer: TrainerProcess, round: int) -> tuple[asyncio.Task[Offer], Progress]:
    """A train that has begun for sure."""
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[Progress] = loop.create_future()

    def on_progress(progress: Progress) -> None:
        if not begun.done():
            begun.set_result(progress)

    task = loop.create_task(trainer.train(round, [ME], on_progress))

    def on_end(done: asyncio.Task[Offer]) -> None:
        if not begun.done():
            begun.set_exception(done.exception() or AssertionError("no progress was told"))

    task.add_done_callback(on_end)
    return task, await begun


async def one_round(trainer: TrainerProcess, extra_offers: int = 0) -> Offer:
    offer = await trainer.train(trainer.round, [ME, OTHER], ignore)
    with offer.buffer:
        await trainer.apply([(offer.buffer, offer.weight)] * (1 + extra_offers))
        await trainer.commit()
    return offer


def copy_of(buffer: SharedBuffer, change: Callable[[Vector], object]) -> SharedBuffer:
    copied = SharedBuffer.create(buffer.size)
    copied.view[:] = buffer.view
    change(vector(copied))
    return copied


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def memfd_maps(pid: int) -> int:
    return Path(f"/proc/{pid}/maps").read_text().count("memfd:ubcp")
