"""A node's own chain: drafts until peers have confirmed it, no fork from a restored backup, words when there is one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import charter_file, hand_in, ledger_of
from tests.support.processes import until
from tests.support.swarm import STEP_S, Peer, Swarm
from ubcp_p2p.keys import AccountKey, NodeKey
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import ZERO, Decision, OpenAccount, OpenNode
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    with Swarm(bootstrap=False) as made:
        yield made


def now(world: World) -> int:
    """The slice of this machine's clock."""
    return world.charter.slice_at(time.time())


def opened(peer: Peer, world: World) -> tuple[Author, list[Signed]]:
    """Open the chains of the profile's account and node, as its owner does with the account key."""
    network = world.charters.network
    account = Author(network, AccountKey.load(peer.profile.account_key))
    node = Author(network, NodeKey.load(peer.profile.node_key))
    first = account.write(0, OpenAccount(ZERO))
    assert account.head is not None
    entries = [first, node.write(0, OpenNode(account.head), [account.key])]
    assert [result["outcome"] for result in hand_in(peer, entries)] == ["added", "added"]
    return node, entries


def write(peer: Peer, world: World, *marks: bytes) -> list[str | None]:
    """Let the node write; ids, or None for a draft."""
    ids: list[str | None] = peer.call(
        "ledger-write", slice=now(world) + 1, marks=[(mark * 32).hex() for mark in marks]
    )["ids"]
    return ids


def writing(peer: Peer) -> dict[str, Any]:
    found: dict[str, Any] = ledger_of(peer)["writing"]
    return found


def confirmed(peer: Peer) -> None:
    until(
        lambda: writing(peer)["standing"] == "confirmed" and not writing(peer)["drafts"],
        STEP_S,
        f"{peer.name} is confirmed",
    )


def test_a_new_node_signs_alone_and_a_started_one_asks_first(swarm: Swarm) -> None:
    world = World(31)
    more = charter_file(swarm.home, world)
    a = swarm.add("a", more=more).start()
    assert not a.profile.new_file.exists()
    opened(a, world)
    b = swarm.add("b", more=more).start(a.own())
    until(lambda: ledger_of(b)["entries"] == 2, STEP_S, "b has both")
    confirmed(a)
    assert all(write(a, world, b"1", b"2"))
    until(lambda: ledger_of(b)["entries"] == 4, STEP_S, "b has what a wrote")
    assert b.stop() == 0
    assert a.stop() == 0

    a.start()
    assert "unconfirmed" in writing(a)["words"]
    assert write(a, world, b"3", b"4") == [None, None]
    assert writing(a)["drafts"] == 2
    assert ledger_of(a)["entries"] == 4
    b.start(a.own())
    confirmed(a)
    assert ledger_of(a)["entries"] == 6
    until(lambda: ledger_of(b)["entries"] == 6, STEP_S, "b has the drafts, signed")


def test_a_restored_backup_learns_what_it_wrote_and_never_forks(swarm: Swarm, tmp_path: Path) -> None:
    world = World(32)
    more = charter_file(swarm.home, world)
    a = swarm.add("a", more=more).start()
    b = swarm.add("b", more=more).start(a.own())
    opened(a, world)
    confirmed(a)
    write(a, world, b"1")
    assert a.stop() == 0
    backup = tmp_path / "backup"
    shutil.copy(a.profile.ledger_store, backup)
    a.start(b.own())
    confirmed(a)
    write(a, world, b"2", b"3")
    until(lambda: ledger_of(b)["entries"] == 5, STEP_S, "b has it all")
    assert a.stop() == 0

    shutil.copy(backup, a.profile.ledger_store)
    a.start(b.own())
    confirmed(a)
    assert ledger_of(a)["entries"] == 5
    assert all(write(a, world, b"4"))
    until(lambda: ledger_of(b)["entries"] == 6, STEP_S, "b has what came after the backup")
    for peer in (a, b):
        assert ledger_of(peer)["frozen"] == []


@pytest.mark.full
def test_a_profile_that_ran_twice_says_so_and_signs_nothing(swarm: Swarm) -> None:
    world = World(33)
    more = charter_file(swarm.home, world)
    a = swarm.add("a", more=more).start()
    b = swarm.add("b", more=more).start(a.own())
    node, _ = opened(a, world)
    confirmed(a)
    twin = node.draft(now(world), Decision(now(world), 0, 1, (), (), b"t" * 32))
    assert all(write(a, world, b"1"))
    hand_in(b, [twin])
    until(lambda: "forked backup" in writing(a)["words"], STEP_S, "a says what has happened")
    assert twin.entry.id.hex()[:16] in writing(a)["words"]
    assert writing(a)["standing"] == "forked"
    with pytest.raises(Exception, match="two entries with number 1"):
        write(a, world, b"2")
    assert ledger_of(a)["frozen"] == [a.public.hex()]
    until(lambda: ledger_of(b)["frozen"] == [a.public.hex()], STEP_S, "b froze it")


def test_what_two_nodes_write_meets(swarm: Swarm) -> None:
    world = World(34)
    more = charter_file(swarm.home, world)
    a = swarm.add("a", more=more).start()
    b = swarm.add("b", more=more).start(a.own())
    for peer in (a, b):
        world.entries += opened(peer, world)[1]
        confirmed(peer)
    for peer in (a, b):
        write(peer, world, b"1", b"2", b"3")
    for peer in (a, b):
        until(lambda peer=peer: ledger_of(peer)["entries"] == 10, STEP_S, "all is everywhere")  # type: ignore[misc]
    assert ledger_of(a)["entries_root"] == ledger_of(b)["entries_root"]
