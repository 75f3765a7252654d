"""Who is served when many hold streams of the sync protocol open: real streams and stores, no p2pd."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from tests.support.community import fresh_charters
from tests.support.ledgers import busy
from tests.unit.swarm.made import Wires, key
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.ledger import sync
from ubcp_p2p.ledger.disk import Disk
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.world import World
from ubcp_p2p.swarm import reconcile
from ubcp_p2p.swarm.books import Books
from ubcp_p2p.swarm.conduct import Buckets
from ubcp_p2p.swarm.frames import Stream, Unreachable
from ubcp_p2p.swarm.reconcile import SERVED_MAX, SERVED_PER_PEER_MAX, Reconciler

pytestmark = pytest.mark.asyncio

NODE, HONEST = key(1000), key(1001)
WAIT_S = 10.0


class Town:
    """A node with a ledger, an honest one without entries, and whoever else opens streams to the first."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.wires = Wires()
        self.junk: list[tuple[bytes, str]] = []
        self._open = AsyncExitStack()
        self._books: list[Books] = []

    async def node(self, who: NodeKey, *, filled: bool) -> Reconciler:
        def open_store() -> Store:
            store = Store(Disk.in_memory(signed.to_bytes() for signed in fresh_charters(self.world).versions))
            if filled:
                store.append(self.world.entries)
            return store

        books = Books(open_store)
        await books.open()
        self._books.append(books)
        made = Reconciler(
            self.wires.node(who), books, is_banned=lambda peer: False,
            on_junk=lambda peer, why: self.junk.append((peer, why)), on_taken=lambda taken: None,
        )  # fmt: skip
        await made.open()
        return made

    async def stream(self, who: NodeKey) -> Stream:
        """One that stays open."""
        network: Any = self.wires.node(who)
        found: Stream = await self._open.enter_async_context(network.open(NODE.public, sync.PROTOCOL, timeout_s=WAIT_S))
        return found

    async def asked(self, stream: Stream) -> bool:
        """Whether a question on it is answered."""
        try:
            await stream.send([sync.HELLO, self.world.charters.network, 1], timeout_s=WAIT_S)
            answer = await stream.receive(timeout_s=WAIT_S, bytes_max=sync.FRAME_BYTES_MAX)
        except Unreachable:
            return False
        assert isinstance(answer, list) and answer[0] == sync.HELLO
        return True

    async def close(self) -> None:
        await self._open.aclose()
        await asyncio.gather(*self.wires.handling, return_exceptions=True)
        for books in self._books:
            await books.close()


@pytest_asyncio.fixture
async def town() -> AsyncIterator[Town]:
    made = Town(busy(3, receipts=2))
    yield made
    await made.close()


async def full(town: Town, each: int) -> list[Stream]:
    """All places taken by peers that have so many streams each, and have asked once."""
    streams = [await town.stream(key(number // each)) for number in range(SERVED_MAX)]
    assert all([await town.asked(stream) for stream in streams])
    return streams


async def test_idle_streams_of_many_peers_keep_no_honest_one_from_syncing(town: Town) -> None:
    await town.node(NODE, filled=True)
    honest = await town.node(HONEST, filled=False)
    await full(town, SERVED_PER_PEER_MAX)
    pulled = await honest.pull(NODE.public)
    assert pulled is not None and pulled.new == len(town.world.entries)
    assert town.junk == []


async def test_a_peer_without_a_stream_goes_before_the_second_of_another(town: Town) -> None:
    """The one that has asked nothing for longest; whoever has one stream keeps it."""
    served = await town.node(NODE, filled=True)
    streams = await full(town, SERVED_PER_PEER_MAX)
    for stream in streams[:2]:
        assert await town.asked(stream)  # so that the third is the longest idle
    late = await town.stream(key(500))
    assert await town.asked(late)
    assert not await town.asked(streams[2])
    assert await town.asked(streams[3]) and await town.asked(streams[0])
    assert len(served._serving) == SERVED_MAX
    second = await town.stream(key(500))  # it has one now, and nobody is idle for long
    assert not await town.asked(second)


async def test_among_equals_only_who_is_idle_for_long_makes_room(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    await town.node(NODE, filled=True)
    streams = await full(town, 1)
    assert not await town.asked(await town.stream(key(500)))
    monkeypatch.setattr(reconcile, "ROOM_IDLE_S", 0.0)
    for stream in (*streams[:7], *streams[8:]):
        assert await town.asked(stream)
    assert await town.asked(await town.stream(key(501)))
    assert not await town.asked(streams[7])
    assert all([await town.asked(stream) for stream in (*streams[:7], *streams[8:])])


async def test_a_third_stream_of_a_peer_is_refused(town: Town) -> None:
    served = await town.node(NODE, filled=True)
    streams = [await town.stream(key(7)) for _ in range(SERVED_PER_PEER_MAX + 1)]
    assert [await town.asked(stream) for stream in streams] == [True] * SERVED_PER_PEER_MAX + [False]
    for stream in streams:
        stream.close()
    await asyncio.gather(*town.wires.handling)
    assert not served._serving


class Strict(Buckets[bytes]):
    """One that notes who had to wait."""

    def __init__(self) -> None:
        super().__init__(1e6, 2.0)
        self.waited: list[bytes] = []

    def delay_s(self, key: bytes, now_s: float) -> float:
        found = super().delay_s(key, 0.0)
        if found:
            self.waited.append(key)
        return found


async def test_questions_above_the_rate_wait_and_are_answered(town: Town) -> None:
    """Of all streams of a peer together; others are not held up."""
    served = await town.node(NODE, filled=True)
    served._questions = strict = Strict()
    first, second, other = await town.stream(key(7)), await town.stream(key(7)), await town.stream(key(8))
    for stream in (first, second, other, first, second):
        assert await town.asked(stream)
    assert strict.waited == [key(7).public] * 2
    assert town.junk == []


async def test_a_blob_is_had_from_whoever_has_it_and_is_what_was_asked_for(town: Town) -> None:
    server, asker = await town.node(NODE, filled=True), await town.node(HONEST, filled=False)
    data = b"a recipe"
    name = hashlib.sha256(data).digest()
    network: Any = asker._network
    network.connected = frozenset({NODE.public})
    assert await asker.blob(name) is None
    books = server._books
    await books.run(books.store.put_blob, data)
    assert await asker.blob(name) == data
    await books.run(books.store._disk.put_blob, bytes(32), data)  # one that lies about what it has
    assert await asker.blob(bytes(32)) is None
    assert [who for who, _ in town.junk] == [NODE.public]
