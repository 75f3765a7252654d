"""What is let in from a ledger's topic, and in which order things are told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.ledgers import MemoryLedger, busy
from ubcp_p2p.codec import decode, encode
from ubcp_p2p.ledger.world import World
from ubcp_p2p.swarm import entry_gossip
from ubcp_p2p.swarm.entry_gossip import (
    DROPS_PER_STRIKE,
    ENTRY,
    INBOX_MAX,
    MESSAGE_BYTES_MAX,
    PROOF,
    TAKE_BURST,
    EntryGossip,
    topic_of,
)
from ubcp_p2p.swarm.frames import Unreachable

pytestmark = pytest.mark.asyncio

PEER, OTHER = b"p" * 32, b"o" * 32


class Air:
    """Stands where the network stands: what is published is kept, or refused while it is `down`."""

    public = b"me" * 16

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.down = 0
        self.more = asyncio.Event()

    async def subscribe(self, topic: str, on_message: Any, *, capped: bool) -> None:
        assert not capped

    async def publish(self, topic: str, payload: bytes) -> None:
        if self.down:
            self.down -= 1
            raise Unreachable("p2pd is down")
        self.published.append((topic, payload))
        self.more.set()

    async def ready(self) -> None:
        pass


class Ear:
    """A gossip with its complaints noted."""

    def __init__(self) -> None:
        self.junk: list[tuple[bytes, str]] = []
        self.lost: list[bytes] = []
        self.banned: set[bytes] = set()
        self.air = Air()
        air: Any = self.air
        self.gossip = EntryGossip(
            air,
            is_banned=self.banned.__contains__,
            on_junk=lambda peer, why: self.junk.append((peer, why)),
            on_lost=self.lost.append,
        )


def message(world: World, place: int = 0) -> bytes:
    return encode([ENTRY, world.entries[place].to_bytes()])


@pytest.fixture
def world() -> World:
    return busy(3, receipts=2, forks=[(1, 1)])


async def test_an_entry_comes_in_once(world: World) -> None:
    ear = Ear()
    for _ in range(3):
        ear.gossip.hear(PEER, message(world))
    ear.gossip.hear(OTHER, message(world))
    assert ear.gossip.arrived.is_set()
    assert [(item.sender, item.thing) for item in ear.gossip.gathered(10)] == [(PEER, world.entries[0])]
    assert not ear.gossip.arrived.is_set()
    assert ear.junk == []


async def test_a_copy_with_other_signatures_is_let_in_too(world: World) -> None:
    """Else a bad copy that comes first would keep the good one out."""
    ear = Ear()
    signed = world.entries[0]
    ((key, signature),) = signed.signatures
    bad = signed._replace(signatures=((key, bytes(64)),))
    ear.gossip.hear(PEER, encode([ENTRY, bad.to_bytes()]))
    ear.gossip.hear(OTHER, message(world))
    assert [item.sender for item in ear.gossip.gathered(10)] == [PEER, OTHER]
    assert signature != bytes(64)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff", encode(7), encode([ENTRY]), encode([ENTRY, 7]), encode([2, b""]), encode([ENTRY, b"junk"]),
     encode([PROOF, b"junk"]), bytes(MESSAGE_BYTES_MAX + 1)],
)  # fmt: skip
async def test_junk_is_held_against_its_sender(payload: bytes) -> None:
    ear = Ear()
    ear.gossip.hear(PEER, payload)
    assert [peer for peer, _ in ear.junk] == [PEER]
    assert ear.gossip.gathered(10) == []


async def test_who_is_banned_is_not_heard_and_nobody_hears_himself(world: World) -> None:
    ear = Ear()
    ear.banned.add(PEER)
    ear.gossip.hear(PEER, message(world))
    ear.gossip.hear(PEER, b"junk")
    ear.gossip.hear(Air.public, message(world, 1))
    assert (ear.gossip.gathered(10), ear.junk) == ([], [])


async def test_a_flood_is_dropped_struck_and_asked_for_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ubcp_p2p.swarm.entry_gossip.time.monotonic", lambda: 5.0)
    ear = Ear()
    data = [b"%d" % n for n in range(int(TAKE_BURST) + 2 * DROPS_PER_STRIKE)]
    for payload in data:
        ear.gossip.hear(PEER, payload)
    malformed = [why for _, why in ear.junk if "messages a second" not in why]
    assert len(malformed) == TAKE_BURST
    assert len(ear.junk) - len(malformed) == 2
    assert ear.lost == [PEER]
    ear.gossip.hear(OTHER, message(world))
    assert len(ear.gossip.gathered(10)) == 1


async def test_many_entries_of_one_author_are_left_to_reconciling(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ubcp_p2p.swarm.entry_gossip.time.monotonic", lambda: 5.0)
    ear = Ear()
    author = world.entries[0].entry.author
    ear.gossip.charge([author] * int(TAKE_BURST))  # so many of it were told and added
    ear.gossip.hear(PEER, message(world))
    assert (ear.gossip.gathered(10), ear.lost, ear.junk) == ([], [PEER], [])
    monkeypatch.setattr("ubcp_p2p.swarm.entry_gossip.time.monotonic", lambda: 6.0)
    ear.gossip.hear(PEER, message(world))
    assert len(ear.gossip.gathered(10)) == 1


async def test_what_others_write_in_ones_name_uses_up_nobodys_rate_but_theirs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an entry of the named author nor a proof against it is held up by them."""
    monkeypatch.setattr("ubcp_p2p.swarm.entry_gossip.time.monotonic", lambda: 5.0)
    (proof,) = MemoryLedger(world.charters.versions, world.entries).proofs.values()
    ear = Ear()
    for number in range(int(TAKE_BURST) + 3):  # copies with other signatures: one author, many senders
        copy = proof.first._replace(signatures=((proof.author, number.to_bytes(64, "big")),))
        ear.gossip.hear(number.to_bytes(32, "big"), encode([ENTRY, copy.to_bytes()]))
    ear.gossip.hear(PEER, encode([ENTRY, proof.first.to_bytes()]))
    ear.gossip.hear(OTHER, encode([PROOF, proof.to_bytes()]))
    assert (ear.lost, ear.junk) == ([], [])
    first, *others = ear.gossip.gathered(INBOX_MAX)
    assert first == (OTHER, proof)  # before all that had come before it
    assert others[-1] == (PEER, proof.first)


async def test_a_full_inbox_keeps_no_proof_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_gossip, "INBOX_MAX", 2)
    (proof,) = MemoryLedger(world.charters.versions, world.entries).proofs.values()
    ear = Ear()
    for place in range(3):
        ear.gossip.hear(PEER, message(world, place))
    assert ear.lost == [PEER]
    ear.gossip.hear(OTHER, encode([PROOF, proof.to_bytes()]))
    assert [item.sender for item in ear.gossip.gathered(2)] == [OTHER, PEER]
    assert ear.gossip.arrived.is_set()
    assert [item.sender for item in ear.gossip.gathered(2)] == [PEER]
    assert not ear.gossip.arrived.is_set()


async def test_a_full_inbox_is_asked_for_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_gossip, "INBOX_MAX", 2)
    ear = Ear()
    for place in range(4):
        ear.gossip.hear(PEER, message(world, place))
    assert ear.lost == [PEER, PEER]
    ear.gossip.gathered(10)
    ear.gossip.hear(PEER, message(world, 3))  # what was lost may come again
    assert len(ear.gossip.gathered(10)) == 1


async def test_a_fork_proof_goes_out_before_all_else(world: World) -> None:
    (proof,) = MemoryLedger(world.charters.versions, world.entries).proofs.values()
    ear = Ear()
    await ear.gossip.open(world.charters.network)
    for signed in world.entries[:3]:
        ear.gossip.tell(signed)
    ear.gossip.tell(proof)
    ear.air.down = 2  # p2pd is away for a moment: nothing is lost, nothing is overtaken
    sending = asyncio.create_task(ear.gossip.keep_sending())
    async with asyncio.timeout(5.0):
        while len(ear.air.published) < 4:
            ear.air.more.clear()
            await ear.air.more.wait()
    sending.cancel()
    told: list[Any] = [decode(payload, bytes_max=MESSAGE_BYTES_MAX) for _, payload in ear.air.published]
    assert told == [[PROOF, proof.to_bytes()], *([ENTRY, s.to_bytes()] for s in world.entries[:3])]
    assert {topic for topic, _ in ear.air.published} == {topic_of(world.charters.network)}
    ear.gossip.hear(PEER, message(world, 0))  # it comes back: known
    assert ear.gossip.gathered(10) == []
