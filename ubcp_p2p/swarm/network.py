"""The node's one connection to the network: p2pd, streams, DHT and gossip, rebuilt together when p2pd dies.

`Network.serve()` runs for the life of the daemon. Each time p2pd starts, a new `Session` is made and every handler and
subscription is registered again, so that the services above see a short outage and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ubcp_p2p.codec import MalformedMessage, Value
from ubcp_p2p.errors import ConfigError, LocalIOError, NetworkError
from ubcp_p2p.keys import MalformedPeerId, NodeKey, peer_id_of, public_of, to_base58
from ubcp_p2p.swarm.addresses import AddressBook, farthest_first, reachability, short
from ubcp_p2p.swarm.frames import DeadlineExceeded, Stream, Unreachable
from ubcp_p2p.swarm.hivemind_parts import (
    P2P,
    DHTNode,
    Multiaddr,
    P2PDaemonError,
    P2PHandlerError,
    PeerID,
)
from ubcp_p2p.swarm.neighbours import Neighbours
from ubcp_p2p.swarm.p2pd import P2pd, P2pdSettings
from ubcp_p2p.swarm.ports import Ports, not_heard
from ubcp_p2p.swarm.pubsub import OnMessage, PubSub
from ubcp_p2p.swarm.records import Claim, Ed25519Validator
from ubcp_p2p.swarm.storage import NoCache, RecordStorage

log = logging.getLogger(__name__)

ATTACH_RETRY_S = 0.01  # p2pd's socket appears 30–150 ms after its start (measured)
SLOW_START_S = 5.0
BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
HEALTH_EVERY_S = 5.0
HEALTH_DEADLINE_S = 5.0
LOOKUP_S_MAX = 15.0  # a look-up past a few dead peers takes some RPC_TIMEOUT_S; what takes longer has hung
RPC_TIMEOUT_S = 1.0  # hivemind's default of 3 s makes each dead peer in a look-up cost 3 s (measured)
STREAMS_PER_PEER_MAX = 16
STREAMS_MAX = 256
LINGER_S = 5.0
UNSUBSCRIBE_LINGER_S = 30.0

Handler = Callable[[Stream], Awaitable[None]]


@dataclass(frozen=True)
class Session:
    """One life of p2pd. `generation` counts them; objects of an older generation are dead."""

    generation: int
    daemon: P2pd
    p2p: Any
    dht: Any
    pubsub: PubSub


@dataclass
class _Subscription:
    on_message: OnMessage | None  # None: it lingers
    capped: bool = True
    pubsub: PubSub | None = None  # where it was made
    cancel: Callable[[], None] | None = None
    ends: asyncio.TimerHandle | None = None

    def deliver(self, peer: bytes, payload: bytes) -> None:
        if self.on_message is not None:
            self.on_message(peer, payload)


class Network:
    """Streams, gossip and the DHT of this node. Methods raise NetworkError while p2pd is down."""

    def __init__(
        self,
        key: NodeKey,
        settings: P2pdSettings,
        run_dir: Path,
        book: AddressBook,
        bootstrap: tuple[str, ...] = (),
        *,
        ports: Ports | None = None,
        client_if_unreachable: bool = False,
    ) -> None:
        self.key = key
        self.public = key.public
        self.stage = "waiting to start"
        self.addresses: tuple[str, ...] = ()
        self.connected: frozenset[bytes] = frozenset()
        self.restarts = 0
        self._settings = settings
        self._run_dir = run_dir
        self._ports = ports or Ports()
        self._client_if_unreachable = client_if_unreachable
        self._handlers: dict[str, Handler] = {}
        self._subscriptions: dict[str, _Subscription] = {}
        self._session: Session | None = None
        self._up = asyncio.Event()
        self._streams: Counter[bytes] = Counter()
        self.neighbours = Neighbours(self, book, bootstrap)

    # -- life ---------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Keep p2pd and its session alive until cancelled. Raises ConfigError or LocalIOError if it can never start."""
        generation, failures = 0, 0
        while True:
            generation += 1
            started_s = time.monotonic()
            try:
                session = await self._start(generation)
            except (NetworkError, OSError) as error:
                if generation == 1 and failures == 0:
                    _explain(error, self._settings)
                log.warning("p2pd did not start (%s); trying again", error)
                self.stage = f"p2pd did not start ({error}); trying again"
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1
                continue
            log.info("network up: %s", ", ".join(self.multiaddrs()))
            try:
                async with asyncio.TaskGroup() as tasks:
                    staying = self.neighbours.keep_joined(session)
                    helpers = [tasks.create_task(self._watch(session)), tasks.create_task(staying)]
                    words = await asyncio.shield(session.daemon.exited)
                    for helper in helpers:
                        helper.cancel()
            finally:
                self._up.clear()
                self._session = None
                self.connected = frozenset()
                await _shut(session)
            log.warning("%s; starting it again", words)
            self.stage = "p2pd ended; starting it again"
            self.restarts += 1
            failures = 0 if time.monotonic() - started_s > 10.0 else failures + 1
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])

    async def _start(self, generation: int) -> Session:
        self.stage = "starting p2pd"
        control = self._run_dir / "p2pd.sock"
        listen, announce = self._settings.listen, self._settings.announce
        daemon = P2pd.start(replace(self._settings, listen=self._ports.last(listen)), control)
        try:
            p2p = await self._attach(daemon)
            public = public_of(p2p.peer_id.to_bytes())
            if public != self.public:
                raise ConfigError("p2pd runs under another key than this profile's", hint="is node.key damaged?")
            self.addresses = tuple(str(a) for a in (await p2p._client.identify())[1])
            heard = [address for address in self.addresses if address not in announce]
            self._ports.note(listen, heard)
            for address in not_heard(listen, heard):
                log.warning("this node does not listen on %s: is it taken, or no address of this machine?", address)
            self.stage = "joining the DHT"
            dht = await DHTNode.create(
                p2p=p2p,
                wait_timeout=RPC_TIMEOUT_S,
                client_mode=not self._settings.server,
                record_validator=Ed25519Validator(self.key),
                ensure_bootstrap_success=False,
                strict=False,
                cache_locally=False,
                cache_nearest=0,
                cache_refresh_before_expiry=0,
            )
            dht.protocol.storage, dht.protocol.cache = RecordStorage(self._is_near), NoCache()
            pubsub = PubSub(control)
            session = Session(generation, daemon, p2p, dht, pubsub)
            served: set[str] = set()
            while missing := self._handlers.keys() - served:  # runs come and go meanwhile
                for name in missing:
                    await p2p.add_binary_stream_handler(name, self._guarded(name))
                served |= missing
            while topics := [topic for topic, made in self._subscriptions.items() if made.pubsub is not pubsub]:
                for topic in topics:
                    await self._listen(pubsub, topic)
        except BaseException:
            await daemon.stop()
            raise
        self._session = session
        self.stage = "up"
        self._up.set()
        return session

    async def _attach(self, daemon: P2pd) -> Any:
        started_s, warned = time.monotonic(), False
        while True:
            if daemon.exited.done():
                raise Unreachable(daemon.exited.result())
            P2P._UNIX_SOCKET_PREFIX = f"/unix{self._run_dir}/"  # where hivemind puts the socket for incoming streams
            try:
                return await P2P.replicate(Multiaddr(f"/unix{daemon.control}"))
            except (OSError, EOFError, P2PDaemonError):
                await asyncio.sleep(ATTACH_RETRY_S)
            if not warned and time.monotonic() - started_s > SLOW_START_S:
                warned = True
                self.stage = "p2pd is slow to start: a busy machine, or a blocked port? still trying"
                log.warning(self.stage)

    async def _watch(self, session: Session) -> None:
        """Health and neighbours: p2pd that stops answering is killed (and then restarted by `serve`)."""
        misses, asked = 0, 0.0
        while True:
            try:
                async with asyncio.timeout(HEALTH_DEADLINE_S):
                    await self.refresh_connected()
                    if time.monotonic() - asked > HEALTH_EVERY_S:
                        asked = time.monotonic()
                        self.addresses = tuple(str(a) for a in (await session.p2p._client.identify())[1])
                misses = 0
            except (TimeoutError, NetworkError, OSError, EOFError, P2PDaemonError):
                misses += 1
                if misses >= 3:
                    log.error("p2pd does not answer; killing it")
                    session.daemon.kill()
                    return
            await asyncio.sleep(0.5)

    @property
    def is_server(self) -> bool:
        """Whether this node serves the DHT to others."""
        return self._settings.server

    def on_unreachable(self, session: Session) -> None:
        """Nobody can dial this node: unless it is to be a server whatever comes, p2pd starts anew as a DHT client."""
        if self._client_if_unreachable:
            # Unreachable servers that hold others' records broke other networks (docs/adr/0006).
            log.warning("nobody can dial this node: it goes on as a DHT client. %s", self.reachability()[1])
            self._settings = replace(self._settings, server=False)
            session.daemon.kill()

    # -- streams ------------------------------------------------------------------------------------------------

    async def ready(self) -> Session:
        """Wait until the network is up."""
        while self._session is None:
            await self._up.wait()
        return self._session

    @property
    def session(self) -> Session:
        """The live session. Raises Unreachable while p2pd is down."""
        if self._session is None:
            raise Unreachable("the network is not up")
        return self._session

    @property
    def generation(self) -> int | None:
        """That of the live session; None while p2pd is down."""
        return self._session.generation if self._session is not None else None

    async def handle(self, protocol: str, handler: Handler) -> None:
        """Serve `protocol`; the handler gets a Stream and may raise: that ends the stream, nothing else."""
        self._handlers[protocol] = handler
        if self._session is not None:
            try:
                await self._session.p2p.add_binary_stream_handler(protocol, self._guarded(protocol))
            except (OSError, EOFError, P2PDaemonError) as error:  # p2pd is gone: the next session registers it
                log.debug("p2pd did not take %s: %s", protocol, error)

    async def unhandle(self, protocol: str) -> None:
        """Stop serving `protocol`."""
        if self._handlers.pop(protocol, None) is not None and self._session is not None:
            try:
                await self._session.p2p.remove_binary_stream_handler(protocol)
            except (OSError, EOFError, P2PDaemonError) as error:
                log.debug("p2pd did not drop %s: %s", protocol, error)

    @asynccontextmanager
    async def open(self, peer: bytes, protocol: str, *, timeout_s: float) -> AsyncIterator[Stream]:
        """A stream to `peer` (public key), closed at the end. Raises Unreachable or DeadlineExceeded."""
        session = self.session
        try:
            async with asyncio.timeout(timeout_s):
                _, reader, writer = await session.p2p.call_binary_stream_handler(PeerID(peer_id_of(peer)), protocol)
        except TimeoutError:
            raise DeadlineExceeded(f"{short(peer)} did not answer within {timeout_s:.1f} s") from None
        except (OSError, EOFError, P2PDaemonError, P2PHandlerError) as error:
            raise Unreachable(f"{short(peer)} could not be reached: {error}") from None
        stream = Stream(peer, reader, writer)
        try:
            yield stream
        finally:
            stream.close()

    async def request(self, peer: bytes, protocol: str, message: Value, *, timeout_s: float) -> Value:
        """Send one message, receive one. Raises MalformedMessage, Unreachable or DeadlineExceeded."""
        deadline_s = time.monotonic() + timeout_s
        async with self.open(peer, protocol, timeout_s=timeout_s) as stream:
            await stream.send(message, timeout_s=max(0.01, deadline_s - time.monotonic()))
            return await stream.receive(timeout_s=max(0.01, deadline_s - time.monotonic()))

    def _guarded(self, protocol: str) -> Callable[[Any, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def serve_stream(info: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                peer = public_of(info.peer_id.to_bytes())
            except MalformedPeerId:
                writer.close()
                return
            if self._streams[peer] >= STREAMS_PER_PEER_MAX or self._streams.total() >= STREAMS_MAX:
                log.debug("%s has too many streams open; one more was refused", short(peer))
                writer.close()
                return
            self._streams[peer] += 1
            stream = Stream(peer, reader, writer)
            try:
                handler = self._handlers.get(protocol)
                if handler is not None:
                    await handler(stream)
                await stream.wait_closed_by_peer(timeout_s=LINGER_S)
            except (NetworkError, MalformedMessage) as error:
                log.debug("%s on %s: %s", short(peer), protocol, error)
            except Exception:
                log.exception("serving %s to %s failed", protocol, short(peer))
            finally:
                stream.close()
                self._streams[peer] -= 1
                if not self._streams[peer]:
                    del self._streams[peer]

        return serve_stream

    # -- peers --------------------------------------------------------------------------------------------------

    async def refresh_connected(self) -> frozenset[bytes]:
        """Ask p2pd who is connected now (public keys). Raises NetworkError while p2pd is down."""
        try:
            peers = await self.session.p2p._client.list_peers()
        except (OSError, EOFError, P2PDaemonError) as error:
            raise Unreachable(f"p2pd does not answer: {error}") from None
        publics = []
        for info in peers:
            try:
                publics.append(public_of(info.peer_id.to_bytes()))
            except MalformedPeerId:
                continue
        self.connected = frozenset(publics)
        return self.connected

    def _is_near(self, peer_id: bytes) -> bool:
        try:
            public = public_of(peer_id)
        except MalformedPeerId:
            return False
        return public == self.public or public in self.connected

    def multiaddrs(self) -> list[str]:
        """This node's own full multiaddrs, for a friend to join through."""
        own = to_base58(peer_id_of(self.public))
        return [f"{address}/p2p/{own}" for address in farthest_first(self.addresses)]

    @property
    def p2pd_pid(self) -> int | None:
        return self._session.daemon.pid if self._session is not None else None

    def reachability(self) -> tuple[str, str]:
        """See addresses.reachability."""
        return reachability(self.addresses, self.neighbours.dialled_back)

    # -- gossip and DHT -----------------------------------------------------------------------------------------

    async def subscribe(self, topic: str, on_message: OnMessage, *, capped: bool = True) -> None:
        """Deliver messages of `topic` from now on, over restarts of p2pd too. capped: as for PubSub.subscribe."""
        lingering = self._subscriptions.get(topic)
        if lingering is not None:
            lingering.on_message = on_message
            if lingering.ends is not None:
                lingering.ends.cancel()
            return
        self._subscriptions[topic] = _Subscription(on_message, capped)
        if self._session is not None:
            try:
                await self._listen(self._session.pubsub, topic)
            except NetworkError as error:  # p2pd is gone: the next session subscribes
                log.debug("%s", error)

    def unsubscribe(self, topic: str) -> None:
        """Deliver nothing more. The subscription itself lingers, so that our last words are still passed on.

        GossipSub also keeps a peer that unsubscribed out of its mesh for a while: coming back at once would cost 1 s a
        message.
        """
        subscription = self._subscriptions.get(topic)
        if subscription is not None:
            subscription.on_message = None
            loop = asyncio.get_running_loop()
            subscription.ends = loop.call_later(UNSUBSCRIBE_LINGER_S, self._forget, topic, subscription)

    def _forget(self, topic: str, subscription: _Subscription) -> None:
        if self._subscriptions.get(topic) is subscription:
            del self._subscriptions[topic]
            if subscription.cancel is not None:
                subscription.cancel()

    async def _listen(self, pubsub: PubSub, topic: str) -> None:
        subscription = self._subscriptions.get(topic)
        if subscription is None or subscription.pubsub is pubsub:
            return
        subscription.pubsub = pubsub
        cancel = await pubsub.subscribe(topic, subscription.deliver, capped=subscription.capped)
        if self._subscriptions.get(topic) is subscription:
            subscription.cancel = cancel
        else:  # unsubscribed meanwhile
            cancel()

    async def publish(self, topic: str, payload: bytes) -> None:
        """Gossip one message. Raises Unreachable while p2pd is down."""
        await self.session.pubsub.publish(topic, payload)

    async def claim(self, key: str, value: Any, lifetime_s: float) -> bool:
        """Store our signed record under `key`; False when nobody took it."""
        try:
            async with asyncio.timeout(LOOKUP_S_MAX):
                stored = await self.session.dht.store(
                    key, value, time.time() + lifetime_s, subkey=peer_id_of(self.public), await_all_replicas=False
                )
        except (TimeoutError, OSError, EOFError, P2PDaemonError) as error:
            raise Unreachable(f"the record was not stored: {error}") from None
        return bool(stored)

    async def claims(self, key: str) -> list[Claim]:
        """The signed records under `key`, one an author; each is a claim."""
        try:
            async with asyncio.timeout(LOOKUP_S_MAX):
                found = await self.session.dht.get(key, latest=True)
        except (TimeoutError, OSError, EOFError, P2PDaemonError) as error:
            raise Unreachable(f"the look-up failed: {error or type(error).__name__}") from None
        if found is None or not isinstance(found.value, dict):
            return []
        result = []
        for subkey, item in found.value.items():
            try:
                result.append(Claim(public_of(subkey), item.value, item.expiration_time))
            except (MalformedPeerId, AttributeError, TypeError):
                continue
        return result


async def _shut(session: Session) -> None:
    await session.pubsub.close()
    session.dht.is_alive = False  # ends hivemind's background jobs; its handlers end with p2pd
    await session.p2p.shutdown()
    await session.daemon.stop()


def _explain(error: Exception, settings: P2pdSettings) -> None:
    """Turn a hopeless first start into an error for people."""
    text = str(error)
    if "cannot assign requested address" in text:
        raise LocalIOError(
            f"this machine does not have the address: cannot listen on {', '.join(settings.listen)}",
            hint="set network.listen in config.toml to an address of this machine; /ip4/0.0.0.0/… is all of them",
        ) from None
    if "address already in use" in text or "failed to listen on any addresses" in text:
        raise LocalIOError(
            f"the port is in use: cannot listen on {', '.join(settings.listen)}",
            hint="another program has it: set network.listen in config.toml to another port, or to port 0",
        ) from None
    if "permission denied" in text:
        raise LocalIOError(
            f"not permitted to listen on {', '.join(settings.listen)}",
            hint="ports below 1024 need root; use a higher one",
        ) from None
