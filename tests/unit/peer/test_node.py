"""A node whose parts end by a bug: what `ubcp status` says then."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.profiles import owned_profile
from ubcp_p2p.peer.config import PeerConfig
from ubcp_p2p.peer.node import Node

WORDS = {
    "looking up who is let in": "leases that begin or end from now on change nothing in the runs here",
    "paying": "this node pays for no work any more, and who is owed too much leaves the runs that it pays for",
    "billing": "this node earns nothing, and has left the runs of its leases",
}


class Part:
    """Of paying: ends by a bug at once, or goes on."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails

    async def serve(self) -> None:
        if self.fails:
            raise AssertionError("a bug")


class Worker:
    """For leases; has left its runs where it was told why."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def end(self, why: str) -> None:
        self.ended.append(why)

    def status(self) -> list[dict[str, Any]]:
        return []


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(owned_profile(tmp_path), PeerConfig())


async def status_of(node: Node) -> Any:
    return await node._verbs()["status"]({}, lambda *_: asyncio.sleep(0))


@pytest.mark.parametrize("bug", WORDS)
def test_status_says_which_part_of_paying_has_ended_and_what_follows(node: Node, bug: str) -> None:
    door, paymaster, contributor = (Part(fails=name == bug) for name in WORDS)
    runs: Any = SimpleNamespace(doorkeeper=door, all=list)
    payer: Any = paymaster
    worker = Worker()
    pair: Any = (contributor, worker)
    node.runs, node.paymaster, node.paying = runs, payer, pair

    async def ended() -> Any:
        await node._keep_paying()
        return await status_of(node)

    status = asyncio.run(ended())
    trouble = f"{bug} has stopped by an error, which is in the log: {WORDS[bug]}; start the node again"
    assert status["troubles"] == [trouble]
    assert (node.paymaster is None) == (bug == "paying")
    assert worker.ended == ([trouble] if bug == "billing" else [])


def test_status_of_a_node_that_goes_on_tells_of_no_trouble(node: Node) -> None:
    assert asyncio.run(status_of(node))["troubles"] == []
