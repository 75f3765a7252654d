"""Measures a round and its parts, against stock hivemind and torch's gloo, in one run.

Every peer is a process of its own with a p2pd of its own, on loopback. Parts: matchmaking; averaging (our exchange,
outer step and state hash; hivemind's all-reduce; gloo's all_reduce and division); local steps of the trainer process;
and whole rounds of real nodes. Seconds are the group's: from the first that begins to the last that ends.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import nodes
import psutil
from harness import (
    BenchError,
    CpuMeter,
    Figure,
    Peer,
    Table,
    add_output_options,
    ask_all,
    cpu_s,
    machine,
    number,
    publish,
    say,
)

from ubcp_p2p.errors import UbcpError
from ubcp_p2p.models.recipe import load_recipe, run_id
from ubcp_p2p.peer.control import stream
from ubcp_p2p.training.process import TrainerProcess, TrainerSpec

START_S = 120.0
ROUND_S, ROUND_S_PER_MB = 30.0, 0.15  # a round that takes longer than this, times the peers, hangs
TRIES_MAX = 3  # starts of a group of stock hivemind, whose forked processes sometimes never answer (measured)
PARTIAL_MAX = 5  # hivemind's groups that came together incomplete, tried again at most so often
MEMORY_SHARE = 0.7  # of what is available now; a case that needs more is left out, and the table says so
WARM_UP_FIRST, WARM_UP = 3, 1  # p2pd is busy with itself in its first second, and windows grow (measured)

OURS, GLOO, TUNED, STOCK = "ours", "gloo", "hivemind, target size set", "hivemind, defaults"
HIVEMIND = {TUNED: {"target_group_size": 0}, STOCK: {}}  # 0 stands for the number of peers


@dataclass(frozen=True)
class Plan:
    """What one run measures. cases: (peers, MB); stock: the cases in which hivemind's defaults are measured too."""

    cases: tuple[tuple[int, int], ...]
    stock: tuple[tuple[int, int], ...]
    repeats: int
    recipes: tuple[str, ...]
    node_rounds: int  # of digits-tiny by real nodes
    node_peers: int


PLANS = {
    "quick": Plan(((2, 4),), (), 3, ("digits-tiny",), 0, 0),
    "default": Plan(
        ((2, 4), (2, 40), (2, 400), (4, 4), (4, 40), (8, 4)), ((4, 4),), 3, ("digits-tiny", "shakespeare-nano"), 50, 4
    ),
    "full": Plan(
        tuple((peers, size) for peers in range(2, 9) for size in (4, 40, 400)),
        tuple((peers, 4) for peers in range(2, 9)),
        5, ("digits-tiny", "shakespeare-nano", "fashion-cnn"), 50, 4,
    ),
}  # fmt: skip


@dataclass
class Case:
    """The measurements of one way with one number of peers and one size; lists have one item a round."""

    kind: str
    peers: int
    megabytes: int
    match_s: list[float] = field(default_factory=list)
    average_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    exchange_s: list[float] = field(default_factory=list)
    outer_s: list[float] = field(default_factory=list)
    python_cpu_s: list[float] = field(default_factory=list)
    p2pd_cpu_s: list[float] = field(default_factory=list)
    lag_p99_s: list[float] = field(default_factory=list)
    lag_max_s: list[float] = field(default_factory=list)
    incomplete: int = 0
    hung: int = 0
    left_out: str | None = None


# -- averaging: one way at a time -------------------------------------------------------------------------------------


@asynccontextmanager
async def group(kind: str, peers: int, directory: Path) -> AsyncIterator[list[Peer]]:
    """Started peers of one kind that know each other; all ended at the end."""
    running: list[Peer] = []
    addresses: list[str] = []
    script = {OURS: "peer_ours.py", GLOO: "peer_gloo.py"}.get(kind, "peer_hivemind.py")
    try:
        for index in range(peers):
            place = directory / str(index)
            place.mkdir()
            given = {
                "index": index, "members": peers, "directory": str(place), "store": str(directory / "store"),
                "addresses": addresses,
            }  # fmt: skip
            running.append(await Peer.start(script, given, place))
            if script == "peer_hivemind.py" and not addresses:
                addresses = (await running[0].read(START_S))["addresses"]
        waiting = running[1:] if script == "peer_hivemind.py" else running
        ready = await asyncio.gather(*(peer.read(START_S) for peer in waiting))
        if kind == OURS:
            for index, peer in enumerate(running):
                peer.tell({"do": "meet", "addresses": [ready[i]["addresses"][0] for i in range(index)]})
                await peer.read(START_S)
        yield running
    finally:
        await asyncio.gather(*(peer.end() for peer in running))


async def measure(running: Sequence[Peer], case: Case, repeats: int, warm_up: int) -> None:
    """Rounds of one size, `warm_up` more of them first; the figures go into `case`."""
    size = case.megabytes * 1_000_000
    settings = {name: value or case.peers for name, value in HIVEMIND.get(case.kind, {}).items()}
    await ask_all(
        running,
        {"do": "size", "bytes": size, "prefix": f"bench{case.megabytes}", "settings": settings},
        START_S,
    )  # fmt: skip
    patience_s = ROUND_S + ROUND_S_PER_MB * case.megabytes * case.peers
    done = number_ = 0
    while done < warm_up + repeats:
        meter = CpuMeter([peer.pid for peer in running])
        answers = await ask_all(running, {"do": "round", "number": number_, "members": case.peers}, patience_s)
        used = meter.read()
        number_ += 1
        if case.kind in HIVEMIND and any(found["members"] != case.peers for found in answers):
            case.incomplete += 1
            if case.incomplete > PARTIAL_MAX:
                case.left_out = f"{case.incomplete} incomplete groups"
                return
            continue
        done += 1
        if done > warm_up:
            record(case, answers, used)


def record(case: Case, answers: Sequence[dict[str, Any]], used: dict[str, float]) -> None:
    """Add one round's figures to `case`. Raises BenchError when our replicas differ."""
    begun_s = min(found["started_s"] for found in answers)
    matched_s = max(found.get("matched_s", found["started_s"]) for found in answers)
    ended_s = max(found["ended_s"] for found in answers)
    case.match_s.append(matched_s - begun_s)
    case.average_s.append(ended_s - matched_s)
    case.cpu_s.append(used["all"])
    if case.kind != OURS:
        return
    if len({found["state_hash"] for found in answers}) != 1:
        raise BenchError("the peers' states differ after a round")
    exchanged_s = max(found["exchanged_s"] for found in answers)
    lags = sorted(lag for found in answers for lag in found["lags_s"]) or [0.0]
    case.exchange_s.append(exchanged_s - matched_s)
    case.outer_s.append(ended_s - exchanged_s)
    case.python_cpu_s.append(sum(found["exchange_cpu_s"][0] for found in answers))
    case.p2pd_cpu_s.append(sum(found["exchange_cpu_s"][1] for found in answers))
    case.lag_p99_s.append(lags[int(0.99 * (len(lags) - 1))])
    case.lag_max_s.append(lags[-1])


def memory_needed(kind: str, peers: int, megabytes: int) -> float:
    """GB that a case takes: ours keeps every offer, a state and the next one; hivemind about five copies; gloo two."""
    copies = {OURS: peers + 2, GLOO: 2}.get(kind, 5)
    return peers * copies * megabytes / 1000


async def one_kind(cases: Sequence[Case], repeats: int) -> None:
    """All sizes of one kind and number of peers. Stock hivemind that hangs is started anew, and the table says so."""
    kind, peers = cases[0].kind, cases[0].peers
    waiting = list(cases)
    for _ in range(TRIES_MAX if kind in HIVEMIND else 1):
        try:
            with tempfile.TemporaryDirectory(prefix="ubcp-bench-") as directory:
                async with group(kind, peers, Path(directory)) as running:
                    warm_up = WARM_UP_FIRST
                    while waiting:
                        case = waiting[0]
                        room = MEMORY_SHARE * psutil.virtual_memory().available / 1e9
                        if memory_needed(kind, peers, case.megabytes) > room:
                            case.left_out = f"needs {memory_needed(kind, peers, case.megabytes):.0f} GB of memory"
                        else:
                            await measure(running, case, repeats, warm_up)
                            warm_up = WARM_UP
                        said = f"{number(Figure.of(case.average_s).median)} s" if case.average_s else case.left_out
                        say(f"{peers} peers, {case.megabytes} MB, {kind}: {said}")
                        waiting.pop(0)
            return
        except BenchError as error:
            if kind not in HIVEMIND:
                raise
            waiting[0].hung += 1
            say(f"{peers} peers, {waiting[0].megabytes} MB, {kind}: started anew: {error}")
    for case in waiting:
        case.left_out = f"hung in {TRIES_MAX} starts"


async def averaging(plan: Plan) -> list[Case]:
    """All cases of the plan; peers of one kind and number are started once for all sizes."""
    cases: list[Case] = []
    for peers in sorted({peers for peers, _ in plan.cases}):
        for kind in (OURS, GLOO, TUNED, STOCK):
            wanted = plan.stock if kind == STOCK else plan.cases
            sizes = [size for count, size in wanted if count == peers]
            if not sizes:
                continue
            found = [Case(kind, peers, size) for size in sizes]
            await one_kind(found, plan.repeats)
            cases += found
    return cases


# -- the trainer's steps, and real nodes ------------------------------------------------------------------------------


async def local_steps(name: str) -> dict[str, Any]:
    """One round's local steps in the real trainer process with one thread."""
    recipe = load_recipe(name)
    with tempfile.TemporaryDirectory(prefix="ubcp-bench-") as directory:
        spec = TrainerSpec(
            recipe_toml=recipe.to_toml(), run_id=run_id("bench", recipe.hash()), peer=b"\1" * 32, device="cpu",
            threads=1, checkpoint_dir=Path(directory), checkpoints_kept=1,
        )  # fmt: skip
        trainer = await TrainerProcess.start(spec, resume=False)
        try:
            offer = await trainer.train(0, [b"\1" * 32], lambda _: None)  # warm-up
            offer.buffer.close()
            before_s = cpu_s(trainer.pid)
            offer = await trainer.train(0, [b"\1" * 32], lambda _: None)
            used_s = cpu_s(trainer.pid) - before_s
            offer.buffer.close()
        finally:
            await trainer.stop()
    steps = recipe.rounds.local_steps
    say(f"local steps of {name}: {1000 * offer.seconds / steps:.2f} ms each")
    return {
        "recipe": name, "parameters": trainer.ready.parameters, "steps": steps, "seconds": offer.seconds,
        "cpu_s": used_s,
    }  # fmt: skip


def node_rounds(peers: int, rounds: int) -> dict[str, Any]:
    """A whole run of digits-tiny by real nodes: the seconds of each part of each round, as the nodes tell them."""
    recipe = load_recipe("digits-tiny")
    with tempfile.TemporaryDirectory(prefix="ubcp-bench-") as directory, nodes.swarm(Path(directory), peers) as running:
        meter = None
        for node in running:
            node.call("train", recipe=recipe.to_toml(), run="bench", peers_min=peers)
        for node in running:
            node.wait("training", lambda status: status["runs"][0]["stage"] in ("running", "done"))
        meter = CpuMeter([node.process.pid for node in running])
        started_s = time.monotonic()
        with ThreadPoolExecutor(peers) as pool:
            told = list(pool.map(follow, running))
        used, seconds = meter.read(), time.monotonic() - started_s
        final = [node.call("status")["runs"][0] for node in running]
    if len({run["state_hash"] for run in final}) != 1:
        raise BenchError("the nodes' states differ at the end of the run")
    committed = [event for events in told for event in events if event["kind"] == "committed"][: peers * rounds]
    times = [event["time"] for event in told[0] if event["kind"] == "committed"]
    parts = ("train_s", "match_s", "exchange_s", "apply_s", "vote_s", "commit_s")
    say(f"{len(times)} rounds of {peers} nodes in {times[-1] - times[0]:.1f} s")
    return {
        "peers": peers, "rounds": len(times), "retries": sum(run["retries"] for run in final),
        "round_s": [later - earlier for earlier, later in pairwise(times)],
        "parts_s": {part: [event[part] for event in committed] for part in parts},
        "cpu_s": used["all"], "p2pd_cpu_s": used["p2pd"], "seconds": seconds,
    }  # fmt: skip


def follow(node: nodes.RunningNode) -> list[dict[str, Any]]:
    """All events of the run until it is done. Raises BenchError when it fails."""
    try:
        return [message["event"] for message in stream(node.profile, "follow", run="bench") if "event" in message]
    except UbcpError as error:
        raise BenchError(f"the run ended: {error.message}{node.last_words()}") from None


# -- tables -----------------------------------------------------------------------------------------------------------


def tables(cases: Sequence[Case], steps: Sequence[dict[str, Any]], run: dict[str, Any] | None) -> list[Table]:
    """What people read; every cell is a median with its range, or a ratio of medians."""
    found = {(case.kind, case.peers, case.megabytes): case for case in cases}
    keys = sorted({(case.peers, case.megabytes) for case in cases})
    made = [_averaging_table(found, keys), _cpu_table(found, keys), _match_table(cases), _ours_table(found, keys)]
    rows = [
        (
            row["recipe"], f"{row['parameters']:,}", str(row["steps"]),
            number(1000 * row["seconds"] / row["steps"]), number(1000 * row["cpu_s"] / row["steps"]),
        )
        for row in steps
    ]  # fmt: skip
    columns = ("recipe", "parameters", "steps", "ms a step", "CPU ms a step")
    made.append(Table("Local steps: the trainer process, one thread", columns, tuple(rows)))
    if run is not None:
        parts = [("whole round", Figure.of(run["round_s"]).text())]
        parts += [(part.removesuffix("_s"), Figure.of(values).text()) for part, values in run["parts_s"].items()]
        made.append(
            Table(
                f"Whole rounds of {run['peers']} real nodes (digits-tiny, {run['rounds']} rounds)",
                ("part", "s: median (least–greatest)"),
                tuple(parts),
                f"{run['retries']} retries; {number(run['cpu_s'])} CPU s in all, "
                f"{number(run['p2pd_cpu_s'])} of them p2pd; {number(run['seconds'])} s from trainers ready to done",
            )
        )
    return made


def _median(case: Case | None, name: str) -> float | None:
    values = getattr(case, name) if case is not None else []
    return Figure.of(values).median if values else None


def _cell(case: Case | None, name: str) -> str:
    if case is None:
        return ""
    values = getattr(case, name)
    return Figure.of(values).text() if values else f"left out: {case.left_out}"


def _ratio(over: float | None, under: float | None) -> str:
    return f"{number(over / under, 2)}×" if over is not None and under else ""


def _compared(
    title: str, name: str, found: dict[tuple[str, int, int], Case], keys: Sequence[tuple[int, int]], note: str
) -> Table:
    rows = []
    for peers, size in keys:
        ours, tuned, gloo = (found.get((kind, peers, size)) for kind in (OURS, TUNED, GLOO))
        mine = _median(ours, name)
        rows.append(
            (
                str(peers), str(size), _cell(ours, name), _cell(tuned, name), _cell(gloo, name),
                _ratio(_median(tuned, name), mine), _ratio(mine, _median(gloo, name)),
            )
        )  # fmt: skip
    columns = ("peers", "MB", "ours", "hivemind", "gloo", "hivemind ÷ ours", "ours ÷ gloo")
    return Table(title, columns, tuple(rows), note)


def _averaging_table(found: dict[tuple[str, int, int], Case], keys: Sequence[tuple[int, int]]) -> Table:
    note = "Ours: exchange, outer step and state hash, replicas bit-identical. gloo: plain TCP, no encryption."
    return _compared("Averaging, seconds: median (least–greatest)", "average_s", found, keys, note)


def _cpu_table(found: dict[tuple[str, int, int], Case], keys: Sequence[tuple[int, int]]) -> Table:
    note = "Matchmaking and averaging, p2pd included."
    return _compared("CPU seconds of a round, all peers together", "cpu_s", found, keys, note)


def _match_table(cases: Sequence[Case]) -> Table:
    rows = []
    for peers in sorted({case.peers for case in cases}):
        cells = []
        for kind in (OURS, TUNED, STOCK):
            values = [value for case in cases if (case.kind, case.peers) == (kind, peers) for value in case.match_s]
            mine = [case for case in cases if (case.kind, case.peers) == (kind, peers)]
            short_of, hung = sum(case.incomplete for case in mine), sum(case.hung for case in mine)
            extra = (f"; {short_of} incomplete" if short_of else "") + (f"; hung {hung}×" if hung else "")
            cells.append((Figure.of(values).text() if values else "") + extra)
        rows.append((str(peers), *cells))
    return Table("Matchmaking, seconds: median (least–greatest)", ("peers", OURS, TUNED, STOCK), tuple(rows))


def _ours_table(found: dict[tuple[str, int, int], Case], keys: Sequence[tuple[int, int]]) -> Table:
    rows = []
    for peers, size in keys:
        case = found.get((OURS, peers, size))
        if case is None or not case.exchange_s:
            continue
        cells = [_cell(case, name) for name in ("exchange_s", "outer_s", "python_cpu_s", "p2pd_cpu_s")]
        lags = [f"{1000 * max(values):.0f}" for values in (case.lag_p99_s, case.lag_max_s)]
        rows.append((str(peers), str(size), *cells, *lags))
    columns = ("peers", "MB", "exchange s", "outer step s", "CPU s, Python", "CPU s, p2pd", "lag p99 ms", "lag max ms")
    note = "CPU of the exchange alone. Lag of the daemon's event loop in the exchange, the worst of all rounds."
    return Table("Our exchange from within", columns, tuple(rows), note)


async def measure_all(name: str) -> tuple[dict[str, Any], list[Table]]:
    """Carry a plan out; the JSON document and the tables."""
    plan, facts, began_s = PLANS[name], machine(), time.monotonic()
    cases = await averaging(plan)
    steps = [await local_steps(recipe) for recipe in plan.recipes]
    run = await asyncio.to_thread(node_rounds, plan.node_peers, plan.node_rounds) if plan.node_rounds else None
    document = {
        "benchmark": "round", "plan": name, "machine": facts, "seconds": round(time.monotonic() - began_s, 1),
        "averaging": [vars(case) for case in cases], "local_steps": steps, "node_rounds": run,
    }  # fmt: skip
    return document, tables(cases, steps, run)


def case(text: str) -> tuple[int, int]:
    """Peers and MB of "4x40"."""
    peers, _, megabytes = text.partition("x")
    if not (peers.isdecimal() and megabytes.isdecimal() and 2 <= int(peers) <= 64 and 1 <= int(megabytes) <= 4000):
        raise argparse.ArgumentTypeError(f"{text!r} is no PEERSxMB, such as 4x40")
    return int(peers), int(megabytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="plan", action="store_const", const="quick", help="2 peers, 4 MB: a smoke test")
    size.add_argument("--full", dest="plan", action="store_const", const="full", help="2 to 8 peers, 4, 40, 400 MB")
    size.add_argument(
        "--cases", nargs="+", type=case, metavar="PEERSxMB", help="averaging alone, in these cases: --cases 4x400 8x40"
    )
    add_output_options(parser)
    parser.set_defaults(plan="default")
    chosen = parser.parse_args()
    if chosen.cases:
        chosen.plan = "cases"
        PLANS["cases"] = Plan(tuple(chosen.cases), (), 3, (), 0, 0)
    name = "round" if chosen.plan == "default" else f"round-{chosen.plan}"
    try:
        document, made = asyncio.run(measure_all(chosen.plan))
        publish(name, document, made, markdown=chosen.markdown, docs=chosen.docs)
    except BenchError as error:
        sys.exit(f"bench: error: {error}")


if __name__ == "__main__":
    main()
