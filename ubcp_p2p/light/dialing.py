"""One connection to one node by py-libp2p: dial, ask, hang up. The only module that imports libp2p.

An error in any of py-libp2p's background tasks ends its host, so each connection has a host of its own, and whatever
escapes from one is that connection's NetworkError. Nothing listens, no gossip is joined, no stream is half-closed.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

import libp2p
import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.host.exceptions import StreamFailure
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.transport.exceptions import SecurityUpgradeFailure
from multiaddr import Multiaddr

from ubcp_p2p.codec import MalformedMessage, Value, decode, encode
from ubcp_p2p.errors import NetworkError
from ubcp_p2p.keys import peer_id_of
from ubcp_p2p.ledger.sync import FRAME_BYTES_MAX, PROTOCOL
from ubcp_p2p.light.address import NodeAddress

CONNECT_S_MAX: Final = 15.0  # a dial over TCP and Noise takes 0.25 s on loopback (measured)
ANSWER_S_MAX: Final = 30.0  # 1 MiB over a line of 300 kbit/s
CLOSE_S_MAX: Final = 1.0
READ_BYTES: Final = 64 * 1024

if "LIBP2P_DEBUG" not in os.environ:  # py-libp2p's own switch: its warnings come from other people's mistakes
    logging.getLogger("libp2p").setLevel(logging.CRITICAL + 1)


class Unreachable(NetworkError):
    """The node could not be reached, hung up, or was too slow."""


class Stream:
    """A stream of questions to one node."""

    def __init__(self, stream: INetStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def ask(self, question: Value) -> Value:
        """Send one question, receive its answer. Raises Unreachable, MalformedMessage."""
        data = encode(question)
        try:
            with trio.fail_after(ANSWER_S_MAX):
                await self._stream.write(len(data).to_bytes(4, "big") + data)
                length = int.from_bytes(await self._read(4), "big")
                if length > FRAME_BYTES_MAX:
                    raise MalformedMessage(f"a frame of {length} bytes; at most {FRAME_BYTES_MAX} are allowed")
                return decode(await self._read(length), bytes_max=FRAME_BYTES_MAX)
        except trio.TooSlowError:
            raise Unreachable(f"no answer within {ANSWER_S_MAX:.0f} s") from None
        except StreamError:
            raise Unreachable("the node hung up in the middle of an exchange") from None
        except (BaseLibp2pError, OSError, ValueError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Unreachable(f"the connection broke: {str(error) or type(error).__name__}") from None

    async def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = await self._stream.read(READ_BYTES)
            if not data:
                raise Unreachable("the node hung up in the middle of an exchange")
            self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


class Connection:
    """A connection to one node, whose key is proved."""

    def __init__(self, host: IHost, address: NodeAddress, peer: ID) -> None:
        self.address = address
        self._host = host
        self._peer = peer

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Stream]:
        """A new stream of the sync protocol. Raises Unreachable, also when the node has no ledger."""
        try:
            with trio.fail_after(CONNECT_S_MAX):
                stream = await self._host.new_stream(self._peer, [TProtocol(PROTOCOL)])
        except StreamFailure:
            raise Unreachable("the node serves no ledger", hint="it needs a charter: see `ubcp status` on it") from None
        except trio.TooSlowError:
            raise Unreachable(f"no stream within {CONNECT_S_MAX:.0f} s") from None
        except (BaseLibp2pError, OSError, ValueError) as error:
            raise Unreachable(f"no stream: {str(error) or type(error).__name__}") from None
        try:
            yield Stream(stream)
        finally:
            with trio.CancelScope(deadline=trio.current_time() + CLOSE_S_MAX, shield=True):
                try:
                    await stream.reset()  # close() would be a half-close
                except (BaseLibp2pError, OSError, ValueError):
                    pass  # it is gone already


@asynccontextmanager
async def connected(address: NodeAddress) -> AsyncIterator[Connection]:
    """A connection for as long as the block runs. Raises Unreachable, and what the block raises."""
    failure: Exception | None = None
    is_done = False
    try:
        host = libp2p.new_host(disable_identify_address_discovery=True)
        async with host.run([]):
            # What leaves this block would come out inside ExceptionGroups of py-libp2p's nurseries.
            try:
                peer = await _dial(host, address)
                yield Connection(host, address, peer)
                is_done = True
            except Exception as error:
                failure = error
    except Exception as error:
        if failure is None and not is_done:
            failure = Unreachable(f"py-libp2p failed: {in_words(error)}")
    if failure is not None:
        raise failure


async def _dial(host: IHost, address: NodeAddress) -> ID:
    peer = ID(peer_id_of(address.public))
    try:
        with trio.fail_after(CONNECT_S_MAX):
            await host.connect(PeerInfo(peer, [Multiaddr(text) async for text in _resolved(address)]))
    except trio.TooSlowError:
        raise Unreachable(f"no connection within {CONNECT_S_MAX:.0f} s") from None
    except socket.gaierror as error:
        raise Unreachable(f"the name {address.host} is not known: {error.strerror}") from None
    except (BaseLibp2pError, OSError, ValueError) as error:
        if any(isinstance(cause, SecurityUpgradeFailure) for cause in _causes(error)):
            raise Unreachable(
                "something answers there, but not the node that the address names",
                hint="`ubcp peers` on the node prints its address of today",
            ) from None
        raise Unreachable("nothing answers there", hint="is the node up, and its port reachable from here?") from None
    return peer


async def _resolved(address: NodeAddress) -> AsyncIterator[str]:
    """The address by numbers: the system looks names up, as for every other program."""
    if address.kind in ("ip4", "ip6"):
        yield f"/{address.kind}/{address.host}/tcp/{address.port}"
        return
    family = {"dns4": socket.AF_INET, "dns6": socket.AF_INET6}.get(address.kind, socket.AF_UNSPEC)
    rows = await trio.socket.getaddrinfo(address.host, address.port, family=family, type=socket.SOCK_STREAM)
    for found, _, _, _, where in rows:
        yield f"/{'ip4' if found == socket.AF_INET else 'ip6'}/{where[0]}/tcp/{address.port}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and all that it came from or consists of."""
    yield error
    within: tuple[BaseException, ...] = getattr(error, "exceptions", None) or getattr(error, "errors", None) or ()
    for cause in (*within, error.__cause__):
        if isinstance(cause, BaseException):
            yield from _causes(cause)


def in_words(error: BaseException) -> str:
    """What was at the bottom of an error of py-libp2p's."""
    last = list(_causes(error))[-1]
    return str(last) or type(last).__name__
