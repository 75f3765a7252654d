"""One peer of this project in a process of its own, without daemon and trainer: for bench/round.py.

Real p2pd, matchmaking, signed cards and exchange through the package's public classes; offers come from a seeded
generator, the outer step is the trainer's (numpy), done in a thread because the trainer is a process of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["HIVEMIND_LOGLEVEL"] = "ERROR"

import numpy as np
import uvloop
from harness import answer, arguments, cpu_s

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.swarm.addresses import AddressBook
from ubcp_p2p.swarm.exchange import AllGather
from ubcp_p2p.swarm.matchmaking import Matchmaker
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.p2pd import P2pdSettings
from ubcp_p2p.swarm.quorum import Card, form_group
from ubcp_p2p.training.outer import OuterRule, outer_step
from ubcp_p2p.training.state import offer_hash, state_hash, vector

RUN_ID = hashlib.sha256(b"bench").digest()
BASE_HASH = bytes(32)  # every round here starts from the same zeros
MATCH_S = 8.0
PROBE_S = 0.005  # the loop's lag is how much later than this a sleep of this ends


class Rounds:
    """The rounds of one peer with one size of offer."""

    def __init__(self, network: Network, matchmaker: Matchmaker, index: int, size: int) -> None:
        self._network = network
        self._matchmaker = matchmaker
        self._exchange = AllGather(network, RUN_ID, size)
        self._size = size
        self._offer = SharedBuffer.create(size)
        values = vector(self._offer)
        np.random.default_rng(index).standard_normal(out=values, dtype=np.float32)
        self._digest = offer_hash(self._offer.view)
        self._state = np.zeros(size // 4, dtype=np.float32)
        self._next = np.zeros(size // 4, dtype=np.float32)

    async def open(self) -> None:
        await self._exchange.open()

    async def close(self) -> None:
        await self._exchange.close()

    async def one(self, number: int, members: int) -> dict[str, Any]:
        """One round: group, exchange, outer step. Seconds of each, when it began and ended, the state's hash."""
        started_s = time.monotonic()
        card = Card(RUN_ID, number, BASE_HASH, self._network.public, 1, self._digest, self._size, bytes(32))
        key = hashlib.sha256(f"{self._size}/{number}".encode()).digest()
        cards = await self._matchmaker.find(key, card.signed(self._network.key).to_bytes(), members, MATCH_S)
        group, refused = form_group(RUN_ID, number, BASE_HASH, cards, offer_bytes=self._size, weight_max=1)
        if len(group.peers) != members:
            raise RuntimeError(f"a group of {len(group.peers)} instead of {members}; refused: {refused}")
        matched_s = time.monotonic()
        lags: list[float] = []
        probe = asyncio.create_task(_probe(lags))
        cpu_before_s = self._cpu_s()
        offers = await self._exchange.gather(group, self._offer, deadline_s=matched_s + 300.0, stall_s=30.0)
        probe.cancel()
        exchanged_s = time.monotonic()
        exchange_cpu_s = [after - before for before, after in zip(cpu_before_s, self._cpu_s(), strict=True)]
        digest = await asyncio.to_thread(self._outer, [offers[peer] for peer in group.peers], number)
        ended_s = time.monotonic()
        return {
            "started_s": started_s, "matched_s": matched_s, "exchanged_s": exchanged_s, "ended_s": ended_s,
            "exchange_cpu_s": exchange_cpu_s, "state_hash": digest.hex(), "lags_s": lags,
        }  # fmt: skip

    def _cpu_s(self) -> tuple[float, float]:
        """CPU seconds so far: of this process, and of its p2pd."""
        p2pd = self._network.p2pd_pid
        return time.process_time(), cpu_s(p2pd) if p2pd is not None else 0.0

    def _outer(self, offers: list[SharedBuffer], number: int) -> bytes:
        vectors = [(vector(offer), 1) for offer in offers]
        outer_step(self._state, vectors, OuterRule("sgd", 1.0), self._next)
        return state_hash(RUN_ID, number + 1, self._next.view(np.uint8).data)

    def release(self) -> None:
        """Free the others' offers; not part of a round's time (the daemon does it after the commit)."""
        self._exchange.release()


async def _probe(lags: list[float]) -> None:
    while True:
        before_s = time.monotonic()
        await asyncio.sleep(PROBE_S)
        lags.append(time.monotonic() - before_s - PROBE_S)


async def main() -> None:
    given = arguments()
    directory = Path(given["directory"])
    key = NodeKey.generate()
    key.save(directory / "node.key")
    settings = P2pdSettings(directory / "node.key", ("/ip4/127.0.0.1/tcp/0",))
    network = Network(key, settings, directory, AddressBook(directory / "peers.json"))
    serving = asyncio.create_task(network.serve())
    await network.ready()
    matchmaker = Matchmaker(network, RUN_ID)
    await matchmaker.open()
    answer({"addresses": network.multiaddrs()})
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    rounds: Rounds | None = None
    try:
        while line := await reader.readline():
            request = json.loads(line)
            try:
                if request["do"] == "meet":
                    for address in request["addresses"]:
                        await network.neighbours.connect(address)
                    answer({})
                elif request["do"] == "size":
                    if rounds is not None:
                        await rounds.close()
                    rounds = Rounds(network, matchmaker, given["index"], request["bytes"])
                    await rounds.open()
                    answer({})
                else:
                    assert rounds is not None
                    rounds.release()
                    answer(await rounds.one(request["number"], request["members"]))
            except Exception as error:  # reported to the benchmark, which stops
                answer({"error": f"{type(error).__name__}: {error}"})
    finally:
        if rounds is not None:
            await rounds.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


uvloop.run(main())
