"""Checks of work: which cheats they find, whom they accuse falsely, what they cost (docs/verification.md).

Every step is a real one of the shipped recipes. A check opens one stretch of a round; all stretches are checked here,
and the share in which a lie is found is the probability that a drawn one finds it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before torch: what a GPU computes is then deterministic

import torch
import verification_gpu
from cheats import CPU, PEERS, Swarm
from checks import (
    CHEATING,
    Q_PPM,
    Honest,
    Runs,
    cheating,
    cheats_table,
    gpt,
    honest,
    honest_alone,
    honest_table,
    part_of,
)
from harness import BENCH, BenchError, Figure, Table, add_output_options, machine, number, publish, say
from validators import in_process, redoing

from ubcp_p2p.training.ends import LEAN
from ubcp_p2p.training.inner import InnerLoop, set_up_torch
from ubcp_p2p.training.recorder import Recorder
from ubcp_p2p.training.verdict import PPM, Finding
from ubcp_p2p.training.witness import Witness

PAGE = BENCH.parent / "docs" / "verification.md"
PARTS = ("honest", "cheats", "cost", "gpu")
PARAMETERS_COST = {"1M": (128, 5, 64, 8), "1M, twice the context and batch": (128, 5, 128, 16)}

# Honest rounds are taken from whole runs, so that every learning rate is met; and from one that goes on long after its
# loss has come near 0, where gradients are tiny beside what the optimizer remembers.
HONEST = (
    Runs("digits-tiny", 8, 50),
    Runs("fashion-cnn", 1, 12),
    Runs("shakespeare-nano", 1, 48),
    Runs("digits-tiny", 1, 500, 5, "digits-tiny, long after it has learnt all", {"local_steps": 50, "total": 2000}),
)


def honests(*, quick: bool) -> list[Honest]:
    """Small networks before all validators, one of more than 5 million parameters before one in bfloat16."""
    found = []
    for spec in (Runs("digits-tiny", 1, 4),) if quick else HONEST:
        with tempfile.TemporaryDirectory(prefix="ubcp-bench-") as directory:
            found.append(honest(spec, in_process, folder=Path(directory)))
            found[-1].elsewhere(Path(directory))
    if not quick:
        name, recipe = "GPT of 5.6M parameters", gpt(256, 7, 64, 8, 50)
        found.append(
            honest_alone(
                name, recipe, 2, lambda recipe, task: {"bfloat16 against float32": redoing(recipe, task, bf16=True)}
            )
        )
    return found


# -- cost -------------------------------------------------------------------------------------------------------------


def cost(name: str, shape: tuple[int, int, int, int], rounds: int) -> dict[str, Any]:
    """CPU seconds of local steps, of the recording among them, and of one check; bytes of openings."""
    recipe = gpt(*shape, 50)
    swarm = Swarm(recipe, "cost")
    witness = Witness(recipe, InnerLoop(recipe, swarm.task, CPU))
    swarm.peers = PEERS[:1]
    rows: dict[str, Any] = {
        "name": name,
        "parameters": recipe.parameters(),
        "round_s": [],
        "record_s": [],
        "check_s": [],
    }
    for kind in ("opening", "lean", "part"):
        rows[f"{kind}_bytes"] = []
    for number_ in range(rounds + 1):  # the first warms up
        spent = 0.0

        class Timed(Recorder):
            """The recorder, with a clock."""

            def __init__(self, *arguments: Any) -> None:
                nonlocal spent
                began = time.process_time()
                super().__init__(*arguments)
                spent += time.process_time() - began

            def after_step(self, steps: int) -> None:
                nonlocal spent
                began = time.process_time()
                super().after_step(steps)
                spent += time.process_time() - began

            def finish(self, *arguments: Any) -> Any:
                nonlocal spent
                began = time.process_time()
                trail = super().finish(*arguments)
                trail.hash()
                spent += time.process_time() - began
                return trail

        swarm.recorder = Timed
        began = time.process_time()
        swarm.advance()
        round_s = time.process_time() - began
        if not number_:
            continue
        rows["round_s"].append(round_s)
        rows["record_s"].append(spent)
        work = swarm.works[PEERS[0]]
        for index in range(work.stretches()):
            began = time.process_time()
            opening = work.open(index)
            assert opening is not None
            data = opening.to_bytes()
            verdict = witness.check(work.claim, work.members, data)
            rows["check_s"].append(time.process_time() - began)
            rows["opening_bytes"].append(len(data))
            rows["lean_bytes"].append(len(opening.as_asked(LEAN).to_bytes()))
            rows["part_bytes"].append(len(part_of(opening).to_bytes()))
            assert verdict.finding == Finding.HONEST, verdict
        say(f"{name}: round {rows['round_s'][-1]:.2f} s, recording {spent:.3f} s, checks {rows['check_s'][-5:]}")
    return rows


def cost_table(rows: Sequence[dict[str, Any]]) -> Table:
    cells = []
    for row in rows:
        shares = Figure.of([100 * r / s for r, s in zip(row["record_s"], row["round_s"], strict=True)])
        check = Figure.of(row["check_s"])
        round_s = Figure.of(row["round_s"])
        cells.append(
            (
                f"{row['parameters']:,}", row["name"], round_s.text(), shares.text(2), check.text(),
                number(100 * check.median / round_s.median * Q_PPM / PPM, 2),
                number(max(row["opening_bytes"]) / 1e6), number(row["parameters"] * 4 / 1e6),
            )
        )  # fmt: skip
    return Table(
        "Cost at H = 50, CPU seconds of one thread",
        (
            "parameters", "network", "local steps, s", "recording, % of that", "one check, s", "checks at q = 2 %, %",
            "largest opening, MB", "offer, MB",
        ),
        tuple(cells),
    )  # fmt: skip


def measure(parts: Sequence[str], *, quick: bool) -> dict[str, Any]:
    """The parts that need no GPU, as one document."""
    document: dict[str, Any] = {"benchmark": "verification", "machine": machine(), "cheats": [], "cost": []}
    if "cost" in parts and not quick:
        document["cost"] = [cost(name, shape, 5) for name, shape in PARAMETERS_COST.items()]
    if "cheats" in parts:
        at = {"digits-tiny": (2,)} if quick else CHEATING
        document["cheats"] = [row for name, rounds in at.items() for row in cheating(name, rounds)]
    document["honest"] = [found.row() for found in honests(quick=quick)] if "honest" in parts else []
    return document


def tables_of(document: dict[str, Any]) -> list[Table]:
    """The tables of a document, of this machine or another."""
    made = {"honest": honest_table, "cheats": cheats_table, "cost": cost_table}
    tables = [table(document[part]) for part, table in made.items() if document.get(part)]
    if "device" in document:
        tables[:1] = [replace(table, note=f"{table.note} The GPU: {document['device']}.") for table in tables[:1]]
    return tables


def documents(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What to publish: a saved document, or what is measured here."""
    if chosen.read:
        yield json.loads(chosen.read.read_text())
        return
    set_up_torch(1)
    if set(chosen.only) - {"gpu"}:
        yield measure(chosen.only, quick=chosen.quick)
    if "gpu" in chosen.only and not torch.cuda.is_available():
        say("no GPU here that this torch can use: what is measured on one is left out")
    elif "gpu" in chosen.only:
        yield verification_gpu.measure(torch.device("cuda", 0), chosen.jobs, quick=chosen.quick)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--quick", action="store_true", help="a smoke test: few rounds of the smallest recipe")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the GPU (part gpu)")
    parser.add_argument("--from", dest="read", type=Path, metavar="FILE", help="make tables of a saved document")
    add_output_options(parser)
    chosen = parser.parse_args()
    try:
        for document in documents(chosen):
            name, tables = document["benchmark"], tables_of(document)
            publish(name, document, tables, markdown=chosen.markdown, docs=chosen.docs, page=PAGE)
    except BenchError as error:
        sys.exit(f"bench: error: {error}")


if __name__ == "__main__":
    main()
