"""How many people's projects reach usefulness with a budget, and where the curve is steepest.

Each person needs a certain amount of work: below it nothing useful comes out. The budget of a period is shared fairly
(max-min: as the allocator does; docs/simulation.md compares the two): all have the same level λ, or what they need
where that is less. So

    work(λ) = N · E[min(need, λ)]      useful(λ) = N · F(λ)      d useful ∕ d work = f(λ) ∕ (1 − F(λ))

with F the distribution of needs: the slope is its hazard rate, and the inflection point is where that is largest.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from ubcp_p2p.simulation.assumptions import Assumptions
from ubcp_p2p.simulation.world import Floats

FORMAT: Final = "ubcp-curve/1"
# The slope is looked for where it can be measured: at 1 % there are 200 people of 20,000 below, at 90 % 2,000 above.
FOUND_MIN, FOUND_MAX = 0.01, 0.90
REACHED: Final = (0.1, 0.5, 0.9)
FACTORS: Final = (0.5, 2.0)
SENSITIVITY_SEEDS: Final = 5  # with the same people before and after, the difference needs no more
_CELLS: Final = 4096  # of the histogram that the density is smoothed on


class Inflection(NamedTuple):
    """budget: PFLOP/s-days in a period; level: credits a person; part: of the people, whose projects are useful."""

    budget: float
    level: float
    part: float


class Curve(NamedTuple):
    """budgets: (points); useful: (seeds, points), people; inflections: of each seed; reached: (seeds, 3), budgets."""

    budgets: Floats
    useful: Floats
    inflections: tuple[Inflection, ...]
    reached: Floats


def needs_of(assumptions: Assumptions, seed: int) -> Floats:
    """Credits that each of a sample of people needs, in rising order."""
    draw = np.random.Generator(np.random.PCG64(seed))
    count = assumptions.sample
    parts = np.array([project.part for project in assumptions.project])
    edges = np.cumsum(parts / parts.sum())
    # Uniform and normal numbers are drawn alike for all assumptions, so that a change of one moves nobody else.
    kind = np.minimum(np.searchsorted(edges, draw.random(count)), len(parts) - 1)
    spread = np.array([project.spread for project in assumptions.project])[kind]
    median = np.array([project.credits for project in assumptions.project])[kind]
    learning = assumptions.learning.credits * np.exp(assumptions.learning.spread * draw.standard_normal(count))
    return np.sort(learning + median * np.exp(spread * draw.standard_normal(count)))


def work_of(needs: Floats, levels: Floats) -> Floats:
    """E[min(need, λ)] of each level; `needs` rising."""
    below = np.searchsorted(needs, levels, side="right")
    sums = np.concatenate(([0.0], np.cumsum(needs)))
    found: Floats = (sums[below] + levels * (len(needs) - below)) / len(needs)
    return found


def level_of(needs: Floats, work: Floats) -> Floats:
    """λ at which so much work a person is used up; infinite where it is more than all need."""
    at_needs = work_of(needs, needs)  # rising: the work when the level is at each need
    place = np.searchsorted(at_needs, work, side="left")
    sums = np.concatenate(([0.0], np.cumsum(needs)))
    left = np.maximum(len(needs) - place, 1)
    return np.where(place < len(needs), (work * len(needs) - sums[np.minimum(place, len(needs))]) / left, np.inf)


def curve_of(assumptions: Assumptions, seed: int, seeds: int | None = None) -> Curve:
    budget = assumptions.budget
    budgets = np.geomspace(budget.from_, budget.to, budget.points)
    work = np.array([assumptions.useful_credits(one) for one in budgets]) / assumptions.users
    rows, inflections, reached = [], [], []
    for place in range(seeds or assumptions.seeds):
        needs = needs_of(assumptions, seed + place)
        rows.append(assumptions.users * np.searchsorted(needs, level_of(needs, work), side="right") / len(needs))
        inflections.append(inflection_of(assumptions, needs))
        levels = np.quantile(needs, REACHED).astype(np.float64)
        reached.append(work_of(needs, levels) * assumptions.users / assumptions.useful_credits(1.0))
    return Curve(budgets, np.array(rows), tuple(inflections), np.array(reached))


def inflection_of(assumptions: Assumptions, needs: Floats) -> Inflection:
    """Where the slope is largest: a kernel estimate of the density of log need, over what is left above it."""
    logs = np.log(needs)
    count = len(logs)
    width = 0.9 * min(float(logs.std()), float(np.subtract(*np.percentile(logs, (75, 25)))) / 1.34) * count**-0.2
    width = max(width, 1e-3)  # needs that are all alike: a step has no density, but a place
    cells = np.linspace(logs[0] - 4 * width, logs[-1] + 4 * width, _CELLS)
    step = cells[1] - cells[0]
    counts = np.histogram(logs, bins=_CELLS, range=(cells[0] - step / 2, cells[-1] + step / 2))[0] / count
    reach = max(1, min(int(4 * width / step), _CELLS // 2 - 1))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / width) ** 2)
    # Both are smoothed alike: else the step of one divided by the ramp of the other would look like a slope.
    mass = np.convolve(counts, kernel / kernel.sum(), mode="same")
    below = np.cumsum(mass) - mass / 2
    slope = np.where(
        (below >= FOUND_MIN) & (below <= FOUND_MAX), mass / step / np.exp(cells) / (1 - below + 1e-12), 0.0
    )
    at = int(slope.argmax())
    level = float(np.exp(cells[at]))
    work = float(work_of(needs, np.array([level]))[0])
    budget = work * assumptions.users / assumptions.useful_credits(1.0)
    return Inflection(budget, level, float(below[at]))


def sensitivity(assumptions: Assumptions, seed: int) -> list[dict[str, Any]]:
    """How the inflection point moves when each assumption is halved and doubled, the one that moves it most first.

    Factors of the budget; None where such an assumption is not possible.
    """
    base = _mean_budget(assumptions, seed)
    rows = []
    for name in assumptions.names:
        changed = [assumptions.scaled(name, factor) for factor in FACTORS]
        halved, doubled = (None if one is None else round(_mean_budget(one, seed) / base, 3) for one in changed)
        rows.append({"assumption": name, "halved": halved, "doubled": doubled})
    return sorted(rows, key=lambda row: -max(abs(float(np.log(row[side] or 1))) for side in ("halved", "doubled")))


def document_of(assumptions: Assumptions, curve: Curve, moves: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """What `ubcp simulate curve --json` prints."""
    budgets = np.array([one.budget for one in curve.inflections])
    mean, deviation = curve.useful.mean(axis=0), curve.useful.std(axis=0, ddof=1)
    return {
        "format": FORMAT, "seed": seed, "assumptions": assumptions.model_dump(by_alias=True),
        "points": [
            {"budget_pflops_days": _figure(budget), "users": _figure(users), "users_sd": _figure(spread),
             "part": round(float(users) / assumptions.users, 4)}
            for budget, users, spread in zip(curve.budgets, mean, deviation, strict=True)
        ],
        "inflection": {
            "budget_pflops_days": _figure(budgets.mean()), "sd": _figure(budgets.std(ddof=1)),
            "credits_a_person": _figure(np.mean([one.level for one in curve.inflections])),
            "part": round(float(np.mean([one.part for one in curve.inflections])), 4),
            "seeds": [_figure(one) for one in budgets],
        },
        "reached": [
            {"part": part, "budget_pflops_days": _figure(column.mean()), "sd": _figure(column.std(ddof=1))}
            for part, column in zip(REACHED, curve.reached.T, strict=True)
        ],
        "sensitivity": moves,
    }  # fmt: skip


def _mean_budget(assumptions: Assumptions, seed: int) -> float:
    found = [inflection_of(assumptions, needs_of(assumptions, seed + place)) for place in range(SENSITIVITY_SEEDS)]
    return float(np.mean([one.budget for one in found]))


def _figure(value: Any) -> float:
    """Six digits: what one draws from a sample has no more."""
    return float(f"{float(value):.6g}")
