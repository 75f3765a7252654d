"""Keys, cards, certificates and standings made for the tests of the swarm."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from ubcp_p2p.codec import MalformedMessage, Value
from ubcp_p2p.errors import NetworkError
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.swarm.frames import Stream, Unreachable
from ubcp_p2p.swarm.quorum import NOBODY, Card, Certificate, Group, Seat, Standing, vote_digest

RUN = hashlib.sha256(b"a run").digest()
OTHER_RUN = hashlib.sha256(b"another run").digest()
OFFER_BYTES = 4096


def key(number: int) -> NodeKey:
    return NodeKey(hashlib.sha256(b"node %d" % number).digest())


def digest(words: str) -> bytes:
    return hashlib.sha256(words.encode()).digest()


KEYS = [key(number) for number in range(12)]


def card(
    who: NodeKey, *, round_: int = 3, base: bytes = digest("base"), weight: int = 8, offer: str = "offer",
    payer: bytes = NOBODY,
) -> Card:  # fmt: skip
    made = Card(RUN, round_, base, who.public, weight, digest(offer), OFFER_BYTES, digest("trail"), payer)
    return made.signed(who)


def group(members: Iterable[bytes], *, round_: int = 3, base: bytes = digest("base"), payer: bytes = NOBODY) -> Group:
    seats = (Seat(peer, 8, digest("offer"), digest("trail"), payer) for peer in sorted(members))
    return Group(RUN, round_, base, tuple(seats))


def certificate(
    members: Sequence[NodeKey], signers: Sequence[NodeKey], *, round_: int = 3, base: bytes = digest("base"),
    state: bytes = digest("state"), payer: bytes = NOBODY,
) -> Certificate:  # fmt: skip
    """A certificate with real signatures for the state that round `round_` led to."""
    made = group((k.public for k in members), round_=round_, base=base, payer=payer)
    signed = vote_digest(made.digest, state)
    return Certificate(made, state, tuple(sorted((k.public, k.sign("vote", signed)) for k in signers)))


def unsigned(members: Iterable[bytes], signers: Iterable[bytes], round_: int, base: bytes, state: bytes) -> Standing:
    """Standing on the state after `round_`, with empty signatures: `choose` is given verified certificates only."""
    made = group(members, round_=round_, base=base)
    return Standing(state, Certificate(made, state, tuple((peer, b"") for peer in sorted(signers))))


class Wires:
    """Peers joined by socket pairs: what `Network` gives to exchange, votes and states, with real streams, no p2pd."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, Node] = {}
        self.handling: set[asyncio.Task[None]] = set()
        self.asked = asyncio.Event()

    def node(self, who: NodeKey) -> Any:
        """A node as a `Network` (its type here: Any)."""
        return self.nodes.setdefault(who.public, Node(self, who))


class Node:
    """One peer of `Wires`. `streams` counts what it opened, by peer."""

    def __init__(self, wires: Wires, who: NodeKey) -> None:
        self.key, self.public = who, who.public
        self.handlers: dict[str, Callable[[Stream], Awaitable[None]]] = {}
        self.opened: list[bytes] = []
        self.connected: frozenset[bytes] = frozenset()
        self._wires = wires

    async def handle(self, protocol: str, handler: Callable[[Stream], Awaitable[None]]) -> None:
        self.handlers[protocol] = handler

    async def unhandle(self, protocol: str) -> None:
        self.handlers.pop(protocol, None)

    @asynccontextmanager
    async def open(self, peer: bytes, protocol: str, *, timeout_s: float) -> AsyncIterator[Stream]:
        self.opened.append(peer)
        there = self._wires.nodes.get(peer)
        if there is None or protocol not in there.handlers:
            raise Unreachable("nobody there")
        ours, theirs = await stream_pair(self.public, peer)
        task = asyncio.ensure_future(_served(there.handlers[protocol], theirs))
        self._wires.handling.add(task)
        self._wires.asked.set()
        task.add_done_callback(self._wires.handling.discard)
        try:
            yield ours
        finally:
            ours.close()

    async def request(self, peer: bytes, protocol: str, message: Value, *, timeout_s: float) -> Value:
        async with self.open(peer, protocol, timeout_s=timeout_s) as stream:
            await stream.send(message, timeout_s=timeout_s)
            return await stream.receive(timeout_s=timeout_s)


async def stream_pair(mine: bytes, other: bytes) -> tuple[Stream, Stream]:
    """(the stream of `mine` to `other`, the stream of `other` to `mine`)."""
    a, b = socket.socketpair()
    return Stream(other, *await asyncio.open_connection(sock=a)), Stream(mine, *await asyncio.open_connection(sock=b))


async def _served(handler: Callable[[Stream], Awaitable[None]], stream: Stream) -> None:
    try:
        await handler(stream)
        await stream.wait_closed_by_peer(timeout_s=5.0)
    except (NetworkError, MalformedMessage):
        pass
    finally:
        stream.close()
