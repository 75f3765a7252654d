"""The directory of runs in the DHT: each node's signed claim of which runs it is in. Claims, never facts.

A node's claims are stored twice: all in its record under KEY, for a list of runs, and each under its run's name, where
who seeks a run looks. So who claims other runs, however many, takes no place there.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection
from dataclasses import astuple, dataclass
from typing import Any

from ubcp_p2p.models.run_name import is_name
from ubcp_p2p.swarm.network import Network

KEY = "ubcp/runs/1"
LIFETIME_S = 60.0
RUNS_PER_NODE_MAX = 16
NODES_MAX = 256  # of one run


@dataclass(frozen=True)
class Entry:
    """One run as one node claims it: `round` of `rounds` done; hashes are 32 bytes, `data_hash` none if not told."""

    name: str
    run_id: bytes
    recipe: str
    recipe_hash: bytes
    round: int
    rounds: int
    data_hash: bytes = b""


async def publish(network: Network, entries: list[Entry]) -> None:
    """Claim all runs of this node. Raises Unreachable while p2pd is down."""
    rows = {entry.name: list(astuple(entry)) for entry in entries[:RUNS_PER_NODE_MAX]}
    claims = {KEY: list(rows.values()), **{key_of(name): [row] for name, row in rows.items()}}
    await asyncio.gather(*(network.claim(key, value, LIFETIME_S) for key, value in claims.items()))


async def lookup(
    network: Network, name: str | None = None, among: Collection[bytes] | None = None
) -> list[tuple[bytes, Entry]]:
    """(author's public key, entry) of the well-formed claims, at most NODES_MAX of a run. Raises Unreachable while p2pd
    is down.

    name: of the runs that are sought; without one, all that a record of the DHT has room for. among: whose claims
    count, all by default. Keys of nodes cost nothing: so of a run those come first that this node is connected to, and
    the others in an order that nobody chooses.
    """
    claims = await network.claims(KEY if name is None else key_of(name))
    found, nodes = [], Counter[bytes]()
    for claim in sorted(claims, key=lambda claim: (claim.author not in network.connected, random.random())):
        for entry in _entries(claim.value) if among is None or claim.author in among else ():
            if name in (None, entry.name) and nodes[entry.run_id] < NODES_MAX:
                nodes[entry.run_id] += 1
                found.append((claim.author, entry))
    return found


def key_of(name: str) -> str:
    """The DHT's key for claims of the runs that are called so."""
    return f"{KEY}/{name}"


def with_other_data(claims: list[tuple[bytes, Entry]], me: bytes, run_id: bytes, data_hash: bytes) -> list[bytes]:
    """Who claims this very run with other data than `data_hash`; nobody when another node claims it with ours.

    One is enough to be let in: else one liar among honest peers would keep everybody out.
    """
    told = {
        author: entry.data_hash
        for author, entry in claims
        if author != me and entry.run_id == run_id and entry.data_hash
    }
    return [] if data_hash in told.values() else sorted(told)


def _entries(value: Any) -> list[Entry]:
    """One for a run, of a record's value as it came."""
    rows = value[:RUNS_PER_NODE_MAX] if isinstance(value, list) else []
    return list({entry.run_id: entry for row in rows if (entry := _parsed(row)) is not None}.values())


def _parsed(row: Any) -> Entry | None:
    if isinstance(row, list) and len(row) == 6:
        row = [*row, b""]  # of a version that did not tell its data
    if not isinstance(row, list) or len(row) != 7:
        return None
    name, run_id, recipe, recipe_hash, round_, rounds, data_hash = row
    texts = all(isinstance(text, str) and is_name(text) for text in (name, recipe))
    hashes = all(isinstance(h, bytes) and len(h) == 32 for h in (run_id, recipe_hash))
    hashes = hashes and isinstance(data_hash, bytes) and len(data_hash) in (0, 32)
    numbers = all(isinstance(n, int) and 0 <= n <= 10**9 for n in (round_, rounds))
    sound = texts and hashes and numbers
    return Entry(name, run_id, recipe, recipe_hash, round_, rounds, data_hash) if sound else None
