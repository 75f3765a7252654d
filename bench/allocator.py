"""Measures the allocator's solver against HiGHS, CP-SAT and filling by density, and whole decisions of 10,000 requests.

Each instance is solved by all of them in turn, in one process and on one thread. The families: values as the rule makes
them (of people with and without use), people who have all used nothing (values follow costs, and ties are many),
values that are a constant above their costs (the hard ones of the literature), and values that have nothing to do with
costs (the easy ones). CP-SAT is left out when `ortools` (the extra `bench`) is not installed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from harness import BenchError, Figure, Table, add_output_options, machine, number, publish, say
from scipy.optimize import Bounds, LinearConstraint, milp

from ubcp_p2p.allocator.allocation import allocate
from ubcp_p2p.allocator.blob import decode_problem, encode_problem
from ubcp_p2p.allocator.bounds import Instance, instance_of
from ubcp_p2p.allocator.decide import decide
from ubcp_p2p.allocator.displacement import NEAR
from ubcp_p2p.allocator.problem import Applicant, Ask, Problem, Rules, UnitUse, problem_of
from ubcp_p2p.allocator.solver import solve
from ubcp_p2p.allocator.words import explain

SIZES = ((100, 1_440), (1_000, 10_000), (10_000, 10_000))  # requests, granules
FAMILIES = ("rule", "all new", "strongly correlated", "uncorrelated")
LOAD = 4  # what is asked for, of the budget
HIGHS_BITS = (
    30  # its values are divided by 2^30: its absolute tolerance of 10^-6 is then far below one part of the optimum
)
LIMIT_S = 10.0  # for one instance of another solver
WITH_CP_SAT = importlib.util.find_spec("ortools") is not None


class Answer(NamedTuple):
    """value: None when no optimum was proven within the limit."""

    seconds: float
    value: int | None


# -- instances --------------------------------------------------------------------------------------------------------


def problem(seed: int, count: int, budget: int, *, new: bool = False) -> Problem:
    """A lifelike slice: 10 units, three requests a person; with `new`, nobody has used or waited."""
    rng = random.Random(seed)

    def id_of(text: str) -> bytes:
        return hashlib.sha256(f"{seed} {text}".encode()).digest()

    names = [f"unit {place}" for place in range(10)]
    users = [
        Applicant(id_of(f"user {place}"), rng.choice(names), False,
                  0 if new or place % 3 == 0 else int(budget * rng.expovariate(0.1)), rng.randrange(20))
        for place in range(max(1, count // 3))
    ]  # fmt: skip
    asks = [
        Ask(id_of(f"ask {place}"), users[place % len(users)].id, "research", units, units,
            0 if new else rng.choice((0, rng.randrange(300))), 1000 if new else rng.choice((1000, 1000, 1500)))
        for place in range(count)
        for units in [rng.randint(1, max(2, 2 * LOAD * budget // count))]
    ]  # fmt: skip
    uses = {name: sum(user.use for user in users if user.unit == name) for name in names}
    return problem_of(
        slice=seed, rules=Rules(0, 672, 96, 900, ("research",)), budget=budget, capacity=100 * budget,
        units=[UnitUse(name, rng.randint(1, 3), uses[name], rng.randrange(5)) for name in names],
        applicants=users, asks=asks,
    )  # fmt: skip


def instance(family: str, seed: int, count: int, capacity: int) -> Instance:
    """One knapsack of a family; a granule is 1000 units, so that costs are rounded."""
    if family in ("rule", "all new"):
        return allocate(problem(seed, count, 1000 * capacity, new=family == "all new")).instance
    rng = random.Random(seed)
    costs = [rng.randint(1, max(2, 2 * LOAD * capacity // count)) for _ in range(count)]
    top, share = max(costs), 2**49 // count
    if family == "uncorrelated":
        return instance_of(costs, [rng.randint(1, share) for _ in costs], capacity)
    return instance_of(costs, [(cost + top // 10 + 1) * (share // (2 * top)) for cost in costs], capacity)


# -- solvers ----------------------------------------------------------------------------------------------------------


def ours(one: Instance) -> Answer:
    started_s = time.perf_counter()
    solution = solve(one)
    return Answer(time.perf_counter() - started_s, solution.value)


def highs(one: Instance) -> Answer:
    started_s = time.perf_counter()
    result = milp(
        -one.values.astype(float) / 2**HIGHS_BITS,
        constraints=LinearConstraint(one.costs.astype(float)[np.newaxis, :], ub=one.capacity),
        integrality=np.ones(len(one.costs)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0, "time_limit": LIMIT_S},
    )
    seconds = time.perf_counter() - started_s
    value = int(one.values[np.round(result.x).astype(bool)].sum()) if result.status == 0 else None
    return Answer(seconds, value)


def cp_sat(one: Instance) -> Answer:
    from ortools.sat.python import cp_model  # not in every environment: WITH_CP_SAT

    started_s = time.perf_counter()
    model = cp_model.CpModel()
    takes = [model.new_bool_var("") for _ in range(len(one.costs))]
    model.add(cp_model.LinearExpr.weighted_sum(takes, one.costs.tolist()) <= one.capacity)
    model.maximize(cp_model.LinearExpr.weighted_sum(takes, one.values.tolist()))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_time_in_seconds = LIMIT_S
    status = solver.solve(model)
    seconds = time.perf_counter() - started_s
    if status != cp_model.OPTIMAL:
        return Answer(seconds, None)
    values = one.values.tolist()
    return Answer(seconds, sum(value for value, take in zip(values, takes, strict=True) if solver.value(take)))


def greedy(one: Instance) -> Answer:
    """By falling density, whatever still fits."""
    started_s = time.perf_counter()
    left, total = one.capacity, 0
    costs, values = one.costs.tolist(), one.values.tolist()
    for place in sorted(range(len(costs)), key=lambda place: -values[place] / costs[place]):
        if costs[place] <= left:
            left -= costs[place]
            total += values[place]
    return Answer(time.perf_counter() - started_s, total)


SOLVERS: dict[str, Callable[[Instance], Answer]] = {"ours": ours, "HiGHS": highs, "CP-SAT": cp_sat, "greedy": greedy}


def compare(family: str, count: int, capacity: int, instances: int, names: Sequence[str]) -> dict[str, Any]:
    """Every solver on every instance. Raises BenchError when another proves a better optimum than ours."""
    found: dict[str, Any] = {"family": family, "requests": count, "granules": capacity}
    rows: dict[str, list[Answer]] = {name: [] for name in names}
    for seed in range(instances):
        one = instance(family, seed, count, capacity)
        for name in names:
            rows[name].append(SOLVERS[name](one))
    for name, answers in rows.items():
        gaps = [
            (mine.value - answer.value) / mine.value
            for mine, answer in zip(rows["ours"], answers, strict=True)
            if answer.value is not None and mine.value is not None
        ]
        if gaps and min(gaps) < 0:
            raise BenchError(f"{name} found a better set than ours: {family}, {count} requests")
        found[name] = {
            "s": [answer.seconds for answer in answers],
            "unproven": sum(answer.value is None for answer in answers),
            "gap_max": max(gaps, default=None),
        }
    medians = (f"{name} {Figure.of(found[name]['s']).median * 1000:.1f} ms" for name in names)
    say(f"  {family}, {count}: " + ", ".join(medians))
    return found


# -- whole decisions --------------------------------------------------------------------------------------------------


def whole_decision(count: int, new: bool, repeats: int) -> dict[str, Any]:
    """Seconds of each part of a decision, from its bytes to the words for every request."""
    blob = encode_problem(problem(1, count, 10_000_000, new=new))
    found: dict[str, Any] = {"requests": count, "new": new, "bytes": len(blob), "parts": {}}
    for _ in range(repeats):
        marks = [time.perf_counter()]
        one = decode_problem(blob)
        marks.append(time.perf_counter())
        allocate(one)
        marks.append(time.perf_counter())
        decision = decide(one)
        marks.append(time.perf_counter())
        words = [explain(one, ask, outcome) for ask, outcome in zip(one.asks, decision.outcomes, strict=True)]
        marks.append(time.perf_counter())
        assert len(words) == count
        for name, seconds in (
            ("read", marks[1] - marks[0]), ("allocate", marks[2] - marks[1]),
            ("decide", marks[3] - marks[2]), ("words", marks[4] - marks[3]),
            ("decide and words", marks[4] - marks[2]),
        ):  # fmt: skip
            found["parts"].setdefault(name, []).append(seconds)
    refused = [outcome for outcome in decision.outcomes if outcome.displaces is not None]
    found["accepted"] = len(decision.accepted)
    found["exact"] = sum(outcome.displaces[0] == outcome.displaces[1] for outcome in refused if outcome.displaces)
    say(f"  whole decision, {count}: {Figure.of(found['parts']['decide and words']).median:.3f} s")
    return found


# -- tables -----------------------------------------------------------------------------------------------------------


def measure(sizes: Sequence[tuple[int, int]], instances: int) -> dict[str, Any]:
    names = [name for name in SOLVERS if name != "CP-SAT" or WITH_CP_SAT]
    document: dict[str, Any] = {"machine": machine(), "benchmark": "allocator", "solvers": names}
    document["instances"] = instances
    document["solving"] = [
        compare(family, count, capacity, max(1, instances if count <= 1000 else instances // 3), names)
        for count, capacity in sizes
        for family in FAMILIES
    ]
    document["decisions"] = [
        whole_decision(count, new, max(1, instances // 3)) for count, _ in sizes for new in (False, True)
    ]
    return document


def tables(document: dict[str, Any]) -> list[Table]:
    names = document["solvers"]
    others = [name for name in names if name not in ("ours", "greedy")]
    rows = []
    for count in dict.fromkeys(row["requests"] for row in document["solving"]):
        families = [row for row in document["solving"] if row["requests"] == count]
        rows += [_solving_row(row, others) for row in (*families, _pooled(families, names))]
    note = f"Each family has {document['instances']} instances, of 10,000 requests a third. "
    note += f"Unproven: stopped after {LIMIT_S:.0f} s, so that the ratio is greater than it says."
    if "CP-SAT" not in names:
        note += " CP-SAT is left out: ortools is not installed (the extra `bench`)."
    parts = list(document["decisions"][0]["parts"])
    solving = ("requests", "family", "ours", *others, *(f"{name} ÷ ours" for name in others))
    solving += tuple(f"{name} off" for name in (*others, "greedy"))
    return [
        Table(
            "Solving one slice, ms: median (least–greatest); off: how far below the optimum at most",
            solving, tuple(rows), note,
        ),
        Table(
            "Whole decisions, s: median (least–greatest)",
            ("requests", "people", *parts, "refused, exact"),
            tuple(
                (f"{row['requests']:,}", "all new" if row["new"] else "with use",
                 *(Figure.of(row["parts"][part]).text() for part in parts), f"{row['exact']:,}")
                for row in document["decisions"]
            ),
            f"The {NEAR} refused requests nearest to the cut have exact figures; the others have bounds, some of which "
            "are exact too. `decide` includes `allocate`; read: from the bytes that auditors get.",
        ),
    ]  # fmt: skip


def _pooled(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """All families of one size together."""
    pooled: dict[str, Any] = {"family": "all of them", "requests": rows[0]["requests"]}
    for name in names:
        pooled[name] = {
            "s": [seconds for row in rows for seconds in row[name]["s"]],
            "unproven": sum(row[name]["unproven"] for row in rows),
            "gap_max": max((row[name]["gap_max"] for row in rows if row[name]["gap_max"] is not None), default=None),
        }
    return pooled


def _solving_row(row: dict[str, Any], others: Sequence[str]) -> tuple[str, ...]:
    medians = {name: Figure.of([1000 * s for s in row[name]["s"]]) for name in ("ours", *others)}
    cells = [f"{row['requests']:,}", row["family"], medians["ours"].text()]
    for name in others:
        unproven = row[name]["unproven"]
        cells.append(medians[name].text() + (f", {unproven} unproven" if unproven else ""))
    cells += [f"{number(medians[name].median / medians['ours'].median, 2)}×" for name in others]
    return *cells, *(_percent(row[name]["gap_max"]) for name in (*others, "greedy"))


def _percent(share: float | None) -> str:
    if share is None:
        return "–"
    return "0" if share == 0 else f"{number(100 * share)} %" if share > 1e-6 else "< 0.0001 %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--instances", type=int, default=9, help="of each family and size")
    parser.add_argument("--quick", action="store_true", help="a smoke test: 100 requests, two instances")
    add_output_options(parser)
    options = parser.parse_args()
    sizes, instances = (SIZES[:1], 2) if options.quick else (SIZES, options.instances)
    document = measure(sizes, instances)
    publish("allocator-quick" if options.quick else "allocator", document, tables(document), markdown=options.markdown,
            docs=options.docs)  # fmt: skip


if __name__ == "__main__":
    main()
