"""Openings over the network: a drawn validator asks the checked peer for a stretch of its trail (/ubcp/check/2).

What is in an opening is opaque here; the trainers make and judge it. A peer answers only who was drawn to ask: an
opening takes several times the bytes of an offer, and its trainer may have to walk for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from ubcp_p2p.codec import MalformedMessage, bytes_of, fields, hash_of, number
from ubcp_p2p.errors import TrainingError
from ubcp_p2p.swarm.admission import OPEN, Admission, refusal, unless_refused
from ubcp_p2p.swarm.exchange import LINK_BYTES_PER_S_MIN
from ubcp_p2p.swarm.frames import DeadlineExceeded, Stream, Unreachable
from ubcp_p2p.swarm.network import Network

STRETCH_MAX: Final = 2**20
END_BYTES_MAX: Final = 64  # of what an asker says of the end that it wants; opaque here
REFUSED: Final = 0  # instead of a length
ASK_S: Final = 5.0
STALL_S: Final = 10.0

# (trail, stretch, how much of the state at its end) → bytes. Raises TrainingError; MalformedMessage for an end that is
# none.
Opener: TypeAlias = Callable[[bytes, int, bytes], Awaitable[bytes]]
MayAsk: TypeAlias = Callable[[bytes, bytes, int], bool]  # (who asks, trail, stretch)


class Openings:
    """Opens this peer's trails of one run to others, and asks others for theirs."""

    def __init__(
        self, network: Network, run_id: bytes, opening_bytes_max: int, opener: Opener, may_ask: MayAsk,
        admission: Admission = OPEN,
    ) -> None:  # fmt: skip
        self._network = network
        self._protocol = f"/ubcp/check/2/{run_id.hex()[:32]}"
        self._bytes_max = opening_bytes_max
        self._opener, self._may_ask, self._admission = opener, may_ask, admission
        self._gate = asyncio.Semaphore(1)  # the trainer opens one at a time, and each is held in memory

    async def open(self) -> None:
        """Begin to answer."""
        await self._network.handle(self._protocol, self._serve)

    async def close(self) -> None:
        """Stop answering."""
        await self._network.unhandle(self._protocol)

    async def ask(
        self, peer: bytes, trail: bytes, stretch: int, *, end: bytes, total_s: float, stall_s: float = STALL_S
    ) -> bytes:
        """The opening of one stretch, within `total_s`, and never silent for `stall_s` once it has begun.

        end: how much of the state at its end is wanted, at most 64 bytes that the other's trainer understands.
        The peer may be in the middle of a round, and answers when its trainer is free. Raises Unreachable, also when
        the peer refuses; NotAdmitted, where this peer is out; DeadlineExceeded; MalformedMessage for an answer that no
        opening of this run is.
        """
        try:
            async with (
                asyncio.timeout(total_s),
                self._network.open(peer, self._protocol, timeout_s=total_s) as stream,
            ):
                await stream.send([trail, stretch, end], timeout_s=ASK_S)
                (size,) = fields(unless_refused(await stream.receive(timeout_s=total_s)), 1)
                if size == REFUSED:
                    raise Unreachable("it does not open this stretch")
                data = bytearray(number(size, self._bytes_max))
                with memoryview(data) as view:
                    await stream.receive_block(view, stall_s=stall_s)
                return bytes(data)
        except TimeoutError:
            raise DeadlineExceeded(f"the opening did not arrive within {total_s:.0f} s") from None

    async def _serve(self, stream: Stream) -> None:
        trail, stretch, end = fields(await stream.receive(timeout_s=ASK_S), 3)
        name, index = hash_of(trail), number(stretch, STRETCH_MAX)
        if len(bytes_of(end)) > END_BYTES_MAX:
            raise MalformedMessage("no way to open the end of a stretch")
        if why := self._admission.to_state(stream.peer):
            await stream.send(refusal(why), timeout_s=ASK_S)
            return
        if not self._may_ask(stream.peer, name, index):
            await stream.send([REFUSED], timeout_s=ASK_S)
            return
        async with self._gate:
            try:
                data = await self._opener(name, index, bytes_of(end))
            except TrainingError:  # forgotten meanwhile, or of another process: the asker draws its own conclusion
                await stream.send([REFUSED], timeout_s=ASK_S)
                return
            if len(data) > self._bytes_max:
                raise MalformedMessage(f"an opening of {len(data)} bytes; at most {self._bytes_max} are allowed")
            # A slow reader may not hold the only place for ever.
            serve_s = STALL_S + len(data) / LINK_BYTES_PER_S_MIN
            try:
                async with asyncio.timeout(serve_s):
                    await stream.send([len(data)], timeout_s=ASK_S)
                    await stream.send_block(memoryview(data), stall_s=STALL_S)
            except TimeoutError:
                raise DeadlineExceeded(f"the opening was not read within {serve_s:.0f} s") from None
