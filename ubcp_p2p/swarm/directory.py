"""The directory of runs in the DHT: each node's signed claim of which runs it is in. Claims, never facts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ubcp_p2p.models.run_name import is_name
from ubcp_p2p.swarm.network import Network

KEY = "ubcp/runs/1"
LIFETIME_S = 60.0
RUNS_PER_NODE_MAX = 16
NODES_MAX = 256


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
    """Claim all runs of this node (one record holds them). Raises Unreachable while p2pd is down."""
    rows = [
        [e.name, e.run_id, e.recipe, e.recipe_hash, e.round, e.rounds, e.data_hash] for e in entries[:RUNS_PER_NODE_MAX]
    ]
    await network.claim(KEY, rows, LIFETIME_S)


async def lookup(network: Network, among: Collection[bytes] | None = None) -> list[tuple[bytes, Entry]]:
    """(author's public key, entry) of every well-formed claim. Raises Unreachable while p2pd is down.

    among: whose claims count, all by default. Names cost nothing: who asks for few is not to be crowded out by them.
    """
    claims = [claim for claim in await network.claims(KEY) if among is None or claim.author in among]
    found = []
    for claim in claims[:NODES_MAX]:
        rows = claim.value if isinstance(claim.value, list) else []
        found += [(claim.author, entry) for row in rows[:RUNS_PER_NODE_MAX] if (entry := _parsed(row)) is not None]
    return found


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
