"""HTTP/1.1 on one connection: uvicorn's protocol over h11, with limits on connections, heads and slow callers."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from ubcp_p2p.api.limits import Limits
from ubcp_p2p.api.problems import MEDIA_TYPE, HttpRefusal, problem

SEND_BYTES: Final = 128 << 10  # of the kernel's buffer; megabytes would hide for long that a slow reader reads


class Door:
    """The connections of one listener: whoever else listens has places of its own."""

    def __init__(self) -> None:
        self.known: set[Connection] = set()  # they have shown the token
        self.strangers: dict[Connection, None] = {}  # the oldest first

    def enter(self, connection: Connection, count_max: int) -> Connection | None:
        """Who has to go for it, where that would be too many: the oldest stranger, so that strangers fill no door."""
        self.strangers[connection] = None
        if len(self.known) + len(self.strangers) <= count_max:
            return None
        gone = next(iter(self.strangers))
        del self.strangers[gone]
        return gone

    def know(self, connection: Connection) -> None:
        """It has shown the token."""
        if connection in self.strangers:
            del self.strangers[connection]
            self.known.add(connection)

    def leave(self, connection: Connection) -> None:
        self.known.discard(connection)
        self.strangers.pop(connection, None)


class Connection(H11Protocol):
    """One connection. A request has to arrive whole within `arrive_s` of its first byte or the connection's start.

    It is in each request's scope, under state, so that who checks the token can say that it was shown.
    """

    def __init__(self, config: Config, state: ServerState, door: Door, limits: Limits) -> None:
        super().__init__(config, state, {"connection": self}, asyncio.get_running_loop())
        self._door, self._limits = door, limits
        self._late: asyncio.TimerHandle | None = None
        self._strange: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._unread = 0  # bytes that wait for the caller to read, when last looked at

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # paused while anything waits here
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        self._strange = self.loop.call_later(self._limits.token_s, self._still_strange)
        self._expect()
        gone = self._door.enter(self, self._limits.connections_max)
        if gone is not None:
            gone._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", "close some")

    def shown(self) -> None:
        """It has shown the token."""
        _cancel(self._strange)
        self._door.know(self)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._expect()
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._expect_nothing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        _cancel(self._strange)
        _cancel(self._stall)
        self._door.leave(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The caller does not read as fast as it is answered: from now on it has to read something now and then."""
        super().pause_writing()
        _cancel(self._stall)
        self._unread = self.transport.get_write_buffer_size()
        self._stall = self.loop.call_later(self._limits.stall_s, self._look_for_reader)

    def resume_writing(self) -> None:
        _cancel(self._stall)
        super().resume_writing()

    def _look_for_reader(self) -> None:
        """Hang up on one that has read nothing; `close` would wait until it has read the rest."""
        unread = self.transport.get_write_buffer_size()
        if unread >= self._unread:
            # A reset: else the kernel keeps what it has for it, and tells it nothing.
            linger = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.transport.abort()
            return
        self._unread = unread
        self._stall = self.loop.call_later(self._limits.stall_s, self._look_for_reader)

    def shutdown(self) -> None:
        with suppress(h11.LocalProtocolError):  # it may have been refused in the middle of something
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, "that is no HTTP request, or its head is too large", None)

    def _expect(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self._limits.arrive_s, self._too_late)

    def _expect_nothing(self) -> None:
        _cancel(self._late)
        self._late = None

    def _too_late(self) -> None:
        self._late = None
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"no whole request within {self._limits.arrive_s:g} s", None)

    def _still_strange(self) -> None:
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"no token within {self._limits.token_s:g} s", None)

    def _refuse(self, status: HTTPStatus, message: str, hint: str | None) -> None:
        """Answer and hang up; only hang up where an answer has begun."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(problem(HttpRefusal(status, message, hint=hint))).encode()
            head = [
                f"HTTP/1.1 {int(status)} {status.phrase}", f"content-type: {MEDIA_TYPE}",
                f"content-length: {len(body)}", "connection: close", "", "",
            ]  # fmt: skip
            self.transport.write("\r\n".join(head).encode() + body)
        self.transport.close()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def config_of(app: Any, limits: Limits) -> Config:
    """uvicorn's settings: HTTP/1.1 alone, no word on what callers send, nothing from the environment or proxies."""
    config = Config(
        app, http=cast("type[asyncio.Protocol]", Connection), ws="none", lifespan="off", interface="asgi3",
        log_config=None, log_level="error", access_log=False, proxy_headers=False, server_header=False,
        date_header=False, workers=1, forwarded_allow_ips="", timeout_keep_alive=int(limits.idle_s),
        h11_max_incomplete_event_size=limits.head_bytes_max,
    )  # fmt: skip
    config.load()
    return config
