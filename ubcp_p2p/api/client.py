"""The other end: one call of a verb over HTTP, on the socket in the node's private directory."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote, urlencode

from ubcp_p2p.api.address import Address
from ubcp_p2p.api.problems import refusal_of
from ubcp_p2p.api.routes import Route, route_of

ANSWER_BYTES_MAX: Final = 256 << 20
LINE_BYTES_MAX: Final = 16 << 20


class _Connection(http.client.HTTPConnection):
    """Over a unix socket, which needs no port and is there also where loopback is another's."""

    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def connect(address: Address, timeout_s: float | None) -> http.client.HTTPConnection:
    """Raises OSError while nobody listens."""
    connection = _Connection(address.socket, timeout_s)
    try:
        connection.connect()
    except OSError:
        connection.close()
        raise
    return connection


def ask(
    connection: http.client.HTTPConnection, token: str, verb: str, arguments: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Carry out one verb: yields each {"event": …}, and last the {"ok": …}.

    Raises NodeRefused with the node's own words; OSError, http.client.HTTPException, ValueError, KeyError or TypeError
    when the connection breaks or what comes is no answer.
    """
    route = route_of(verb)
    path, body = _request(route, arguments)
    with closing(connection):
        connection.request(route.method, path, body, {"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise refusal_of(json.loads(response.read(LINE_BYTES_MAX)))
        if route.kind == "events":
            yield from _events(response)
        else:
            yield {"ok": json.loads(response.read(ANSWER_BYTES_MAX))}


def _request(route: Route, arguments: Mapping[str, Any]) -> tuple[str, bytes | None]:
    path = route.path
    for name in route.in_path:
        path = path.replace("{" + name + "}", quote(str(arguments[name]), safe=""))
    rest = {name: value for name, value in arguments.items() if name not in route.in_path}
    if route.method == "POST":
        return path, json.dumps(rest).encode()
    query = urlencode({name: _text(value) for name, value in rest.items() if value is not None})
    return f"{path}?{query}" if query else path, None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for name, document in read_events(response):
        if name == "error":
            raise refusal_of(document)
        yield {"ok" if name == "end" else "event": document}


def read_events(lines: BinaryIO | http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    """(name, document) of each server-sent event, until the stream ends. Raises ValueError for what is no event."""
    name, data = "message", ""
    while line := lines.readline(LINE_BYTES_MAX):
        text = line.decode().rstrip("\n")
        if not text:
            if data:
                yield name, json.loads(data)
            name, data = "message", ""
            continue
        field, _, value = text.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            data += value
