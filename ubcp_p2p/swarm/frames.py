"""Frames on a p2pd stream: length-prefixed canonical messages and raw blocks, every length capped, every wait bounded.

A frame is a 4-byte big-endian length and that many bytes. A block (a tensor) is raw bytes of a length that both sides
know beforehand. The requester closes; nobody half-closes (py-libp2p fails on it, measured).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ubcp_p2p.codec import MalformedMessage, Value, decode, encode
from ubcp_p2p.errors import NetworkError

T = TypeVar("T")

FRAME_BYTES_MAX = 64 * 1024  # the largest message of ours, a certificate of 64 members, takes 17 KiB
BLOCK_STEP = 256 * 1024


class Unreachable(NetworkError):
    """The peer could not be reached, or hung up in the middle."""


class DeadlineExceeded(NetworkError):
    """The peer answered too late, or stopped sending."""


class Stream:
    """A framed stream to one peer. `peer` is its 32-byte public key (authenticated by libp2p)."""

    def __init__(self, peer: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peer = peer
        self._reader = reader
        self._writer = writer

    async def send(self, message: Value, *, timeout_s: float) -> None:
        """Send one message. Raises Unreachable or DeadlineExceeded."""
        data = encode(message)
        if len(data) > FRAME_BYTES_MAX:
            raise MalformedMessage(f"message of {len(data)} bytes; at most {FRAME_BYTES_MAX} are allowed")
        self._writer.write(len(data).to_bytes(4, "big") + data)
        await self._bounded(self._writer.drain(), timeout_s)

    async def receive(self, *, timeout_s: float, bytes_max: int = FRAME_BYTES_MAX) -> Value:
        """Receive one message of at most `bytes_max` bytes.

        Raises MalformedMessage, Unreachable or DeadlineExceeded.
        """
        length = int.from_bytes(await self._bounded(self._reader.readexactly(4), timeout_s), "big")
        if length > bytes_max:
            raise MalformedMessage(f"frame of {length} bytes; at most {bytes_max} are allowed")
        return decode(await self._bounded(self._reader.readexactly(length), timeout_s), bytes_max=bytes_max)

    async def send_block(self, block: memoryview, *, stall_s: float) -> None:
        """Send raw bytes; raises DeadlineExceeded when nothing moves for `stall_s` seconds."""
        for offset in range(0, len(block), BLOCK_STEP):
            self._writer.write(block[offset : offset + BLOCK_STEP])
            await self._bounded(self._writer.drain(), stall_s)

    async def receive_block(
        self, block: memoryview, *, stall_s: float, on_data: Callable[[bytes], object] | None = None
    ) -> None:
        """Fill `block`.

        Raises DeadlineExceeded when nothing arrives for `stall_s` seconds, Unreachable at an early end.
        """
        offset = 0
        while offset < len(block):
            data = await self._bounded(self._reader.read(min(BLOCK_STEP, len(block) - offset)), stall_s)
            if not data:
                raise Unreachable(f"the peer hung up after {offset} of {len(block)} bytes")
            block[offset : offset + len(data)] = data
            offset += len(data)
            if on_data is not None:
                on_data(data)

    async def wait_closed_by_peer(self, *, timeout_s: float) -> None:
        """Wait for the requester to close, so that no last bytes are lost; whatever else it sends is ignored."""
        try:
            await self._bounded(self._reader.read(1), timeout_s)
        except NetworkError:
            pass

    def close(self) -> None:
        self._writer.close()

    async def _bounded(self, waiting: Awaitable[T], timeout_s: float) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                return await waiting
        except TimeoutError:
            raise DeadlineExceeded(f"no answer within {timeout_s:.1f} s") from None
        except (OSError, asyncio.IncompleteReadError, EOFError) as error:
            raise Unreachable(f"the connection broke: {error or type(error).__name__}") from None
