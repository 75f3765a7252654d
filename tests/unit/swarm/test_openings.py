"""Openings over real streams: given to those who were drawn, bounded in length and time."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.swarm.made import KEYS, RUN, Wires, digest
from ubcp_p2p.codec import MalformedMessage, Value
from ubcp_p2p.errors import TrainingError
from ubcp_p2p.swarm.admission import Admission, NotAdmitted
from ubcp_p2p.swarm.frames import DeadlineExceeded, Stream, Unreachable
from ubcp_p2p.swarm.openings import END_BYTES_MAX, STALL_S, STRETCH_MAX, Openings

A, B, C = KEYS[:3]
TRAIL, END, SIZE, LONG_S = digest("trail"), b"end", 300_000, 20.0
OPENING = bytes(n % 251 for n in range(SIZE))
PROTOCOL = f"/ubcp/check/2/{RUN.hex()[:32]}"


class Desk:
    """A opens its trail to B; asked counts what reached its trainer."""

    def __init__(self, answer: bytes | None = OPENING, size_max: int = SIZE) -> None:
        self.wires = Wires()
        self.asked: list[tuple[bytes, int]] = []
        self._answer = answer
        self.server = self.of(A, size_max)
        self.client, self.stranger = self.of(B, SIZE), self.of(C, SIZE)

    def of(self, who: object, size_max: int) -> Openings:
        return Openings(self.wires.node(who), RUN, size_max, self._opened, self._may_ask)  # type: ignore[arg-type]

    async def _opened(self, trail: bytes, stretch: int, end: bytes) -> bytes:
        assert end == END
        self.asked.append((trail, stretch))
        if self._answer is None:
            raise TrainingError("forgotten")
        return self._answer

    def _may_ask(self, peer: bytes, trail: bytes, stretch: int) -> bool:
        return (peer, trail) == (B.public, TRAIL)

    async def ask(self, **limits: float) -> bytes:
        times = {"total_s": LONG_S, "stall_s": STALL_S, **limits}
        return await self.client.ask(A.public, TRAIL, 3, end=END, total_s=times["total_s"], stall_s=times["stall_s"])


@pytest.mark.asyncio
async def test_who_was_drawn_gets_the_opening() -> None:
    desk = Desk()
    await desk.server.open()
    assert await desk.ask() == OPENING
    assert desk.asked == [(TRAIL, 3)]
    await desk.server.close()
    with pytest.raises(Unreachable):
        await desk.ask()


@pytest.mark.asyncio
async def test_others_get_nothing_and_the_trainer_is_not_asked() -> None:
    desk = Desk()
    await desk.server.open()
    with pytest.raises(Unreachable, match="does not open"):
        await desk.stranger.ask(A.public, TRAIL, 3, end=END, total_s=LONG_S)
    with pytest.raises(Unreachable, match="does not open"):
        await desk.client.ask(A.public, digest("another"), 3, end=END, total_s=LONG_S)
    assert desk.asked == []


@pytest.mark.asyncio
async def test_who_is_not_let_in_hears_why() -> None:
    desk = Desk()
    desk.server._admission = Admission(trains=lambda peer: "frozen", reads=lambda peer: "frozen")
    await desk.server.open()
    with pytest.raises(NotAdmitted, match="frozen"):
        await desk.ask()
    assert desk.asked == []


@pytest.mark.asyncio
async def test_what_is_forgotten_is_refused() -> None:
    desk = Desk(answer=None)
    await desk.server.open()
    with pytest.raises(Unreachable, match="does not open"):
        await desk.ask()


@pytest.mark.asyncio
async def test_two_who_ask_at_once_are_served_in_turn() -> None:
    desk = Desk()
    await desk.server.open()
    assert list(await asyncio.gather(desk.ask(), desk.ask())) == [OPENING, OPENING]


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [[SIZE + 1], [2**50], [b"x"], [], 7])
async def test_an_answer_that_is_no_length_is_refused(answer: Value) -> None:
    desk = Desk()

    async def lie(stream: Stream) -> None:
        await stream.receive(timeout_s=LONG_S)
        await stream.send(answer, timeout_s=LONG_S)

    desk.wires.node(A).handlers[PROTOCOL] = lie
    with pytest.raises(MalformedMessage):
        await desk.ask()


@pytest.mark.asyncio
@pytest.mark.parametrize("limits", [{"stall_s": 0.05}, {"total_s": 0.05}])
async def test_a_peer_that_stops_is_not_waited_for(limits: dict[str, float]) -> None:
    desk = Desk()

    async def stop(stream: Stream) -> None:
        await stream.receive(timeout_s=LONG_S)
        await stream.send([SIZE], timeout_s=LONG_S)
        await stream.send_block(memoryview(OPENING)[:100], stall_s=LONG_S)
        await stream.wait_closed_by_peer(timeout_s=LONG_S)

    desk.wires.node(A).handlers[PROTOCOL] = stop
    with pytest.raises(DeadlineExceeded):
        await desk.ask(**limits)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "request_",
    [
        [TRAIL],
        [TRAIL, 3],
        [TRAIL[:31], 3, END],
        [TRAIL, STRETCH_MAX + 1, END],
        [3, TRAIL, END],
        [TRAIL, 3, 1],
        [TRAIL, 3, bytes(END_BYTES_MAX + 1)],
        b"x",
    ],
)
async def test_a_malformed_request_reaches_no_trainer(request_: Value) -> None:
    desk = Desk()
    await desk.server.open()
    async with desk.wires.node(B).open(A.public, PROTOCOL, timeout_s=LONG_S) as stream:
        await stream.send(request_, timeout_s=LONG_S)
        with pytest.raises(Unreachable):
            await stream.receive(timeout_s=LONG_S)
    assert desk.asked == []


@pytest.mark.asyncio
async def test_an_opening_beyond_the_limit_is_not_sent() -> None:
    desk = Desk(size_max=SIZE - 1)
    await desk.server.open()
    with pytest.raises(Unreachable):
        await desk.ask()
