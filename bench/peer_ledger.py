"""One peer with a live ledger in a process of its own, without daemon: for bench/gossip.py.

Real p2pd, gossip, reconciling and store, through the package's public classes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["HIVEMIND_LOGLEVEL"] = "ERROR"

import uvloop
from harness import answer, arguments

from ubcp_p2p.charter.document import load_community
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.ledger.store import Store
from ubcp_p2p.swarm.addresses import AddressBook
from ubcp_p2p.swarm.ledger import LedgerEvent, LiveLedger
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.p2pd import P2pdSettings

LINE_BYTES_MAX = 4 << 20


class Arrivals:
    """When each entry was in the store (monotonic seconds), and a wait for so many."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self._more = asyncio.Event()

    def observe(self, event: LedgerEvent) -> None:
        now_s = time.monotonic()
        if event.kind == "added":
            for signed in event.data["entries"]:
                self.at.setdefault(signed.entry.id.hex(), now_s)
            self._more.set()

    async def wait(self, count: int) -> None:
        while len(self.at) < count:
            self._more.clear()
            await self._more.wait()


async def obey(request: dict[str, Any], network: Network, ledger: LiveLedger, arrivals: Arrivals) -> dict[str, Any]:
    """Carry out one order."""
    match request["do"]:
        case "meet":
            for address in request["addresses"]:
                await network.neighbours.connect(address)
            return {"connected": len(await network.refresh_connected())}
        case "submit":  # one after the other, as whoever writes them does
            given: dict[str, float] = {}
            for form in request["entries"]:
                started_s = time.monotonic()
                (result,) = await ledger.submit([bytes.fromhex(form)])
                given[result["id"]] = started_s
            return {"given": given}
        case "wait":
            async with asyncio.timeout(request["timeout_s"]):
                await arrivals.wait(request["entries"])
            return {"at": arrivals.at}
        case _:
            return await ledger.status()


async def main() -> None:
    given = arguments()
    directory = Path(given["directory"])
    key = NodeKey.generate()
    key.save(directory / "node.key")
    settings = P2pdSettings(directory / "node.key", ("/ip4/127.0.0.1/tcp/0",))
    network = Network(key, settings, directory, AddressBook(directory / "peers.json"))
    charters = load_community(Path(given["charter"]))
    arrivals = Arrivals()
    ledger = LiveLedger(network, lambda: Store.create(directory / "ledger.sqlite3", charters), observe=arrivals.observe)
    await ledger.open()
    serving = [asyncio.create_task(network.serve()), asyncio.create_task(ledger.serve())]
    await network.ready()
    answer({"addresses": network.multiaddrs()})
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while line := await reader.readline():
            try:
                answer(await obey(json.loads(line), network, ledger, arrivals))
            except Exception as error:  # reported to the benchmark, which stops
                answer({"error": f"{type(error).__name__}: {error}"})
    finally:
        for task in reversed(serving):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


uvloop.run(main())
