"""The feed of what happens on a node: who follows it misses nothing that is kept, and knows where to go on."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ubcp_p2p.peer.feed import KEPT, QUEUE_MAX, Feed
from ubcp_p2p.swarm.ledger import LedgerEvent
from ubcp_p2p.swarm.run import Event

pytestmark = pytest.mark.asyncio


async def heard(feed: Feed, **options: Any) -> list[tuple[str, dict[str, Any]]]:
    """Everything until the node ends."""
    return [item async for item in feed.follow(**options)]


async def follow(feed: Feed, **options: Any) -> asyncio.Task[list[tuple[str, dict[str, Any]]]]:
    """Has begun to follow when this returns."""
    task = asyncio.create_task(heard(feed, **options))
    await asyncio.sleep(0)
    assert feed._followers
    return task


def numbers(items: list[tuple[str, dict[str, Any]]]) -> list[int]:
    return [document["n"] for _, document in items]


async def test_from_now_on_and_of_one_run() -> None:
    feed = Feed()
    feed.tell("run", "committed", {"run": "a", "n": 0})
    everything = await follow(feed)
    one = asyncio.create_task(heard(feed, run="a"))
    await asyncio.sleep(0)
    for n, run in enumerate("aba", 1):
        feed.tell("run", "committed", {"run": run, "n": n})
    feed.tell("ledger", "added", {"n": 4})
    feed.end()
    assert numbers(await everything) == [1, 2, 3, 4]
    assert numbers(await one) == [1, 3]


async def test_one_goes_on_after_the_last_one_heard() -> None:
    feed = Feed()
    first = await follow(feed)
    for n in range(5):
        feed.tell("node", "x", {"n": n})
    feed.tell("run", "progress", {"n": 99})
    feed.end()
    items = await first
    assert numbers(items) == [0, 1, 2, 3, 4, 99]
    again = await follow(feed, last_id=items[2][0])
    feed.end()
    assert numbers(await again) == [3, 4]  # progress is not kept
    last = await follow(feed, last_id=items[5][0])
    feed.end()
    assert await last == []


@pytest.mark.parametrize("last_id", ["", "x", "00000000-3", "-", "00000000-" + "9" * 30])
async def test_an_id_of_another_start_stands_for_all_that_is_kept(last_id: str) -> None:
    feed = Feed()
    for n in range(KEPT + 10):
        feed.tell("node", "x", {"n": n})
    late = await follow(feed, last_id=last_id)
    feed.end()
    assert numbers(await late) == list(range(10, KEPT + 10))


async def test_a_follower_that_does_not_read_costs_no_more_than_its_queue() -> None:
    feed = Feed()
    slow = await follow(feed)
    for n in range(QUEUE_MAX + 50):
        feed.tell("node", "x", {"n": n})
    feed.end()
    assert numbers(await slow) == list(range(QUEUE_MAX))


async def test_what_an_event_calls_its_own_is_in_nobodys_way() -> None:
    feed = Feed()
    everything = await follow(feed)
    run: Any = SimpleNamespace(name="r")
    feed.hear_run(run, Event("adopted", 4, {"source": "a peer", "how": "download", "topic": "x", "kind": "y"}))
    feed.hear_ledger(LedgerEvent("added", {"entries": [object(), object()]}))
    feed.hear_ledger(LedgerEvent("frozen", {"author": "ab"}))
    feed.end()
    documents = [{**document, "time": 0} for _, document in await everything]
    assert documents == [
        {"source": "a peer", "how": "download", "topic": "run", "kind": "adopted", "run": "r", "round": 4, "time": 0},
        {"entries": 2, "topic": "ledger", "kind": "added", "time": 0},
        {"author": "ab", "topic": "ledger", "kind": "frozen", "time": 0},
    ]
