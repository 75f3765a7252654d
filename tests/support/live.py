"""Real nodes of one community: a World's charter as the file they are configured with, its entries to hand in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.support.ledgers import MemoryLedger
from tests.support.processes import until
from tests.support.swarm import STEP_S, Peer
from ubcp_p2p.charter.document import to_toml
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import World

BATCH = 100  # entries in one call; 1 MiB of hexadecimal is the most that a node takes


def charter_file(folder: Path, world: World) -> str:
    """Write the World's charter; returns the lines of config.toml that name it."""
    path = folder / f"charter-{world.seed}.toml"
    path.write_text(to_toml(world.charters.versions[0]))
    return f'[ledger]\ncharter = "{path}"\n'


def hand_in(peer: Peer, entries: Iterable[Signed]) -> list[dict[str, Any]]:
    """`ubcp ledger append`: what became of each."""
    forms = [signed.to_bytes().hex() for signed in entries]
    results: list[dict[str, Any]] = []
    for start in range(0, len(forms), BATCH):
        results += peer.call("ledger-append", entries=forms[start : start + BATCH])["entries"]
    return results


def ledger_of(peer: Peer) -> dict[str, Any]:
    """The ledger's part of `ubcp status`."""
    found: dict[str, Any] | None = peer.status()["ledger"]
    assert found is not None, peer.status()["ledger_words"]
    return found


def roots_of(peer: Peer) -> tuple[str, str]:
    found = ledger_of(peer)
    return found["entries_root"], found["balances_root"]


def expected(world: World) -> tuple[str, str]:
    """The roots over all of a World's entries."""
    entries, rows, _ = MemoryLedger(world.charters.versions, world.entries).roots()
    return entries.hex(), rows.hex()


def agreed(peers: Sequence[Peer], world: World, timeout_s: float = STEP_S) -> None:
    """Wait until all of these have the World's entries, and come to its balances."""
    roots = expected(world)
    for peer in peers:
        until(
            lambda peer=peer: roots_of(peer) == roots,  # type: ignore[misc]
            timeout_s,
            f"{peer.name} has all {len(world.entries)} entries, not {ledger_of(peer)['entries']}",
        )
