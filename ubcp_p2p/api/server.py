"""The node's end of the API: verbs over HTTP, on loopback and on a socket in the node's private directory."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route as WebRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from ubcp_p2p.api import openapi
from ubcp_p2p.api.address import Address, new_token
from ubcp_p2p.api.checking import fault
from ubcp_p2p.api.fields import fields_of_body, fields_of_query
from ubcp_p2p.api.guard import refusal
from ubcp_p2p.api.limits import LIMITS, Limits
from ubcp_p2p.api.problems import MEDIA_TYPE, HttpRefusal, NodeBug, problem, status_of
from ubcp_p2p.api.protocol import Connection, Door, config_of
from ubcp_p2p.api.routes import Route, route_of
from ubcp_p2p.api.schemas import SCHEMAS
from ubcp_p2p.api.streams import EventStream, hung_up, to_json
from ubcp_p2p.api.verbs import Attachment, Emit, Verb
from ubcp_p2p.errors import LocalIOError, UbcpError

log = logging.getLogger(__name__)

CHUNK: Final = 1 << 16
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class ApiServer:
    """Serves `verbs`; where and with which token, the files in `directory` tell. port: 0 lets the system choose."""

    def __init__(self, directory: Path, verbs: Mapping[str, Verb], *, port: int = 0, limits: Limits = LIMITS) -> None:
        self._verbs, self._port, self._limits = verbs, port, limits
        self.address = Address(directory, new_token(), None)
        self._state = ServerState()
        self._servers: list[asyncio.Server] = []
        self._followers = 0

    async def start(self) -> None:
        """Raises LocalIOError, also when the port is taken."""
        config = config_of(self._guarded(self._app()), self._limits)

        def behind(door: Door) -> Callable[[], Connection]:
            return lambda: Connection(config, self._state, door, self._limits)

        loop = asyncio.get_running_loop()
        listener = _listen(self._port)
        if listener is not None:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self.address = Address(self.address.directory, self.address.token, url)
            self._servers.append(await loop.create_server(behind(Door()), sock=listener))
        self.address.save()  # before the socket is there: whoever can connect to it can read the token
        self._servers.append(await loop.create_unix_server(behind(Door()), path=str(self.address.socket)))

    async def stop(self) -> None:
        """Stop listening; calls in progress get a moment to end, then the connections are cut."""
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        tasks = self._state.tasks
        for _ in range(2):
            if tasks:
                await asyncio.wait(set(tasks), timeout=self._limits.end_s)
            for connection in list(self._state.connections):
                connection.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.address.remove()

    # -- the application ------------------------------------------------------------------------------------------

    def _guarded(self, app: ASGIApp) -> ASGIApp:
        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            refused = refusal(scope["method"], scope["headers"], self.address.token, self._limits.head_bytes_max)
            if refused is not None:
                refused.headers["Connection"] = "close"  # it would hold a place that another could have
                await _refuse(refused)(scope, receive, send)
                return
            scope["state"]["connection"].shown()
            # Parts of the path are decoded after it is taken apart: a slash in one is no way to another verb.
            await app({**scope, "path": scope["raw_path"].decode("ascii")}, receive, send)

        return guarded

    def _app(self) -> Starlette:
        routes = [WebRoute(openapi.PATH, _openapi, methods=["GET"])]
        routes += [self._route(route_of(name), verb) for name, verb in self._verbs.items()]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _on_http_error})
        app.router.redirect_slashes = False
        return app

    def _route(self, route: Route, verb: Verb) -> WebRoute:
        async def endpoint(request: Request) -> Response | EventStream:
            try:
                fields = await self._fields(route, request)
                if route.kind == "events":
                    return self._events(verb, fields)
                return await self._answer(verb, fields, request)
            except UbcpError as error:
                return _refuse(error)
            except ClientDisconnect:
                return Response()

        return WebRoute(route.path, endpoint, methods=[route.method])

    async def _fields(self, route: Route, request: Request) -> dict[str, Any]:
        """Of path, query and body, checked against the route. Raises HttpRefusal."""
        if route.method == "POST":
            fields = fields_of_body(await self._body(request))
        else:
            fields = fields_of_query(request.scope["query_string"].decode("ascii"), route.takes.get("properties", {}))
        try:
            fields |= {name: unquote(request.path_params[name], errors="strict") for name in route.in_path}
        except UnicodeDecodeError:
            raise HttpRefusal(HTTPStatus.BAD_REQUEST, "the path is not UTF-8") from None
        wrong = fault(fields, route.takes, SCHEMAS)
        if wrong is not None:
            raise HttpRefusal(
                HTTPStatus.BAD_REQUEST, f"the request was not understood: {wrong}", hint="see docs/api.md"
            )
        if route.kind == "events" and (last := request.headers.get("last-event-id")) is not None:
            fields["last_event_id"] = last
        return {"verb": route.verb, **fields}

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._limits.body_bytes_max:
                raise HttpRefusal(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {self._limits.body_bytes_max} bytes",
                    hint="hand it in in parts", headers={"Connection": "close"},
                )  # fmt: skip
        return bytes(body)

    async def _answer(self, verb: Verb, fields: dict[str, Any], request: Request) -> Response:
        """A caller that hangs up (Ctrl-C) ends its call."""
        work = asyncio.ensure_future(_carry_out(verb, fields, _no_events))
        gone = asyncio.ensure_future(hung_up(request.receive))
        try:
            await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        if work.cancelled():
            raise ClientDisconnect
        answer = work.result()
        if isinstance(answer, Attachment):
            headers = {**_HEADERS, "Content-Length": str(answer.size)}
            return StreamingResponse(_chunks(answer), headers=headers, media_type="application/octet-stream")
        return Response(to_json(answer), headers=_HEADERS, media_type="application/json")

    def _events(self, verb: Verb, fields: dict[str, Any]) -> EventStream:
        if self._followers >= self._limits.followers_max:
            raise HttpRefusal(HTTPStatus.TOO_MANY_REQUESTS, "too many follow this node's events", hint="close some")

        async def work(emit: Emit) -> Any:
            self._followers += 1
            try:
                return await _carry_out(verb, fields, emit)
            finally:
                self._followers -= 1

        return EventStream(work, _refuse, self._limits)


async def _carry_out(verb: Verb, fields: dict[str, Any], emit: Emit) -> Any:
    """Whatever goes wrong is an UbcpError, but for a reader that has gone (ConnectionError)."""
    try:
        return await verb(fields, emit)
    except (UbcpError, ConnectionError):
        raise
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        log.exception("a request failed")
        raise HttpRefusal(HTTPStatus.BAD_REQUEST, f"the request was not understood: {error!r}") from None
    except Exception as error:
        log.exception("a request failed")
        raise NodeBug(f"a bug in the node: {error!r}", hint="its log has the traceback") from None


async def _no_events(event: dict[str, Any], id_: str | None = None, /) -> None:
    """What a verb tells before its answer, of a route that is no stream."""


def _refuse(error: UbcpError) -> Response:
    headers = {**_HEADERS, **(error.headers if isinstance(error, HttpRefusal) else {})}
    return Response(json.dumps(problem(error)), int(status_of(error)), headers, MEDIA_TYPE)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    words = {
        HTTPStatus.NOT_FOUND: f"there is nothing at {request.scope['path']:.200}",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not for {request.scope['path']:.200}",
    }
    hint = f"GET {openapi.PATH} says what there is; is it an older ubcp?"
    return _refuse(HttpRefusal(status, words.get(status, status.phrase), hint=hint, headers=error.headers))


async def _openapi(request: Request) -> Response:
    return Response(openapi.text(), headers=_HEADERS, media_type="application/json")


async def _chunks(attachment: Attachment) -> AsyncIterator[bytes]:
    with attachment.file as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk


def _listen(port: int) -> socket.socket | None:
    """On loopback; None where this machine, or this network namespace, has none and no port was asked for."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if port == 0:
            log.warning("no API on loopback: %s; `ubcp` commands work all the same", error.strerror)
            return None
        taken = error.errno == errno.EADDRINUSE
        raise LocalIOError(
            f"cannot listen on port {port}: {'something else does' if taken else error.strerror}",
            hint="set another port under [api] in config.toml, or 0: the system then chooses one",
        ) from None
    return listener
