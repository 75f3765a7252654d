"""Measures local steps on each device: this machine's CPU, and its GPU in float32 and in bfloat16.

What it decides: whether bf16 pays for a network (`training.inner.bf16_pays`), and what a GPU brings. Rounds of each
device take turns, so that a machine whose speed drifts does not favour one.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as the trainer process sets it, to be deterministic

import torch
from harness import BenchError, Figure, Table, add_output_options, machine, number, publish, say

from ubcp_p2p.models.recipe import Recipe, load_recipe
from ubcp_p2p.models.task import build_task
from ubcp_p2p.training.inner import InnerLoop, describe, set_up_torch

PEER, RUN = b"\1" * 32, bytes(32)
# A GPT of each size, as (width, layers, context, batch): from the demo's to what a GPU is for.
GPTS = {"gpt-1m": (128, 5, 128, 16), "gpt-10m": (384, 6, 256, 16), "gpt-100m": (1024, 8, 512, 16)}
SHIPPED = ("digits-tiny", "fashion-cnn", "shakespeare-nano")
CPU_PARAMETERS_MAX = 20_000_000  # more take minutes a step on a CPU
STEPS = {"cpu": 3, "cuda": 20}
HEADS_OF = 64


@dataclass
class Way:
    """One recipe on one device in one precision."""

    name: str
    loop: InnerLoop
    steps: int
    step_s: list[float] = field(default_factory=list)
    loss: float = 0.0

    def round(self, number_: int) -> None:
        """One round of local steps, timed; the last parameters are read, which waits for the device."""
        started_s = time.perf_counter()
        result = self.loop.run(RUN, number_, PEER, (), lambda step, total, mean: step < self.steps)
        self.loop.read()
        self.step_s.append((time.perf_counter() - started_s) / result.steps)
        self.loss = result.loss


def recipe_of(name: str) -> Recipe:
    """A shipped recipe, or shakespeare-nano with a larger network."""
    if name not in GPTS:
        return load_recipe(name)
    width, layers, context, batch = GPTS[name]
    base = load_recipe("shakespeare-nano")
    model = {"width": width, "layers": layers, "context": context, "heads": max(2, width // HEADS_OF)}
    return base.model_copy(
        update={
            "model": base.model.model_copy(update=model),
            "inner": base.inner.model_copy(update={"batch": batch, "lr": 1e-3, "warmup_steps": 0}),
        }
    )


def measure(name: str, repeats: int) -> dict[str, Any]:
    """All ways of one recipe, in turns."""
    recipe = recipe_of(name)
    task = build_task(recipe)
    ways = []
    if recipe.parameters() <= CPU_PARAMETERS_MAX:
        ways.append(Way("cpu", InnerLoop(recipe, task, torch.device("cpu")), STEPS["cpu"]))
    if torch.cuda.is_available():
        cuda = torch.device("cuda", 0)
        for way, bf16 in (("cuda, float32", False), ("cuda, bf16", True)):
            ways.append(Way(way, InnerLoop(recipe, task, cuda, bf16=bf16), STEPS["cuda"]))
    for repeat in range(repeats + 1):  # the first warms up
        for way in ways:
            way.round(repeat)
    for way in ways:
        way.step_s.pop(0)
        say(f"{name}, {way.name}: {1000 * Figure.of(way.step_s).median:.2f} ms a step")
    return {
        "recipe": name, "parameters": recipe.parameters(), "batch": recipe.inner.batch,
        "ways": {way.name: {"step_s": way.step_s, "loss": way.loss} for way in ways},
    }  # fmt: skip


def table_of(rows: list[dict[str, Any]], devices: str) -> Table:
    """Milliseconds a step, and how many times faster the GPU is."""
    made = []
    for row in rows:
        ways = {name: Figure.of([1000 * s for s in way["step_s"]]) for name, way in row["ways"].items()}
        cells = [ways[name].text() if name in ways else "" for name in ("cpu", "cuda, float32", "cuda, bf16")]
        ratios = ["", ""]
        if "cuda, bf16" in ways:
            ratios[1] = f"{number(ways['cuda, float32'].median / ways['cuda, bf16'].median, 2)}×"
            if "cpu" in ways:
                best = min(ways["cuda, float32"].median, ways["cuda, bf16"].median)
                ratios[0] = f"{number(ways['cpu'].median / best, 2)}×"
        made.append((row["recipe"], f"{row['parameters']:,}", str(row["batch"]), *cells, *ratios))
    columns = ("recipe", "parameters", "batch", "cpu", "cuda, float32", "cuda, bf16", "cpu ÷ cuda", "float32 ÷ bf16")
    return Table("Local steps, ms each: median (least–greatest)", columns, tuple(made), devices)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the shipped recipes alone")
    parser.add_argument("--repeat", type=int, default=5)
    add_output_options(parser)
    chosen = parser.parse_args()
    set_up_torch(0)
    facts = machine()
    names = SHIPPED if chosen.quick else (*SHIPPED, *GPTS)
    rows = [measure(name, chosen.repeat) for name in names]
    devices = describe(torch.device("cpu"))
    devices += "; " + (describe(torch.device("cuda", 0)) if torch.cuda.is_available() else "no CUDA device here")
    document = {"benchmark": "device", "machine": facts, "devices": devices, "rows": rows}
    try:
        publish("device", document, [table_of(rows, devices)], markdown=chosen.markdown, docs=chosen.docs)
    except BenchError as error:
        sys.exit(f"bench: error: {error}")


if __name__ == "__main__":
    main()
