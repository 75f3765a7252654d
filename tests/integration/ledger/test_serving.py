"""Real nodes decide on a ledger's requests, slice by slice: leases, peers min and max, restarts, the audit of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import charter_file, hand_in, ledger_of, open_chains, short_slices
from tests.support.processes import until
from tests.support.swarm import STEP_S, Peer, Swarm
from ubcp_p2p.ledger.entry import URGENCY_MIN, Request
from ubcp_p2p.ledger.world import World
from ubcp_p2p.units import MICROCREDITS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
SLICE_S = 8
CREDIT = MICROCREDITS
SERVING = '[serving]\ndevice_class = "cpu-8"\n'
BUDGET = 500 * SLICE_S  # GFLOP: cpu-8 has 500 a second


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    with Swarm(bootstrap=False, faulty=False) as made:
        yield made


def serving(peer: Peer) -> dict[str, Any]:
    found: dict[str, Any] = peer.status()["serving"]
    return found


def asks(world: World, name: str, units: int, peers: tuple[int, int]) -> bytes:
    """A person asks; returns the REQUEST's id."""
    person = world.account(name)
    machine = world.node(person, name)
    end = world.now + 5000
    body = Request(
        name, bytes(32), "research", *peers, units, 1000 * CREDIT, end, end, URGENCY_MIN, machine.public, (), ()
    )
    return world.write(person, body).entry.id


@pytest.mark.full
def test_two_nodes_serve_what_fits_and_the_audit_replays_it(swarm: Swarm, tmp_path: Path) -> None:
    world = short_slices(41, SLICE_S)
    more = charter_file(swarm.home, world) + SERVING
    a = swarm.add("a", more=more).start()
    b = swarm.add("b", more=more).start(a.own())
    for peer in (a, b):
        entries = open_chains(peer, world)
        assert [result["outcome"] for result in hand_in(peer, entries)] == ["added"] * 3
    until(lambda: all(ledger_of(p)["writing"]["standing"] == "confirmed" for p in (a, b)), STEP_S, "both may sign")

    both = asks(world, "both", BUDGET // 4, (2, 2))  # needs two peers
    three = asks(world, "three", BUDGET // 4, (3, 3))  # needs three: here are two
    large = asks(world, "large", BUDGET, (1, 8))  # leaves no room for others
    hand_in(a, world.entries)

    def served(peer: Peer) -> dict[str, Any] | None:
        """A settled slice in which this node holds a lease of what needs both."""
        found = serving(peer)
        return found if found["settled"] and any(row["request"] == both.hex() for row in found["leases"]) else None

    until(lambda: bool(served(a) and served(b)), STEP_S, "both hold a lease in one slice")
    snapshots: list[dict[str, Any]] = []

    def seen() -> bool:
        found = served(a)
        snapshots.extend([found] if found is not None else [])
        return found is not None

    until(seen, STEP_S, "a holds it again")
    slice_of_a = snapshots[-1]
    rows = {row["request"]: row for kind in ("leases", "freed", "waiting") for row in slice_of_a[kind]}
    assert rows[three.hex()]["reason"] == "too-few-peers"
    full = rows[large.hex()]
    assert full["reason"] == "full" and "not this slice: full" in full["explain"]
    assert full["queue"] >= 1 and full["expected_wait_s"] is not None
    assert slice_of_a["used"] <= slice_of_a["budget"] == BUDGET

    slice_ = serving(b)["slice"]
    assert b.stop() == 0
    b.start(a.own())  # within the slice, or in the next: it says nothing twice
    until(lambda: (serving(b)["slice"] or 0) > slice_ and serving(b)["settled"], STEP_S, "it serves again")

    assert a.stop() == 0
    export = tmp_path / "a.ledger"
    ubcp = [sys.executable, "-m", "ubcp_p2p"]
    subprocess.run(
        [*ubcp, "ledger", "export", "--profile", str(a.profile.root), "--out", str(export)], check=True, timeout=60
    )
    done = subprocess.run([*ubcp, "audit", str(export), "--json"], capture_output=True, text=True, timeout=60)
    report = json.loads(done.stdout)
    assert (done.returncode, report["faults"]) == (0, [])
    assert report["decisions_replayed"] >= 1 and report["requests_not_here"] == 0
    decided: dict[tuple[bytes, int], int] = {}
    from ubcp_p2p.ledger.entry import Decision
    from ubcp_p2p.ledger.sources import ExportSource
    from ubcp_p2p.ledger.wire import decode_signed

    with ExportSource(export) as source:
        for record in source.entries():
            entry = decode_signed(record.payload).entry
            if isinstance(entry.body, Decision):
                key = entry.author, entry.body.slice
                decided[key] = decided.get(key, 0) + 1
    assert decided and set(decided.values()) == {1}  # one decision a node and slice, over the restart too
