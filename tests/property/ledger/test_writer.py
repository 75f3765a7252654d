"""An honest writer never makes two entries with one number that others see: kills, full disks, backups, liars.

The one thing that it needs from the network: when it asks, one of those asked knows the newest entry that anybody has.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from tests.support.community import disk_that_ends_at, new_store
from ubcp_p2p.keys import AccountKey, NodeKey
from ubcp_p2p.ledger.database import StoreError
from ubcp_p2p.ledger.entry import ZERO, Checkpoint, OpenNode, Position
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.ledger.wire import Signed
from ubcp_p2p.ledger.world import World, secret
from ubcp_p2p.ledger.writer import ForkedBackup, Standing, Writer

pytestmark = pytest.mark.slow

WORLD = World(21)
OWNER_ID = WORLD.account("ann").head
OWNER = AccountKey(secret(WORLD.seed, "account ann"))
KEY = NodeKey(secret(0, "an honest node"))
NOW_S = WORLD.charter.epoch + 1.0
PEERS = 3


class HonestWriter(RuleBasedStateMachine):
    """One machine; its disk can be copied, and put back."""

    images = Bundle("images")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.copies = 0
        self.size = 0
        self.peers: list[dict[bytes, Signed]] = [{} for _ in range(PEERS)]  # what each has of this chain
        self.unpublished: list[Signed] = []
        self.store = new_store(self.folder / "0", WORLD)
        self.store.append(WORLD.entries)
        self.writer = Writer(self.store, KEY)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @initialize(alone=st.booleans())
    def begin(self, alone: bool = True) -> None:
        self.writer = Writer(self.store, KEY, alone=alone)
        self._write_open()

    # -- what the node does ---------------------------------------------------------------------------------------

    def _write_open(self) -> None:
        assert OWNER_ID is not None
        self._publish_later(self.writer.write(OpenNode(OWNER_ID), now_s=NOW_S, offsets_s=[], cosigners=[OWNER]))

    def _publish_later(self, signed: Signed | None) -> None:
        if signed is not None:
            self.unpublished.append(signed)

    @rule(count=st.integers(1, 3))
    def write(self, count: int) -> None:
        for _ in range(count):
            self.size += 1
            try:
                if self.writer.head is None and not self.store.drafts(KEY.public):
                    self._write_open()  # a disk from before the draft
                body = Checkpoint(self.size, ZERO, ZERO)
                self._publish_later(self.writer.write(body, now_s=NOW_S, offsets_s=[]))
            except ForkedBackup:
                assert self.writer.standing is Standing.FORKED

    @rule()
    def write_on_a_full_disk(self) -> None:
        log = self.store.path.with_name(self.store.path.name + "-wal")
        self.size += 1
        try:
            with disk_that_ends_at(log.stat().st_size):
                body = Checkpoint(self.size, ZERO, ZERO)
                self._publish_later(self.writer.write(body, now_s=NOW_S, offsets_s=[]))
        except (StoreError, ForkedBackup):
            pass

    @rule()
    def write_drafts(self) -> None:
        try:
            for written in self.writer.write_drafts(now_s=NOW_S, offsets_s=[], cosigners=[OWNER]):
                self._publish_later(written.signed)
        except ForkedBackup:
            assert self.writer.standing is Standing.FORKED

    @rule(peer=st.integers(0, PEERS - 1))
    def publish(self, peer: int) -> None:
        """Gossip: what was written since the start, to one peer."""
        for signed in self.unpublished:
            self.peers[peer][signed.entry.id] = signed
        self.unpublished.clear()

    @rule(peer=st.integers(0, PEERS - 1))
    def sync(self, peer: int) -> None:
        """All of the chain in the store, as far as it may be shown."""
        if self.writer.shows:
            for signed in self.store.history(KEY.public):
                self.peers[peer][signed.entry.id] = signed

    @rule(one=st.integers(0, PEERS - 1), other=st.integers(0, PEERS - 1))
    def peers_sync(self, one: int, other: int) -> None:
        self.peers[one].update(self.peers[other])

    @rule(others=st.sets(st.integers(0, PEERS - 1)), a_liar=st.booleans(), fetches=st.booleans())
    def confirm(self, others: set[int], a_liar: bool, fetches: bool) -> None:
        best = max(range(PEERS), key=lambda i: len(self.peers[i]))
        asked = {best, *others}
        reports = [self._heads(i) for i in asked]
        if a_liar:
            lie = Position(KEY.public, 10**6, bytes(32))
            assert lie.id in self._try_confirm([*reports, [lie]])
        missing = self._try_confirm(reports)
        if missing and fetches:
            self.store.append([signed for i in asked for signed in self.peers[i].values()])
            assert self._try_confirm(reports) == []

    def _try_confirm(self, reports: list[list[Position]]) -> list[bytes]:
        try:
            return self.writer.confirm(reports)
        except ForkedBackup:
            assert self.writer.standing is Standing.FORKED
            return [bytes(32)] if any(p.id == bytes(32) for report in reports for p in report) else []

    def _heads(self, peer: int) -> list[Position]:
        known = self.peers[peer].values()
        newest = max((signed.entry.position for signed in known), key=lambda p: p.seq, default=None)
        return [newest] if newest else []

    # -- what happens to it ---------------------------------------------------------------------------------------

    @rule(target=images)
    def back_up(self) -> Path:
        return self._copy(self.store.path)

    @rule(image=images)
    def restore(self, image: Path) -> None:
        self._start(self._copy(image))

    @rule()
    def kill(self) -> None:
        """kill -9: what lies on the disk now is all there is. What was not told to anybody yet never is, by gossip."""
        self._start(self._copy(self.store.path))

    @rule()
    def restart(self) -> None:
        self.store.close()
        self._start(self.store.path)

    def _start(self, path: Path) -> None:
        self.store.close()
        self.unpublished.clear()
        self.store = Store.open(path)
        self.writer = Writer(self.store, KEY, alone=True)  # what a start says has no effect on a store that was there
        assert self.writer.standing is not Standing.CONFIRMED

    def _copy(self, path: Path) -> Path:
        self.copies += 1
        to = self.folder / str(self.copies)
        for suffix in ("", "-wal"):
            found = path.with_name(path.name + suffix)
            if found.exists():
                shutil.copy(found, to.with_name(to.name + suffix))
        return to

    # -- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def one_entry_a_number(self) -> None:
        seen: dict[int, bytes] = {}
        for peer in self.peers:
            for signed in peer.values():
                assert seen.setdefault(signed.entry.seq, signed.entry.id) == signed.entry.id, "a fork that others see"


TestHonestWriter = HonestWriter.TestCase
TestHonestWriter.settings = settings(max_examples=60, stateful_step_count=30)


def test_an_entry_that_nobody_has_seen_is_not_shown_when_the_chain_went_another_way() -> None:
    """Of all stories the longest: two backups, of which the younger one has an entry that was never published."""
    machine = HonestWriter()
    try:
        machine.begin()
        machine.publish(0)
        older = machine.back_up()
        machine.write(1)
        younger = machine.back_up()
        machine.restore(older)
        machine.confirm({0}, a_liar=False, fetches=True)
        machine.write(1)
        machine.publish(0)
        machine.restore(younger)
        machine.sync(1)
        machine.one_entry_a_number()
        machine.confirm({0}, a_liar=False, fetches=True)
        assert machine.writer.standing is Standing.FORKED
        machine.sync(1)
        machine.write(1)
        machine.publish(1)
        machine.one_entry_a_number()
        assert machine.peers[1] == {}
    finally:
        machine.teardown()
