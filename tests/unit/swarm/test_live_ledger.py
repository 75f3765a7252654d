"""The live ledger without a network: what it does with what it hears, with a disk that is full, and in which order."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from tests.support.community import fresh_charters, second_charter
from tests.support.ledgers import busy
from ubcp_p2p.charter.values import SignedCharter
from ubcp_p2p.codec import decode, encode
from ubcp_p2p.keys import AccountKey, NodeKey
from ubcp_p2p.ledger import sync
from ubcp_p2p.ledger.author import Author
from ubcp_p2p.ledger.entry import URGENCY_MIN, ZERO, OpenAccount, OpenNode, Position, Request
from ubcp_p2p.ledger.faults import BadSignature, LedgerError
from ubcp_p2p.ledger.pull import Take
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.world import World
from ubcp_p2p.ledger.writer import WrongClock
from ubcp_p2p.swarm import ledger as ledger_module
from ubcp_p2p.swarm.books import StaleHead
from ubcp_p2p.swarm.entry_gossip import ENTRY, MESSAGE_BYTES_MAX, PROOF
from ubcp_p2p.swarm.ledger import LedgerEvent, LiveLedger

PEER = b"p" * 32


class Air:
    """Stands where the network stands: nobody is connected; what is heard is said by the test."""

    def __init__(self) -> None:
        self.key = NodeKey.generate()
        self.public = self.key.public
        self.connected: frozenset[bytes] = frozenset()
        self.neighbours = SimpleNamespace(clock_offset_s=None)
        self.published: list[Any] = []
        self.say: Any = None
        self.changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10.0):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def subscribe(self, topic: str, on_message: Any, *, capped: bool) -> None:
        self.say = on_message
        self.changed.set()

    def unsubscribe(self, topic: str) -> None:
        self.say = None

    async def handle(self, protocol: str, handler: Any) -> None:
        pass

    async def unhandle(self, protocol: str) -> None:
        pass

    async def publish(self, topic: str, payload: bytes) -> None:
        self.published.append(decode(payload, bytes_max=MESSAGE_BYTES_MAX))
        self.changed.set()


class Running:
    """A LiveLedger that serves, and what it has said."""

    def __init__(self, path: Path, world: World) -> None:
        self.world = world
        self.air = Air()
        self.events: list[LedgerEvent] = []
        self.store: Store
        self._heard = asyncio.Event()
        self._path = path
        network: Any = self.air
        self.live = LiveLedger(network, self._open, observe=self._observe)

    def _open(self) -> Store:
        self.store = Store.create(self._path, self.world.charters)
        return self.store

    def _observe(self, event: LedgerEvent) -> None:
        self.events.append(event)
        self._heard.set()

    def hear(self, *places: int) -> None:
        for place in places:
            self.air.say(PEER, encode([ENTRY, self.world.entries[place].to_bytes()]))

    async def until(self, kind: str) -> LedgerEvent:
        async with asyncio.timeout(10.0):
            while not (found := [event for event in self.events if event.kind == kind]):
                self._heard.clear()
                await self._heard.wait()
        return found[0]

    async def status(self, **wanted: object) -> dict[str, Any]:
        """The first status in which these are so."""
        async with asyncio.timeout(10.0):
            while True:
                status = await self.live.status()
                if all(status[name] == value for name, value in wanted.items()):
                    return status


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    made = Running(tmp_path / "store", busy(3, receipts=2, forks=[(1, 1)]))
    await made.live.open()
    serving = asyncio.create_task(made.live.serve())
    await made.air.until(lambda: made.air.say is not None)
    yield made
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):  # what else it ended with is told
        await serving


@pytest.mark.asyncio
async def test_a_fork_freezes_and_its_proof_is_told(running: Running) -> None:
    running.hear(*range(len(running.world.entries)))
    frozen = await running.until("frozen")
    assert frozen.data["author"] == running.world.ledger.frozen()[0].hex()
    status = await running.status(entries=len(running.world.entries))
    assert status["frozen"] == [frozen.data["author"]]
    await running.air.until(lambda: bool(running.air.published))
    assert [what for what, _ in running.air.published] == [PROOF]  # entries were told by whoever wrote them


@pytest.mark.asyncio
async def test_a_full_disk_is_told_and_nothing_is_lost(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "DISK_RETRY_S", 0.2)

    def room(pages: int) -> None:
        running.store._disk.db.execute(f"PRAGMA max_page_count = {pages}")

    await running.live._books.run(room, 1)  # as many as it has by now
    while (await running.live.status())["trouble"] is None:
        running.hear(*range(len(running.world.entries)))
        running.live._gossip._seen.clear()
    status = await running.live.status()
    assert "the disk is full" in status["trouble"]
    before = status["entries"]
    await running.live._books.run(room, 1 << 20)
    await running.status(trouble=None)
    running.hear(*range(len(running.world.entries)))
    assert (await running.status(entries=len(running.world.entries)))["entries"] > before


@pytest.mark.asyncio
async def test_a_peers_blob_stays_if_it_is_what_was_sought_and_there_is_room(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    async def shown(hash_: bytes) -> bytes | None:
        asked.append(hash_)
        return b"12" if hash_ == name else None

    name = hashlib.sha256(b"12").digest()
    monkeypatch.setattr(running.live._reconciler, "blob", shown)
    with pytest.raises(ValueError, match="fromhex"):  # anybody may name any blob
        await running.live.find(name, lambda blob: bytes.fromhex(f"no {blob!r}"))
    assert await running.live.read(lambda store: store.blob(name)) is None
    with monkeypatch.context() as full:
        full.setattr("ubcp_p2p.ledger.store.BLOBS_BYTES_MAX", 1)
        assert await running.live.find(name, int) == 12
    assert await running.live.read(lambda store: store.blob(name)) is None
    assert await running.live.find(name, int) == 12
    assert await running.live.read(lambda store: store.blob(name)) == b"12"
    assert await running.live.find(name, int) == 12
    assert len(asked) == 3  # from then on it is here
    assert await running.live.find(bytes(32), int) is None


@pytest.mark.asyncio
async def test_own_users_entries_are_told_unless_they_are_bad(running: Running) -> None:
    forms = [signed.to_bytes() for signed in running.world.entries[:3]]
    assert [result["outcome"] for result in await running.live.submit(forms)] == ["added"] * 3
    assert [result["outcome"] for result in await running.live.submit(forms[:1])] == ["known"]
    first = running.world.entries[3]
    ((key, signature), *others) = first.signatures
    bad = first._replace(signatures=((key, signature[::-1]), *others))
    with pytest.raises(BadSignature):
        await running.live.submit([running.world.entries[4].to_bytes(), bad.to_bytes()])
    with pytest.raises(LedgerError, match="another community"):
        await running.live.submit([busy(4).entries[0].to_bytes()])
    (late,) = await running.live.submit([running.world.entries[-1].to_bytes()])
    assert (late["outcome"], bool(late["missing"])) == ("pending", True)
    await running.air.until(lambda: len(running.air.published) == 5)
    told = [bytes(data) for _, data in running.air.published]
    assert told == [*forms, forms[0], running.world.entries[-1].to_bytes()]
    assert (await running.live.status())["entries"] == 3


@pytest.mark.asyncio
async def test_an_early_entry_comes_in_when_its_time_has_come(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "LOOK_S", 0.01)
    charter = running.world.charter
    now_s = charter.epoch + 100.0 * charter.slice_s
    monkeypatch.setattr("ubcp_p2p.swarm.books.time.time", lambda: now_s)
    running.world.now = 103
    running.world.account("early", enrol=False)
    (result,) = await running.live.submit([running.world.entries[-1].to_bytes()])
    assert result["outcome"] == "early"
    assert (await running.live.status())["held_back"] == 1
    now_s += 2.0 * charter.slice_s
    assert (await running.until("added")).data["entries"] == running.world.entries[-1:]
    assert (await running.live.status())["held_back"] == 0


@pytest.mark.asyncio
async def test_three_pieces_of_junk_are_a_ban(running: Running) -> None:
    for _ in range(3):
        running.air.say(PEER, b"junk")
    banned = await running.until("banned")
    assert banned.data["peer"] == PEER.hex()
    running.hear(0)
    status = await running.live.status()
    assert (status["entries"], len(status["banned"])) == (0, 1)


@pytest.mark.asyncio
async def test_alone_a_node_that_is_not_new_keeps_drafts(running: Running) -> None:
    assert await running.live.write(OpenAccount(ZERO)) is None
    status = await running.live.status()
    assert (status["writing"]["standing"], status["writing"]["drafts"]) == ("unconfirmed", 1)
    assert "no peer has said yet" in status["writing"]["words"]


@pytest.mark.asyncio
async def test_a_chain_that_a_charter_has_ended_is_told_and_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node's ALLOT hangs on a REQUEST that version 2 refuses and version 3 lets stand."""
    monkeypatch.setattr(ledger_module, "CONFIRM_EVERY_S", 0.1)
    world = World(6)
    ann, ben = world.account("ann"), world.account("ben")
    charters = fresh_charters(world)
    running = Running(tmp_path / "store", world)
    node = Author(world.charters.network, running.air.key)
    assert ann.head is not None
    world.write(node, OpenNode(ann.head), [ann.key])
    world.now = 2 * world.charter.period_slices
    world.allot(node, world.request(ann, node, 50), world.node(ben, "ben"), 10)
    two = second_charter(charters, world, effective=1, exposure_cap=1)
    again = replace(two.charter, number=3, previous=two.charter.id, effective=2, exposure_cap=100)
    three = SignedCharter(again).signed((k.public, k.sign("charter", again.id)) for k in world.stewards)
    await running.live.open()
    await running.live._books.run(running.store.append, world.entries)
    serving = asyncio.create_task(running.live.serve())
    for charter, standing, words in ((two, "ended", "ended by a charter: "), (three, "unconfirmed", "unconfirmed: ")):
        step = Take(sync.CHARTERS, data=[charter.to_bytes()])
        running.live._after(await running.live._books.run(running.live._books.intake.take_pulled, step, PEER, 2**31))
        async with asyncio.timeout(10.0):
            while not (writing := (await running.live.status())["writing"])["words"].startswith(words):
                pass
        assert writing["standing"] == standing
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


@pytest.mark.asyncio
async def test_own_entries_that_another_pull_brings_are_confirmed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a restored backup: what a peer shows is not here, and the pull that brings it has begun before."""
    monkeypatch.setattr(ledger_module, "CONFIRM_EVERY_S", 60.0)
    world = World(9)
    running = Running(tmp_path / "store", world)
    ann, node = world.account("ann"), Author(world.charters.network, running.air.key)
    assert ann.head is not None
    world.write(node, OpenNode(ann.head), [ann.key])
    assert node.head is not None
    shown, goes_on = {PEER: [node.head]}, asyncio.Event()

    async def heads(author: bytes) -> dict[bytes, list[Position]]:
        return dict(shown)

    async def pull(peer: bytes) -> None:
        goes_on.set()

    await running.live.open()
    monkeypatch.setattr(running.live._reconciler, "heads", heads)
    monkeypatch.setattr(running.live._reconciler, "pull", pull)
    serving = asyncio.create_task(running.live.serve())
    async with asyncio.timeout(10.0):
        await goes_on.wait()
        await running.live.submit([signed.to_bytes() for signed in world.entries])
        while (await running.live.status())["writing"]["standing"] != "confirmed":
            pass
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


class Pulls:
    """Stands where the reconciler's pulls stand: each goes on until the test ends it."""

    def __init__(self, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self._reconciler = running.live._reconciler
        self._go_on, self._changed = asyncio.Semaphore(0), asyncio.Event()
        monkeypatch.setattr(self._reconciler, "pull", self._pull)
        monkeypatch.setattr(self._reconciler, "heads", self._heads)
        monkeypatch.setattr(ledger_module, "GAP_S", 0.01)
        running.air.connected = frozenset({PEER})

    async def _pull(self, peer: bytes) -> None:
        if peer in self._reconciler._pulling:
            return
        self._reconciler._pulling.add(peer)
        self.begun += 1
        self._changed.set()
        await self._go_on.acquire()
        self._reconciler._pulling.discard(peer)

    async def _heads(self, author: bytes) -> dict[bytes, Any]:
        return {}

    def end_one(self) -> None:
        self._go_on.release()

    async def until(self, begun: int) -> None:
        async with asyncio.timeout(10.0):
            while self.begun < begun:
                self._changed.clear()
                await self._changed.wait()


@pytest.mark.asyncio
async def test_what_is_missing_during_a_pull_is_pulled_after_it(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "AGAIN_S", 60.0)  # so that this is no reason
    pulls = Pulls(running, monkeypatch)
    await pulls.until(1)  # it has just connected
    running.hear(len(running.world.entries) - 1)  # refers to what is not here
    await running.status(pending=1)
    assert pulls.begun == 1
    pulls.end_one()
    await pulls.until(2)


@pytest.mark.asyncio
async def test_who_has_just_connected_is_asked_twice(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "AGAIN_S", 0.01)
    pulls = Pulls(running, monkeypatch)
    for begun in (1, 2):
        await pulls.until(begun)
        pulls.end_one()


@pytest.mark.asyncio
async def test_two_entries_drafted_after_one_head_make_no_fork(tmp_path: Path) -> None:
    world = World(8)
    ann = world.account("ann")
    running = Running(tmp_path / "store", world)
    await running.live.open()
    await running.live.submit([signed.to_bytes() for signed in world.entries])
    pc = NodeKey.generate().public
    bodies = [
        Request(name, bytes(32), "research", 1, 1, 1, 5, 9, 9, URGENCY_MIN, pc, (), ()) for name in ("one", "two")
    ]
    drafts = [ann.draft(0, body) for body in bodies]
    done = await asyncio.gather(*map(running.live.submit_next, drafts), return_exceptions=True)
    assert [isinstance(one, StaleHead) for one in done] in ([False, True], [True, False])
    status = await running.live.status()
    assert (status["entries"], status["frozen"]) == (len(world.entries) + 1, [])
    with pytest.raises(StaleHead):
        await running.live.submit_next(Author(world.charters.network, AccountKey.generate()).draft(0, bodies[0]))
    await running.live.close()


@pytest.mark.asyncio
async def test_what_peers_know_of_a_chain_is_taken_before_its_next_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(8)
    ann = world.account("ann")
    running = Running(tmp_path / "store", world)
    await running.live.open()
    await running.live.submit([world.entries[0].to_bytes()])  # the ENROL after it is with a peer alone
    assert ann.head is not None
    liar = Position(ann.public, 7, b"x" * 32)
    known: dict[bytes, list[Position]] = {}
    brings: list[bytes] = []

    async def heads(author: bytes) -> dict[bytes, list[Position]]:
        assert author == ann.public
        return dict(known)

    async def pull(peer: bytes) -> None:
        await running.live.submit(brings)

    monkeypatch.setattr(running.live._reconciler, "heads", heads)
    monkeypatch.setattr(running.live._reconciler, "pull", pull)
    assert await running.live.learn_chain(ann.public) == 0  # nobody there
    known[PEER] = [ann.head]
    assert await running.live.learn_chain(ann.public) == 0  # it has more than could be had
    brings.append(world.entries[1].to_bytes())
    assert await running.live.learn_chain(ann.public) == 1
    known.update({b"q" * 32: [], b"r" * 32: [liar]})
    assert await running.live.learn_chain(ann.public) == 2  # who cannot show what it claims does not count
    running.air.neighbours.clock_offset_s = 2.0 * world.charter.slice_s
    with pytest.raises(WrongClock):
        await running.live.learn_chain(ann.public)
    await running.live.close()
