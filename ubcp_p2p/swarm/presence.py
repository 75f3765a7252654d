"""This peer's presence in a run: its heartbeats, whom it hears and meets, and whom it so counts as there."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ubcp_p2p.codec import MalformedMessage
from ubcp_p2p.errors import NetworkError
from ubcp_p2p.swarm import directory
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.events import Event, Observer, RunSettings
from ubcp_p2p.swarm.membership import BEAT_S, Beat, Phase, View
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.quorum import Certificate
from ubcp_p2p.swarm.states import States

log = logging.getLogger(__name__)

MEET_EVERY_S = 15.0
DIALS_MAX = 16
GUEST_S = 1.5  # less than the patience of the others, who wait for the host
HOST_EVERY_S = 8.0


class Presence:
    """Where this peer is (round, state, phase), told to the others every BEAT_S and at each change; who they are."""

    def __init__(
        self, network: Network, settings: RunSettings, observe: Observer, states: States, round_: int, base_hash: bytes
    ) -> None:
        self.settings = settings
        self.round = round_
        self.base_hash = base_hash
        self.phase = Phase.JOINING
        self.certificate: Certificate | None = None
        self.step = 0
        self.view = View(settings.run_id, network.public, settings.admission.to_group)
        self._network = network
        self._observe = observe
        self._states = states
        self._train_s = 0.0
        self._waiting_since_s: float | None = None
        self._hosts_again_s = 0.0
        self._sequence = int(time.time() * 1000)
        self._heard = asyncio.Event()
        self._topic = f"ubcp/run/1/{settings.run_id.hex()}"
        self._background: list[asyncio.Task[None]] = []

    async def appear(self) -> None:
        """Begin to beat, to listen and to look for members in the DHT."""
        await self._network.subscribe(self._topic, self._on_beat)
        self._background = [asyncio.create_task(self._keep_beating()), asyncio.create_task(self._keep_meeting())]

    async def disappear(self) -> None:
        """Announce the leave and fall silent."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self.phase = Phase.LEAVING
        with suppress(NetworkError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._beat()
        self._network.unsubscribe(self._topic)

    # -- who is there -------------------------------------------------------------------------------------------

    def peers(self) -> list[bytes]:
        """The other peers of the run that are there now (public keys), near or far."""
        return self.view.alive(time.monotonic(), self._network.connected)

    def _companions(self) -> list[bytes]:
        return self.view.companions(time.monotonic(), self._network.connected, self.round, self.base_hash)

    def _coming(self) -> list[bytes]:
        if self.certificate is None:
            return []
        before = self.certificate.group.base_hash
        return self.view.coming(time.monotonic(), self._network.connected, self.round, before)

    def _strangers(self) -> list[bytes]:
        coming = self._coming()
        strangers = self.view.strangers(time.monotonic(), self._network.connected, self.round, self.base_hash)
        return [peer for peer in strangers if peer not in coming]

    def _gone(self, peers: Sequence[bytes]) -> set[bytes]:
        return set(peers) - set(self.peers()) - {self._network.public}

    async def _wait_for_guests(self) -> None:
        """Let a peer that has just taken this very state from here come along.

        In a run of fast rounds it would else be one round late for ever. Bounded, also against those who only take.
        """
        since_s = time.monotonic()
        if since_s < self._hosts_again_s:
            return
        while guests := [peer for peer, guest in self._states.guests.items() if self._is_awaited(peer, *guest)]:
            if time.monotonic() - since_s > GUEST_S:
                log.info("%s took our state and did not come", ", ".join(short(peer) for peer in guests))
                break
            self._hosts_again_s = since_s + HOST_EVERY_S
            await self._wait_heard(0.1)

    def _is_awaited(self, peer: bytes, state_hash: bytes, taken_s: float) -> bool:
        member = self.view.members.get(peer)
        here = member is not None and member.beat.base_hash == self.base_hash
        struck = peer in self.view.struck(time.monotonic())
        out = self.settings.admission.to_group(peer)  # it may have the state, and has no place in a group
        new = state_hash == self.base_hash and time.monotonic() - taken_s < GUEST_S
        return new and not here and not struck and not out

    def _grace_s(self) -> float:
        """The longest silence that a live companion is allowed: the unit of every deadline here."""
        return max((self.view.members[p].silence_allowed_s() for p in self.peers()), default=2.0)

    def _say(self, kind: str, **data: Any) -> None:
        self._observe(Event(kind, self.round, data))

    # -- heartbeats ---------------------------------------------------------------------------------------------

    async def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._waiting_since_s = None
        with suppress(NetworkError):
            await self._beat()

    async def _beat(self) -> None:
        self._sequence = max(self._sequence + 1, int(time.time() * 1000))
        beat = Beat(
            self.settings.run_id, self._sequence, self.round, self.phase, self.base_hash, self.step,
            int(self._train_s * 1000),
        )  # fmt: skip
        await self._network.publish(self._topic, beat.to_bytes())

    async def _keep_beating(self) -> None:
        due_s = time.monotonic()
        while True:
            with suppress(NetworkError):
                await self._beat()
            due_s += BEAT_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            late_s = time.monotonic() - due_s
            if late_s > 2 * BEAT_S:
                # We were stopped (SIGSTOP, a sleeping laptop): the others' silence is our own deafness.
                for member in self.view.members.values():
                    member.heard_s += late_s
                due_s = time.monotonic()
            self.view.drop_silent(time.monotonic())

    def _on_beat(self, peer: bytes, payload: bytes) -> None:
        try:
            beat = Beat.from_bytes(payload)
        except MalformedMessage as error:
            log.debug("a malformed heartbeat from %s: %s", short(peer), error)
            return
        if self.view.hear(peer, beat, time.monotonic(), connected=peer in self._network.connected):
            self._heard.set()

    async def _wait_heard(self, timeout_s: float) -> None:
        self._heard.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):  # Python 3.11's wait_for can lose a cancel
                await self._heard.wait()

    async def _keep_meeting(self) -> None:
        """Look for members in the DHT: often while few are known, seldom later."""
        while True:
            await self._meet()
            await asyncio.sleep(MEET_EVERY_S if self.peers() else 1.0)

    async def _meet(self) -> None:
        """Connect to peers that claim in the DHT to be in this run."""
        try:
            entries = await directory.lookup(self._network, self.settings.name)
        except NetworkError:
            return
        strangers = {author for author, entry in entries if entry.run_id == self.settings.run_id}
        strangers |= {peer for peer, member in self.view.members.items() if not member.was_connected}
        strangers -= {*self._network.connected, self._network.public}
        strangers = {peer for peer in strangers if not self.settings.admission.to_group(peer)}
        # Asking dials them, by the DHT's routing. A few at a time: anybody can make up many names.
        await self._states.standings(sorted(strangers, key=lambda _: random.random())[:DIALS_MAX])
