"""Slice problems for tests: short ids, one unit and plain rules unless something else is asked for; small knapsacks."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ubcp_p2p.allocator.problem import Applicant, Ask, Problem, Rules, UnitUse, problem_of

RULES = Rules(newcomer_permille=0, half_life_slices=672, ageing_slices=96, slice_s=900, purposes=("research",))


def id_of(number: int) -> bytes:
    """Ids in the order of their numbers."""
    return number.to_bytes(32, "big")


def ask(number: int, units: int, *, user: int = 1, **fields: Any) -> Ask:
    fields.setdefault("units_min", units)
    fields.setdefault("waited", 0)
    fields.setdefault("purpose", "research")
    return Ask(id=id_of(number), applicant=id_of(user), units=units, **fields)


def user(number: int, *, unit: str = "all", newcomer: bool = False, use: int = 0) -> Applicant:
    return Applicant(id_of(number), unit, newcomer, use)


def problem(asks: Sequence[Ask], users: Sequence[Applicant] = (), **fields: Any) -> Problem:
    """Users that are not given have no use; units that are not given have weight 1 and the use of their people."""
    rows = list(users)
    known = {row.id for row in rows}
    rows += [Applicant(id_, "all", False, 0) for id_ in sorted({one.applicant for one in asks} - known)]
    if "units" not in fields:
        fields["units"] = [
            UnitUse(name, 1, sum(row.use for row in rows if row.unit == name)) for name in {row.unit for row in rows}
        ]
    fields.setdefault("slice", 1000)
    fields.setdefault("rules", RULES)
    fields.setdefault("budget", 1000)
    return problem_of(applicants=rows, asks=asks, **fields)


def changed(problem: Problem, **fields: Any) -> Problem:
    return replace(problem, **fields)


def made_up(seed: int, count: int, *, budget: int = 10_000, users: int | None = None, load: int = 4) -> Problem:
    """A lifelike problem: `count` asks for `load` times the budget, people of five units with and without use."""
    rng = random.Random(seed)
    people = users or max(1, count // 3)
    names = [f"unit {number}" for number in range(5)]
    uses = [rng.choice((0, 0, rng.randrange(budget * 20))) for _ in range(people)]
    rows = [Applicant(id_of(10**6 + n), rng.choice(names), rng.random() < 0.1, use) for n, use in enumerate(uses)]
    mean = max(1, load * budget // count)
    asks = []
    for place, number in enumerate(rng.sample(range(10 * count), count)):
        units = rng.randint(1, 2 * mean)
        asks.append(
            Ask(id_of(number), rows[place % people].id, "research", units, rng.randint(1, units),
                rng.choice((0, rng.randrange(200))), rng.choice((1000, 1000, rng.randint(1000, 2000))))
        )  # fmt: skip
    used = {name: sum(row.use for row in rows if row.unit == name) for name in names}
    units_ = [UnitUse(name, rng.randint(1, 5), use) for name, use in used.items()]
    rules = RULES._replace(newcomer_permille=rng.choice((0, 100)))
    return problem_of(slice=1000, rules=rules, budget=budget, capacity=budget * 4, units=units_, applicants=rows,
                      asks=asks)  # fmt: skip


def brute_force(
    costs: Sequence[int], values: Sequence[int], capacity: int, forced: int | None = None
) -> tuple[int, tuple[bool, ...]] | None:
    """(value, taken) of the best set, by trying all; of equally good ones the first by the tie rule."""
    best: tuple[int, tuple[bool, ...]] | None = None
    for taken in itertools.product((True, False), repeat=len(costs)):  # in the order of the tie rule
        if forced is not None and not taken[forced]:
            continue
        if sum(itertools.compress(costs, taken)) <= capacity:
            value = sum(itertools.compress(values, taken))
            if best is None or value > best[0]:
                best = value, taken
    return best
