"""GossipSub through p2pd's control protocol, for which hivemind's bindings have the messages but no calls.

Publishing is serialised over one connection (300 concurrent publishes delivered 105–203 of them, 600 serial ones all;
measured). p2pd checks that a message is signed by its `from`; it does not look at the payload, so size and rate are
capped here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ubcp_p2p.keys import MalformedPeerId, public_of
from ubcp_p2p.swarm.frames import Unreachable
from ubcp_p2p.swarm.hivemind_parts import P2PDaemonError, bindings, p2pd_pb2

log = logging.getLogger(__name__)

PAYLOAD_BYTES_MAX = 16 * 1024
PUBLISH_BYTES_MAX = 64 * 1024  # the largest of ours, a fork proof, has up to 46 KiB
RATE_PER_S_MAX = 40.0  # per author and topic; our own heartbeats need 4/s
BURST = 80.0
AUTHORS_MAX = 4096

OnMessage = Callable[[bytes, bytes], None]  # (author's public key, payload)


class PubSub:
    """Publish and subscribe on one p2pd. Lives as long as its p2pd; close it with `close`."""

    def __init__(self, control: Path) -> None:
        self._control = str(control)
        self._publisher: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish one message; raises Unreachable when p2pd is gone."""
        assert len(payload) <= PUBLISH_BYTES_MAX
        request = p2pd_pb2.PSRequest(type=p2pd_pb2.PSRequest.PUBLISH, topic=topic, data=payload)
        async with self._lock:
            try:
                if self._publisher is None:
                    self._publisher = await asyncio.open_unix_connection(self._control)
                await _call(*self._publisher, request)
            except (OSError, EOFError, P2PDaemonError) as error:
                self._close_publisher()
                raise Unreachable(f"p2pd did not publish: {error}") from None
            except BaseException:
                self._close_publisher()  # a cancelled call leaves an answer unread on the connection
                raise

    async def subscribe(self, topic: str, on_message: OnMessage, *, capped: bool = True) -> Callable[[], None]:
        """Deliver every message of `topic` to `on_message` until the returned function is called.

        capped: only those within PAYLOAD_BYTES_MAX and the rate above; else it is the subscriber who caps.
        """
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_unix_connection(self._control)
            await _call(reader, writer, p2pd_pb2.PSRequest(type=p2pd_pb2.PSRequest.SUBSCRIBE, topic=topic))
        except (OSError, EOFError, P2PDaemonError) as error:
            if writer is not None:
                writer.close()
            raise Unreachable(f"p2pd did not subscribe: {error}") from None
        task = asyncio.create_task(_deliver(reader, writer, on_message, capped), name=f"subscription {topic[:40]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return lambda: _ignore(task.cancel())

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._close_publisher()

    def _close_publisher(self) -> None:
        if self._publisher is not None:
            self._publisher[1].close()
            self._publisher = None


async def _call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Any) -> None:
    await bindings.write_pbmsg(writer, p2pd_pb2.Request(type=p2pd_pb2.Request.PUBSUB, pubsub=request))
    response = p2pd_pb2.Response()
    await bindings.read_pbmsg_safe(reader, response)
    bindings.raise_if_failed(response)


async def _deliver(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, on_message: OnMessage, capped: bool
) -> None:
    allowance: dict[bytes, tuple[float, float]] = {}
    try:
        while True:
            message = p2pd_pb2.PSMessage()
            await bindings.read_pbmsg_safe(reader, message)
            sender, payload = getattr(message, "from"), message.data
            if capped and (len(payload) > PAYLOAD_BYTES_MAX or not _allowed(allowance, sender, time.monotonic())):
                continue
            try:
                on_message(public_of(sender), payload)
            except MalformedPeerId:
                continue  # not an Ed25519 node: nothing of ours
            except Exception:
                log.exception("a gossip message was dropped")
    except (OSError, EOFError):
        pass  # p2pd ended; its supervisor makes a new session
    finally:
        writer.close()


def _allowed(allowance: dict[bytes, tuple[float, float]], sender: bytes, now_s: float) -> bool:
    """A token bucket per author: RATE_PER_S_MAX on average, BURST at once."""
    if sender not in allowance and len(allowance) >= AUTHORS_MAX:
        allowance.clear()
    tokens, since_s = allowance.get(sender, (BURST, now_s))
    tokens = min(BURST, tokens + (now_s - since_s) * RATE_PER_S_MAX)
    enough = tokens >= 1.0
    allowance[sender] = (tokens - 1.0 if enough else tokens, now_s)  # a refused message costs nothing: 40/s do pass
    return enough


def _ignore(_: object) -> None:
    return None
