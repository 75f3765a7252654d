"""A peer that serves a ledger over a real p2pd, or lies: `python -m tests.support.ledger_server FOLDER SEED`.

Its first line on stdout has its address; FOLDER then holds its charter.toml. Each line on stdin is an order, answered
by a line of JSON: the roots of its ledger then, and whom the order concerned. "lie NAME" makes all later answers lies.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.ledgers import MemoryLedger, at
from ubcp_p2p.charter.document import to_toml
from ubcp_p2p.codec import Value, encode
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.ledger import sync
from ubcp_p2p.ledger.balances import balances, balances_root
from ubcp_p2p.ledger.entry import Checkpoint, Decision
from ubcp_p2p.ledger.merkle import root_of
from ubcp_p2p.ledger.world import World
from ubcp_p2p.swarm.addresses import AddressBook
from ubcp_p2p.swarm.frames import Stream
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.p2pd import P2pdSettings
from ubcp_p2p.units import MICROCREDITS

OTHER_SEED = 77


class Town:
    """A community of two; its first node is the one that serves. `ledger` is what it serves, in its append order."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.asker, self.helper = self.world.account("asker"), self.world.account("helper")
        self.node, self.other = self.world.node(self.asker, "node"), self.world.node(self.helper, "other")
        self.request = self.world.request(self.asker, self.node, 1000 * MICROCREDITS, slices=20_000)
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


def framed(answer: Value) -> bytes:
    data = encode(answer)
    return len(data).to_bytes(4, "big") + data


def framed_answer(town: Town, lie: str, question: list[Value]) -> bytes:
    """An honest answer, or this lie where the question gives it an opportunity."""
    what = question[0]
    honest = sync.answer(question, town.ledger)
    assert isinstance(honest, list)
    first = town.world.entries[0]
    if lie == "garbage":
        return b"\0\0\x01\0" + random.Random(1).randbytes(256)
    if lie == "huge":
        return b"\xff\xff\xff\xff" + bytes(1000)
    if lie == "other charter" and what == sync.CHARTERS:
        return framed([sync.CHARTERS, [Town(OTHER_SEED).ledger.charter(1) or b""]])
    if lie == "forged" and what == sync.LOG:
        forged = first._replace(signatures=((first.signatures[0][0], bytes(64)),))
        return framed([sync.LOG, 1, [forged.to_bytes()]])
    if lie == "endless" and what == sync.HELLO:
        return framed([*honest[:5], 2**53 - 1])
    if lie == "endless" and what == sync.LOG:
        assert isinstance(question[1], int)
        return framed([sync.LOG, question[1] + 1, [first.to_bytes()]])
    return framed(honest)


async def main() -> None:
    folder, town = Path(sys.argv[1]), Town(int(sys.argv[2]))
    lie = ""
    assert isinstance(town.node.key, NodeKey)
    town.node.key.save(folder / "key")
    (folder / "charter.toml").write_text(to_toml(town.world.charters.versions[0]))
    settings = P2pdSettings(identity=folder / "key", listen=("/ip4/127.0.0.1/tcp/0",))
    network = Network(town.node.key, settings, folder, AddressBook(folder / "peers.json"))

    async def serve(stream: Stream) -> None:
        while lie != "hang up":
            question = await stream.receive(timeout_s=30.0)
            assert isinstance(question, list)
            stream._writer.write(framed_answer(town, lie, question))
            await stream._writer.drain()
        await stream.receive(timeout_s=30.0)

    await network.handle(sync.PROTOCOL, serve)
    serving = asyncio.create_task(network.serve())
    try:
        await network.ready()
        print(network.multiaddrs()[0], flush=True)
        orders = town.orders()
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = line.strip()
            lie = order.removeprefix("lie ") if order.startswith("lie ") else lie
            author = orders[order]() if order in orders else town.node.public
            entries_root, state, _ = town.ledger.roots()
            reply = {"entries_root": entries_root.hex(), "balances_root": state.hex(), "author": author.hex()}
            print(json.dumps(reply), flush=True)
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
