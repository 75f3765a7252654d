"""Following a network: pull from one of its nodes again and again; go to another one when it fails or lies."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from ubcp_p2p.charter.values import CharterError, Charters, SignedCharter
from ubcp_p2p.codec import MalformedMessage, Value, bytes_of, fields, hash_of, items
from ubcp_p2p.errors import NetworkError
from ubcp_p2p.ledger.ahead import by_clock
from ubcp_p2p.ledger.database import is_there
from ubcp_p2p.ledger.disk import Disk
from ubcp_p2p.ledger.pull import Ask, OtherNetwork, hello, pull
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.sync import CHARTERS, HELLO, NOTHING
from ubcp_p2p.light.address import NodeAddress
from ubcp_p2p.light.dialing import Connection, Unreachable, connected, in_words
from ubcp_p2p.light.replica import Observer, Replica

POLL_S: Final = 3.0
PROGRESS_EVERY_S: Final = 2.0
BACKOFF_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class BadNode(NetworkError):
    """A node that lied, or sent what is no answer."""


@dataclass
class _Node:
    address: NodeAddress
    failures: int = 0  # in a row
    not_before_s: float = 0.0


class Follower:
    """One follow, from the first contact to the end. observe(kind, values): told what happens.

    charters: the community's, or None to take the first node's word for it. store: a file to keep the ledger in, which
    may be there already; None for memory.
    """

    def __init__(
        self, addresses: Sequence[NodeAddress], observe: Observer, *, charters: Charters | None, store: Path | None
    ) -> None:
        self.replica: Replica | None = None
        self.in_sync = False
        self._reached = False  # any node, ever
        self._nodes = [_Node(address) for address in addresses]
        self._observe = observe
        self._path = store
        self._started_s = time.monotonic()
        if store is not None and is_there(store):
            network = charters.network if charters is not None else None
            self.replica = Replica(Store.open(store, network=network, until=by_clock(time.time())), observe)
        elif charters is not None:
            self._make(charters, is_known=True)

    def run(self, *, once: bool) -> None:
        """Follow until SIGINT or SIGTERM; once: until in sync with one node.

        Raises NetworkError when no node can be followed (later on, it tries again for ever), LocalIOError.
        """
        while True:
            try:
                trio.run(self._main, once)
                return
            except trio.TrioInternalError as error:  # a mistake of py-libp2p's brought all of it down
                node = self._next()
                self._failed(node, Unreachable(f"{node.address.text}: py-libp2p failed: {in_words(error)}"), once)

    def close(self) -> None:
        if self.replica is not None:
            self.replica.store.close()

    def summary(self) -> dict[str, Any]:
        """The outcome so far; empty before there is a ledger."""
        if self.replica is None:
            return {}
        return {**self.replica.summary(time.monotonic() - self._started_s), "in_sync": self.in_sync}

    # -- nodes ----------------------------------------------------------------------------------------------------

    async def _main(self, once: bool) -> None:
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_on_signal, nursery.cancel_scope)
            try:
                await self._follow(once)
            except Exception as error:  # the nursery would make a group of it
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _end_on_signal(self, scope: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                scope.cancel()

    async def _follow(self, once: bool) -> None:
        while True:
            node = self._next()
            await trio.sleep(max(0.0, node.not_before_s - time.monotonic()))
            try:
                await self._session(node, once)
                return
            except NetworkError as error:
                self._failed(node, error, once)

    def _next(self) -> _Node:
        """Whose turn it is; it stays so until the node has failed."""
        return min(self._nodes, key=lambda node: node.not_before_s)

    def _failed(self, node: _Node, error: NetworkError, once: bool) -> None:
        """Note it; raises when there is nothing to hope for."""
        self.in_sync = False
        wait_s = BACKOFF_S[min(node.failures, len(BACKOFF_S) - 1)] * random.uniform(0.8, 1.2)
        node.failures += 1
        node.not_before_s = time.monotonic() + wait_s
        if (once or not self._reached) and all(node.failures for node in self._nodes):
            if len(self._nodes) == 1:
                raise error
            self._lost(node, error, None)
            raise Unreachable(f"none of the {len(self._nodes)} nodes could be followed")
        self._lost(node, error, wait_s)

    def _lost(self, node: _Node, error: NetworkError, wait_s: float | None) -> None:
        values = {"address": node.address.text, "message": error.message, "hint": error.hint}
        self._observe("lost", values | {"retry_s": None if wait_s is None else round(wait_s, 1)})

    async def _session(self, node: _Node, once: bool) -> None:
        """Follow one node. Raises NetworkError; returns only when `once` is done."""
        try:
            async with connected(node.address) as connection:
                self._observe("connected", {"address": node.address.text})
                replica = self.replica or self._make(await _meet(connection))
                while True:
                    await self._exchange(connection, replica)
                    node.failures = 0
                    self._reached = True
                    state = replica.state()
                    if state["added"] or not self.in_sync:
                        self._observe("synced", state)
                    self.in_sync = True
                    if once:
                        return
                    await trio.sleep(POLL_S)
        except MalformedMessage as error:
            raise BadNode(
                f"{node.address.text} does not keep the protocol: {error.message}",
                hint="what it sent was verified like everything; follow another node of the community",
            ) from None
        except OtherNetwork:
            raise OtherNetwork(
                f"{node.address.text} is in another community than the one that is followed",
                hint="a community is known by its charter: see `ubcp status` on the node, and --charter",
            ) from None
        except Unreachable as error:
            raise Unreachable(f"{node.address.text}: {error.message}", hint=error.hint) from None

    # -- one exchange ---------------------------------------------------------------------------------------------

    async def _exchange(self, connection: Connection, replica: Replica) -> None:
        """Take what the node has and we lack. Raises Unreachable, MalformedMessage, OtherNetwork, LocalIOError."""
        replica.begin(connection.address.public)
        steps = pull(replica.local, log_after=replica.log_after(connection.address.public))
        reply: Value | None = None
        size, told_s = 0, time.monotonic()
        try:
            async with connection.open() as stream:
                while True:
                    try:
                        step = steps.send(reply)
                    except StopIteration:
                        return
                    reply = None
                    if isinstance(step, Ask):
                        reply = await stream.ask(step.question)
                        size = size or _size_in(reply)
                        continue
                    replica.take(step)
                    if time.monotonic() - told_s > PROGRESS_EVERY_S:
                        told_s = time.monotonic()
                        self._observe("progress", {"entries": replica.local.size, "of": max(size, replica.local.size)})
        finally:
            replica.finish()

    def _make(self, charters: Charters, *, is_known: bool = False) -> Replica:
        """A ledger of this community with nothing in it."""
        if self._path is not None:
            store = Store.create(self._path, charters)
        else:
            store = Store(Disk.in_memory(signed.to_bytes() for signed in charters.versions))
        values = {"name": charters.first.name, "network": charters.network.hex(), "charter_known": is_known}
        self._observe("community", values)
        self.replica = Replica(store, self._observe)
        return self.replica


async def _meet(connection: Connection) -> Charters:
    """The community of a node, by its own word. Raises MalformedMessage, Unreachable."""
    async with connection.open() as stream:
        network = hash_of(fields(await stream.ask(hello(NOTHING)), 6)[1])  # zeros: no network's, so it says its own
        _, rows = fields(await stream.ask([CHARTERS, [1]]), 2)
    if not items(rows, 1):
        raise MalformedMessage("a node without a charter")
    try:
        charters = Charters(SignedCharter.from_bytes(bytes_of(items(rows, 1)[0])))
    except CharterError as error:
        raise MalformedMessage(f"a charter that does not hold: {error.message}") from None
    if charters.network != network:
        raise MalformedMessage("a charter that is not of the network that it names")
    return charters


def _size_in(answer: Value) -> int:
    """How many entries the node says that it has, if this is the answer to HELLO."""
    if isinstance(answer, list) and len(answer) == 6 and answer[0] == HELLO and isinstance(answer[5], int):
        return answer[5]
    return 0
