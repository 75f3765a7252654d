"""Frames on a p2pd stream: length-prefixed canonical messages and raw blocks, every length capped, every wait bounded.

A frame is a 4-byte big-endian length and that many bytes. A block (a tensor) is raw bytes of a length that both sides
know beforehand. The requester closes; nobody half-closes (py-libp2p fails on it, measured).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar, cast

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

    async def send(self, message: Value, *, timeout_s: float, bytes_max: int = FRAME_BYTES_MAX) -> None:
        """Send one message of at most `bytes_max` bytes. Raises Unreachable or DeadlineExceeded."""
        data = encode(message)
        if len(data) > bytes_max:
            raise MalformedMessage(f"message of {len(data)} bytes; at most {bytes_max} are allowed")
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
            await asyncio.sleep(0)  # drain need not wait; without this heartbeats waited up to 0.5 s (measured)

    async def receive_block(
        self, block: memoryview, *, stall_s: float, on_data: Callable[[memoryview | bytes], object] | None = None
    ) -> None:
        """Fill `block`.

        Raises DeadlineExceeded when nothing arrives for `stall_s` seconds, Unreachable at an early end.
        """
        # What has arrived lies in the StreamReader, which is empty afterwards; nothing else runs until the hand-over.
        data = await self._bounded(self._reader.read(len(block)), stall_s) if block else b""
        if block and not data:
            raise Unreachable(f"the peer hung up after 0 of {len(block)} bytes")
        block[: len(data)] = data
        if on_data is not None:
            on_data(data)
        if len(data) < len(block):
            await self._fill(block, len(data), stall_s, on_data)

    async def _fill(
        self, block: memoryview, offset: int, stall_s: float, on_data: Callable[[memoryview | bytes], object] | None
    ) -> None:
        """Receive the rest of `block` from the socket straight into it: a quarter less CPU than through the reader."""
        transport = cast(asyncio.Transport, self._writer.transport)
        reader_protocol = cast(asyncio.Protocol, transport.get_protocol())
        if self._reader.at_eof() or transport.is_closing():  # the end was told to the reader and is not told again
            raise Unreachable(f"the peer hung up after {offset} of {len(block)} bytes")
        filler = _Filler(transport, reader_protocol, block, offset, on_data)
        _hand_over(transport, filler)
        try:
            await filler.filled(stall_s)
        finally:
            filler.let_go()
            _hand_over(transport, reader_protocol)

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


class _Filler(asyncio.BufferedProtocol):
    """Takes a transport over from its StreamReader until `block` is full; all but data goes on to `reader_protocol`."""

    def __init__(
        self,
        transport: asyncio.Transport,
        reader_protocol: asyncio.Protocol,
        block: memoryview,
        offset: int,
        on_data: Callable[[memoryview | bytes], object] | None,
    ) -> None:
        self._transport = transport
        self._reader_protocol = reader_protocol
        self._block = block
        self._offset = offset
        self._on_data = on_data
        self._loop = asyncio.get_running_loop()
        self._moved_s = self._loop.time()
        self._ended = asyncio.Event()

    async def filled(self, stall_s: float) -> None:
        """Wait until the block is full. Raises as `Stream.receive_block`."""
        while not self._ended.is_set():
            quiet_s = self._loop.time() - self._moved_s
            if quiet_s >= stall_s:
                raise DeadlineExceeded(f"nothing arrived for {stall_s:.1f} s")
            # One timer for the whole silence, not one for each of the thousands of pieces.
            with suppress(TimeoutError):
                async with asyncio.timeout(stall_s - quiet_s):
                    await self._ended.wait()
        if self._offset < len(self._block):
            raise Unreachable(f"the peer hung up after {self._offset} of {len(self._block)} bytes")

    def let_go(self) -> None:
        """Drop the block: a transport that is closing keeps its protocol for a while, and the block is large."""
        self._block, self._on_data = memoryview(b""), None

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._block[self._offset :]

    def buffer_updated(self, nbytes: int) -> None:
        piece = self._block[self._offset : self._offset + nbytes]
        self._offset += nbytes
        self._moved_s = self._loop.time()
        if self._on_data is not None:
            self._on_data(piece)
        if self._offset == len(self._block):
            self._transport.pause_reading()  # what follows is the StreamReader's
            self._ended.set()

    def eof_received(self) -> bool | None:
        self._ended.set()
        return self._reader_protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set()
        self._reader_protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._reader_protocol.pause_writing()

    def resume_writing(self) -> None:
        self._reader_protocol.resume_writing()


def _hand_over(transport: asyncio.Transport, protocol: asyncio.BaseProtocol) -> None:
    """Let `protocol` receive what comes next, and nothing in between."""
    if not transport.is_closing():
        transport.pause_reading()
        transport.set_protocol(protocol)
        transport.resume_reading()
