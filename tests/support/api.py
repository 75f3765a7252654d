"""A real API server on a profile, in a thread of its own, with verbs that do what a test wants; bytes sent to it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ubcp_p2p.api.address import Address
from ubcp_p2p.api.limits import LIMITS, Limits
from ubcp_p2p.api.server import ApiServer
from ubcp_p2p.api.verbs import Emit, Verb
from ubcp_p2p.errors import ConfigError, LocalIOError
from ubcp_p2p.peer.profile import Profile, ProfileLock

WAIT_S = 10.0


@dataclass(frozen=True)
class Answer:
    """status, headers (names in lower case), body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class Served:
    """An ApiServer on a profile. `entered` and `cancelled` tell of the verb `wait`, `told` of `count`'s events."""

    def __init__(self, root: Path, sockets: Path, more: Mapping[str, Verb] | None = None, limits: Limits = LIMITS):
        self.profile = Profile(root)
        self.profile.make()
        self.sockets = sockets
        self.cancelled = threading.Event()
        self.entered = threading.Event()
        self.asked: list[dict[str, Any]] = []
        self._more, self._limits = dict(more or {}), limits
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(WAIT_S)

    def stop(self) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    @property
    def address(self) -> Address:
        return Address.load(self.sockets)

    def connect(self, *, receive_bytes: int = 0) -> socket.socket:
        """Over loopback. receive_bytes: of the kernel's buffer, where it is not to have as much as it likes."""
        url = self.address.url
        assert url is not None
        connection = socket.socket()
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.settimeout(WAIT_S)
        connection.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        return connection

    def connect_unix(self) -> socket.socket:
        """Over the socket in the node's directory."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(WAIT_S)
        connection.connect(str(self.address.socket))
        return connection

    def head(self, method: str, path: str, *more: str, host: str = "127.0.0.1", token: str | None = None) -> bytes:
        """A request's head; the right token unless another one, or "" for none."""
        token = self.address.token if token is None else token
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *more, "Connection: close"]
        lines += [f"Authorization: Bearer {token}"] if token else []
        return "\r\n".join([*lines, "", ""]).encode()

    def send(self, data: bytes) -> Answer:
        """Send raw bytes, read until the server hangs up."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_answer(connection)

    def ask(self, method: str, path: str, body: Any = None, *more: str) -> Answer:
        """A well-formed request. body: JSON, or bytes as they are."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send(self.head(method, path, f"Content-Length: {len(data)}", *more) + data)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        verbs: dict[str, Verb] = {
            "echo": self._echo, "follow": self._count, "refuse": self._refuse, "wait": self._wait, "bug": self._bug,
            "stats": self._echo, **self._more,
        }  # fmt: skip
        with ProfileLock(self.profile, self.sockets):
            server = ApiServer(self.sockets, verbs, limits=self._limits)
            await server.start()
            self._ready.set()
            await self._stop.wait()
            await server.stop()

    async def _echo(self, request: dict[str, Any], emit: Emit) -> Any:
        return request

    async def _count(self, request: dict[str, Any], emit: Emit) -> Any:
        for number in range(int(request["run"])):
            await emit({"number": number}, f"x-{number}")
        return {"counted": request["run"], "last_event_id": request.get("last_event_id")}

    async def _refuse(self, request: dict[str, Any], emit: Emit) -> Any:
        raise {"config": ConfigError, "io": LocalIOError}[request["how"]]("no", hint="do this")

    async def _wait(self, request: dict[str, Any], emit: Emit) -> Any:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _bug(self, request: dict[str, Any], emit: Emit) -> Any:
        raise ZeroDivisionError("oops")


def read_answer(connection: socket.socket) -> Answer:
    """One answer, to the end of the connection."""
    data = b""
    while chunk := connection.recv(1 << 16):
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split()[1]), headers, body)
