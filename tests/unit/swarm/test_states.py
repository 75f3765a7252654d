"""Standings and state downloads between real streams: nothing unverified is taken, nobody is waited for for ever."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import pytest_asyncio

from tests.unit.swarm.made import KEYS, OTHER_RUN, RUN, Wires, certificate, digest
from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.codec import MalformedMessage
from ubcp_p2p.errors import NetworkError
from ubcp_p2p.swarm import states as states_module
from ubcp_p2p.swarm.admission import NotAdmitted
from ubcp_p2p.swarm.frames import DeadlineExceeded, Stream, Unreachable
from ubcp_p2p.swarm.quorum import Certificate, Standing
from ubcp_p2p.swarm.states import CERTIFICATE, STATE, STATE_DOMAIN, States

SIZE = 4000
ROUND = 4
PROTOCOL = f"/ubcp/state/2/{RUN.hex()[:32]}"
A, B, C = KEYS[:3]
LONG_S = 20.0
STATE_BYTES = bytes(n % 256 for n in range(SIZE))
STATE_HASH = hashlib.sha256(STATE_DOMAIN + RUN + ROUND.to_bytes(8, "big") + STATE_BYTES).digest()
CERTIFIED = certificate(KEYS[:3], KEYS[:3], round_=ROUND - 1, state=STATE_HASH)


@pytest.fixture
def buffer() -> Iterator[SharedBuffer]:
    with SharedBuffer.create(SIZE) as made:
        with made.view as view:
            view[:] = STATE_BYTES
        yield made


class Shelf:
    """A serves a state; B asks; any peer may answer by a handler of its own."""

    def __init__(self) -> None:
        self.wires = Wires()
        self.server = States(self.wires.node(A), RUN, SIZE, 50, 4)
        self.client = States(self.wires.node(B), RUN, SIZE, 50, 4)

    def answer(self, number: int, message: object) -> None:
        async def handler(stream: Stream) -> None:
            await stream.receive(timeout_s=LONG_S)
            await stream.send(message, timeout_s=LONG_S)  # type: ignore[arg-type]  # also what is no message

        self.serve(number, handler)

    def serve(self, number: int, handler: Callable[[Stream], Awaitable[None]]) -> None:
        self.wires.node(KEYS[number]).handlers[PROTOCOL] = handler

    async def download(self, stall_s: float = LONG_S, total_s: float = LONG_S) -> bytes:
        with await self.client.download(A.public, ROUND, STATE_HASH, stall_s=stall_s, total_s=total_s) as got:
            return bytes(got.view)


@pytest_asyncio.fixture
async def shelf() -> AsyncIterator[Shelf]:
    made = Shelf()
    await made.server.open()
    yield made
    await made.server.close()


@pytest.mark.asyncio
async def test_a_standing_and_its_state_are_served(shelf: Shelf, buffer: SharedBuffer) -> None:
    assert await shelf.client.standings([A.public]) == {}
    shelf.server.publish(buffer, STATE_HASH, CERTIFIED)
    assert await shelf.client.standings([A.public]) == {A.public: Standing(STATE_HASH, CERTIFIED)}
    assert await shelf.download() == STATE_BYTES


@pytest.mark.asyncio
async def test_a_standing_before_the_first_round_has_no_certificate(shelf: Shelf, buffer: SharedBuffer) -> None:
    shelf.server.publish(buffer, STATE_HASH, None)
    assert await shelf.client.standings([A.public]) == {A.public: Standing(STATE_HASH, None)}


def _far(round_: int) -> Certificate:
    return certificate(KEYS[:1], KEYS[:1], round_=round_, state=STATE_HASH)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "answer",
    [
        7, [], [STATE_HASH], [STATE_HASH, 0], [STATE_HASH, "text"], [b"short", b""], [0, b""],
        [STATE_HASH, b"garbage"],
        [STATE_HASH, b"\0" * 40_000],
        [digest("another state"), CERTIFIED.to_bytes()],  # a certificate for another state than the one claimed
        [STATE_HASH, certificate(KEYS[:3], KEYS[:1], round_=3, state=STATE_HASH).to_bytes()],  # no majority
        [STATE_HASH, CERTIFIED.to_bytes()[:-1] + bytes([CERTIFIED.to_bytes()[-1] ^ 1])],
        [STATE_HASH, _far(50).to_bytes()],  # a round that this run of 50 never has
        [STATE_HASH, _far(999_999).to_bytes()],
        # a group of five, signed by all of them, in a run of groups of at most four
        [STATE_HASH, certificate(KEYS[:5], KEYS[:5], round_=ROUND - 1, state=STATE_HASH).to_bytes()],
    ],
)  # fmt: skip
async def test_a_standing_that_is_not_proved_is_left_out(shelf: Shelf, answer: object) -> None:
    shelf.answer(2, answer)
    assert await shelf.client.standings([C.public]) == {}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "good", [_far(49), certificate(KEYS[:4], KEYS[:4], round_=ROUND - 1, state=STATE_HASH)], ids=["round", "group"]
)
async def test_the_last_round_and_the_largest_group_of_a_run_are_accepted(shelf: Shelf, good: Certificate) -> None:
    shelf.answer(2, [STATE_HASH, good.to_bytes()])
    assert C.public in await shelf.client.standings([C.public])


@pytest.mark.asyncio
async def test_a_certificate_of_another_run_is_left_out(shelf: Shelf) -> None:
    shelf.client = States(shelf.wires.node(B), OTHER_RUN, SIZE, 50, 4)
    shelf.answer(2, [STATE_HASH, CERTIFIED.to_bytes()])
    handlers = shelf.wires.node(C).handlers
    handlers[f"/ubcp/state/2/{OTHER_RUN.hex()[:32]}"] = handlers[PROTOCOL]
    assert await shelf.client.standings([C.public]) == {}


@pytest.mark.asyncio
async def test_a_mute_peer_slows_one_question_and_not_the_next(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states_module, "ASK_S", 0.05)

    async def mute(stream: Stream) -> None:
        await stream.receive(timeout_s=LONG_S)
        await stream.wait_closed_by_peer(timeout_s=LONG_S)

    shelf.serve(2, mute)
    client = shelf.wires.node(B)
    for _ in range(20):
        await shelf.client.standings([C.public])
    assert client.opened.count(C.public) == 1


@pytest.mark.asyncio
async def test_one_who_is_not_there_yet_is_asked_again_at_once(shelf: Shelf, buffer: SharedBuffer) -> None:
    await shelf.server.close()
    assert await shelf.client.standings([A.public]) == {}
    await shelf.server.open()
    shelf.server.publish(buffer, STATE_HASH, CERTIFIED)
    assert A.public in await shelf.client.standings([A.public])


# -- downloads ---------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_another_state_than_the_one_served_is_not_sent(shelf: Shelf, buffer: SharedBuffer) -> None:
    shelf.server.publish(buffer, digest("newer"), None)
    with pytest.raises(Unreachable, match="any more"):
        await shelf.download()


@pytest.mark.asyncio
async def test_a_state_under_replacement_is_not_sent(shelf: Shelf) -> None:
    gone = SharedBuffer.create(SIZE)
    gone.close()
    shelf.server.publish(gone, STATE_HASH, CERTIFIED)
    with pytest.raises(Unreachable, match="any more"):
        await shelf.download()


def _sends(size: object, data: bytes) -> Callable[[Stream], Awaitable[None]]:
    async def handler(stream: Stream) -> None:
        await stream.receive(timeout_s=LONG_S)
        await stream.send([size], timeout_s=LONG_S)  # type: ignore[list-item]  # also what is no size
        await stream.send_block(memoryview(data), stall_s=LONG_S)
        stream.close()

    return handler


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("size", "data", "error"),
    [
        (SIZE, b"\xff" * SIZE, MalformedMessage),
        (SIZE, STATE_BYTES[:-1] + b"\0", MalformedMessage),
        (SIZE, STATE_BYTES[:-1], Unreachable),
        (SIZE + 1, STATE_BYTES + b"\0", MalformedMessage),
        (4, b"\0" * 4, MalformedMessage),
        (2**48 + 1, b"", MalformedMessage),
        (b"much", b"", MalformedMessage),
        ("you are frozen", b"", NotAdmitted),
        (0, b"", Unreachable),
    ],
)
async def test_what_is_not_the_certified_state_is_refused(
    shelf: Shelf, size: object, data: bytes, error: type[Exception]
) -> None:
    shelf.serve(0, _sends(size, data))
    with pytest.raises(error):
        await shelf.download()


@pytest.mark.asyncio
async def test_the_hash_binds_the_round(shelf: Shelf, buffer: SharedBuffer) -> None:
    shelf.server.publish(buffer, STATE_HASH, CERTIFIED)
    with pytest.raises(MalformedMessage, match="does not match"):
        await shelf.client.download(A.public, ROUND + 1, STATE_HASH, stall_s=LONG_S, total_s=LONG_S)


@pytest.mark.asyncio
@pytest.mark.slow
async def test_a_dripping_server_is_given_up_though_it_is_never_silent(shelf: Shelf) -> None:
    async def drips(stream: Stream) -> None:
        await stream.receive(timeout_s=LONG_S)
        await stream.send([SIZE], timeout_s=LONG_S)
        for byte in STATE_BYTES:
            await stream.send_block(memoryview(bytes([byte])), stall_s=LONG_S)
            await stream.wait_closed_by_peer(timeout_s=0.05)

    shelf.serve(0, drips)
    started_s = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await shelf.download(stall_s=0.2, total_s=0.4)
    assert time.monotonic() - started_s < 5.0


@pytest.mark.asyncio
async def test_downloads_at_once_are_limited_and_all_served(shelf: Shelf, buffer: SharedBuffer) -> None:
    shelf.server.publish(buffer, STATE_HASH, CERTIFIED)
    assert await asyncio.gather(*(shelf.download() for _ in range(12))) == [STATE_BYTES] * 12


@pytest.mark.asyncio
@pytest.mark.parametrize("request_", [7, [], [STATE], [STATE, 5], [STATE, b"short"], [CERTIFICATE, b"", 1], ["x", "y"]])
async def test_a_malformed_request_ends_its_stream_only(shelf: Shelf, buffer: SharedBuffer, request_: object) -> None:
    shelf.server.publish(buffer, STATE_HASH, CERTIFIED)
    try:
        answer = await shelf.wires.node(B).request(A.public, PROTOCOL, request_, timeout_s=LONG_S)
        assert answer == [0]
    except NetworkError:
        pass
    assert await shelf.download() == STATE_BYTES
