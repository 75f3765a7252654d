"""Frames: every length capped, every wait bounded, and the ends of a stream told apart."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ubcp_p2p.codec import MalformedMessage, encode
from ubcp_p2p.swarm.frames import BLOCK_STEP, FRAME_BYTES_MAX, DeadlineExceeded, Stream, Unreachable

PEER = b"p" * 32
SOON_S = 0.05
LONG_S = 20.0


class Pair:
    """Our end as a Stream; the other end as raw reader and writer."""

    def __init__(self, stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.stream, self.reader, self.writer = stream, reader, writer


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    a, b = socket.socketpair()
    for end in (a, b):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    ours = await asyncio.open_connection(sock=a)
    theirs = await asyncio.open_connection(sock=b)
    yield Pair(Stream(PEER, *ours), *theirs)
    for _, writer in (ours, theirs):
        writer.close()


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@pytest.mark.asyncio
async def test_a_message_there_and_back(pair: Pair) -> None:
    await pair.stream.send([b"offer", 7], timeout_s=LONG_S)
    data = framed(encode([b"offer", 7]))
    assert await pair.reader.readexactly(len(data)) == data
    pair.writer.write(framed(encode(["yes", [1]])))
    assert await pair.stream.receive(timeout_s=LONG_S) == ["yes", [1]]


@pytest.mark.asyncio
async def test_a_message_that_comes_in_pieces_is_whole(pair: Pair) -> None:
    waiting = asyncio.ensure_future(pair.stream.receive(timeout_s=LONG_S))
    for byte in framed(encode([b"x" * 20])):
        pair.writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert await waiting == [b"x" * 20]


@pytest.mark.asyncio
@pytest.mark.parametrize("length", [FRAME_BYTES_MAX + 1, 2**31, 2**32 - 1])
async def test_an_oversized_frame_is_refused_before_its_bytes_come(pair: Pair, length: int) -> None:
    pair.writer.write(length.to_bytes(4, "big"))
    with pytest.raises(MalformedMessage, match="at most"):
        await pair.stream.receive(timeout_s=LONG_S)


@pytest.mark.asyncio
async def test_a_caller_may_allow_less(pair: Pair) -> None:
    pair.writer.write(framed(encode([b"x" * 100])))
    with pytest.raises(MalformedMessage, match="at most 50"):
        await pair.stream.receive(timeout_s=LONG_S, bytes_max=50)


@pytest.mark.asyncio
async def test_we_do_not_send_what_others_would_refuse(pair: Pair) -> None:
    with pytest.raises(MalformedMessage, match="at most"):
        await pair.stream.send([b"x" * FRAME_BYTES_MAX], timeout_s=LONG_S)
    await pair.stream.send([b"x" * (FRAME_BYTES_MAX - 8)], timeout_s=LONG_S)


@pytest.mark.asyncio
@pytest.mark.parametrize("data", [b"", b"\xc1", b"\xc0", b"\x81\x01\x01", b"\xcb" + b"\0" * 8, encode(7) + b"\0"])
async def test_a_frame_that_is_no_canonical_message_is_refused(pair: Pair, data: bytes) -> None:
    pair.writer.write(framed(data))
    with pytest.raises(MalformedMessage):
        await pair.stream.receive(timeout_s=LONG_S)


@pytest.mark.asyncio
@pytest.mark.parametrize("data", [b"", b"\0\0", b"\0\0\0\5", b"\0\0\0\5abc"])
async def test_a_truncated_frame_is_a_broken_connection(pair: Pair, data: bytes) -> None:
    pair.writer.write(data)
    pair.writer.write_eof()
    with pytest.raises(Unreachable):
        await pair.stream.receive(timeout_s=LONG_S)


@pytest.mark.asyncio
@pytest.mark.parametrize("data", [b"", b"\0\0", b"\0\0\0\5", b"\0\0\0\5abc"])
async def test_a_frame_that_never_ends_is_given_up(pair: Pair, data: bytes) -> None:
    pair.writer.write(data)
    with pytest.raises(DeadlineExceeded):
        await pair.stream.receive(timeout_s=SOON_S)


@pytest.mark.asyncio
async def test_one_who_does_not_read_is_given_up(pair: Pair) -> None:
    block = memoryview(bytearray(4 * BLOCK_STEP))
    with pytest.raises(DeadlineExceeded):
        await pair.stream.send_block(block, stall_s=SOON_S)


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [0, 1, 100, BLOCK_STEP, 3 * BLOCK_STEP + 17])
async def test_a_block_arrives_whole_and_is_hashed_in_order(pair: Pair, size: int) -> None:
    sent = bytes(n * 7 % 251 for n in range(size))
    there = Stream(PEER, pair.reader, pair.writer)
    got, seen = bytearray(size), bytearray()
    sending = asyncio.ensure_future(there.send_block(memoryview(sent), stall_s=LONG_S))
    await pair.stream.receive_block(memoryview(got), stall_s=LONG_S, on_data=lambda data: seen.extend(data))
    await sending
    assert got == sent
    assert seen == sent


@pytest.mark.asyncio
@pytest.mark.parametrize("sent", [0, 1, 1000])
async def test_a_truncated_block_is_a_broken_connection(pair: Pair, sent: int) -> None:
    pair.writer.write(b"x" * sent)
    pair.writer.write_eof()
    with pytest.raises(Unreachable, match=f"{sent} of 2000"):
        await pair.stream.receive_block(memoryview(bytearray(2000)), stall_s=LONG_S)


@pytest.mark.asyncio
@pytest.mark.parametrize("sent", [0, 1, 1000])
async def test_a_block_that_stalls_is_given_up(pair: Pair, sent: int) -> None:
    pair.writer.write(b"x" * sent)
    with pytest.raises(DeadlineExceeded):
        await pair.stream.receive_block(memoryview(bytearray(2000)), stall_s=SOON_S)


@pytest.mark.asyncio
async def test_a_message_after_a_block_is_not_lost(pair: Pair) -> None:
    pair.writer.write(b"x" * 5000 + framed(encode([1])))
    await pair.stream.receive_block(memoryview(bytearray(5000)), stall_s=LONG_S)
    assert await pair.stream.receive(timeout_s=LONG_S) == [1]


@pytest.mark.asyncio
async def test_whatever_the_requester_does_at_the_end_the_server_is_free_again(pair: Pair) -> None:
    pair.writer.write(b"more")
    await pair.stream.wait_closed_by_peer(timeout_s=LONG_S)
    pair.writer.close()
    await pair.stream.wait_closed_by_peer(timeout_s=LONG_S)


@pytest.mark.asyncio
async def test_a_requester_that_does_not_close_does_not_hold_the_server(pair: Pair) -> None:
    await pair.stream.wait_closed_by_peer(timeout_s=SOON_S)
