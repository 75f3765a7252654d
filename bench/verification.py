"""Checks of work: which cheats they find, whom they accuse falsely, what they cost (docs/verification.md).

Every step is a real one of the shipped recipes. A check opens one stretch of a round; all stretches are checked here,
and the share in which a lie is found is the probability that a drawn one finds it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cheats import CHEATS, CPU, PEERS, Swarm, Work
from harness import BENCH, BenchError, Figure, Table, add_output_options, machine, number, publish, say
from validators import bf16, in_process, save

from ubcp_p2p.models.recipe import Recipe, load_recipe
from ubcp_p2p.models.task import build_task
from ubcp_p2p.training.compare import compare, fades, tolerance_ppm
from ubcp_p2p.training.inner import InnerLoop, set_up_torch
from ubcp_p2p.training.opening import Opening
from ubcp_p2p.training.recorder import Recorder
from ubcp_p2p.training.verdict import PPM, Finding
from ubcp_p2p.training.witness import Witness

PAGE = BENCH.parent / "docs" / "verification.md"
Q_PPM = 20_000  # the audit rate of the last column: 2 %
PROCESSORS = {"float32, AVX2 processor": "avx2", "float32, processor without SIMD": "default"}
CHEATING = {"digits-tiny": (3, 12, 25, 37, 49), "shakespeare-nano": (3, 24, 47)}
PARAMETERS_COST = {"1M": (128, 5, 64, 8), "1M, twice the context and batch": (128, 5, 128, 16)}


class Runs(NamedTuple):
    """Honest runs. every: rounds of which one is checked."""

    recipe: str
    runs: int
    rounds: int
    every: int = 1
    name: str = ""
    changes: Mapping[str, int] = {}  # of [rounds]


# Honest rounds are taken from whole runs, so that every learning rate is met; and from one that goes on long after its
# loss has come near 0, where gradients are tiny beside what the optimizer remembers.
HONEST = (
    Runs("digits-tiny", 8, 50),
    Runs("fashion-cnn", 1, 12),
    Runs("shakespeare-nano", 1, 48),
    Runs("digits-tiny", 1, 500, 5, "digits-tiny, long after it has learnt all", {"local_steps": 50, "total": 2000}),
)


def gpt(width: int, layers: int, context: int, batch: int, local_steps: int) -> Recipe:
    """shakespeare-nano with another network."""
    base = load_recipe("shakespeare-nano")
    model = {"width": width, "layers": layers, "context": context, "heads": max(2, width // 64)}
    return base.model_copy(
        update={
            "model": base.model.model_copy(update=model),
            "inner": base.inner.model_copy(update={"batch": batch, "lr": 1e-3, "warmup_steps": 0}),
            "rounds": base.rounds.model_copy(update={"local_steps": local_steps}),
        }
    )


# -- honest peers -----------------------------------------------------------------------------------------------------


class Honest:
    """Distances of honest peers by validator, and how many were accused, or not paid though nobody accused them."""

    def __init__(self, name: str, recipe: Recipe) -> None:
        self.name, self.recipe = name, recipe
        self.allowed = tolerance_ppm(recipe.parameters())
        self.distances: dict[str, list[int]] = {}
        self.accused: Counter[str] = Counter()
        self.drowned: Counter[str] = Counter()
        self.rounds = 0
        self._rule = fades(recipe.inner.optimizer, recipe.inner.betas)

    def add(self, validator: str, finding: str, apart: int) -> None:
        self.distances.setdefault(validator, []).append(apart)
        self.accused[validator] += finding not in (Finding.HONEST, Finding.DROWNED)
        self.drowned[validator] += finding == Finding.DROWNED

    def check(self, work: Work, index: int, validators: dict[str, Any]) -> Opening:
        """One opened stretch before every validator."""
        opening = work.open(index)
        assert opening is not None
        before, claimed = opening.ends(self.recipe.parameters())
        for name, redo in validators.items():
            redone = redo(work.claim, opening)
            verdict = compare(before, claimed, *redone, self._rule, self.recipe.parameters())
            self.add(name, verdict.finding, verdict.distance_ppm)
        return opening

    def elsewhere(self, folder: Path) -> None:
        """What was saved in `folder`, before processes on other processors."""
        recipe_toml = folder / "recipe.toml"
        recipe_toml.write_text(self.recipe.to_toml())
        for validator, capability in PROCESSORS.items():
            done = subprocess.run(
                [sys.executable, str(BENCH / "validators.py"), str(folder), str(recipe_toml)],
                env={**os.environ, "ATEN_CPU_CAPABILITY": capability}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise BenchError(f"the validator {validator!r} failed: {done.stderr[-1000:]}")
            for line in done.stdout.splitlines():
                finding, apart = json.loads(line)
                self.add(validator, finding, apart)


def honest(spec: Runs) -> Honest:
    """All peers of whole runs; one stretch of each checked round, in turns."""
    recipe = load_recipe(spec.recipe)
    recipe = recipe.model_copy(update={"rounds": recipe.rounds.model_copy(update=dict(spec.changes))})
    found = Honest(spec.name or spec.recipe, recipe)
    with tempfile.TemporaryDirectory(prefix="ubcp-bench-") as directory:
        for run in range(spec.runs):
            swarm = Swarm(recipe, f"honest {run}")
            validators = in_process(recipe, swarm.task)
            for round_ in range(spec.rounds):
                swarm.advance()
                for peer in PEERS if round_ % spec.every == 0 else ():
                    work = swarm.works[peer]
                    opening = found.check(work, found.rounds % work.stretches(), validators)
                    save(Path(directory), found.rounds, work.claim, opening)
                    found.rounds += 1
            say(f"{found.name}: {found.rounds} honest rounds checked, accused {sum(found.accused.values())}")
        found.elsewhere(Path(directory))
    return found


def honest_bf16(rounds: int) -> Honest:
    """A network of more than 5 million parameters, where some peers multiply in bfloat16."""
    recipe = gpt(256, 7, 64, 8, 50)
    found = Honest("GPT of 5.6M parameters", recipe)
    swarm = Swarm(recipe, "honest bf16")
    validators = {"bfloat16 against float32": bf16(recipe, swarm.task)}
    for _ in range(rounds):
        swarm.peers = PEERS[:1]
        swarm.advance()
        for index in range(swarm.works[PEERS[0]].stretches()):
            found.check(swarm.works[PEERS[0]], index, validators)
        found.rounds += 1
        say(f"{found.name}: {found.rounds} rounds, {found.distances}")
    return found


def honest_table(rows: Sequence[Honest]) -> Table:
    cells = []
    for row in rows:
        for validator, distances in row.distances.items():
            cells.append(
                (
                    row.name, validator, f"{len(distances)}", str(row.accused[validator]),
                    str(row.drowned[validator]), f"{max(distances)}", str(row.allowed),
                )
            )  # fmt: skip
    rounds = sum(row.rounds for row in rows)
    checks, accused = (
        sum(len(d) for row in rows for d in row.distances.values()),
        sum(sum(r.accused.values()) for r in rows),
    )
    return Table(
        "Honest peers before validators that compute otherwise",
        ("recipe", "validator", "checks", "accused", "not paid", "largest distance, ppm", "allowed, ppm"),
        tuple(cells),
        f"{rounds} honest rounds, {checks} checks, {accused} false accusations.",
    )


# -- cheats -----------------------------------------------------------------------------------------------------------


def cheating(name: str, at: Sequence[int]) -> list[dict[str, Any]]:
    """Every cheat in some rounds of a run, all stretches checked."""
    recipe = load_recipe(name)
    swarm = Swarm(recipe, "cheats")
    witness = Witness(recipe, InnerLoop(recipe, build_task(recipe), CPU))
    rows: dict[str, dict[str, Any]] = {
        cheat: {
            "recipe": name,
            "cheat": cheat,
            "rounds": 0,
            "stretches": 0,
            "found": 0,
            "rounds_found": 0,
            "findings": {},
            "least_ppm": None,
        }
        for cheat in CHEATS
    }
    for round_ in range(max(at) + 1):
        swarm.advance()
        if round_ not in at:
            continue
        for cheat, act in CHEATS.items():
            row, work = rows[cheat], act(swarm)
            row["rounds"] += 1
            before = row["found"]
            for index in range(work.stretches()):
                verdict = witness.check(work.claim, work.members, work.open(index).to_bytes())
                row["stretches"] += 1
                row["findings"][verdict.finding] = row["findings"].get(verdict.finding, 0) + 1
                if verdict.finding != Finding.HONEST:
                    row["found"] += 1
                    least = row["least_ppm"]
                    row["least_ppm"] = verdict.distance_ppm if least is None else min(least, verdict.distance_ppm)
            row["rounds_found"] += row["found"] > before
        say(f"{name}: cheats of round {round_} checked")
    return list(rows.values())


def cheats_table(rows: Sequence[dict[str, Any]]) -> Table:
    cells = []
    for row in rows:
        chance = row["found"] / row["stretches"]
        least = "" if row["least_ppm"] is None or row["least_ppm"] >= PPM**2 else f"{row['least_ppm']}"
        cells.append(
            (
                row["recipe"], row["cheat"], str(row["rounds"]), f"{row['found']} of {row['stretches']}",
                f"{chance:.2f}", f"{chance * Q_PPM / PPM:.4f}", f"{row['rounds_found'] / row['rounds']:.2f}", least,
            )
        )  # fmt: skip
    return Table(
        "Cheats: chance to be found",
        (
            "recipe", "cheat", "rounds", "stretches that show it", "per checked round", "× q = 2 %",
            "with all stretches opened", "least distance of those, ppm",
        ),
        tuple(cells),
    )  # fmt: skip


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
    rows["opening_bytes"], rows["lean_bytes"] = [], []
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
            rows["lean_bytes"].append(len(opening.lean().to_bytes()))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("honest", "cheats", "cost")
    parser.add_argument("--only", choices=parts, nargs="+", default=parts)
    parser.add_argument("--quick", action="store_true", help="a smoke test: few rounds of the smallest recipe")
    add_output_options(parser)
    chosen = parser.parse_args()
    set_up_torch(1)
    facts = machine()
    try:
        costs: list[dict[str, Any]] = []
        cheats: list[dict[str, Any]] = []
        honests: list[Honest] = []
        if chosen.quick:
            honests.append(honest(Runs("digits-tiny", 1, 4)))
            cheats += cheating("digits-tiny", (2,))
        else:
            if "cost" in chosen.only:
                costs += [cost(name, shape, 5) for name, shape in PARAMETERS_COST.items()]
            if "cheats" in chosen.only:
                cheats += [row for name, at in CHEATING.items() for row in cheating(name, at)]
            if "honest" in chosen.only:
                honests += [honest(spec) for spec in HONEST]
                honests.append(honest_bf16(2))
        document = {
            "benchmark": "verification", "machine": facts, "cheats": cheats, "cost": costs,
            "honest": [
                {
                    "recipe": h.name, "rounds": h.rounds, "distances_ppm": h.distances, "accused": h.accused,
                    "drowned": h.drowned,
                }
                for h in honests
            ],
        }  # fmt: skip
        tables = [honest_table(honests)] if honests else []
        tables += [cheats_table(cheats)] if cheats else []
        tables += [cost_table(costs)] if costs else []
        publish("verification", document, tables, markdown=chosen.markdown, docs=chosen.docs, page=PAGE)
    except BenchError as error:
        sys.exit(f"bench: error: {error}")


if __name__ == "__main__":
    main()
