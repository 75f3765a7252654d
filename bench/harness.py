"""What the benchmarks share: peers as processes of their own, CPU clocks of process trees, tables, JSON results.

A peer process reads one JSON object a line on stdin and answers each with one on stdout. Times of different processes
can be compared: all are read from CLOCK_MONOTONIC of one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ubcp_p2p.processes import die_with_parent

BENCH = Path(__file__).resolve().parent
RESULTS = BENCH / "results"
MEASUREMENTS = BENCH.parent / "docs" / "measurements.md"
LINE_BYTES_MAX = 1 << 20
END_S = 10.0  # how long a peer may take to end by itself before it is killed


class BenchError(Exception):
    """A benchmark could not be carried out; the message says where and carries the peer's last words."""


def say(text: str) -> None:
    """Progress for people, on stderr: stdout carries the tables."""
    print(text, file=sys.stderr, flush=True)


# -- processes --------------------------------------------------------------------------------------------------------


class Peer:
    """One peer process: `script` of this directory, in a session of its own, so that all it starts can be ended."""

    def __init__(self, process: asyncio.subprocess.Process, script: str, words: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._script = script
        self._words = words

    @classmethod
    async def start(cls, script: str, arguments: dict[str, Any], directory: Path) -> Peer:
        """Start `script` with `arguments` as JSON; stderr goes to a file in `directory`."""
        words = directory / f"{script}-{arguments['index']}.txt"
        with words.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(BENCH / script), json.dumps(arguments), str(os.getpid()),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=stderr,
                limit=LINE_BYTES_MAX, start_new_session=True, cwd=directory,
            )  # fmt: skip
        return cls(process, script, words)

    async def read(self, timeout_s: float) -> dict[str, Any]:
        """The next answer. Raises BenchError when the peer ends, reports an error or is late."""
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), timeout_s)
        except TimeoutError:
            raise BenchError(f"{self._script} did not answer within {timeout_s:.0f} s{self._last_words()}") from None
        if not line:
            raise BenchError(f"{self._script} ended{self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{self._script}: {answer['error']}")
        return answer

    def tell(self, message: dict[str, Any]) -> None:
        """Send one request."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def end(self) -> None:
        """End the peer and everything that it started: by closing its stdin, and if that takes long by SIGKILL."""
        tree = processes(self.pid)
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), END_S)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()
        for process in psutil.wait_procs(tree, timeout=END_S)[1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _last_words(self) -> str:
        words = self._words.read_text(errors="replace").strip()[-2000:]
        return f"; its last words:\n{words}" if words else ""


async def ask_all(peers: Sequence[Peer], message: dict[str, Any], timeout_s: float) -> list[dict[str, Any]]:
    """Tell every peer the same at once; the answers in their order."""
    for peer in peers:
        peer.tell(message)
    return list(await asyncio.gather(*(peer.read(timeout_s) for peer in peers)))


def processes(pid: int) -> list[psutil.Process]:
    """`pid` and all its descendants that are alive."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_s(pid: int) -> float:
    """CPU seconds of one process so far, all its threads, to the nanosecond where the kernel keeps them so (Linux)."""
    if sys.platform == "linux":
        return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3), which Python lacks
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


class CpuMeter:
    """CPU seconds that some process trees use from here on; processes are told apart by `kind`: p2pd, or the rest."""

    def __init__(self, pids: Sequence[int]) -> None:
        found = [process for pid in pids for process in processes(pid)]
        self._started = {p.pid: (p.name(), cpu_s(p.pid)) for p in found}

    def read(self) -> dict[str, float]:
        """CPU seconds since the start: of all, and of p2pd alone."""
        used = {"all": 0.0, "p2pd": 0.0}
        for pid, (name, before) in self._started.items():
            with suppress(OSError):
                spent = cpu_s(pid) - before
                used["all"] += spent
                used["p2pd"] += spent if name == "p2pd" else 0.0
        return used


# -- in a peer process ------------------------------------------------------------------------------------------------


def arguments() -> dict[str, Any]:
    """A peer's arguments; from here on it dies with the benchmark that started it (Linux)."""
    die_with_parent(int(sys.argv[2]))()
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given


def answer(message: dict[str, Any]) -> None:
    """A peer's answer to the benchmark."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


# -- figures ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """Repeated measurements of one thing: their median, least and greatest."""

    median: float
    least: float
    greatest: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        return cls(statistics.median(values), min(values), max(values), len(values))

    def text(self, digits: int = 3) -> str:
        """Three significant digits or so, with the range behind."""
        return f"{number(self.median, digits)} ({number(self.least, digits)}–{number(self.greatest, digits)})"


def number(value: float, digits: int = 3) -> str:
    """`value` with about `digits` significant digits and no exponent."""
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - int(f"{abs(value):e}".partition("e")[2]))
    return f"{value:.{min(decimals, 4)}f}"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    versions = {}
    for name in ("ubcp-p2p", "hivemind", "torch", "numpy", "uvloop"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": cpu_name(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def cpu_name() -> str:
    """The processor's name as the kernel gives it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine_line(facts: dict[str, Any]) -> str:
    """One line for people."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"{facts['date']}; {facts['cores']} cores ({facts['cpu']}), {facts['memory_gib']} GiB, "
        f"load {facts['load_before']} before the start; Python {facts['python']}, {versions}"
    )


@dataclass(frozen=True)
class Table:
    """A table to print: for a terminal, or as Markdown."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        lines = [f"| {' | '.join(row)} |" for row in (self.columns, ("---",) * len(self.columns), *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines, *(["", self.note] if self.note else [])])

    def plain(self) -> str:
        everything = (self.columns, *self.rows)
        widths = [max(len(row[i]) for row in everything) for i in range(len(self.columns))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in everything]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([self.title, *(line.rstrip() for line in lines), *([self.note] if self.note else [])])


def keep(name: str, document: dict[str, Any]) -> Path:
    """Write `document` to bench/results/<name>.json, whole or not at all."""
    RESULTS.mkdir(exist_ok=True)
    path, part = RESULTS / f"{name}.json", RESULTS / f"{name}.part"
    part.write_text(json.dumps(document, indent=1) + "\n")
    return part.replace(path)


def publish(
    name: str, document: dict[str, Any], tables: Sequence[Table], *, markdown: bool, docs: bool = False,
    page: Path = MEASUREMENTS,
) -> None:  # fmt: skip
    """Print the tables on stdout, write `document` to bench/results/<name>.json, and the tables into the docs if asked.

    In `page` they replace what is between the markers of `document["benchmark"]`. Raises BenchError when
    it has no such markers.
    """
    say(f"figures written to {keep(name, document)}")
    line = machine_line(document["machine"])
    text = "\n\n".join([f"Measured {line}.", *(table.markdown() for table in tables)])
    print(text if markdown else "\n\n".join([line, *(table.plain() for table in tables)]))
    if docs:
        begin, end = (f"<!-- {word}: bench/{document['benchmark']}.py -->" for word in ("begin", "end"))
        old = page.read_text()
        if not 0 <= old.find(begin) < old.find(end):
            raise BenchError(f"{page} lacks the markers {begin!r} and {end!r}")
        before, after = old[: old.find(begin)], old[old.find(end) :]
        page.write_text(f"{before}{begin}\n{text}\n{after}")
        say(f"tables written into {page}")


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """The options that every benchmark has."""
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--docs", action="store_true", help="also write the tables into docs/measurements.md")
