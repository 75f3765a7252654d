"""A stream of events over an ASGI connection that the test holds in its hands."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from starlette.responses import Response

from ubcp_p2p.api.limits import LIMITS, Limits
from ubcp_p2p.api.streams import EventStream
from ubcp_p2p.api.verbs import Emit
from ubcp_p2p.errors import UbcpError

pytestmark = pytest.mark.asyncio


class Line:
    """What a stream sends, one at a time; `blocked` holds the sender up, `gone` is the caller's end."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.gone, self.free = asyncio.Event(), asyncio.Event()
        self.free.set()

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.free.wait()
        self.sent.put_nowait(message)

    async def serve(self, work: Any, limits: Limits = LIMITS) -> None:
        await EventStream(work, lambda error: Response(error.message, 400), limits)({}, self.receive, self.send)

    def bodies(self) -> bytes:
        return b"".join(self.sent.get_nowait().get("body", b"") for _ in range(self.sent.qsize()))


async def test_signs_of_life_come_before_and_between_events() -> None:
    line, go_on = Line(), asyncio.Event()

    async def work(emit: Emit) -> Any:
        await go_on.wait()
        await emit({"a": 1})
        return {}

    serving = asyncio.create_task(line.serve(work, replace(LIMITS, heartbeat_s=0.01)))
    assert (await line.sent.get())["status"] == 200
    assert [(await line.sent.get())["body"] for _ in range(2)] == [b":\n\n", b":\n\n"]
    go_on.set()
    await serving
    assert line.bodies().endswith(b'data: {"a": 1}\n\nevent: end\ndata: {}\n\n')


async def test_an_error_after_the_first_event_is_the_last_one() -> None:
    line = Line()

    async def work(emit: Emit) -> Any:
        await emit({})
        raise UbcpError("no more", hint="go")

    await line.serve(work)
    assert b'event: error\ndata: {"type": "about:blank"' in line.bodies()


@pytest.mark.parametrize("end", ["hangs up", "does not read"])
async def test_a_reader_that_has_gone_ends_the_work(end: str) -> None:
    line, ended, begun = Line(), asyncio.Event(), asyncio.Event()

    async def work(emit: Emit) -> Any:
        try:
            await emit({})
            begun.set()
            while True:
                await emit({})
                await asyncio.sleep(0)
        finally:
            ended.set()

    limits = replace(LIMITS, stall_s=0.05)
    serving = asyncio.create_task(line.serve(work, limits))
    await asyncio.wait([asyncio.ensure_future(begun.wait())])
    line.gone.set() if end == "hangs up" else line.free.clear()
    await serving
    assert ended.is_set()
