"""Measures the live ledger: a burst of entries among real peers, until every one of them has all of it.

Each peer is a process with a p2pd of its own (peer_ledger.py). Every entry is a RECEIPT with its voucher (two
signatures), written by the node that hands it in. Latency is from the call that hands an entry in to its commit in
another peer's store. Bytes are what passed the loopback interface of a network namespace that has only these peers in
it; where namespaces are not allowed, everything on loopback is counted, and the table says so.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness import (
    BenchError,
    CpuMeter,
    Figure,
    Peer,
    Table,
    add_output_options,
    ask_all,
    machine,
    number,
    publish,
    say,
)

from ubcp_p2p.charter.document import to_toml
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import World
from ubcp_p2p.units import MICROCREDITS

STEP_S = 120.0
SETTLE_S = 5.0  # for the mesh of a topic to form, and for first exchanges to end
IDLE_S = 5.0
CLONE_NEWNET = 0x40000000


class Community:
    """As many people and machines as there are peers; machine n is paid by the one before it."""

    def __init__(self, peers: int) -> None:
        self.world = world = World(7)
        people = [world.account(f"person {n}") for n in range(peers)]
        self._nodes = [world.node(person, f"node {n}") for n, person in enumerate(people)]
        self._allots: list[tuple[Author, Signed]] = []
        for n, person in enumerate(people):
            payer, earner = self._nodes[n], self._nodes[(n + 1) % peers]
            request = world.request(person, payer, 5000 * MICROCREDITS, slices=2_000)
            self._allots.append((payer, world.allot(payer, request, earner, 5000 * MICROCREDITS)))
        self.base = list(world.entries)

    def burst(self, entries: int) -> list[list[str]]:
        """Receipts for each peer to hand in, in hexadecimal; `entries` of them in all."""
        peers = len(self._nodes)
        shares: list[list[str]] = [[] for _ in range(peers)]
        for turn in range(entries):
            n = turn % peers
            if n == 0:
                self.world.now += 1
            payer, allot = self._allots[n]
            receipt = self.world.receipt(self._nodes[(n + 1) % peers], payer, allot, MICROCREDITS)
            shares[(n + 1) % peers].append(receipt.to_bytes().hex())
        return shares


def private_network() -> bool:
    """Move this process, and all that it starts, into a network namespace with nothing but loopback."""
    ip = shutil.which("ip")
    if ip is None or ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        return False
    subprocess.run([ip, "link", "set", "lo", "up"], check=True)
    return True


def loopback_bytes() -> int:
    """Bytes received on lo since the machine, or the namespace, began: each packet once."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == "lo":
            return int(rest.split()[0])
    raise BenchError("no loopback interface")


async def measure(peers: int, entries: int, repeats: int) -> dict[str, Any]:
    """Start the peers, let them meet, and send the bursts. Raises BenchError."""
    community = Community(peers)
    with tempfile.TemporaryDirectory(prefix="ubcp-bench-") as folder:
        charter = Path(folder) / "charter.toml"
        charter.write_text(to_toml(community.world.charters.versions[0]))
        running: list[Peer] = []
        try:
            for index in range(peers):
                home = Path(folder) / f"p{index}"
                home.mkdir()
                given = {"index": index, "directory": str(home), "charter": str(charter)}
                running.append(await Peer.start("peer_ledger.py", given, home))
            first, *others = [(await peer.read(STEP_S))["addresses"] for peer in running]
            for index, peer in enumerate(running[1:]):
                known = [first, *others[max(0, index - 2) : index]]
                peer.tell({"do": "meet", "addresses": [addresses[0] for addresses in known]})
                await peer.read(STEP_S)
            running[0].tell({"do": "submit", "entries": [signed.to_bytes().hex() for signed in community.base]})
            await running[0].read(STEP_S)
            await complete(running, len(community.base))
            await asyncio.sleep(SETTLE_S)
            idle_s, idle_bytes, idle_cpu = time.monotonic(), loopback_bytes(), CpuMeter([p.pid for p in running])
            await asyncio.sleep(IDLE_S)
            idle_s = time.monotonic() - idle_s
            idle = {
                "bytes_per_s": (loopback_bytes() - idle_bytes) / idle_s,
                **{f"{kind}_per_s": used / idle_s for kind, used in idle_cpu.read().items()},
            }
            bursts = []
            for repeat in range(repeats):
                say(f"burst {repeat + 1} of {repeats}: {entries} entries, {peers} peers")
                bursts.append(await one_burst(running, community, entries, idle))
                await asyncio.sleep(SETTLE_S)
            states = await ask_all(running, {"do": "status"}, STEP_S)
        finally:
            await asyncio.gather(*(peer.end() for peer in running))
    roots = {(state["entries_root"], state["balances_root"]) for state in states}
    if len(roots) != 1 or states[0]["entries"] != len(community.world.entries):
        raise BenchError(f"the peers do not agree: {[state['entries'] for state in states]} entries")
    return {"idle": idle, "bursts": bursts, "banned": sum(len(state["banned"]) for state in states)}


async def complete(running: Sequence[Peer], entries: int) -> list[dict[str, float]]:
    """Wait until every peer has so many entries; when it had each, by id."""
    answers = await ask_all(running, {"do": "wait", "entries": entries, "timeout_s": STEP_S}, STEP_S + 10.0)
    return [answer["at"] for answer in answers]


async def one_burst(
    running: Sequence[Peer], community: Community, entries: int, idle: dict[str, float]
) -> dict[str, Any]:
    """All peers hand in their share at once."""
    shares = community.burst(entries)
    size = statistics.fmean(len(form) / 2 for share in shares for form in share)
    meter, before_bytes, started_s = CpuMeter([peer.pid for peer in running]), loopback_bytes(), time.monotonic()
    for peer, share in zip(running, shares, strict=True):
        peer.tell({"do": "submit", "entries": share})
    given: dict[str, tuple[int, float]] = {}
    for index, peer in enumerate(running):
        answer = await peer.read(STEP_S)
        given.update({id_: (index, at_s) for id_, at_s in answer["given"].items()})
    arrived = await complete(running, len(community.world.entries))
    used, passed = meter.read(), loopback_bytes() - before_bytes
    window_s = time.monotonic() - started_s
    latencies_s = sorted(
        at[id_] - at_s for id_, (index, at_s) in given.items() for n, at in enumerate(arrived) if n != index
    )
    first_s = min(at_s for _, at_s in given.values())
    return {
        "complete_s": max(at[id_] for id_ in given for at in arrived) - first_s,
        "p50_s": latencies_s[len(latencies_s) // 2],
        "p99_s": latencies_s[int(len(latencies_s) * 0.99)],
        "max_s": latencies_s[-1],
        "deliveries": len(latencies_s),
        "entry_bytes": size,
        "bytes_per_delivery": (passed - idle["bytes_per_s"] * window_s) / len(latencies_s),
        "cpu_ms_per_delivery": 1000 * (used["all"] - idle["all_per_s"] * window_s) / len(latencies_s),
        "p2pd_ms_per_delivery": 1000 * (used["p2pd"] - idle["p2pd_per_s"] * window_s) / len(latencies_s),
        "window_s": window_s,
    }


def tables(document: dict[str, Any]) -> list[Table]:
    """What people read: medians over the bursts, with their ranges."""
    bursts, idle = document["bursts"], document["idle"]

    def row(label: str, name: str, factor: float = 1.0) -> tuple[str, str]:
        return (label, Figure.of([burst[name] * factor for burst in bursts]).text())

    rows = (
        row("latency, p50, ms", "p50_s", 1000),
        row("latency, p99, ms", "p99_s", 1000),
        row("latency, greatest, ms", "max_s", 1000),
        row("until every peer has all, s", "complete_s"),
        row("an entry, bytes", "entry_bytes"),
        row("on the wire per entry and receiver, bytes", "bytes_per_delivery"),
        row("CPU per entry and receiver, ms", "cpu_ms_per_delivery"),
        row("of which p2pd, ms", "p2pd_ms_per_delivery"),
    )
    whose = "in a network namespace of its own" if document["private"] else "everything on this machine's loopback"
    note = (
        f"{document['peers']} peers, {document['entries']} entries a burst, {len(bursts)} bursts; every peer had every "
        f"entry after each, and all came to the same balances. Idle ({number(idle['bytes_per_s'] / 1000)} kB/s and "
        f"{number(idle['all_per_s'] * 100)} % of a core, all peers together) is subtracted. Bytes: {whose}."
    )
    return [Table("A burst of entries: median (least–greatest)", ("what", "figure"), rows, note)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, default=10)
    parser.add_argument("--entries", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="3 peers, 30 entries, once: a smoke test")
    add_output_options(parser)
    chosen = parser.parse_args()
    peers, entries, repeats = (3, 30, 1) if chosen.quick else (chosen.peers, chosen.entries, 5)
    facts = machine()
    private = False
    with suppress(OSError, subprocess.CalledProcessError):
        private = private_network()
    try:
        document = {
            "benchmark": "gossip", "machine": facts, "peers": peers, "entries": entries, "private": private,
            **asyncio.run(measure(peers, entries, repeats)),
        }  # fmt: skip
        name = "gossip-quick" if chosen.quick else "gossip"
        publish(name, document, tables(document), markdown=chosen.markdown, docs=chosen.docs)
    except BenchError as error:
        sys.exit(f"bench: error: {error}")


if __name__ == "__main__":
    main()
