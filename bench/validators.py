"""Validators that differ from the peer they check: for bench/verification.py.

Each is a function (claim, opening) → where the stretch leads. `Oracle` shares no code with the trainer's inner loop: it
takes torch's autograd in float64 and steps by the formulas of the papers.

Run as a program, `python bench/validators.py FOLDER RECIPE_TOML`, it checks the openings in FOLDER and prints one
finding and its distance a line: for processors that torch can only be told to imitate before it is loaded
(ATEN_CPU_CAPABILITY).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.models.shards import shard, step_indices
from ubcp_p2p.models.task import Task, build_task
from ubcp_p2p.training.compare import compare, fades
from ubcp_p2p.training.inner import InnerLoop, rng, round_seed, set_up_torch
from ubcp_p2p.training.opening import Opening
from ubcp_p2p.training.points import Point
from ubcp_p2p.training.redo import Redone, redo
from ubcp_p2p.training.shape import shape_of
from ubcp_p2p.training.state import InnerState
from ubcp_p2p.training.trail import marks
from ubcp_p2p.training.verdict import Claim

CPU = torch.device("cpu")
Validator: TypeAlias = Callable[[Claim, Opening], Redone]


class Oracle:
    """Redoes a stretch of AdamW or SGD in float64, tensor by tensor."""

    def __init__(self, recipe: Recipe, task: Task) -> None:
        self._recipe, self._task, self._shape = recipe, task, shape_of(recipe)
        self._model = task.model().double()
        self._parameters = list(self._model.parameters())

    def __call__(self, claim: Claim, opening: Opening) -> Redone:
        start, _ = opening.ends(self._shape.parameters)
        inner, rounds = self._recipe.inner, self._recipe.rounds
        theta = self._split(start.theta)
        memory = {name: self._split(values) for name, values in start.memory.vectors.items()}
        steps = marks(claim.steps, self._shape.stretch)
        mine = shard(claim.run_id, claim.round, claim.peer, opening.members, self._task.n_train_items)
        seed = round_seed(claim.run_id, claim.round, claim.peer)
        taken, losses = start.memory.steps, []
        for step in range(steps[opening.index], steps[opening.index + 1]):
            x, y = self._task.batch(step_indices(mine, step, inner.batch), rng(seed, step))
            loss, gradients = self._gradients(theta, x.double() if x.is_floating_point() else x, y)
            losses.append(loss)
            lr = self._recipe.learning_rate(claim.round * rounds.local_steps + step)
            taken += 1
            for i, gradient in enumerate(gradients):
                if theta[i].ndim >= 2:
                    theta[i] *= 1 - lr * inner.weight_decay
                if inner.optimizer == "sgd":
                    theta[i] -= lr * gradient
                    continue
                first, second = inner.betas
                m, v = memory["exp_avg"], memory["exp_avg_sq"]
                m[i] = first * m[i] + (1 - first) * gradient
                v[i] = second * v[i] + (1 - second) * gradient**2
                theta[i] -= lr * (m[i] / (1 - first**taken)) / ((v[i] / (1 - second**taken)).sqrt() + 1e-8)
        end = Point(_joined(theta), InnerState(taken, {name: _joined(parts) for name, parts in memory.items()}))
        return Redone(end, sum(losses) / len(losses))

    def _gradients(self, theta: list[Tensor], x: Tensor, y: Tensor) -> tuple[float, list[Tensor]]:
        with torch.no_grad():
            for parameter, values in zip(self._parameters, theta, strict=True):
                parameter.copy_(values)
        self._model.zero_grad()
        loss = self._task.loss(self._model, x, y)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._parameters]
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        bound = self._recipe.inner.clip_norm
        scale = min(1.0, bound / (norm + 1e-6)) if bound else 1.0
        return float(loss.detach()), [gradient * scale for gradient in gradients]

    def _split(self, values: Any) -> list[Tensor]:
        whole, parts, begin = torch.from_numpy(np.asarray(values, dtype=np.float64)), [], 0
        for parameter in self._parameters:
            parts.append(whole[begin : begin + parameter.numel()].view(parameter.shape).clone())
            begin += parameter.numel()
        return parts


def _joined(parts: list[Tensor]) -> Any:
    return torch.cat([part.reshape(-1) for part in parts]).numpy().astype(np.float32)


def redoing(recipe: Recipe, task: Task, device: torch.device = CPU, *, bf16: bool = False) -> Validator:
    """One with this program's inner loop on `device`; bf16: it multiplies in bfloat16."""
    loop, shape = InnerLoop(recipe, task, device, bf16=bf16), shape_of(recipe)
    return lambda claim, opening: redo(loop, claim, opening, shape)


def in_process(recipe: Recipe, task: Task) -> dict[str, Validator]:
    """The validators that one process can be on a CPU: name → function."""
    same = redoing(recipe, task)

    def threads(claim: Claim, opening: Opening) -> Redone:
        torch.set_num_threads(2)
        try:
            return same(claim, opening)
        finally:
            torch.set_num_threads(1)

    def plain(claim: Claim, opening: Opening) -> Redone:
        with torch.backends.mkldnn.flags(enabled=False):
            return same(claim, opening)

    return {
        "float32, the same thread count": same,
        "float32, 2 threads": threads,
        "float32, without oneDNN": plain,
        "float64, code of its own": Oracle(recipe, task),
    }


def save(folder: Path, number: int, claim: Claim, opening: Opening) -> None:
    """Leave an opening for the program below."""
    (folder / f"{number}.opening").write_bytes(opening.to_bytes())
    fields = {name: value.hex() if isinstance(value, bytes) else value for name, value in claim._asdict().items()}
    (folder / f"{number}.claim").write_text(json.dumps(fields))


def main(folder: Path, recipe_toml: Path) -> None:
    set_up_torch(1)
    recipe = Recipe.from_toml(recipe_toml.read_text(), str(recipe_toml))
    shape, rule = shape_of(recipe), fades(recipe.inner.optimizer, recipe.inner.betas)
    loop = InnerLoop(recipe, build_task(recipe), CPU, bf16=False)
    for path in sorted(folder.glob("*.claim")):
        fields: dict[str, Any] = json.loads(path.read_text())
        values: dict[str, Any] = {k: bytes.fromhex(v) if isinstance(v, str) else v for k, v in fields.items()}
        claim = Claim(**values)
        opening = Opening.from_bytes(path.with_suffix(".opening").read_bytes(), shape)
        before, claimed = opening.ends(shape.parameters)
        verdict = compare(before, claimed, *redo(loop, claim, opening, shape), rule, shape.parameters)
        print(json.dumps([verdict.finding, verdict.distance_ppm]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
