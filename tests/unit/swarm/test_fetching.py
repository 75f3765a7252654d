"""What is fetched is what most peers stand on and prove, from whichever of them gives it; and what is said when not."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from tests.unit.swarm.made import KEYS, RUN, Wires, certificate
from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.codec import fields
from ubcp_p2p.errors import NetworkError
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.swarm import fetching
from ubcp_p2p.swarm.events import Event
from ubcp_p2p.swarm.fetching import NobodyThere, Wanted, fetch
from ubcp_p2p.swarm.frames import Stream
from ubcp_p2p.swarm.quorum import Place
from ubcp_p2p.swarm.states import CERTIFICATE, STATE_DOMAIN, States

SIZE = 4000
WANTED = Wanted(RUN, SIZE, 50, 4)
PROTOCOL = f"/ubcp/state/2/{RUN.hex()[:32]}"
A, B, C, ASKER = KEYS[:4]


def state(round_: int, fill: int = 7) -> tuple[bytes, bytes]:
    """(bytes, hash)."""
    data = bytes([round_, fill]) * (SIZE // 2)
    return data, hashlib.sha256(STATE_DOMAIN + RUN + round_.to_bytes(8, "big") + data).digest()


class Group:
    """Peers that serve states, and one that asks."""

    def __init__(self) -> None:
        self.wires = Wires()
        self.servers: dict[bytes, States] = {}
        self.events: list[Event] = []
        self._buffers: list[SharedBuffer] = []

    async def stand(
        self, who: NodeKey, round_: int, signers: Sequence[NodeKey] = (A, B, C), *, fill: int = 7, base: bytes = b""
    ) -> None:
        """`who` stands on that round and serves it."""
        data, digest = state(round_, fill)
        buffer = SharedBuffer.create(SIZE)
        self._buffers.append(buffer)
        with buffer.view as view:
            view[:] = data
        server = self.servers.setdefault(who.public, States(self.wires.node(who), RUN, SIZE, 50, 4))
        before = base or state(round_ - 1)[1]
        server.publish(buffer, digest, certificate(signers, signers, round_=round_ - 1, base=before, state=digest))
        await server.open()

    def poison(self, who: NodeKey) -> None:
        """It says what it stood on until now, and serves other bytes."""
        honest = self.wires.node(who).handlers[PROTOCOL]
        node = self.wires.node(who)

        async def handler(stream: Stream) -> None:
            receive = stream.receive

            async def peeked(*, timeout_s: float) -> object:
                message = await receive(timeout_s=timeout_s)
                what, _ = fields(message, 2)
                if what != CERTIFICATE:
                    await stream.send([SIZE], timeout_s=5.0)
                    await stream.send_block(memoryview(bytes(SIZE)), stall_s=5.0)
                return message

            stream.receive = peeked  # type: ignore[method-assign, assignment]
            await honest(stream)

        node.handlers[PROTOCOL] = handler

    async def fetch(self, *peers: NodeKey, kept: Place | None = None) -> tuple[int, bytes, bytes] | None:
        """(round, bytes, from whom)."""
        self.events.clear()
        node = self.wires.node(ASKER)
        got = await fetch(node, WANTED, [peer.public for peer in peers], self.events.append, kept=kept)
        if got is None:
            return None
        with got.state as buffer:
            return got.certificate.round, bytes(buffer.view), got.peer

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    async def close(self) -> None:
        for server in self.servers.values():
            await server.close()
        for buffer in self._buffers:
            buffer.close()


@pytest_asyncio.fixture
async def group(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Group]:
    monkeypatch.setattr(fetching, "AGAIN_S", 0.0)
    made = Group()
    yield made
    await made.close()


@pytest.mark.asyncio
async def test_the_newest_round_is_fetched_and_nobody_waits_for_the_asker(group: Group) -> None:
    await group.stand(A, 5)
    await group.stand(B, 4)
    assert await group.fetch(A, B) == (5, state(5)[0], A.public)
    assert group.servers[A.public].guests == {}
    steps = [event.data["bytes"] for event in group.events if event.kind == "progress"]
    assert steps == sorted(steps) and steps[-1] == SIZE


@pytest.mark.asyncio
async def test_what_is_kept_is_not_fetched_again(group: Group) -> None:
    await group.stand(A, 5)
    assert await group.fetch(A, kept=(5, state(5)[1])) is None
    assert group.kinds() == ["asking"]
    assert await group.fetch(A, kept=(4, state(4)[1])) is not None
    assert await group.fetch(A, kept=(5, state(5, fill=8)[1])) is not None  # another branch's round of that number


@pytest.mark.asyncio
async def test_a_peer_that_serves_other_bytes_is_passed_over(group: Group) -> None:
    for who in (A, B, C):
        await group.stand(who, 5)
    group.poison(A)
    group.poison(B)
    while "passed over" not in group.kinds():  # whoever is asked first is drawn
        assert await group.fetch(A, B, C) == (5, state(5)[0], C.public)
    (reason,) = {event.data["reason"] for event in group.events if event.kind == "passed over"}
    assert "does not match the hash" in reason


@pytest.mark.asyncio
async def test_when_all_lie_it_is_said_and_none_is_asked_twice(group: Group) -> None:
    for who in (A, B):
        await group.stand(who, 5)
        group.poison(who)
    with pytest.raises(NetworkError, match=r"no peer gave the state of round 5; .* does not match the hash"):
        await group.fetch(A, B)
    assert group.kinds().count("downloading") == 2


@pytest.mark.asyncio
async def test_one_that_alone_signs_a_far_round_does_not_outvote_two(group: Group) -> None:
    await group.stand(A, 5)
    await group.stand(B, 5)
    await group.stand(C, 50, [C], fill=9, base=b"\1" * 32)
    assert await group.fetch(A, B, C) in ((5, state(5)[0], A.public), (5, state(5)[0], B.public))


@pytest.mark.asyncio
async def test_a_group_that_goes_on_meanwhile_is_asked_again(group: Group) -> None:
    await group.stand(A, 5)
    node = group.wires.node(A)
    honest = node.handlers[PROTOCOL]
    asked = 0

    async def goes_on(stream: Stream) -> None:
        nonlocal asked
        asked += 1
        if asked == 2:  # between the question and the download
            await group.stand(A, 6)
            node.handlers[PROTOCOL] = goes_on
        await honest(stream)

    node.handlers[PROTOCOL] = goes_on
    assert await group.fetch(A) == (6, state(6)[0], A.public)
    assert group.kinds().count("passed over") == 1


@pytest.mark.asyncio
async def test_nobody_and_nothing_yet_are_told_apart(group: Group) -> None:
    with pytest.raises(NobodyThere, match="no peer of the run answers"):
        await group.fetch(A, B)
    with pytest.raises(NobodyThere, match="no peer of the run answers"):
        await group.fetch()
    server = States(group.wires.node(A), RUN, SIZE, 50, 4)
    group.servers[A.public] = server
    await server.open()
    with SharedBuffer.create(SIZE) as fresh:
        server.publish(fresh, state(0)[1], None)
        with pytest.raises(NobodyThere, match="have not committed a round yet"):
            await group.fetch(A, B)
