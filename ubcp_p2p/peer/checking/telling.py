"""Hands evidence of lies over: asks first, reads after that, a few peers at once; who is not ready is asked later."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from ubcp_p2p.codec import fields, number
from ubcp_p2p.errors import NetworkError, UbcpError
from ubcp_p2p.files import read_limited
from ubcp_p2p.peer.checking.conviction import Conviction, Members, Told
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.exchange import LINK_BYTES_PER_S_MIN
from ubcp_p2p.swarm.frames import DeadlineExceeded
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.openings import STALL_S

log = logging.getLogger(__name__)

AT_ONCE: Final = 2  # evidence is six to eight offers long, and each has it in memory
NEARLY_S: Final = 60.0  # what is over so soon is not handed on: to judge it takes a while
ANSWER_S: Final = 10.0
NO, WANTED, LATER = 0, 1, 2  # the answers to an accusation; WANTED: its evidence is to follow, and is answered too


def upload_s(size: int) -> float:
    """How long evidence of that many bytes may take: shorter than other transfers, since few may send at once."""
    return ANSWER_S + size / (4 * LINK_BYTES_PER_S_MIN)


class Telling:
    """`begin` what is due, as often as one likes; `close` at the end. wake: called when there is room for more."""

    def __init__(self, network: Network, protocol: str, member: Members, wake: Callable[[], None]) -> None:
        self._network, self._protocol, self._member, self._wake = network, protocol, member, wake
        self._tasks: dict[bytes, asyncio.Task[None]] = {}  # by peer: one at a time each

    def begin(self, out: Mapping[bytes, Conviction], now_s: float) -> None:
        """Tell peers that are there of those who are out. Who went and comes again is told again."""
        peers = set(self._member.peers()) - out.keys()
        due: list[tuple[bool, int, bytes, bytes]] = []
        for accused, conviction in out.items():
            conviction.told = {peer: conviction.told.get(peer) or Told() for peer in peers}
            if conviction.over_s - now_s >= NEARLY_S:
                for peer, told in conviction.told.items():
                    if not told.is_done and told.next_s <= now_s and peer not in self._tasks:
                        # First who is in the groups, then who has cost nothing yet: names that hang delay nobody else.
                        due.append((not self._member.knows(peer), told.tries, peer, accused))
        for _, _, peer, accused in sorted(due):
            if len(self._tasks) >= AT_ONCE:
                break
            if peer not in self._tasks:
                conviction = out[accused]
                task = asyncio.create_task(self._tell(peer, accused, conviction, conviction.told[peer]))
                self._tasks[peer] = task
                task.add_done_callback(partial(self._ended, peer))

    async def close(self) -> None:
        """Tell nobody any more."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, peer: bytes, task: asyncio.Task[None]) -> None:
        del self._tasks[peer]
        self._wake()
        if not task.cancelled() and (error := task.exception()) is not None:  # a bug: training goes on
            log.error("telling %s of lies failed", short(peer), exc_info=error)

    async def _tell(self, peer: bytes, accused: bytes, conviction: Conviction, told: Told) -> None:
        try:
            told.is_done = await self._hand_over(peer, accused, conviction)
            told.put_off(time.monotonic())
        except NetworkError as error:
            told.failed(time.monotonic())
            log.info("%s does not hear of a lie of %s: %s", short(peer), short(accused), error.message)
        except (UbcpError, OSError) as error:  # the file has gone, or an answer that is none
            told.is_done = True
            log.warning("%s is not told of a lie of %s: %s", short(peer), short(accused), error)

    async def _hand_over(self, peer: bytes, accused: bytes, conviction: Conviction) -> bool:
        """Whether the peer needs to hear no more of it. Raises NetworkError, MalformedMessage, OSError."""
        size = (await asyncio.to_thread(conviction.evidence.stat)).st_size
        left = max(0, int(conviction.over_s - time.monotonic()))
        async with self._network.open(peer, self._protocol, timeout_s=ANSWER_S) as stream:
            await stream.send([accused, conviction.from_round, left, size], timeout_s=ANSWER_S)
            answer = number(fields(await stream.receive(timeout_s=ANSWER_S), 1)[0], LATER)
            if answer == WANTED:
                blob = await asyncio.to_thread(read_limited, conviction.evidence, bytes_max=size)
                try:
                    async with asyncio.timeout(upload_s(size)):
                        await stream.send_block(memoryview(blob), stall_s=STALL_S)
                        answer = number(fields(await stream.receive(timeout_s=ANSWER_S), 1)[0], LATER)
                except TimeoutError:
                    raise DeadlineExceeded(f"it did not take evidence within {upload_s(size):.0f} s") from None
            return answer != LATER
