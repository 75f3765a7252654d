"""What no honest peer sends to a ledger: junk on its topic and its streams, and answers that fit no question."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

from ubcp_p2p.codec import Value, encode
from ubcp_p2p.errors import UbcpError
from ubcp_p2p.keys import AccountKey, peer_id_of
from ubcp_p2p.ledger import sync
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import ZERO, OpenAccount, Position, Rotate
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.swarm.entry_gossip import ENTRY, MESSAGE_BYTES_MAX, PROOF, topic_of
from ubcp_p2p.swarm.frames import Stream
from ubcp_p2p.swarm.hivemind_parts import PeerID
from ubcp_p2p.swarm.network import Network

FLOOD = 1500  # messages: 400 pass at once, and each 64 above are a strike
Answer = Callable[[Stream, list[Any]], Awaitable[None]]


def _forged(ledger: bytes) -> Signed:
    """Somebody's OPEN, by somebody else's hand."""
    signed = Author(ledger, AccountKey.generate()).write(0, OpenAccount(ZERO))
    (key, signature) = signed.signatures[0]
    return signed._replace(signatures=((key, signature[:-1] + bytes([signature[-1] ^ 1])),))


def _hanging(ledger: bytes) -> Signed:
    """An entry whose chain nobody has."""
    key = AccountKey.generate()
    return Author(ledger, key, head=Position(key.public, 4, bytes(31) + b"\1")).draft(0, Rotate(bytes(32), ZERO))


def _messages(ledger: bytes, how: str) -> Iterator[bytes]:
    """Payloads for the topic."""
    if how == "garbage":
        yield from (b"", b"\xff" * 100, encode([ENTRY, b"junk"]), encode([7, b""]), encode([PROOF, b"\x92"]))
    elif how == "oversize":
        for size in (MESSAGE_BYTES_MAX + 1, 60_000, 64_000):
            yield bytes(size)
    elif how == "forged":
        for _ in range(5):
            yield encode([ENTRY, _forged(ledger).to_bytes()])
    elif how == "flood":
        for number in range(FLOOD):
            key = AccountKey(number.to_bytes(32, "big"))
            yield encode([ENTRY, Author(ledger, key).write(2**31, OpenAccount(ZERO)).to_bytes()])


async def _hello(stream: Stream, ledger: bytes, size: int = 5) -> None:
    digests: list[Value] = [random.randbytes(32) for _ in range(sync.BUCKETS)]
    await stream.send([sync.HELLO, ledger, [ledger], [], digests, size], timeout_s=5.0)


def _answers(ledger: bytes, how: str) -> Answer | None:
    """A liar on the sync protocol."""
    forged = _forged(ledger)
    author = forged.entry.author

    async def answer(stream: Stream, question: list[Any]) -> None:
        if how == "4 GB":
            stream._writer.write(b"\xff\xff\xff\xff" + bytes(1000))
        elif how == "another kind":
            await stream.send([sync.BLOB, b""], timeout_s=5.0)
        elif question[0] == sync.HELLO:
            await _hello(stream, ledger, 2**50 if how == "endless" else 5)
        elif how == "endless" and question[0] == sync.LOG:
            await stream.send([sync.LOG, question[1], []], timeout_s=5.0)
        elif how == "endless" and question[0] == sync.HEADS:
            low = int.from_bytes(question[2], "big") if question[2][0] == question[1] else question[1] << 248
            heads: list[Value] = [[(low + 1 + n).to_bytes(32, "big"), [[0, author]]] for n in range(sync.AUTHORS_MAX)]
            await stream.send([sync.HEADS, heads], timeout_s=5.0, bytes_max=sync.FRAME_BYTES_MAX)
        elif question[0] == sync.HEADS:
            named = author if how == "forged answers" else bytes([question[1]]) + author[1:]
            rows: list[Value] = [[named, [[0, forged.entry.id]]]] if named[0] == question[1] else []
            await stream.send([sync.HEADS, rows], timeout_s=5.0)
        elif how == "endless":
            await stream.send([question[0], []], timeout_s=5.0)
        else:
            await stream.send([question[0], [forged.to_bytes()]], timeout_s=5.0)

    return answer if how in ("4 GB", "another kind", "endless", "not asked for", "forged answers") else None


async def _asked(network: Network, peer: bytes, how: str) -> None:
    """A liar that asks."""
    bursts = {
        "questions": encode([99]),
        "long question": b"\xff\xff\xff\xff",
        "broken frame": b"\x00\x00\x00\x05\x93\xc0\xc0\xc0\xc0",
    }
    data = bursts[how]
    framed = data if how != "questions" else len(data).to_bytes(4, "big") + data
    _, _, writer = await network.session.p2p.call_binary_stream_handler(PeerID(peer_id_of(peer)), sync.PROTOCOL)
    writer.write(framed)
    await writer.drain()


async def ledger_assault(network: Network, ledger: bytes, how: str) -> dict[str, Any]:
    """Do it to everybody who is connected; returns how many messages or streams it took."""
    sent = 0
    for payload in _messages(ledger, how):
        await network.publish(topic_of(ledger), payload)
        sent += 1
    answer = _answers(ledger, how)
    if answer is not None:

        async def serve(stream: Stream) -> None:
            with suppress(UbcpError):
                while True:
                    question = await stream.receive(timeout_s=30.0)
                    assert isinstance(question, list)
                    await answer(stream, question)

        await network.unhandle(sync.PROTOCOL)
        await network.handle(sync.PROTOCOL, serve)
        await network.publish(topic_of(ledger), encode([ENTRY, _hanging(ledger).to_bytes()]))  # who gets it will ask
        sent += 1
    if how in ("questions", "long question", "broken frame"):
        for peer in sorted(network.connected):
            await _asked(network, peer, how)
            sent += 1
    if how == "hang":  # many streams on which nothing, or half a question, is said
        for peer in sorted(network.connected):
            for number in range(40):
                with suppress(Exception):  # refusing is a fine answer
                    async with asyncio.timeout(5.0):
                        _, _, writer = await network.session.p2p.call_binary_stream_handler(
                            PeerID(peer_id_of(peer)), sync.PROTOCOL
                        )
                        writer.write(b"\x00\x00\x00"[: number % 4])
                        sent += 1
    return {"sent": sent}
