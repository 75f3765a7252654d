"""A GPU against a CPU: honest and cheating peers of either before validators of the other (docs/verification.md).

`verification.py --only gpu` runs it. What can go side by side does, in processes that share the GPU; what each has
measured is kept as soon as it ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeAlias

import torch
from cheats import CPU
from checks import CHEATING, Runs, cheating, gpt, honest, honest_alone
from harness import BenchError, keep, machine, say
from validators import Oracle, Validator, redoing

from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.models.task import Task
from ubcp_p2p.processes import die_with_parent
from ubcp_p2p.training.inner import describe, set_up_torch

NAME = "verification_gpu"
LONG = Runs("digits-tiny", 1, 500, 5, "digits-tiny, long after it has learnt all", {"local_steps": 50, "total": 2000})
LONG_GPU_ROUNDS = 150  # of them; a step on a GPU takes milliseconds, however small the network
DIGITS_RUNS, MEDIUM_RUNS = 6, 4
OTHERS = (Runs("fashion-cnn", 1, 12), Runs("shakespeare-nano", 1, 16))
MEDIUM, LARGE = (256, 7, 64, 8, 50), (512, 8, 128, 8, 50)  # GPTs of 5.6M and 25M parameters
Part: TypeAlias = Callable[[], list[dict[str, Any]]]  # rows of one kind


# -- validators -------------------------------------------------------------------------------------------------------


def of_a_cpu(gpu: torch.device, recipe: Recipe, task: Task) -> dict[str, Validator]:
    """Who checks a small network that a CPU has trained."""
    return {"float32, GPU": redoing(recipe, task, gpu)}


def of_a_gpu(gpu: torch.device, recipe: Recipe, task: Task) -> dict[str, Validator]:
    """Who checks a small network that a GPU has trained."""
    return {
        "float32, the same GPU": redoing(recipe, task, gpu),
        "float32, CPU": redoing(recipe, task),
        "float64, code of its own, CPU": Oracle(recipe, task),
    }


def of_a_medium(gpu: torch.device, recipe: Recipe, task: Task) -> dict[str, Validator]:
    """Who checks a network that is large enough for bfloat16."""
    return {
        **of_a_large(gpu, recipe, task),
        "float32, CPU": redoing(recipe, task),
        "bfloat16, CPU": redoing(recipe, task, bf16=True),
    }


def of_a_large(gpu: torch.device, recipe: Recipe, task: Task) -> dict[str, Validator]:
    """Who checks a network that a CPU takes too long for."""
    return {"float32, GPU": redoing(recipe, task, gpu), "bfloat16, GPU": redoing(recipe, task, gpu, bf16=True)}


# -- parts ------------------------------------------------------------------------------------------------------------


def small(spec: Runs, gpu: torch.device, *, on_gpu: bool) -> list[dict[str, Any]]:
    """Honest peers of a shipped recipe."""
    if on_gpu:
        spec = spec._replace(name=f"{spec.name or spec.recipe}, trained on the GPU")
    validators = partial(of_a_gpu if on_gpu else of_a_cpu, gpu)
    return [honest(spec, validators, device=gpu if on_gpu else CPU).row()]


def medium(run: int, rounds: int, gpu: torch.device, *, on_gpu: bool) -> list[dict[str, Any]]:
    """An honest peer of the least network that a GPU multiplies in bfloat16."""
    name = "GPT of 5.6M parameters" + (", trained on the GPU in bfloat16" if on_gpu else "")
    device = gpu if on_gpu else CPU
    return [honest_alone(name, gpt(*MEDIUM), rounds, partial(of_a_medium, gpu), run=run, device=device).row()]


def large(rounds: int, gpu: torch.device) -> list[dict[str, Any]]:
    """An honest peer of a larger network."""
    name = "GPT of 25M parameters, trained on the GPU in bfloat16"
    return [honest_alone(name, gpt(*LARGE), rounds, partial(of_a_large, gpu), device=gpu).row()]


def cheats(name: str, at: Sequence[int], gpu: torch.device) -> list[dict[str, Any]]:
    """Every cheat, done on a CPU and checked on the GPU."""
    return [{**row, "recipe": f"{name}, checked on the GPU"} for row in cheating(name, at, validator=gpu)]


def parts_of(gpu: torch.device, *, quick: bool) -> Iterator[tuple[str, Part]]:
    """(kind of its rows, function) of each; first what takes a GPU long, last what takes a CPU long."""
    if quick:
        for on_gpu in (False, True):
            yield "honest", partial(small, Runs("digits-tiny", 1, 4), gpu, on_gpu=on_gpu)
        yield "cheats", partial(cheats, "digits-tiny", (2,), gpu)
        return
    yield "honest", partial(small, LONG._replace(rounds=LONG_GPU_ROUNDS), gpu, on_gpu=True)
    yield "honest", partial(small, LONG, gpu, on_gpu=False)
    for name, at in reversed(CHEATING.items()):
        yield "cheats", partial(cheats, name, at, gpu)
    for on_gpu in (True, False):
        digits = (Runs("digits-tiny", 1, 50, first=run) for run in range(DIGITS_RUNS))
        for spec in (*OTHERS, *digits):
            yield "honest", partial(small, spec, gpu, on_gpu=on_gpu)
    yield "honest", partial(large, 4, gpu)
    for run in range(MEDIUM_RUNS):
        yield "honest", partial(medium, run, 2, gpu, on_gpu=True)
        yield "honest", partial(medium, run, 1, gpu, on_gpu=False)


# -- all of them ------------------------------------------------------------------------------------------------------


def measure(gpu: torch.device, jobs: int, *, quick: bool = False) -> dict[str, Any]:
    """All parts, as one document, in `jobs` processes. Raises BenchError for a part that failed, after the others."""
    document: dict[str, Any] = {
        "benchmark": NAME, "machine": machine(), "device": describe(gpu), "honest": [], "cheats": [],
    }  # fmt: skip
    failed: list[str] = []
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)) as pool:
        kinds = {pool.submit(part): kind for kind, part in parts_of(gpu, quick=quick)}
        for number, done in enumerate(as_completed(kinds), 1):
            _take(done, document[kinds[done]], failed)
            keep(NAME, document)
            say(f"part {number} of {len(kinds)} has ended")
    if failed:
        raise BenchError("; ".join(failed))
    return document


def _begin(parent: int) -> None:
    die_with_parent(parent)()
    set_up_torch(1)


def _take(done: Future[list[dict[str, Any]]], rows: list[dict[str, Any]], failed: list[str]) -> None:
    error = done.exception()
    if error is None:
        rows += done.result()
        rows.sort(key=lambda row: str(row["recipe"]))
    else:
        failed.append(f"{type(error).__name__}: {error}")
        say(f"a part failed: {failed[-1]}")
