"""A peer that serves a ledger over a real p2pd, or lies: `python -m tests.support.ledger_server FOLDER SEED`.

Its first line on stdout has its address; FOLDER then holds its charter.toml. Each line on stdin is an order, answered
by a line of JSON: the roots of its ledger then, and whom the order concerned. "lie NAME" makes all later answers lies.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

from tests.support.town import Town
from ubcp_p2p.charter.document import to_toml
from ubcp_p2p.codec import Value, encode
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.ledger import sync
from ubcp_p2p.swarm.addresses import AddressBook
from ubcp_p2p.swarm.frames import Stream
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.p2pd import P2pdSettings

OTHER_SEED = 77


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
        stream.close()

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
