"""Hostile peers: a RunMember that lies in the ways named in `modes`, and bytes that no peer of ours sends.

Empty `modes` is an honest peer. Each mode is one lie at one place, and the rest of the protocol is kept, so that it
gets as far as it can.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.codec import fields
from ubcp_p2p.keys import peer_id_of
from ubcp_p2p.swarm.admission import Verdict
from ubcp_p2p.swarm.exchange import HAVE, OFFER_DOMAIN, AllGather
from ubcp_p2p.swarm.frames import Stream
from ubcp_p2p.swarm.hivemind_parts import PeerID, averaging_pb2
from ubcp_p2p.swarm.matchmaking import NoGroup
from ubcp_p2p.swarm.membership import Beat
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.quorum import ROUND_MAX, Card, Certificate, Group, Seat, Standing, vote_digest
from ubcp_p2p.swarm.run import Observer, RunMember, RunSettings
from ubcp_p2p.swarm.states import CERTIFICATE, COPY, STATE, STATE_DOMAIN, States
from ubcp_p2p.swarm.votes import Polls

Modes = Mapping[str, Any]


class LyingTrainer:
    """Mode "offer": offers hold this value everywhere ("nan", "inf"). Mode "offer_bytes": offers have that length."""

    def __init__(self, trainer: Any, modes: Modes) -> None:
        self._trainer = trainer
        self._modes = modes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)

    @property
    def ready(self) -> Any:
        ready = self._trainer.ready
        return replace(ready, offer_bytes=self._modes["offer_bytes"]) if "offer_bytes" in self._modes else ready

    async def train(self, *arguments: Any) -> Any:
        offer = await self._trainer.train(*arguments)
        if "offer_bytes" in self._modes:
            offer.buffer.close()
            buffer = SharedBuffer.create(self._modes["offer_bytes"])
        elif "offer" in self._modes:
            buffer = offer.buffer
            with buffer.view as view:
                np.frombuffer(view, dtype="<f4").fill(float(self._modes["offer"]))
        else:
            return offer
        with buffer.view as view:
            digest = hashlib.sha256(OFFER_DOMAIN + bytes(view)).digest()
        return replace(offer, buffer=buffer, digest=digest, weight=self._modes.get("weight", offer.weight))

    async def apply(self, offers: Sequence[tuple[SharedBuffer, int]]) -> Any:
        size = self._trainer.ready.offer_bytes
        return await self._trainer.apply([offer for offer in offers if offer[0].size == size])


class LyingExchange(AllGather):
    """Mode "serve": "short" hangs up after 4 bytes, "stall" stops there, "drip" sends a byte a second, "garbage",
    "relay" serves everybody, whatever group he asks by."""

    modes: Modes
    lied: Callable[[], None]
    heard: dict[bytes, bytes]  # peer → the group that it asked by

    async def _relay(self, stream: Stream) -> None:
        """To each by its own group, also what a member of another group has."""
        digest, owner = fields(await stream.receive(timeout_s=5.0), 2)
        assert isinstance(digest, bytes) and isinstance(owner, bytes)
        self.heard[stream.peer] = digest
        buffer = SharedBuffer.create(self._offer_bytes)
        with buffer, buffer.view as view:
            if owner == self._network.public:
                while self._mine is None:  # this peer is about to begin, too
                    await self._changed.wait()
                with self._mine.view as mine:
                    view[:] = mine
            else:
                async with self._network.open(owner, self._protocol, timeout_s=5.0) as source:
                    await source.send([self.heard.get(owner, digest), owner], timeout_s=5.0)
                    await source.receive(timeout_s=5.0)
                    await source.receive_block(view, stall_s=5.0)
            await stream.send([HAVE], timeout_s=5.0)
            await stream.send_block(view, stall_s=5.0)

    async def _serve(self, stream: Stream) -> None:
        how = self.modes.get("serve")
        if how == "relay":
            await self._relay(stream)
            return
        if how is None:
            await super()._serve(stream)
            return
        await stream.receive(timeout_s=5.0)
        if how == "garbage":
            stream._writer.write(b"\xff\xff\xff\xff" + random.randbytes(4096))
            return
        await stream.send([HAVE], timeout_s=5.0)
        stream._writer.write(b"\0\0\0\0")
        if how == "short":
            stream.close()
        while how in ("stall", "drip") and not stream._reader.at_eof():
            await stream.wait_closed_by_peer(timeout_s=1.0)
            if how == "drip":
                stream._writer.write(b"\0")


class LyingStates(States):
    """Mode "state": "poison" serves other bytes than certified; "far" and "own" stand on a state of one's own making.

    "own" is one round ahead, "far" at round 10⁶; this peer alone signed the certificate, and the bytes match it.
    """

    modes: Modes
    lied: Callable[[], None]

    def forged(self, round_: int) -> tuple[Standing, bytes]:
        data = np.full(self._state_bytes // 4, float(self.modes.get("fill", 1.0)), dtype="<f4").tobytes()
        me = self._network.public
        digest = hashlib.sha256(STATE_DOMAIN + self._run_id + round_.to_bytes(8, "big") + data).digest()
        group = Group(self._run_id, round_ - 1, b"\1" * 32, (Seat(me, 1, b"\2" * 32, b"\3" * 32),))
        signature = self._network.key.sign("vote", vote_digest(group.digest, digest))
        return Standing(digest, Certificate(group, digest, ((me, signature),))), data

    def lie(self) -> tuple[Standing, bytes] | None:
        how = self.modes.get("state")
        here = self._standing.certificate.round if self._standing and self._standing.certificate else 0
        return self.forged({"far": ROUND_MAX, "own": here + 1}[how]) if how in ("far", "own") else None

    async def _serve(self, stream: Stream) -> None:
        lie = self.lie()
        if lie is None and self.modes.get("state") != "poison":
            await super()._serve(stream)
            return
        what, _ = fields(await stream.receive(timeout_s=5.0), 2)
        self.lied()
        standing, data = lie or (self._standing, random.randbytes(self._state_bytes))
        assert standing is not None
        if what == CERTIFICATE:
            certificate = standing.certificate.to_bytes() if standing.certificate is not None else b""
            await stream.send([standing.state_hash, certificate], timeout_s=5.0)
        elif what in (STATE, COPY):
            await stream.send([len(data)], timeout_s=5.0)
            await stream.send_block(memoryview(data), stall_s=10.0)


class LyingPolls(Polls):
    """Mode "vote": "other" votes for another state, "two" tells each member another, "forge" speaks for others too,
    "echo" gives each member its vote for whatever that one votes for."""

    modes: Modes
    lied: Callable[[], None]

    async def _tell(self, peer: bytes, ballot: Any, me: bytes, deadline_s: float) -> None:
        how = self.modes.get("vote")
        if how in ("other", "two"):
            self.lied()
            state = hashlib.sha256(b"another state" + (peer if how == "two" else b"")).digest()
            signature = self._network.key.sign("vote", vote_digest(ballot.group.digest, state))
            await self._network.request(peer, self._protocol, [ballot.group.digest, state, signature], timeout_s=2.0)
            return
        await super()._tell(peer, ballot, me, deadline_s)

    async def _serve(self, stream: Stream) -> None:
        if self.modes.get("vote") is None:
            await super()._serve(stream)
            return
        digest, told, _ = fields(await stream.receive(timeout_s=5.0), 3)
        assert isinstance(digest, bytes) and isinstance(told, bytes)
        if self.modes["vote"] == "echo":
            vote = self._network.key.sign("vote", vote_digest(digest, told))
            await stream.send([[self._network.public, told, vote]], timeout_s=5.0)
            return
        ballot = self._ballots.get(digest)
        if self.modes["vote"] != "forge" or ballot is None:
            await stream.send([], timeout_s=5.0)
            return
        self.lied()
        state = b"\7" * 32
        signature = self._network.key.sign("vote", vote_digest(digest, state))
        await stream.send([[peer, state, signature] for peer in ballot.group.peers], timeout_s=5.0)


class HostileMember(RunMember):
    """A RunMember under orders. Modes besides those above: "leader", "match", "first", "seat", "shuts".

    "leader": "split" shows each follower another list of cards, "faces" the whole list, and in it a card of its own
    that names another payer. "match": "absent" is ready and comes to no group.
    "first": the public key (hex) of the peer from which this member downloads before all others. "seat": "greedy" takes
    a seat also in rounds in which it has none. "shuts": public keys (hex) that it does not let in, as one whose ledger
    is behind, or who lies. "apart": {round: public keys (hex)}: in the first try at that round it meets these alone.
    """

    def __init__(
        self, network: Network, trainer: Any, settings: RunSettings, observe: Observer, modes: dict[str, Any]
    ) -> None:
        known = settings.admission

        def shut(asked: Verdict) -> Verdict:
            return lambda peer: "not here" if peer.hex() in modes.get("shuts", ()) else asked(peer)

        admission = replace(known, trains=shut(known.trains), reads=shut(known.reads))
        super().__init__(network, LyingTrainer(trainer, modes), replace(settings, admission=admission), observe)
        self.modes = modes
        for module, liar in (("_polls", LyingPolls), ("_states", LyingStates), ("exchange", LyingExchange)):
            getattr(self, module).__class__ = liar
            getattr(self, module).modes = modes
            getattr(self, module).lied = lambda: self._say("lied")
        self.exchange.heard = {}  # type: ignore[attr-defined]

    async def _beat(self) -> None:
        states: Any = self._states
        lie = states.lie()
        if lie is None:
            await super()._beat()
            return
        self._sequence = max(self._sequence + 1, int(time.time() * 1000))
        standing = lie[0]
        beat = Beat(
            self.settings.run_id, self._sequence, standing.certificate.round, self.phase, standing.state_hash, 0, 0
        )
        await self._network.publish(self._topic, beat.to_bytes())

    async def _load_from(self, peer: bytes, round_: int, state_hash: bytes) -> bool:
        first = self.modes.pop("first", None)
        if first is not None and await super()._load_from(bytes.fromhex(first), round_, state_hash):
            return True
        return await super()._load_from(peer, round_, state_hash)

    def _seats(self, ready: Sequence[bytes]) -> list[bytes]:
        chosen = super()._seats(ready)
        if self.modes.get("seat") != "greedy" or self._network.public in chosen:
            return chosen
        self._say("lied")
        return [*chosen[1:], self._network.public]

    async def _find_group(self, card: bytes, companions: Sequence[bytes]) -> list[bytes]:
        if (met := self.modes.get("apart", {}).pop(str(self.round), None)) is not None:
            self._say("apart")
            return await super()._find_group(card, [peer for peer in companions if peer.hex() in met])
        if self.modes.get("match") != "absent":
            return await super()._find_group(card, companions)
        self._say("lied")
        while self._companions():
            await self._wait_heard(1.0)
        raise NoGroup("the others went on, as they should")

    def _shown(self, message: Any, follower: bytes) -> list[tuple[bytes, bytes]]:
        """(peer id, card) of those that this leader tells a follower of."""
        rows, me = list(zip(message.ordered_peer_ids, message.gathered, strict=True)), peer_id_of(self._network.public)
        if self.modes["leader"] == "split":
            return [row for row in rows if row[0] in (follower, me)]

        def face(card: bytes) -> bytes:
            payer = hashlib.sha256(follower).digest()
            return replace(Card.from_bytes(card), payer=payer).signed(self._network.key).to_bytes()

        return [(peer, face(card) if peer == me else card) for peer, card in rows]

    async def _current_matchmaker(self) -> Any:
        matchmaker: Any = await super()._current_matchmaker()
        new_search = type(matchmaker)._new_search

        def lying_search(key: bytes, size: int) -> Any:
            search = new_search(matchmaker, key, size)
            honest = search.rpc_join_group

            async def lead(request: Any, context: Any) -> Any:
                async for message in honest(request, context):
                    if message.code == averaging_pb2.BEGIN_ALLREDUCE:
                        keep = self._shown(message, context.remote_id.to_bytes())
                        message = averaging_pb2.MessageFromLeader(
                            code=message.code,
                            group_id=message.group_id,
                            ordered_peer_ids=[row[0] for row in keep],
                            gathered=[row[1] for row in keep],
                        )
                        self._say("lied")
                    yield message

            if self.modes.get("leader") is not None:
                search.rpc_join_group = lead
            return search

        matchmaker._new_search = lying_search
        return matchmaker


# -- bytes that no peer of ours sends --------------------------------------------------------------------------------


def _bursts() -> list[bytes]:
    rng = random.Random(7)
    return [
        b"",
        b"\xff\xff\xff\xff",  # a frame of 4 GiB
        b"\x00\x01\x00\x00" + b"\0" * 100,  # a frame that ends early
        b"\x00\x00\x00\x00",  # an empty frame
        b"\x00\x00\x00\x10" + rng.randbytes(16),
        b"\x00\x00\x00\x05\x93\xc0\xc0\xc0\xc0",  # a list of nils
        b"\x00\x00\x00\x06\x92\xc4\xff\x00\x00\x00",  # a string longer than its frame
        b"\x00\x00\x40\x00" + b"\x91" * 0x4000,  # nested 16,384 deep
        b"\x00\x00\x00\x07\x93\xcf\xff\xff\xff\xff\xff",
        rng.randbytes(200_000),
        b"GET / HTTP/1.1\r\n\r\n",
    ]


async def assault(network: Network, run_id: bytes, how: str) -> dict[str, Any]:
    """Send garbage to every handler of every connected peer; returns how many streams were opened."""
    session = network.session
    run = run_id.hex()[:32]
    sent = refused = 0
    if how == "gossip":
        topic = f"ubcp/run/1/{run_id.hex()}"
        for burst in [*_bursts(), b"\x97" * 15_000]:
            await network.publish(topic, burst[:16_000])
            sent += 1
        for _ in range(2000):  # more than any honest peer says in an hour
            await network.publish(topic, random.randbytes(64))
            sent += 1
        return {"sent": sent, "refused": 0}
    protocols = [
        f"/ubcp/exchange/1/{run}", f"/ubcp/vote/1/{run}", f"/ubcp/state/2/{run}", f"/ubcp/accuse/3/{run}",
        f"/ubcp/group/2/{run}/rpc_join_group", "DHTProtocol.rpc_store", "DHTProtocol.rpc_find", "DHTProtocol.rpc_ping",
    ]  # fmt: skip
    for peer in sorted(network.connected):
        for protocol in protocols:
            for burst in _bursts():
                try:
                    async with asyncio.timeout(5.0):
                        _, _, writer = await session.p2p.call_binary_stream_handler(PeerID(peer_id_of(peer)), protocol)
                        writer.write(burst)
                        await writer.drain()
                except Exception:  # refusing is a fine answer
                    refused += 1
                    continue
                sent += 1
                if how == "hang" or sent % 3 == 0:
                    continue  # left open, until the node ends
                writer.close()
    return {"sent": sent, "refused": refused}
