"""A community of two people and two machines, and the ledger that one of the machines serves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.support.ledgers import MemoryLedger, at
from ubcp_p2p.ledger.balances import balances, balances_root
from ubcp_p2p.ledger.entry import Checkpoint, Decision
from ubcp_p2p.ledger.merkle import root_of
from ubcp_p2p.ledger.world import CHARTER, World
from ubcp_p2p.units import MICROCREDITS

EPOCH = 1_600_000_000  # long past on any clock: nothing here is early


class Town:
    """A community of two; its first node is the one that serves. `ledger` is what it serves, in its append order."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed, charter=replace(CHARTER, epoch=EPOCH))
        self.asker, self.helper = self.world.account("asker"), self.world.account("helper")
        self.node, self.other = self.world.node(self.asker, "node"), self.world.node(self.helper, "other")
        self.request = self.world.request(self.asker, self.node, 1000 * MICROCREDITS, slices=2_000)
        self.allot = self.world.allot(self.node, self.request, self.other, 900 * MICROCREDITS)
        self.ledger = MemoryLedger(self.world.charters.versions)
        self.receipt()

    def share(self) -> None:
        """Serve what was written."""
        self.ledger.add(self.world.entries[self.ledger.size :])

    def receipt(self) -> bytes:
        """A new RECEIPT, and who wrote it."""
        self.world.now += 1
        self.world.receipt(self.other, self.node, self.allot, MICROCREDITS)
        self.share()
        return self.other.public

    def fork(self) -> bytes:
        """The other node continues its chain twice, as if it hid the second from those who know the first."""
        head = self.other.head
        for inputs in (b"\1" * 32, b"\2" * 32):
            self.world.write(at(self.other, head), Decision(self.world.now, 0, 1, (), (), inputs))
        self.share()
        return self.other.public

    def checkpoint(self, *, root: bytes | None = None, state: bytes | None = None) -> bytes:
        """The serving node's CHECKPOINT, right in all that is not given."""
        ids = [signed.entry.id for signed in self.ledger.order]
        rows = balances(self.ledger.ledger, self.ledger.history)
        body = Checkpoint(len(ids), root or root_of(ids), state or balances_root(rows))
        self.world.write(self.node, body)
        self.share()
        return self.node.public

    def orders(self) -> dict[str, Callable[[], bytes]]:
        return {
            "receipt": self.receipt,
            "fork": self.fork,
            "checkpoint": self.checkpoint,
            "bad root": lambda: self.checkpoint(root=bytes(32)),
            "bad state": lambda: self.checkpoint(state=bytes(32)),
        }
