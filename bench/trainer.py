"""What a trainer process costs: its start, memory, outer step, commit and checkpoint, by size of the offer.

`python bench/trainer.py [--mb 4 40] [--offers 4] [--repeat 5] [--markdown]`; all through the daemon's own interface.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import uvloop
from harness import Figure, Table, machine, publish, say

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.models.recipe import Recipe, load_recipe, run_id
from ubcp_p2p.training.process import TrainerProcess, TrainerSpec
from ubcp_p2p.training.state import vector

# A GPT of each size, as (width, layers): 4·P bytes come nearest to the megabytes asked for.
SHAPES = {4: (128, 5), 40: (384, 5), 400: (1024, 8)}


def recipe_of(megabytes: int) -> Recipe:
    """shakespeare-nano with a network whose offer has about that size, and rounds of two small steps."""
    base = load_recipe("shakespeare-nano")
    width, layers = SHAPES[megabytes]
    return base.model_copy(
        update={
            "model": base.model.model_copy(update={"width": width, "layers": layers}),
            "rounds": base.rounds.model_copy(update={"local_steps": 2, "total": 100}),
            "inner": base.inner.model_copy(update={"warmup_steps": 0, "batch": 2}),
        }
    )


async def timed(call: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
    """Seconds that a call takes, and its result."""
    began = time.perf_counter()
    result = await call()
    return time.perf_counter() - began, result


async def measure(megabytes: int, offers: int, repeat: int) -> dict[str, Any]:
    """All figures of one size, in seconds and MiB."""
    recipe = recipe_of(megabytes)
    times: dict[str, list[float]] = {"apply_s": [], "commit_s": [], "checkpoint_s": []}
    with tempfile.TemporaryDirectory(prefix="ubcp-bench-") as folder:
        spec = TrainerSpec(recipe.to_toml(), run_id("bench", recipe.hash()), b"me", "cpu", 1, Path(folder), 2)
        start_s, trainer = await timed(lambda: TrainerProcess.start(spec, resume=False))
        async with trainer:
            process = psutil.Process(trainer.pid)
            memory = {"rss_start_mib": process.memory_info().rss / 2**20}
            rng = np.random.default_rng(0)
            buffers = [SharedBuffer.create(trainer.ready.offer_bytes) for _ in range(offers)]
            for buffer in buffers:
                vector(buffer)[:] = rng.standard_normal(trainer.ready.parameters, dtype=np.float32) * np.float32(1e-3)
            for _ in range(repeat):
                (await trainer.train(trainer.round, [], lambda progress: None)).buffer.close()
                times["apply_s"].append((await timed(lambda: trainer.apply([(b, 100) for b in buffers])))[0])
                times["commit_s"].append((await timed(trainer.commit))[0])
                times["checkpoint_s"].append((await timed(lambda: trainer.checkpoint({})))[0])
            for buffer in buffers:
                buffer.close()
            # RSS counts the state, which is shared memory, in full.
            memory["rss_mib"] = process.memory_info().rss / 2**20
    return {
        "megabytes": trainer.ready.offer_bytes / 1e6,
        "offers": offers,
        "start_s": start_s,
        **memory,
        **{name: vars(Figure.of(values)) for name, values in times.items()},
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, nargs="+", choices=sorted(SHAPES), default=[4, 40])
    parser.add_argument("--offers", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    facts = machine()
    results = []
    for megabytes in options.mb:
        say(f"{megabytes} MB …")
        results.append(await measure(megabytes, options.offers, options.repeat))
    rows = tuple(
        (
            f"{r['megabytes']:.1f} MB",
            f"{r['start_s']:.2f} s",
            f"{r['rss_start_mib']:.0f} MiB",
            f"{r['rss_mib']:.0f} MiB",
            *(Figure(**r[name]).text() for name in ("apply_s", "commit_s", "checkpoint_s")),
        )
        for r in results
    )
    columns = ("offer", "start", "RSS, ready", "RSS, after rounds", "apply s", "commit s", "checkpoint s")
    note = "AdamW inside, Nesterov outside; apply: finiteness of each offer, outer step, hash of the new state."
    table = Table(f"Trainer process, {options.offers} offers a round, one thread", columns, rows, note)
    publish("trainer", {"machine": facts, "results": results}, [table], markdown=options.markdown)


if __name__ == "__main__":
    uvloop.run(main())
