"""Measures what a node costs to start and to keep: seconds from exec, and memory of each process.

In one run with what stock hivemind costs for the same: importing it, and starting a `hivemind.DHT`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nodes
import psutil
from harness import BenchError, Figure, Table, add_output_options, cpu_s, machine, number, processes, publish, say

from ubcp_p2p.models.recipe import load_recipe
from ubcp_p2p.processes import die_with_parent

HIVEMIND_DHT = """
import os, sys, time
import hivemind
dht = hivemind.DHT(host_maddrs=["/ip4/127.0.0.1/tcp/0"], start=True)
print("started", flush=True)
sys.stdin.read()
dht.shutdown()
"""
COMMAND_S = 60.0
RECIPE = "digits-tiny"
MIB = 2**20


def seconds_of(command: Sequence[str]) -> float:
    """Wall seconds of a command that must succeed."""
    started_s = time.monotonic()
    done = subprocess.run(command, capture_output=True, timeout=COMMAND_S, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.decode()[-1000:]}")
    return time.monotonic() - started_s


def memory(pid: int) -> dict[str, dict[str, float]]:
    """RSS and PSS (shared pages divided among their users; Linux) in MiB of a process and its descendants, by duty."""
    found: dict[str, dict[str, float]] = {}
    for process in processes(pid):
        try:
            command = process.cmdline()
            full = process.memory_full_info()
        except psutil.Error:
            continue
        duty = (
            "p2pd" if process.name() == "p2pd"
            else "trainer" if "ubcp_p2p.training.worker" in command
            else "sweeper" if "ubcp-sweeper" in command
            else "daemon" if process.pid == pid
            else f"child {len(found)}"
        )  # fmt: skip
        found[duty] = {"rss_mib": full.rss / MIB, "pss_mib": getattr(full, "pss", full.uss) / MIB}
    return found


def one_node(directory: Path) -> dict[str, Any]:
    """A seed node and then one node through it: when the second reaches each stage, and its memory with a trainer."""
    seed = nodes.start(nodes.make_profile(directory / "seed"), "bootstrap")
    node = None
    try:
        seed.wait("up", lambda status: status["stage"] == "up")
        address = seed.call("peers")["own"][0]
        node = nodes.start(nodes.make_profile(directory / "node"), join=(address,))
        stages = {
            "the API answers": node.wait("answering", lambda status: True),
            "network up": node.wait("up", lambda status: status["stage"] == "up"),
            "joined": node.wait("joined", lambda status: status["connected"] > 0),
        }
        idle = memory(node.process.pid)
        idle_cpu_s = sum(cpu_s(process.pid) for process in processes(node.process.pid))
        asked_s = time.monotonic()
        node.call("train", recipe=load_recipe(RECIPE).to_toml(), run="bench", peers_min=2)
        node.wait("training", lambda status: status["runs"][0]["stage"] == "running")
        stages["trainer ready, from `ubcp train`"] = time.monotonic() - asked_s
        return {
            "seconds": stages, "cpu_s_until_joined": idle_cpu_s, "memory_idle": idle,
            "memory_with_trainer": memory(node.process.pid), "memory_seed": memory(seed.process.pid),
        }  # fmt: skip
    finally:
        for running in (node, seed):
            if running is not None:
                nodes.stop(running)


def stock_dht() -> dict[str, Any]:
    """Start a hivemind.DHT in a fresh interpreter, from exec; its memory, all processes together."""
    started_s = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", HIVEMIND_DHT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=dict(os.environ, HIVEMIND_LOGLEVEL="ERROR"), preexec_fn=die_with_parent(os.getpid()),
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    tree: list[psutil.Process] = []
    try:
        if process.stdout.readline() != b"started\n":
            raise BenchError("hivemind.DHT did not start")
        seconds = time.monotonic() - started_s
        tree = processes(process.pid)
        used_s = sum(cpu_s(child.pid) for child in tree)
        return {"seconds": seconds, "cpu_s": used_s, "memory": memory(process.pid)}
    finally:
        process.stdin.close()
        try:
            process.wait(COMMAND_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        for child in psutil.wait_procs(tree, timeout=5.0)[1]:  # hivemind leaves p2pd behind when it is killed
            child.kill()


def repeated(what: str, repeats: int, measure: Callable[[], Any]) -> list[Any]:
    """`repeats` measurements, said on stderr."""
    say(f"measuring: {what}, {repeats} times")
    return [measure() for _ in range(repeats)]


def measure_all(repeats: int) -> dict[str, Any]:
    """Everything, as a JSON document."""
    facts = machine()
    python = sys.executable
    commands = {
        "`ubcp --help`": [python, "-m", "ubcp_p2p", "--help"],
        "`ubcp up --help`": [python, "-m", "ubcp_p2p", "up", "--help"],
        "python -c pass": [python, "-c", "pass"],
        "import the daemon's network code": [python, "-c", "import ubcp_p2p.swarm.network"],
        "import hivemind": [python, "-c", "import hivemind"],
        "import torch": [python, "-c", "import torch"],
    }
    seconds = {}
    for name, command in commands.items():
        seconds_of(command)  # warms the disk cache
        seconds[name] = repeated(name, repeats, partial(seconds_of, command))

    def node() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="ubcp-bench-") as directory:
            return one_node(Path(directory))

    node()  # warms the disk cache
    stock_dht()
    return {
        "benchmark": "startup", "machine": facts, "commands_s": seconds, "nodes": repeated("a node", repeats, node),
        "stock_dht": repeated("hivemind.DHT", repeats, stock_dht),
    }  # fmt: skip


def tables(document: dict[str, Any]) -> list[Table]:
    """What people read: medians with their ranges."""
    found, stock = document["nodes"], document["stock_dht"]
    rows = [
        (f"node: {stage}", Figure.of([node["seconds"][stage] for node in found]).text())
        for stage in found[0]["seconds"]
    ]
    dht = Figure.of([one["seconds"] for one in stock])
    rows += [("stock `hivemind.DHT` started, import included", dht.text())]
    rows += [(name, Figure.of(values).text()) for name, values in document["commands_s"].items()]
    up = Figure.of([node["seconds"]["network up"] for node in found])
    cpu = Figure.of([node["cpu_s_until_joined"] for node in found])
    stock_cpu = Figure.of([one["cpu_s"] for one in stock])
    note = (
        f"hivemind.DHT ÷ our node until the network is up: {number(dht.median / up.median, 2)}×. "
        f"CPU until joined: {number(cpu.median)} s, all processes; hivemind.DHT: {number(stock_cpu.median)} s."
    )
    start = Table("Start, seconds from exec: median (least–greatest)", ("what", "s"), tuple(rows), note)
    return [start, _memory_table(document)]


def _memory_table(document: dict[str, Any]) -> Table:
    rows = []
    for where, key in (
        ("node, idle", "memory_idle"),
        ("node in a run", "memory_with_trainer"),
        ("seed", "memory_seed"),
    ):
        for duty in document["nodes"][0][key]:
            rows.append((where, duty, *_mib([node[key].get(duty) for node in document["nodes"]])))
    totals = [
        {unit: sum(process[unit] for process in one["memory"].values()) for unit in ("rss_mib", "pss_mib")}
        for one in document["stock_dht"]
    ]
    rows.append(("stock hivemind.DHT", "all its processes", *_mib(totals)))
    note = (
        f"PSS divides shared pages among their users. The run is {RECIPE}; what a larger model adds is in its trainer."
    )
    return Table("Memory per process, MiB: median (least–greatest)", ("of", "process", "RSS", "PSS"), tuple(rows), note)


def _mib(values: Sequence[dict[str, float] | None]) -> tuple[str, str]:
    present = [value for value in values if value is not None]
    rss, pss = (Figure.of([value[unit] for value in present]) for unit in ("rss_mib", "pss_mib"))
    return rss.text(), pss.text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="once instead of five times: a smoke test")
    add_output_options(parser)
    chosen = parser.parse_args()
    name = "startup-quick" if chosen.quick else "startup"
    try:
        document = measure_all(1 if chosen.quick else 5)
        publish(name, document, tables(document), markdown=chosen.markdown, docs=chosen.docs)
    except BenchError as error:
        sys.exit(f"bench: error: {error}")


if __name__ == "__main__":
    main()
