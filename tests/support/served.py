"""A ledger to serve on without a network: a real store and a real writer; time passes as soon as it is slept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.support.serving import Scene
from ubcp_p2p.allocator.blob import decode_problem
from ubcp_p2p.allocator.problem import Problem
from ubcp_p2p.charter.values import Charters
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.ledger.entry import Body, Decision
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.writer import Standing, Writer
from ubcp_p2p.peer.config import PeerConfig, ServingConfig
from ubcp_p2p.peer.owner import Keeper
from ubcp_p2p.peer.profile import Profile
from ubcp_p2p.peer.serving.service import Service
from ubcp_p2p.sensors.machine import Machine

T = TypeVar("T")


class Time:
    """`now_s`, and what happens at which moment. Who sleeps beyond `end_s` is cancelled."""

    def __init__(self, now_s: float) -> None:
        self.now_s = self.end_s = now_s
        self.events: list[tuple[float, Callable[[], object]]] = []

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, for_s: float) -> None:
        until_s = self.now_s + for_s
        for when_s, event in sorted(self.events, key=lambda row: row[0]):
            if self.now_s < when_s <= until_s:
                self.now_s = when_s
                event()
        self.now_s = until_s
        await asyncio.sleep(0)
        if until_s > self.end_s:
            raise asyncio.CancelledError


class StoreLedger:
    """A service.ServedLedger."""

    def __init__(self, store: Store, key: NodeKey, time: Time, *, confirmed: bool = True) -> None:
        self.store, self.time, self.writer = store, time, Writer(store, key)
        if confirmed:
            self.confirm()

    def confirm(self) -> None:
        """A peer says that it knows what is here, and no more; drafts are signed then."""
        assert self.writer.head is not None
        assert self.writer.confirm([[self.writer.head]]) == []
        self.writer.write_drafts(now_s=self.time.now_s, offsets_s=[])

    @property
    def charters(self) -> Charters:
        return self.store.ledger.charters

    async def read(self, function: Callable[[Store], T], /) -> T:
        return function(self.store)

    async def may_write(self) -> bool:
        return self.writer.standing is Standing.CONFIRMED and not self.store.drafts(self.writer.author)

    async def write(self, body: Body, /) -> Signed | None:
        return self.writer.write(body, now_s=self.time.now_s, offsets_s=[])

    async def keep(self, blob: bytes, /) -> bytes:
        return self.store.put_blob(blob)

    async def forget(self, blobs: Iterable[bytes], /) -> None:
        self.store.drop_blobs(list(blobs))


class Serving:
    """Cid's node, from the beginning of slice `first` on: `run` starts it, as often as it is called."""

    def __init__(self, scene: Scene, store: Store, folder: Path, first: int) -> None:
        self.scene, self.store = scene, store
        self.key = scene.cid_pc.key
        self.profile = Profile(folder / "profile")
        self.profile.make()
        self.keeper = Keeper(self.profile, PeerConfig.from_toml("", where="test"), Machine("cpu", root=folder))
        self.time = Time(self.begins_s(first))
        self.service: Service

    def begins_s(self, slice_: int) -> float:
        charter = self.scene.world.charter
        return float(charter.epoch + slice_ * charter.slice_s)

    async def run(self, until: int, ledger: StoreLedger | None = None, *, after_s: float = 0) -> None:
        """Start the node and serve until so many seconds after the beginning of a slice."""
        self.time.end_s = self.begins_s(until) + after_s
        await self.keeper.look()
        self.service = self._service(ledger or self.ledger())
        try:
            await self.service.serve()
        except asyncio.CancelledError:
            self.time.now_s = self.time.end_s

    def ledger(self, kind: type[StoreLedger] = StoreLedger, *, confirmed: bool = True) -> StoreLedger:
        assert isinstance(self.key, NodeKey)
        return kind(self.store, self.key, self.time, confirmed=confirmed)

    def _service(self, ledger: StoreLedger) -> Service:
        config = ServingConfig(device_class="gpu-24g")
        return Service(
            ledger, self.keeper, config, self.key.public, self.profile.seen_file, clock=self.time.clock,
            sleep=self.time.sleep,
        )  # fmt: skip

    def at(self, slice_: int, event: Callable[[], object], *, after_s: float = 0) -> None:
        """Let it happen in the slice."""
        self.time.events.append((self.begins_s(slice_) + after_s, event))

    def decisions(self) -> list[Decision]:
        """What the node has told, in the order of its chain."""
        bodies = [signed.entry.body for signed in self.store.chain(self.key.public)]
        return [body for body in bodies if isinstance(body, Decision)]

    def problem(self, decision: Decision) -> Problem:
        blob = self.store.blob(decision.inputs)
        assert blob is not None
        return decode_problem(blob)


@contextmanager
def serving(scene: Scene, folder: Path, first: int) -> Iterator[Serving]:
    """With a store of all that the scene has by now."""
    with Store.create(folder / "store", scene.world.charters) as store:
        store.append(scene.world.entries)
        yield Serving(scene, store, folder, first)
