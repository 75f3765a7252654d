"""The ledger's sync protocol on streams: answers whoever asks, and asks peers for what is not here (SPEC §11)."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from ubcp_p2p.codec import MalformedMessage, Value, bytes_of, fields
from ubcp_p2p.errors import NetworkError
from ubcp_p2p.ledger import sync
from ubcp_p2p.ledger.entry import Position
from ubcp_p2p.ledger.intake import Taken
from ubcp_p2p.ledger.pull import Hello, OtherNetwork, heads_from, hello
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.books import Books, Puller
from ubcp_p2p.swarm.conduct import Buckets
from ubcp_p2p.swarm.frames import DeadlineExceeded, Stream, Unreachable
from ubcp_p2p.swarm.network import Network

log = logging.getLogger(__name__)

OPEN_S: Final = 10.0
ANSWER_S: Final = 20.0  # one answer of up to 900 KiB, over a slow line
PULL_S: Final = 300.0  # all of them; the next pull goes on where this one ended
IDLE_S: Final = 30.0  # between two questions; the asker may be verifying what it got
PULLS_MAX: Final = 3  # at once: more of them wait for one thread anyway
SERVED_MAX: Final = 64  # an answer is made in one thread: more streams cost memory alone, of 1 MiB each at the worst
SERVED_PER_PEER_MAX: Final = 2  # a pull, and a look at heads
ROOM_IDLE_S: Final = 2.0  # a stream that waits so long for a question may go when another one needs its place
QUESTIONS_PER_S, QUESTIONS_BURST = 100.0, 1000.0  # of one peer; ledgers that differ in all 256 buckets take 600 at once
AVOID_S: Final = 20.0  # before asking again who does not answer: it may have no ledger
ASK_HEADS_OF: Final = 3
ASK_BLOB_OF: Final = 8


@dataclass(frozen=True)
class Pulled:
    """The end of one pull."""

    peer: bytes
    new: int
    when_s: float  # monotonic


class Reconciler:
    """on_junk(peer, why): the peer is at fault. on_taken(taken): in the thread of the books."""

    def __init__(
        self,
        network: Network,
        books: Books,
        *,
        is_banned: Callable[[bytes], bool],
        on_junk: Callable[[bytes, str], None],
        on_taken: Callable[[Taken], None],
    ) -> None:
        self._network = network
        self._books = books
        self._is_banned = is_banned
        self._on_junk = on_junk
        self._on_taken = on_taken
        self._pulls = asyncio.Semaphore(PULLS_MAX)
        self._pulling: set[bytes] = set()
        self._serving: set[_Serving] = set()
        self._questions: Buckets[bytes] = Buckets(QUESTIONS_PER_S, QUESTIONS_BURST)
        self._avoided: dict[bytes, float] = {}
        self._others: set[bytes] = set()  # of another community: told once
        self.last: Pulled | None = None
        self.versions: dict[bytes, str] = {}  # of connected peers: how their charters differ from ours

    async def open(self) -> None:
        await self._network.handle(sync.PROTOCOL, self._serve)

    async def close(self) -> None:
        await self._network.unhandle(sync.PROTOCOL)

    def askable(self, among: Iterable[bytes]) -> list[bytes]:
        """Those that may answer now, in random order."""
        now_s = time.monotonic()
        self._avoided = {peer: until_s for peer, until_s in self._avoided.items() if until_s > now_s}
        peers = [peer for peer in among if peer not in self._avoided and not self._is_banned(peer)]
        random.shuffle(peers)
        return peers

    def idle(self, among: Iterable[bytes]) -> list[bytes]:
        """Those of `askable` that no pull is going on with."""
        return [peer for peer in self.askable(among) if peer not in self._pulling]

    def busy(self, among: Iterable[bytes]) -> set[bytes]:
        """Those that a pull is going on with."""
        return self._pulling.intersection(among)

    def met(self, peer: bytes) -> None:
        """It has just connected: whatever it did not answer before may be over."""
        if peer not in self._others:
            self._avoided.pop(peer, None)

    # -- asking -----------------------------------------------------------------------------------------------------

    async def pull(self, peer: bytes) -> Pulled | None:
        """Take from `peer` what it has and we lack; None when that did not come to its end. Raises StoreError."""
        if peer in self._pulling or self._is_banned(peer):
            return None
        self._pulling.add(peer)
        try:
            async with self._pulls, self._asking(peer) as stream:
                puller = Puller(self._books, peer, self._on_taken)
                async with asyncio.timeout(PULL_S):
                    question = await self._books.run(puller.advance, None)
                    while question is not None:
                        question = await self._books.run(puller.advance, await _ask(stream, question))
                self.last = Pulled(peer, puller.new, time.monotonic())
                self._note_versions(peer, puller.versions)
                log.debug("%d entries are new, from %s", puller.new, short(peer))
                return self.last
        except TimeoutError:
            log.info("%s: what it has took longer than %.0f s; the next exchange goes on", short(peer), PULL_S)
        except _Failed:
            pass
        finally:
            self._pulling.discard(peer)
        return None

    def _note_versions(self, peer: bytes, words: str | None) -> None:
        before = self.versions.get(peer)
        self.versions = {p: w for p, w in self.versions.items() if p in self._network.connected and p != peer}
        if words is not None:
            self.versions[peer] = words
            if words != before:
                log.warning("%s %s", short(peer), words)

    async def heads(self, author: bytes) -> dict[bytes, list[Position]]:
        """What up to ASK_HEADS_OF peers know of one author's chain, by peer: the heads of its branches."""
        found: dict[bytes, list[Position]] = {}
        for peer in self.askable(self._network.connected):
            if len(found) == ASK_HEADS_OF:
                break
            try:
                async with self._asking(peer) as stream:
                    found[peer] = await self._heads_at(stream, author)
                    log.debug("%s knows %d heads of %s", short(peer), len(found[peer]), author.hex()[:16])
            except _Failed:
                continue
        return found

    async def blob(self, hash_: bytes) -> bytes | None:
        """The blob with this SHA-256, from one of up to ASK_BLOB_OF peers; None where none of them has it."""
        for peer in self.askable(self._network.connected)[:ASK_BLOB_OF]:
            try:
                async with self._asking(peer) as stream:
                    Hello.of(await _ask(stream, hello(self._books.network)), self._books.network)
                    what, data = fields(await _ask(stream, [sync.BLOB, hash_]), 2)
                    data = bytes_of(data)
                    if what != sync.BLOB or (data and hashlib.sha256(data).digest() != hash_):
                        raise MalformedMessage("another blob than was asked for")
                    if data:
                        return data
            except _Failed:
                continue
        return None

    async def _heads_at(self, stream: Stream, author: bytes) -> list[Position]:
        network = self._books.network
        Hello.of(await _ask(stream, hello(network)), network)
        before = (int.from_bytes(author, "big") - 1).to_bytes(32, "big")
        heads = heads_from(await _ask(stream, [sync.HEADS, author[0], before]), author[0], before)
        return heads.get(author, [])

    @asynccontextmanager
    async def _asking(self, peer: bytes) -> AsyncIterator[Stream]:
        """A stream to ask on; what goes wrong on it is noted, and _Failed."""
        try:
            async with self._network.open(peer, sync.PROTOCOL, timeout_s=OPEN_S) as stream:
                yield stream
        except OtherNetwork as error:
            if peer not in self._others:
                self._others.add(peer)
                log.warning("%s: %s (%s)", short(peer), error.message, error.hint)
            self._avoid(peer, 30 * AVOID_S)
            raise _Failed from None
        except MalformedMessage as error:
            self._on_junk(peer, error.message)
            raise _Failed from None
        except (Unreachable, DeadlineExceeded) as error:
            log.debug("%s was not asked for its ledger: %s", short(peer), error)
            self._avoid(peer, AVOID_S)
            raise _Failed from None

    def _avoid(self, peer: bytes, seconds: float) -> None:
        if len(self._avoided) > 4096:
            self._avoided.clear()
            self._others.clear()
        self._avoided[peer] = time.monotonic() + seconds

    # -- answering --------------------------------------------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        peer = stream.peer
        if self._is_banned(peer) or not self._has_room(peer):
            raise Unreachable("refused")
        serving = _Serving(stream, time.monotonic())
        self._serving.add(serving)
        try:
            while not self._is_banned(peer):
                serving.waits(time.monotonic())
                question = await stream.receive(timeout_s=IDLE_S, bytes_max=sync.QUESTION_BYTES_MAX)
                await asyncio.sleep(self._questions.delay_s(peer, time.monotonic()))
                serving.is_waiting = False
                answer = await self._books.run(self._books.answer, question)
                await stream.send(answer, timeout_s=ANSWER_S, bytes_max=sync.FRAME_BYTES_MAX)
        except MalformedMessage as error:
            self._on_junk(peer, error.message)
            raise
        finally:
            self._serving.discard(serving)

    def _has_room(self, peer: bytes) -> bool:
        """Whether one more stream of this peer is served; another one is closed for it where that is fair.

        Anybody can make many peers that each hold streams open. A peer that has none goes before one that has two, and
        any before one that asks nothing.
        """
        counts = Counter(serving.stream.peer for serving in self._serving)
        if counts[peer] >= SERVED_PER_PEER_MAX:
            return False
        if len(self._serving) < SERVED_MAX:
            return True
        now_s = time.monotonic()
        may_go = [
            serving
            for serving in self._serving
            if (counts[serving.stream.peer] > 1 and not counts[peer])
            or (serving.is_waiting and now_s - serving.since_s >= ROOM_IDLE_S)
        ]
        if not may_go:
            return False
        goes = max(may_go, key=lambda one: (counts[one.stream.peer], one.is_waiting, now_s - one.since_s))
        self._serving.discard(goes)
        goes.stream.close()  # its task ends by that
        return True


@dataclass(eq=False)
class _Serving:
    """A stream on which a peer asks. since_s: when it last began to wait for a question."""

    stream: Stream
    since_s: float
    is_waiting: bool = True

    def waits(self, now_s: float) -> None:
        self.since_s, self.is_waiting = now_s, True


class _Failed(NetworkError):
    """The exchange did not come to its end; what is to be noted of it is noted."""

    def __init__(self) -> None:
        super().__init__("the exchange failed")


async def _ask(stream: Stream, question: Value) -> Value:
    await stream.send(question, timeout_s=ANSWER_S)
    return await stream.receive(timeout_s=ANSWER_S, bytes_max=sync.FRAME_BYTES_MAX)
