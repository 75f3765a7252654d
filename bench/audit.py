"""Measures the auditor against raw PyNaCl: entries and signatures a second, 1 and all cores, memory, re-audits.

Raw is `nacl.signing.VerifyKey(key).verify(message, signature)` over all signatures of the same ledger, in the same run:
on one core in turns with the auditor, batch by batch; on all cores in turns, whole run by whole run. What counts is the
ratio.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import nacl.signing
import psutil
from harness import BenchError, Figure, Table, add_output_options, machine, number, processes, publish, say

from ubcp_p2p.ledger.audit import audit
from ubcp_p2p.ledger.auditor import Auditor
from ubcp_p2p.ledger.decisions import Decided
from ubcp_p2p.ledger.export import RecordKind, read_export, write_export
from ubcp_p2p.ledger.facts import Facts, Judged
from ubcp_p2p.ledger.plant import write_synthetic
from ubcp_p2p.ledger.sources import ExportSource
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.verifying import Workers
from ubcp_p2p.ledger.wire import decode_signed, signatures_of

SEED = 1
ACCOUNTS = 200
CLOCK = 2**32  # a slice after every entry's
SAMPLE_S = 0.05  # between looks at the memory
PAIRS = 9  # of an audit and a raw verification: on machines whose speed wavers few say little
MIB = 2**20

Message = tuple[bytes, bytes, bytes]  # key, what was signed, signature


class Spent(NamedTuple):
    """wall_s: of the clock. cpu_s: of all processes together."""

    wall_s: float
    cpu_s: float


def make_ledger(path: Path, entries: int) -> float:
    """Seconds that a synthetic ledger took to write."""
    from ubcp_p2p.cli.decisions import synthetic

    started_s = time.perf_counter()
    write_synthetic(path, accounts=min(ACCOUNTS, entries // 20), entries=entries, seed=SEED, deciding=synthetic)
    return time.perf_counter() - started_s


def messages_of(path: Path) -> list[Message]:
    """All signatures of a ledger."""
    with ExportSource(path) as source:
        return [
            (key, b"ubcp/sign/" + role.encode() + b"/1\0" + digest, signature)
            for record in source.entries()
            for key, role, digest, signature in signatures_of(decode_signed(record.payload))
        ]


def verify_raw(messages: Sequence[Message]) -> None:
    """As plain PyNaCl does it."""
    for key, message, signature in messages:
        nacl.signing.VerifyKey(key).verify(message, signature)


def replay(blob: bytes, decided: Decided, facts: Facts) -> Judged:
    """The allocator's, imported here: every worker imports the top of this file, and needs no numpy."""
    from ubcp_p2p.cli.decisions import replay as allocators

    return allocators(blob, decided, facts)


def one_core(path: Path, messages: Sequence[Message]) -> dict[str, float]:
    """CPU seconds of an audit on one core, and of raw verification of each batch right after it."""
    raw_s, done = 0.0, 0
    with ExportSource(path) as source:
        auditor = Auditor(source, Ledger(source.charters))

        def in_turn(_: int) -> None:
            nonlocal raw_s, done
            started_s = time.process_time()
            verify_raw(messages[done : auditor.counts.signatures])
            done = auditor.counts.signatures
            raw_s += time.process_time() - started_s

        started_s = time.process_time()
        with Workers(1) as workers:
            auditor.run(workers, clock=CLOCK, as_of=None, progress=in_turn)
            report = auditor.report(workers, replay)
        audit_s = time.process_time() - started_s - raw_s
    if report.faults:
        raise BenchError(f"the synthetic ledger has faults: {report.faults[0]}")
    return {"raw_s": raw_s, "audit_s": audit_s, "ratio": raw_s / audit_s, "entries": report.counts.read}


def cpu_s() -> float:
    """Of this process and of all its children that have ended."""
    rows = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(row.ru_utime + row.ru_stime for row in rows)


def raw_on(cores: int, messages: Sequence[Message]) -> Spent:
    """Raw verification in `cores` processes that have started and have their share: the best that there is."""
    share = -(-len(messages) // cores)
    context = multiprocessing.get_context("spawn")
    parts = [messages[i : i + share] for i in range(0, len(messages), share)]
    with ProcessPoolExecutor(cores, mp_context=context) as pool:
        list(pool.map(_timed_raw, [part[:8] for part in parts]))  # all have started
        rows = list(pool.map(_timed_raw, parts))
    # From the first to begin to the last to end, without the way of the messages to the processes.
    return Spent(max(row[1] for row in rows) - min(row[0] for row in rows), sum(row[2] for row in rows))


def _timed_raw(messages: Sequence[Message]) -> tuple[float, float, float]:
    started_s, cpu_started_s = time.monotonic(), time.process_time()
    verify_raw(messages)
    return started_s, time.monotonic(), time.process_time() - cpu_started_s


def audit_on(cores: int, path: Path) -> Spent:
    """A whole audit, the start of its workers included."""
    started_s, cpu_started_s = time.monotonic(), cpu_s()
    with ExportSource(path) as source:
        report = audit(source, jobs=cores, clock=CLOCK, replay=replay)
    if report.faults:
        raise BenchError(f"the synthetic ledger has faults: {report.faults[0]}")
    return Spent(time.monotonic() - started_s, cpu_s() - cpu_started_s)


def all_cores(path: Path, messages: Sequence[Message], cores: int, pairs: int) -> dict[str, Any]:
    """Audits and raw verifications in turns."""
    raws, audits, wall, cpu = [raw_on(cores, messages)], [], [], []
    for _ in range(pairs):
        audits.append(audit_on(cores, path))
        raws.append(raw_on(cores, messages))
        beside = [statistics.mean(pair) for pair in zip(raws[-2], raws[-1], strict=True)]
        wall.append(beside[0] / audits[-1].wall_s)
        cpu.append(beside[1] / audits[-1].cpu_s)
        say(f"  {cores} cores: raw {beside[0]:.2f} s, audit {audits[-1].wall_s:.2f} s, ratio {wall[-1]:.3f}")
    return {
        "raw_s": [raw.wall_s for raw in raws], "audit_s": [spent.wall_s for spent in audits],
        "raw_cpu_s": [raw.cpu_s for raw in raws], "audit_cpu_s": [spent.cpu_s for spent in audits],
        "ratio_wall": wall, "ratio_cpu": cpu,
    }  # fmt: skip


def memory_of(path: Path, cores: int) -> dict[str, Any]:
    """The peak of the memory of `ubcp audit` and its workers, and its report."""
    command = [sys.executable, "-m", "ubcp_p2p", "audit", str(path), "--json", "--jobs", str(cores)]
    peak = {"rss": 0, "pss": 0}
    with tempfile.TemporaryFile() as out:
        with subprocess.Popen(command, stdout=out) as child:
            while True:
                try:
                    child.wait(SAMPLE_S)
                    break
                except subprocess.TimeoutExpired:
                    for name, value in _memory(child.pid).items():
                        peak[name] = max(peak[name], value)
        out.seek(0)
        report: dict[str, Any] = json.load(out)
    if child.returncode:
        raise BenchError(f"ubcp audit ended with {child.returncode}")
    return {"peak_rss_mib": peak["rss"] / MIB, "peak_pss_mib": peak["pss"] / MIB, "seconds": report["seconds"],
            "entries": report["entries"], "verified_per_s": report["verified_per_s"]}  # fmt: skip


def _memory(pid: int) -> dict[str, int]:
    found = {"rss": 0, "pss": 0}
    for process in processes(pid):
        try:
            full = process.memory_full_info()
        except psutil.Error:
            continue
        found["rss"] += full.rss
        found["pss"] += getattr(full, "pss", full.rss)
    return found


def again(path: Path, directory: Path, cores: int) -> dict[str, float]:
    """An audit over a snapshot of all entries but the last hundredth."""
    with path.open("rb") as file:
        records = read_export(file)
        head = list(islice(records, 2))
        with ExportSource(path) as source, (directory / "beginning").open("wb") as out:
            entries = sum(1 for _ in source.entries())

            def beginning() -> Iterator[bytes]:
                rows = (record.payload for record in records if record.kind is RecordKind.ENTRY)
                return islice(rows, entries - entries // 100)

            list(source.blobs())
            claimed = source.end()
            assert claimed is not None
            write_export(out, [head[1].payload], [], [], beginning(), [], network=source.charters.network,
                         roots=lambda: claimed[1], log=source.log)  # fmt: skip
    figures: dict[str, float] = {}
    for name, what in (("first", directory / "beginning"), ("again", path)):
        with ExportSource(what) as source:
            report = audit(source, jobs=cores, clock=CLOCK, checkpoint=directory / "snapshot", replay=replay)
        figures[f"{name}_s"] = report.seconds
        figures[f"{name}_signatures"] = report.signatures
    figures["snapshot_mib"] = (directory / "snapshot").stat().st_size / MIB
    figures["entries"] = report.counts.read
    figures["new"] = report.counts.read - report.resumed
    return figures


def measure(entries: int, pairs: int, full: bool) -> dict[str, Any]:
    """Everything, in one temporary directory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "ledger"
        document: dict[str, Any] = {"machine": machine(), "benchmark": "audit", "entries": entries, "cores": cores}
        say(f"making a ledger of {entries} entries")
        document["synth_s"] = make_ledger(path, entries)
        messages = messages_of(path)
        gc.freeze()
        document["signatures"] = len(messages)
        document["one_core"] = [one_core(path, messages) for _ in range(pairs)]
        say(f"  1 core: ratio {', '.join(number(row['ratio']) for row in document['one_core'])}")
        document["all_cores"] = all_cores(path, messages, cores, pairs)
        del messages
        document["memory"] = [memory_of(path, cores)]
        document["again"] = again(path, Path(name), cores)
        if full:
            say("making a ledger of 1,000,000 entries")
            make_ledger(path, 1_000_000)
            document["memory"].append(memory_of(path, cores))
    return document


def tables(document: dict[str, Any]) -> list[Table]:
    entries, signatures, cores = document["entries"], document["signatures"], document["cores"]
    one, many, again_ = document["one_core"], document["all_cores"], document["again"]
    rows = []
    for name, raw, spent, ratio in (
        ("1, CPU time", [row["raw_s"] for row in one], [row["audit_s"] for row in one], [row["ratio"] for row in one]),
        (f"{cores}, CPU time of all", many["raw_cpu_s"], many["audit_cpu_s"], many["ratio_cpu"]),
        (f"{cores}, wall time", many["raw_s"], many["audit_s"], many["ratio_wall"]),
    ):
        rows.append((
            name, Figure.of([signatures / s for s in raw]).text(4), Figure.of([signatures / s for s in spent]).text(4),
            Figure.of([entries / s for s in spent]).text(4), Figure.of(ratio).text(3),
        ))  # fmt: skip
    return [
        Table(
            f"Auditing {entries:,} entries with {signatures:,} signatures",
            ("cores", "raw signatures/s", "audit signatures/s", "entries/s", "ratio"),
            tuple(rows),
            "Raw is PyNaCl alone on as many processes; the ratio is of what was measured in turns. "
            f"Making the ledger took {document['synth_s']:.1f} s.",
        ),
        Table(
            "Memory of all processes of `ubcp audit`, peak",
            ("entries", "RSS MiB", "PSS MiB", "s"),
            tuple(
                (f"{row['entries']:,}", *(number(row[key]) for key in ("peak_rss_mib", "peak_pss_mib", "seconds")))
                for row in document["memory"]
            ),
        ),
        Table(
            "Auditing again over a snapshot",
            ("", "entries", "signatures verified", "s"),
            (
                ("first", f"{again_['entries'] - again_['new']:,}", f"{again_['first_signatures']:,}",
                 number(again_["first_s"])),
                ("again", f"{again_['entries']:,}", f"{again_['again_signatures']:,}", number(again_["again_s"])),
            ),
            f"The snapshot has {number(again_['snapshot_mib'])} MiB.",
        ),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="how often each is measured")
    parser.add_argument("--quick", action="store_true", help="a smoke test: 5,000 entries, once")
    parser.add_argument("--full", action="store_true", help="also the memory of auditing 1,000,000 entries")
    add_output_options(parser)
    options = parser.parse_args()
    entries, pairs = (5_000, 1) if options.quick else (options.entries, options.pairs)
    document = measure(entries, pairs, options.full)
    publish("audit-quick" if options.quick else "audit", document, tables(document), markdown=options.markdown,
            docs=options.docs)  # fmt: skip


if __name__ == "__main__":
    main()
