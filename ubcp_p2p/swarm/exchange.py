"""The exchange: every member of a group ends with every offer, or learns whose is missing.

The interface is `Exchange`; today's implementation is an all-gather over p2pd streams, exact and simple, fine for up to
eight peers and small models (docs/rounds.md). Offers are pulled, not pushed: a member receives
only what it asked for, of the length the model has, and keeps it only when the hash matches the card that its owner
signed. A member that has the offer of a peer that died passes it on, so that one death seldom costs a retry.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections.abc import Mapping
from typing import Protocol

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.codec import MalformedMessage, fields, hash_of
from ubcp_p2p.errors import LocalIOError, NetworkError, RoundFailed
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.frames import Stream, Unreachable
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.quorum import Group

log = logging.getLogger(__name__)

OFFER_DOMAIN = b"ubcp/offer/1\0"
LINK_BYTES_PER_S_MIN = 64 * 1024  # the slowest link that a run waits for before it has measured its own
HAVE, HAVE_NOT = 1, 0


class Exchange(Protocol):
    """Moves the offers of one group; an instance serves one run."""

    async def open(self) -> None:
        """Begin to answer the other members."""

    async def gather(
        self, group: Group, mine: SharedBuffer, *, deadline_s: float, stall_s: float
    ) -> Mapping[bytes, SharedBuffer]:
        """Every member's offer by public key, mine included. Raises RoundFailed naming whose offers could not be had.

        deadline_s: monotonic time at which to give up; stall_s: give up on a source that sends nothing for so long.
        The offers stay valid until `release`.
        """

    def release(self) -> None:
        """Free the offers of the last group, except my own."""

    async def close(self) -> None:
        """Stop answering."""


class Pace:
    """Measured exchange speed, and the deadline that follows from it (pure)."""

    def __init__(self) -> None:
        self._bytes_per_s: float | None = None

    def observe(self, total_bytes: int, seconds: float) -> None:
        """An exchange of `total_bytes` took `seconds`; slower ones weigh more than faster ones."""
        speed = total_bytes / max(seconds, 1e-3)
        if self._bytes_per_s is None:
            self._bytes_per_s = speed
        else:
            weight = 0.5 if speed < self._bytes_per_s else 0.1
            self._bytes_per_s += weight * (speed - self._bytes_per_s)

    def exchange_s(self, total_bytes: int, grace_s: float) -> float:
        """How long an exchange of `total_bytes` may take: four times what it should, plus the silence allowed.

        Never longer than the slowest admitted link takes, so that a peer that drips cannot stretch it round by round.
        """
        longest_s = total_bytes / LINK_BYTES_PER_S_MIN
        expected_s = longest_s if self._bytes_per_s is None else 4.0 * total_bytes / self._bytes_per_s
        return grace_s + min(expected_s, longest_s)


class AllGather:
    """Exchange by all-gather over p2pd streams: each member pulls each offer whole from its owner."""

    def __init__(self, network: Network, run_id: bytes, offer_bytes: int) -> None:
        self._network = network
        self._protocol = f"/ubcp/exchange/1/{run_id.hex()[:32]}"
        self._offer_bytes = offer_bytes
        self._group: Group | None = None
        self._offers: dict[bytes, SharedBuffer] = {}
        self._mine: SharedBuffer | None = None
        self._changed = asyncio.Event()

    async def open(self) -> None:
        await self._network.handle(self._protocol, self._serve)

    async def close(self) -> None:
        await self._network.unhandle(self._protocol)
        self.release()

    def release(self) -> None:
        for buffer in self._offers.values():
            if buffer is not self._mine:
                buffer.close()
        self._offers, self._group, self._mine = {}, None, None

    async def gather(
        self, group: Group, mine: SharedBuffer, *, deadline_s: float, stall_s: float
    ) -> Mapping[bytes, SharedBuffer]:
        self.release()
        me = self._network.public
        self._group, self._mine, self._offers = group, mine, {me: mine}
        self._changed.set()
        self._changed = asyncio.Event()
        others = [seat for seat in group.members if seat.peer != me]
        tasks = {
            seat.peer: asyncio.create_task(self._fetch(group, seat.peer, seat.offer, deadline_s, stall_s))
            for seat in others
        }
        try:
            if tasks:
                await asyncio.wait(tasks.values(), timeout=max(0.0, deadline_s - time.monotonic()))
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        for task in tasks.values():
            error = None if task.cancelled() else task.exception()
            if isinstance(error, OSError | MemoryError):  # ours, not the owner's: nobody is to be struck for it
                raise LocalIOError(f"no memory or descriptors for the others' offers: {error}") from error
        missing = tuple(sorted(set(group.peers) - set(self._offers)))
        if missing:
            names = ", ".join(short(peer) for peer in missing)
            raise RoundFailed(f"the offer of {names} did not arrive", missing)
        return dict(self._offers)

    async def _fetch(self, group: Group, owner: bytes, offer_hash: bytes, deadline_s: float, stall_s: float) -> None:
        relays = [peer for peer in group.peers if peer not in (owner, self._network.public)]
        random.shuffle(relays)
        for source in (owner, *relays):
            # A source that drips gets half of what is left, so that there is time to ask those who have the offer.
            share_s = (deadline_s - time.monotonic()) / (2 if relays and source != relays[-1] else 1)
            buffer = SharedBuffer.create(self._offer_bytes)
            try:
                async with asyncio.timeout(share_s):
                    await self._pull(group, source, owner, offer_hash, buffer, stall_s)
            except (TimeoutError, NetworkError, MalformedMessage) as error:
                buffer.close()
                log.info("offer of %s not had from %s: %s", short(owner), short(source), error)
                continue
            except BaseException:
                buffer.close()
                raise
            self._offers[owner] = buffer
            return

    async def _pull(
        self, group: Group, source: bytes, owner: bytes, offer_hash: bytes, buffer: SharedBuffer, stall_s: float
    ) -> None:
        async with self._network.open(source, self._protocol, timeout_s=stall_s) as stream:
            await stream.send([group.digest, owner], timeout_s=stall_s)
            (status,) = fields(await stream.receive(timeout_s=stall_s), 1)
            if status != HAVE:
                raise Unreachable("it does not have it")
            hasher = hashlib.sha256(OFFER_DOMAIN)
            with buffer.view as view:
                await stream.receive_block(view, stall_s=stall_s, on_data=hasher.update)
            if hasher.digest() != offer_hash:
                raise MalformedMessage("the bytes do not match the owner's signed hash")

    async def _serve(self, stream: Stream) -> None:
        digest, owner = (hash_of(value) for value in fields(await stream.receive(timeout_s=5.0), 2))
        if self._group is None or self._group.digest != digest:
            # The requester may have heard of the group a moment before us.
            try:
                await asyncio.wait_for(self._changed.wait(), 1.0)
            except TimeoutError:
                pass
        group, offer = self._group, self._offers.get(owner)
        if group is None or group.digest != digest or stream.peer not in group.peers or offer is None:
            await stream.send([HAVE_NOT], timeout_s=5.0)
            return
        await stream.send([HAVE], timeout_s=5.0)
        with offer.view as view:
            await stream.send_block(view, stall_s=10.0)
