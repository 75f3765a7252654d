"""Real nodes of one community: a World's charter as the file they are configured with, its entries to hand in."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.ledgers import MemoryLedger
from tests.support.processes import until
from tests.support.swarm import STEP_S, Peer
from ubcp_p2p.charter.document import to_toml
from ubcp_p2p.keys import AccountKey, NodeKey
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import ZERO, OpenAccount, OpenNode
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import CHARTER, World
from ubcp_p2p.models.recipe import Recipe

BATCH = 100  # entries in one call; 1 MiB of hexadecimal is the most that a node takes


def charter_file(folder: Path, world: World) -> str:
    """Write the World's charter; returns the lines of config.toml that name it."""
    path = folder / f"charter-{world.seed}.toml"
    path.write_text(to_toml(world.charters.versions[0]))
    return f'[ledger]\ncharter = "{path}"\n'


def short_slices(seed: int, slice_s: int, **more: int) -> World:
    """A community whose slices are short, and whose time has just begun; more: of its charter."""
    epoch = int(time.time()) - 3 * slice_s
    charter = replace(CHARTER, epoch=epoch, slice_s=slice_s, period_slices=20_000, **more)  # type: ignore[arg-type]
    world = World(seed, charter=charter)
    world.now = charter.slice_at(time.time())
    return world


def open_chains(peer: Peer, world: World, *, enrol: bool = True) -> Sequence[Signed]:
    """Open the chains of the profile's account and node, and enrol the account, as its owner and the stewards do.

    Returns the entries, which are not handed in.
    """
    before = len(world.entries)
    account = Author(world.charters.network, AccountKey.load(peer.profile.account_key))
    node = Author(world.charters.network, NodeKey.load(peer.profile.node_key))
    world.write(account, OpenAccount(ZERO))
    if enrol:
        world.enrol(account, peer.name)
    assert account.head is not None
    world.write(node, OpenNode(account.head), [account.key])
    return world.entries[before:]


class Result(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


def ubcp(peer: Peer, *arguments: str) -> Result:
    """Run a command on the peer's profile."""
    command = [sys.executable, "-m", "ubcp_p2p", *arguments, "--profile", str(peer.profile.root)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, env=peer.environment()
    )
    return Result(done.returncode, done.stdout, done.stderr)


def hand_in(peer: Peer, entries: Iterable[Signed]) -> list[dict[str, Any]]:
    """`ubcp ledger append`: what became of each."""
    forms = [signed.to_bytes().hex() for signed in entries]
    results: list[dict[str, Any]] = []
    for start in range(0, len(forms), BATCH):
        results += peer.call("ledger-append", entries=forms[start : start + BATCH])["entries"]
    return results


def all_know(peers: Sequence[Peer], world: World) -> None:
    """Hand the World's entries to the first of these; wait until all have them, and may sign."""
    hand_in(peers[0], world.entries)
    count = len(world.entries)
    until(lambda: all(ledger_of(p)["entries"] == count for p in peers), STEP_S, "all have all entries")
    until(lambda: all(ledger_of(p)["writing"]["standing"] == "confirmed" for p in peers), STEP_S, "may sign")


def submission(recipe: Recipe, folder: Path, run: str, lasts_s: float) -> tuple[str, ...]:
    """The words of `ubcp submit` for a run with a deadline that many seconds from now; the recipe lies in `folder`."""
    path = folder / "recipe.toml"
    path.write_text(recipe.to_toml())
    deadline = datetime.fromtimestamp(time.time() + lasts_s, UTC).isoformat()
    return ("submit", str(path), "--run", run, "--purpose", "research", "--deadline", deadline, "--yes", "--json")


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
