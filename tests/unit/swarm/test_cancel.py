"""A member that is cancelled while it waits ends, also when what it waits for comes in that very moment."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.swarm.made import KEYS
from tests.unit.swarm.test_catch_up import Swarm, certified

A, B = KEYS[:2]


@pytest.mark.asyncio
@pytest.mark.parametrize("turns", range(5))
async def test_a_cancel_is_not_lost_when_a_heartbeat_comes_with_it(turns: int) -> None:
    member = Swarm(3, certified(3, [A, B])).member
    waiting = asyncio.create_task(member._wait_heard(20.0))
    for _ in range(3):  # it waits by then
        await asyncio.sleep(0)
    member._heard.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    asked = waiting.cancel()  # False: it had ended before
    await asyncio.wait([waiting])
    assert waiting.cancelled() == asked
    member._trainer.state.close()
