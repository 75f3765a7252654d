"""The address book: peers that this node has met, so that it can join again when every bootstrap node is gone."""

from __future__ import annotations

import ipaddress
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ubcp_p2p.errors import ConfigError
from ubcp_p2p.files import atomic_write
from ubcp_p2p.keys import from_base58, peer_id_of, to_base58

PEERS_MAX = 512
ADDRESSES_MAX = 8
ADDRESS_CHARS_MAX = 256
FILE_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True)
class Known:
    """One remembered peer.

    Base58 peer id, multiaddrs without the /p2p part, and when it was last connected (Unix s).
    """

    peer_id: str
    addresses: tuple[str, ...]
    seen_s: float


class AddressBook:
    """Remembers at most PEERS_MAX peers, the most recently seen first; the file is a convenience and may be deleted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Known] = {}
        for known in _read(path):
            self._known[known.peer_id] = known

    def saw(self, peer_id: str, addresses: Iterable[str], now_s: float) -> None:
        """Note that `peer_id` is connected now, from or at `addresses`."""
        kept = tuple(dict.fromkeys(a for a in addresses if _sane(a)))[:ADDRESSES_MAX]
        before = self._known.get(peer_id)
        if kept or before is not None:
            self._known[peer_id] = Known(peer_id, kept or before.addresses if before else kept, now_s)
        while len(self._known) > PEERS_MAX:
            oldest = min(self._known.values(), key=lambda known: known.seen_s)
            del self._known[oldest.peer_id]

    def all(self) -> list[Known]:
        """The most recently seen first."""
        return sorted(self._known.values(), key=lambda known: -known.seen_s)

    def multiaddrs(self) -> list[str]:
        """Full multiaddrs, the most recently seen first: what a friend can join through."""
        return [f"{address}/p2p/{known.peer_id}" for known in self.all() for address in known.addresses]

    def save(self) -> None:
        """Write the file in one step (mode 0600). Raises LocalIOError."""
        rows = [{"peer_id": k.peer_id, "addresses": k.addresses, "seen_s": round(k.seen_s)} for k in self.all()]
        atomic_write(self._path, json.dumps(rows, indent=1).encode())


def short(public: bytes) -> str:
    """The last eight characters of a peer id, for people."""
    return "…" + to_base58(peer_id_of(public))[-8:]


def split_multiaddr(text: str) -> tuple[str, str]:
    """ "/ip4/…/tcp/…/p2p/12D3…" → (address, base58 peer id). Raises ConfigError with an example."""
    address, found, peer_id = text.strip().rpartition("/p2p/")
    if not found or not _sane(address) or not peer_id:
        raise ConfigError(
            f"not a peer's address: {text[:120]!r}",
            hint="it looks like /ip4/203.0.113.7/tcp/4001/p2p/12D3KooW…; `ubcp status` on the other machine prints it",
        )
    try:
        from_base58(peer_id)
    except ValueError:
        raise ConfigError(f"not a peer id: {peer_id[:80]!r}", hint="it begins with 12D3KooW") from None
    return address, peer_id


def reachability(listening: Iterable[str], dialled_back: bool | None) -> tuple[str, str]:
    """How others can reach this node: (one of "loopback", "local", "public", "relay", "outgoing"; a sentence on the
    cost).

    listening: the multiaddrs that p2pd reports; dialled_back: whether a peer confirmed that it could dial us, None when
    nobody was asked yet.
    """
    addresses = list(listening)
    if dialled_back is False:
        return "outgoing", (
            "others cannot reach this node; it can join runs through peers that it dials, but it does not serve the "
            "DHT or states. Open a port in your router, or set network.announce, to count fully"
        )
    if any("/p2p-circuit" in address for address in addresses):
        return "relay", "others reach this node through a relay: it works, at the relay's speed and latency"
    scopes = {_scope(address) for address in addresses}
    if "public" in scopes:
        return "public", "this node has a public address, where others can reach it unless a firewall is in between"
    if "local" in scopes:
        return "local", "reachable on the local network; peers elsewhere need an open port here or a relay"
    return "loopback", "reachable on this machine only: fine for a demo or a test"


def farthest_first(listening: Iterable[str]) -> list[str]:
    """The multiaddrs that most others can reach first: the one that a person copies should work elsewhere."""
    return sorted(listening, key=lambda address: ("public", "local", "loopback").index(_scope(address)))


def _scope(multiaddr: str) -> str:
    parts = multiaddr.split("/")
    try:
        host = ipaddress.ip_address(parts[2])
    except (IndexError, ValueError):
        return "public" if parts[1:2] and parts[1].startswith("dns") else "loopback"
    if host.is_loopback:
        return "loopback"
    return "public" if host.is_global else "local"


def _sane(address: str) -> bool:
    return (
        address.startswith("/") and len(address) <= ADDRESS_CHARS_MAX and address.isprintable() and "," not in address
    )


def _read(path: Path) -> list[Known]:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            return []
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [
            Known(
                str(row["peer_id"]),
                tuple(a for a in row["addresses"] if _sane(a))[:ADDRESSES_MAX],
                float(row["seen_s"]),
            )
            for row in rows[:PEERS_MAX]
            if math.isfinite(float(row["seen_s"]))  # JSON as Python reads it has NaN and Infinity, which break `save`
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return []  # a damaged address book costs a look-up through the bootstrap nodes, nothing else
