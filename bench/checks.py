"""Honest and cheating peers before validators: what verification.py and verification_gpu.py measure, and their tables.

A row is plain JSON, so that tables can be made of a saved document.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from cheats import CHEATS, CPU, PEERS, Swarm, Work
from harness import BENCH, BenchError, Table, say
from validators import Validator, save

from ubcp_p2p.models.recipe import Recipe, load_recipe
from ubcp_p2p.models.task import Task
from ubcp_p2p.training.compare import compare, distance_ppm, do_gradients_show, fades, tolerance_ppm
from ubcp_p2p.training.ends import drawn_by
from ubcp_p2p.training.inner import InnerLoop
from ubcp_p2p.training.opening import Opening
from ubcp_p2p.training.verdict import PPM, Finding
from ubcp_p2p.training.witness import Witness

Q_PPM = 20_000  # the audit rate of the last column: 2 %
PROCESSORS = {"float32, AVX2 processor": "avx2", "float32, processor without SIMD": "default"}
MILLION = "GPT of 1M parameters"  # 63 pieces, of which a check of other bits sees eight
CHEATING = {"digits-tiny": (3, 12, 25, 37, 49), "shakespeare-nano": (3, 24, 47), MILLION: (1,)}

ValidatorsOf: TypeAlias = Callable[[Recipe, Task], Mapping[str, Validator]]


class Runs(NamedTuple):
    """Honest runs. every: rounds of which one is checked."""

    recipe: str
    runs: int
    rounds: int
    every: int = 1
    name: str = ""
    changes: Mapping[str, int] = {}  # of [rounds]
    first: int = 0  # the number of the first run: each has data and draws of its own


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


def recipe_of(name: str) -> Recipe:
    """A shipped recipe, or the larger network."""
    return gpt(128, 5, 64, 8, 50) if name == MILLION else load_recipe(name)


def seed_of(opening: Opening) -> bytes:
    """A validator's own, for one stretch."""
    return hashlib.sha256(opening.root + opening.index.to_bytes(4, "big")).digest()


def part_of(opening: Opening) -> Opening:
    """What a validator asks for whose bits differ: a part of the end, drawn anew for each stretch."""
    return opening.as_asked(drawn_by(seed_of(opening)))


# -- honest peers -----------------------------------------------------------------------------------------------------


class Honest:
    """Distances of honest peers by validator, and how many were accused, or not paid though nobody accused them."""

    def __init__(self, name: str, recipe: Recipe) -> None:
        self.name, self.recipe = name, recipe
        self.allowed = tolerance_ppm(recipe.parameters())
        self.distances: dict[str, list[int]] = {}
        self.accused: Counter[str] = Counter()
        self.drowned: Counter[str] = Counter()
        self.told: Counter[str] = Counter()  # by the drawn part of the end alone
        self.rounds = 0
        self._rule = fades(recipe.inner.optimizer, recipe.inner.betas)

    def add(self, validator: str, finding: str, apart: int) -> None:
        self.distances.setdefault(validator, []).append(apart)
        self.accused[validator] += finding not in (Finding.HONEST, Finding.DROWNED)
        self.drowned[validator] += finding == Finding.DROWNED

    def check(self, work: Work, index: int, validators: Mapping[str, Validator]) -> Opening:
        """One opened stretch before every validator."""
        opening = work.open(index)
        assert opening is not None
        before, claimed = opening.ends(self.recipe.parameters())
        part = part_of(opening)
        for name, redo in validators.items():
            redone, loss = redo(work.claim, opening)
            verdict = compare(before, claimed, redone, loss, self._rule, self.recipe.parameters())
            self.add(name, verdict.finding, verdict.distance_ppm)
            shown = do_gradients_show(before, redone, self._rule)
            self.told[name] += shown and distance_ppm(*part.drawn_ends(redone), self._rule) <= self.allowed
        return opening

    def row(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "recipe": self.name, "rounds": self.rounds, "allowed_ppm": self.allowed, "distances_ppm": self.distances,
            "accused": self.accused, "drowned": self.drowned, "told": self.told,
        }  # fmt: skip

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


def honest(
    spec: Runs, validators_of: ValidatorsOf, *, device: torch.device = CPU, folder: Path | None = None
) -> Honest:
    """All peers of whole runs on `device`; one stretch of each checked round, in turns. folder: keeps the openings."""
    recipe = load_recipe(spec.recipe)
    recipe = recipe.model_copy(update={"rounds": recipe.rounds.model_copy(update=dict(spec.changes))})
    found = Honest(spec.name or spec.recipe, recipe)
    for run in range(spec.first, spec.first + spec.runs):
        swarm = Swarm(recipe, f"honest {run}", device=device)
        validators = validators_of(recipe, swarm.task)
        for round_ in range(spec.rounds):
            swarm.advance()
            for peer in PEERS if round_ % spec.every == 0 else ():
                work = swarm.works[peer]
                opening = found.check(work, found.rounds % work.stretches(), validators)
                if folder is not None:
                    save(folder, found.rounds, work.claim, opening)
                found.rounds += 1
        say(f"{found.name}: {found.rounds} honest rounds checked, accused {sum(found.accused.values())}")
    return found


def honest_alone(
    name: str, recipe: Recipe, rounds: int, validators_of: ValidatorsOf, *, run: int = 0, device: torch.device = CPU
) -> Honest:
    """One peer of a large network; all stretches of its rounds."""
    found = Honest(name, recipe)
    swarm = Swarm(recipe, f"honest alone {run}", peers=PEERS[:1], device=device)
    validators = validators_of(recipe, swarm.task)
    for _ in range(rounds):
        swarm.advance()
        for index in range(swarm.works[PEERS[0]].stretches()):
            found.check(swarm.works[PEERS[0]], index, validators)
        found.rounds += 1
        say(f"{found.name}: {found.rounds} rounds, {found.distances}")
    return found


def joined(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one name as one, in the order of their names' first."""
    by_name: dict[str, dict[str, Any]] = {}
    for row in rows:
        one = by_name.setdefault(
            row["recipe"],
            {**row, "rounds": 0, "distances_ppm": {}, "accused": Counter(), "drowned": Counter(), "told": Counter()},
        )
        one["rounds"] += row["rounds"]
        for validator, distances in row["distances_ppm"].items():
            one["distances_ppm"].setdefault(validator, []).extend(distances)
        one["accused"].update(row["accused"])
        one["drowned"].update(row["drowned"])
        one["told"].update(row["told"])
    return list(by_name.values())


def honest_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line for each recipe and validator."""
    cells, checks, accused = [], 0, 0
    for row in joined(rows):
        checks += sum(map(len, row["distances_ppm"].values()))
        accused += sum(row["accused"].values())
        for validator, distances in row["distances_ppm"].items():
            cells.append(
                (
                    row["recipe"], validator, f"{len(distances)}", str(row["accused"][validator]),
                    str(row["drowned"][validator]), f"{max(distances)}", str(row["allowed_ppm"]),
                    str(row["told"][validator]) if validator in row["told"] else "",
                )
            )  # fmt: skip
    return Table(
        "Honest peers before validators that compute otherwise",
        (
            "recipe",
            "validator",
            "checks",
            "accused",
            "not paid",
            "largest distance, ppm",
            "allowed, ppm",
            "a part tells",
        ),
        tuple(cells),
        f"{sum(row['rounds'] for row in rows)} honest rounds, {checks} checks, {accused} false accusations.",
    )


# -- cheats -----------------------------------------------------------------------------------------------------------


def cheating(name: str, at: Sequence[int], *, validator: torch.device = CPU) -> list[dict[str, Any]]:
    """Every cheat in some rounds of a run on a CPU, all stretches checked on `validator`."""
    recipe = recipe_of(name)
    swarm = Swarm(recipe, "cheats")
    witness = Witness(recipe, InnerLoop(recipe, swarm.task, validator))
    nothing = {"rounds": 0, "stretches": 0, "found": 0, "part_found": 0, "rounds_found": 0, "least_ppm": None}
    rows: dict[str, dict[str, Any]] = {
        cheat: {"recipe": name, "cheat": cheat, **nothing, "findings": {}} for cheat in CHEATS
    }
    for round_ in range(max(at) + 1):
        swarm.advance()
        if round_ not in at:
            continue
        for cheat, act in CHEATS.items():
            _count(rows[cheat], act(swarm), witness)
        say(f"{name}: cheats of round {round_} checked")
    return list(rows.values())


def _count(row: dict[str, Any], work: Work, witness: Witness) -> None:
    """Check all stretches of a cheat's round."""
    before = row["found"]
    for index in range(work.stretches()):
        opening = work.open(index)
        assert opening is not None
        verdict = witness.check(work.claim, work.members, opening.to_bytes())
        part, seed = part_of(opening).to_bytes(), seed_of(opening)
        row["part_found"] += witness.check(work.claim, work.members, part, seed).finding != Finding.HONEST
        row["stretches"] += 1
        row["findings"][verdict.finding] = row["findings"].get(verdict.finding, 0) + 1
        if verdict.finding != Finding.HONEST:
            row["found"] += 1
            least = row["least_ppm"]
            row["least_ppm"] = verdict.distance_ppm if least is None else min(least, verdict.distance_ppm)
    row["rounds"] += 1
    row["rounds_found"] += row["found"] > before


def cheats_table(rows: Sequence[dict[str, Any]]) -> Table:
    cells = []
    for row in rows:
        chance = row["found"] / row["stretches"]
        least = "" if row["least_ppm"] is None or row["least_ppm"] >= PPM**2 else f"{row['least_ppm']}"
        cells.append(
            (
                row["recipe"], row["cheat"], str(row["rounds"]), f"{row['found']} of {row['stretches']}",
                f"{chance:.2f}", f"{chance * Q_PPM / PPM:.4f}", f"{row['rounds_found'] / row['rounds']:.2f}", least,
                f"{row['part_found']} of {row['stretches']}",
            )
        )  # fmt: skip
    return Table(
        "Cheats: chance to be found",
        (
            "recipe", "cheat", "rounds", "stretches that show it", "per checked round", "× q = 2 %",
            "with all stretches opened", "least distance of those, ppm", "by a part of the end alone",
        ),
        tuple(cells),
    )  # fmt: skip
