"""All five rules in one community, in parallel: the document of `ubcp simulate --json`.

The same scenario and seed give the same document; nothing in it depends on the machine's speed or on how many processes
there were.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, Final, NamedTuple

from ubcp_p2p.processes import die_with_parent
from ubcp_p2p.simulation.engine import live
from ubcp_p2p.simulation.measures import DIGITS, Measures, measure
from ubcp_p2p.simulation.ours import Allocator, density_greedy
from ubcp_p2p.simulation.pairs import BOUND, BOUNDED, GAINS, OURS, gains
from ubcp_p2p.simulation.rivals import FairTree, Fifo, Horde
from ubcp_p2p.simulation.rules import Rule
from ubcp_p2p.simulation.scenario import Scenario
from ubcp_p2p.simulation.world import World, world_of

FORMAT: Final = "ubcp-simulate/1"
RULES: Final[Mapping[str, Callable[[World], Rule]]] = {
    OURS: Allocator,
    "fifo": Fifo,
    "ai-horde": Horde,
    "fair-tree": FairTree,
    "density-greedy": density_greedy,
}
JOBS_MAX: Final = 64


class Task(NamedTuple):
    """One rule in the large community (pair_seed None), or all tricks against one rule in a small one."""

    rule: str
    pair_seed: int | None


def tasks_of(scenario: Scenario, seed: int) -> list[Task]:
    """The longest first, so that no process ends long after the others."""
    slow = (OURS, "density-greedy")
    seeds = [seed + place for place in range(scenario.pairs.seeds)]
    all_ = [Task(name, place) for place in (None, *seeds) for name in RULES]
    return sorted(all_, key=lambda task: (task.rule not in slow, task.pair_seed is not None, task.rule != OURS))


def carry_out(scenario: Scenario, seed: int, task: Task) -> Measures | dict[str, float]:
    make = RULES[task.rule]
    if task.pair_seed is not None:
        return gains(scenario, make, task.pair_seed)
    world = world_of(scenario, seed)
    return measure(world, live(world, make(world)))


def results(scenario: Scenario, seed: int, jobs: int) -> Iterator[tuple[Task, Measures | dict[str, float]]]:
    """Each task with what came out, in the order in which they end."""
    tasks = tasks_of(scenario, seed)
    if jobs == 1:
        for task in tasks:
            yield task, carry_out(scenario, seed, task)
        return
    context = multiprocessing.get_context("spawn")
    workers = min(jobs, len(tasks), JOBS_MAX)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(os.getpid(),))
    try:
        futures = {pool.submit(carry_out, scenario, seed, task): task for task in tasks}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def document_of(scenario: Scenario, seed: int, found: Mapping[Task, Measures | dict[str, float]]) -> dict[str, Any]:
    """`format`, `seed`, `scenario`, `bound`, and for each of `rules` its measures and `gains`."""
    rules = {}
    for name in RULES:
        whole = found[Task(name, None)]
        assert isinstance(whole, Measures)
        pairs = [found[task] for task in sorted(found, key=lambda task: task.pair_seed or 0)
                 if task.rule == name and task.pair_seed is not None]  # fmt: skip
        rules[name] = {
            "wait_h": {
                "steady": whole.steady._asdict(), "eager": whole.eager._asdict(),
                "newcomers": whole.newcomers._asdict(),
            },
            "share_error": {"flat": whole.flat._asdict(), "by_unit": whole.by_unit._asdict()},
            "accepted_at_once": dict(whole.at_once), "done": dict(whole.done),
            "used": whole.used, "leased": whole.leased,
            "gains": {key: _mean([pair[key] for pair in pairs if isinstance(pair, dict)]) for key in GAINS},
        }  # fmt: skip
    return {
        "format": FORMAT, "seed": seed, "scenario": scenario.model_dump(), "bound": BOUND, "bounded": list(BOUNDED),
        "rules": rules,
    }  # fmt: skip


def _mean(values: list[float]) -> dict[str, Any]:
    return {"mean": round(sum(values) / len(values), DIGITS), "max": max(values), "seeds": values}


def _begin(parent: int) -> None:
    die_with_parent(parent)()
