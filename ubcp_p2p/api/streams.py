"""An answer of many events (server-sent events): each at once, signs of life between them, an end with its words."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from ubcp_p2p.api.limits import Limits
from ubcp_p2p.api.problems import problem
from ubcp_p2p.api.verbs import Emit
from ubcp_p2p.errors import UbcpError

HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]  # fmt: skip
FIRST_S: Final = 0.25  # a refusal comes sooner, and is a plain answer; after that the answer has begun


class EventStream:
    """An ASGI response. work: makes the events with `emit`, and returns the last document."""

    def __init__(self, work: Callable[[Emit], Awaitable[Any]], refuse: Callable[[UbcpError], Any], limits: Limits):
        """refuse: the ASGI response for an error that comes before the first event."""
        self._work, self._refuse, self._limits = work, refuse, limits
        self._begun = False
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def emit(event: dict[str, Any], id_: str | None = None, /) -> None:
            await self._write(send, frame(event, id_=id_))

        work = asyncio.ensure_future(self._work(emit))
        ends = [work, *(asyncio.ensure_future(one) for one in (hung_up(receive), self._keep_alive(send)))]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in ends:
                one.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
        if work.cancelled() or isinstance(work.exception(), ConnectionError):
            return  # nobody reads any more
        try:
            last = frame(work.result(), name="end")
        except UbcpError as error:
            if not self._begun:
                await self._refuse(error)(scope, receive, send)
                return
            last = frame(problem(error), name="error")
        with suppress(ConnectionError):
            await self._write(send, last, more=False)

    async def _keep_alive(self, send: Send) -> None:
        """Returns when a reader reads no more."""
        await asyncio.sleep(FIRST_S)
        with suppress(ConnectionError):
            while True:
                await self._write(send, b":\n\n")
                await asyncio.sleep(self._limits.heartbeat_s)

    async def _write(self, send: Send, data: bytes, *, more: bool = True) -> None:
        """Raises ConnectionError for a reader that does not read."""
        try:
            async with asyncio.timeout(self._limits.stall_s), self._turn:
                if not self._begun:
                    self._begun = True
                    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
                await send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError:
            raise ConnectionAbortedError("it does not read") from None


async def hung_up(receive: Receive) -> None:
    """Wait until the caller has gone; whatever it sends before that is nothing."""
    while (await receive())["type"] != "http.disconnect":
        pass


def frame(document: Any, *, id_: str | None = None, name: str | None = None) -> bytes:
    """One event. JSON has no line feeds, so one line of data does."""
    lines = [f"id: {id_}"] if id_ is not None else []
    lines += [f"event: {name}"] if name is not None else []
    return "\n".join([*lines, f"data: {to_json(document)}", "", ""]).encode()


def to_json(document: Any) -> str:
    """JSON has no NaN and no infinity: a loss that is none becomes null."""
    try:
        return json.dumps(document, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(document), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
