"""What the trainer's sandbox costs: its start and a round, with and without, in turns; and the same bits at the end.

`python bench/sandbox.py [--repeat 7] [--markdown]`; all through the daemon's own interface.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import uvloop
from harness import BenchError, Figure, Table, cpu_s, machine, publish, say

from ubcp_p2p.models.recipe import Recipe, load_recipe, run_id
from ubcp_p2p.training.process import TrainerProcess, TrainerSpec
from ubcp_p2p.training.sandbox.values import Mode, SandboxSpec

RECIPE = "shakespeare-nano"
MODES: tuple[Mode, ...] = ("off", "auto")


async def measure(recipe: Recipe, mode: Mode) -> dict[str, Any]:
    """Seconds of one start and one round, by the clock and of the trainer's CPU time, and the state's hash."""
    with tempfile.TemporaryDirectory(prefix="ubcp-bench-") as folder:
        spec = TrainerSpec(
            recipe.to_toml(), run_id("bench", recipe.hash()), b"me", "cpu", 1, Path(folder), 2, SandboxSpec(mode)
        )
        began_s = time.perf_counter()
        async with await TrainerProcess.start(spec, resume=False) as trainer:
            started_s = time.perf_counter()
            process = psutil.Process(trainer.pid)
            start_cpu_s = cpu_s(process.pid)
            offer = await trainer.train(0, [b"me"], lambda progress: None)
            with offer.buffer:
                await trainer.apply([(offer.buffer, offer.weight)])
                await trainer.commit()
            layers = [layer.name for layer in trainer.ready.sandbox if layer.active]
            return {
                "start_s": started_s - began_s, "start_cpu_s": start_cpu_s, "round_s": time.perf_counter() - started_s,
                "round_cpu_s": cpu_s(process.pid) - start_cpu_s, "rss_mib": process.memory_info().rss / 2**20,
                "hash": trainer.state_hash.hex(), "layers": layers,
            }  # fmt: skip


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    recipe = load_recipe(RECIPE)
    seen: dict[Mode, list[dict[str, Any]]] = {mode: [] for mode in MODES}
    for turn in range(options.repeat):
        say(f"turn {turn + 1} of {options.repeat} …")
        for mode in MODES if turn % 2 else MODES[::-1]:
            seen[mode].append(await measure(recipe, mode))
    if len({row["hash"] for rows in seen.values() for row in rows}) != 1:
        raise BenchError("the states differ")
    names = ("start_s", "start_cpu_s", "round_s", "round_cpu_s", "rss_mib")
    figures = {mode: {name: Figure.of([row[name] for row in rows]) for name in names} for mode, rows in seen.items()}
    rows = tuple(
        (", ".join(seen[mode][0]["layers"]) or "off", *(figures[mode][name].text() for name in names)) for mode in MODES
    )
    columns = ("layers", "start s", "start, CPU s", "round s", "round, CPU s", "RSS MiB")
    table = Table(f"Trainer of {RECIPE}, one thread, {options.repeat} turns", columns, rows, "The states are equal.")
    publish("sandbox", {"machine": machine(), "results": seen}, [table], markdown=options.markdown)


if __name__ == "__main__":
    uvloop.run(main())
