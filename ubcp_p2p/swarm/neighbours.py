"""The node's neighbours: joins through them and stays joined, remembers them, asks them how they see this node."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ubcp_p2p.errors import ConfigError, LocalIOError, NetworkError
from ubcp_p2p.keys import MalformedPeerId, from_base58, peer_id_of, public_of, to_base58
from ubcp_p2p.swarm.addresses import AddressBook, short, split_multiaddr
from ubcp_p2p.swarm.frames import DeadlineExceeded, Unreachable
from ubcp_p2p.swarm.hivemind_parts import Multiaddr, P2PDaemonError, PeerID, dht_pb2

if TYPE_CHECKING:
    from ubcp_p2p.swarm.network import Network, Session

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
INTRODUCTIONS_AT_ONCE = 16
INTRODUCE_AGAIN_S_MAX = 60.0  # a DHT client never answers
REMEMBER_EVERY_S = 30.0
REDIAL_EVERY_S = 45.0
REDIAL_FEW = 3
DIAL_TIMEOUT_S = 10.0
DIALS_AT_ONCE = 8
CLOCK_OFFSET_S_MAX = 3.0  # beyond this hivemind's matchmaking takes fresh records for expired ones


@dataclass
class Introductions:
    """Whom to ping next: each at once, then after waits that double."""

    asked: dict[bytes, tuple[float, float]] = field(default_factory=dict)  # peer → (not again before, the wait then)

    def due(self, strangers: Set[bytes], now_s: float) -> list[bytes]:
        """Those of `strangers` to ping now, at most INTRODUCTIONS_AT_ONCE; who is no stranger any more is forgotten."""
        self.asked = {peer: row for peer, row in self.asked.items() if peer in strangers}
        due = [peer for peer in sorted(strangers) if self.asked.get(peer, (0.0, 0.0))[0] <= now_s]
        chosen = random.sample(due, min(INTRODUCTIONS_AT_ONCE, len(due)))
        for peer in chosen:
            wait_s = min(2.0 * self.asked.get(peer, (0.0, LOOK_EVERY_S / 2.0))[1], INTRODUCE_AGAIN_S_MAX)
            self.asked[peer] = (now_s + wait_s, wait_s)
        return chosen


class Neighbours:
    """Whom a Network dials and remembers. `bootstrap` are full multiaddrs; raises ConfigError for what is none.

    What they say of this node: `dialled_back`, whether they could dial it (None: nobody was asked yet), and
    `clock_offset_s`, a neighbour's clock less ours. Both are claims.
    """

    def __init__(self, network: Network, book: AddressBook, bootstrap: tuple[str, ...]) -> None:
        self.dialled_back: bool | None = None
        self.clock_offset_s: float | None = None
        self._network = network
        self._book = book
        self._bootstrap = bootstrap
        for text in bootstrap:
            split_multiaddr(text)

    def remembered(self) -> list[str]:
        """Full multiaddrs of the peers in the address book, the most recently seen first."""
        return self._book.multiaddrs()

    async def connect(self, multiaddr: str) -> bytes:
        """Connect to a peer by its full multiaddr and add it to the DHT's routing table; returns its public key."""
        address, peer_id = split_multiaddr(multiaddr)
        raw = from_base58(peer_id)
        session = self._network.session
        if raw == peer_id_of(self._network.public):
            return self._network.public
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                await session.p2p._client.connect(PeerID(raw), [Multiaddr(address)])
                await session.dht.protocol.call_ping(PeerID(raw))
            await self._network.refresh_connected()
            return public_of(raw)
        except TimeoutError:
            raise DeadlineExceeded(f"{multiaddr} did not answer within {DIAL_TIMEOUT_S:.0f} s") from None
        except (OSError, EOFError, ValueError, P2PDaemonError, MalformedPeerId) as error:
            raise Unreachable(f"could not connect to {multiaddr}: {error}") from None

    async def keep_joined(self, session: Session) -> None:
        """Join through bootstrap nodes and remembered peers, remember whom we meet, and keep dialling some of the rest.

        The latter while connected too: else two halves of a partition that each kept a neighbour would never meet
        again, and one hostile connection would keep a newcomer from everybody else.
        """
        remembered_s = dialled_s = 0.0
        introductions = Introductions()
        while True:
            if not self._network.connected or time.monotonic() >= dialled_s:
                await self._join(few=bool(self._network.connected))
                dialled_s = time.monotonic() + REDIAL_EVERY_S * random.uniform(0.7, 1.3)
            await self._introduce(session, introductions)
            if time.monotonic() - remembered_s > REMEMBER_EVERY_S and self._network.connected:
                remembered_s = time.monotonic()
                await self.remember()
                await self._ask_dial_back(session)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _introduce(self, session: Session, introductions: Introductions) -> None:
        """Ping connected peers that the DHT does not know: so each enters the other's routing table.

        p2pd's connections and hivemind's routing table know nothing of each other. A node whose p2pd stood still for
        some seconds forgets everybody (each call failed), stays connected to all of them, and would store and look up
        records in a DHT of its own: rounds went on without it for 8 to 60 s (measured).
        """
        table = session.dht.protocol.routing_table
        strangers = {
            public for public in self._network.connected if table.get(peer_id=PeerID(peer_id_of(public))) is None
        }
        due = introductions.due(strangers, time.monotonic())
        await asyncio.gather(*(session.dht.protocol.call_ping(PeerID(peer_id_of(public))) for public in due))

    async def _join(self, *, few: bool) -> None:
        """Dial those that are not connected: all, or the bootstrap nodes and a few of the remembered."""
        remembered = self._book.multiaddrs()[:64]
        if few:
            remembered = random.sample(remembered, min(REDIAL_FEW, len(remembered)))
        linked = {to_base58(peer_id_of(public)) for public in self._network.connected}
        candidates = [
            text for text in dict.fromkeys((*self._bootstrap, *remembered)) if text.rpartition("/")[2] not in linked
        ]
        gate = asyncio.Semaphore(DIALS_AT_ONCE)

        async def dial(text: str) -> None:
            async with gate:
                try:
                    await self.connect(text)
                except (NetworkError, ConfigError) as error:
                    log.debug("could not join through %s: %s", text, error)

        await asyncio.gather(*(dial(text) for text in candidates))

    async def remember(self) -> None:
        """Note the connected peers in the address book and save it."""
        try:
            session = self._network.session
        except Unreachable:
            return
        now_s = time.time()
        try:
            for info in await session.p2p._client.list_peers():
                self._book.saw(info.peer_id.to_base58(), (str(a) for a in info.addrs), now_s)
            self._book.save()
        except (OSError, EOFError, LocalIOError, P2PDaemonError) as error:
            log.warning("the address book was not saved: %s", error)

    async def _ask_dial_back(self, session: Session) -> None:
        """Ask neighbours whether they can reach us, and what their clocks say (hivemind's validating ping).

        Their answers are claims, and a "yes" may only mean that the connection that we opened still stands. So one
        "no" alone changes nothing: two different neighbours must say it, and none of those asked "yes".
        """
        if not self._network.is_server:
            return
        answers = []
        for public in random.sample(sorted(self._network.connected), min(3, len(self._network.connected))):
            try:
                protocol, asked_s = session.dht.protocol, time.time()
                response = await protocol.get_stub(PeerID(peer_id_of(public))).rpc_ping(
                    dht_pb2.PingRequest(peer=protocol.node_info, validate=True), timeout=3.0
                )
            except Exception as error:  # hivemind raises many kinds; each means the same here
                log.debug("no dial-back from a neighbour: %s", error)
                continue
            answers.append(bool(response.available))
            self._note_clock(response.dht_time - (asked_s + time.time()) / 2.0, public)
        if any(answers):
            self.dialled_back = True
        elif len(answers) >= 2:
            self.dialled_back = False
            self._network.on_unreachable(session)

    def _note_clock(self, offset_s: float, neighbour: bytes) -> None:
        self.clock_offset_s = offset_s
        if abs(offset_s) > CLOCK_OFFSET_S_MAX:
            log.warning(
                "this machine's clock and that of %s differ by %.1f s; matchmaking needs less than %.0f s: "
                "is the time set (NTP) on both?", short(neighbour), offset_s, CLOCK_OFFSET_S_MAX,
            )  # fmt: skip
