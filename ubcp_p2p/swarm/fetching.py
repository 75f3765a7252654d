"""Fetches the newest state of a run for somebody who takes no part in it: whom to believe, whom to ask, when again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.codec import MalformedMessage
from ubcp_p2p.errors import NetworkError
from ubcp_p2p.swarm.addresses import short
from ubcp_p2p.swarm.events import Event, Observer
from ubcp_p2p.swarm.exchange import Pace
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.quorum import Certificate, Place, Standing, choose
from ubcp_p2p.swarm.states import COPY, States

log = logging.getLogger(__name__)

PEERS_MAX: Final = 64  # that are asked where they stand: claims in the DHT cost nothing
TRIES: Final = 6  # a group that goes on while it is asked no longer serves what it stood on
MUTE_TRIES: Final = 3  # in which nobody answers
AGAIN_S: Final = 1.0  # as long as States leaves a peer alone that did not answer
STALL_S: Final = 10.0
STEPS: Final = 100  # of the progress that is told
NOWHERE: Final = Standing(bytes(32), None)


@dataclass(frozen=True)
class Wanted:
    """What the states of a run are like, by its recipe."""

    run_id: bytes
    state_bytes: int
    rounds: int
    peers_max: int


@dataclass(frozen=True)
class Copy:
    """A state whose bytes match its certificate, and the peer that gave it. The holder closes `state`."""

    certificate: Certificate
    state: SharedBuffer
    peer: bytes


class NobodyThere(NetworkError):
    """No peer of the run could be asked, or none stands on a committed round."""


async def fetch(
    network: Network, wanted: Wanted, peers: Iterable[bytes], observe: Observer, *, kept: Place | None = None
) -> Copy | None:
    """The state that most of `peers` stand on, by the rules of those who train (quorum.choose). None: it is `kept`.

    A peer that serves other bytes than its group has signed is asked no more, and has no voice. Raises NobodyThere;
    NetworkError when nobody gave the state.
    """
    states = States(network, wanted.run_id, wanted.state_bytes, wanted.rounds, wanted.peers_max)
    asked = list(dict.fromkeys(peer for peer in peers if peer != network.public))
    asked.sort(key=lambda peer: (peer not in network.connected, random.random()))
    lied: set[bytes] = set()
    trouble: NetworkError = NobodyThere("no peer of the run answers")
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(AGAIN_S)
        honest = [peer for peer in asked if peer not in lied][:PEERS_MAX]
        if not honest:
            break
        observe(Event("asking", 0, {"peers": len(honest)}))
        standings = await states.standings(honest)
        newest = choose(NOWHERE, standings, me=network.public, known=frozenset(), seats=wanted.peers_max)
        if newest is None:
            if standings:
                trouble = NobodyThere("its peers have not committed a round yet")
            elif attempt + 1 >= MUTE_TRIES:
                break
            continue
        if newest.place == kept:
            return None
        backers = [peer for peer, standing in standings.items() if standing.place == newest.place]
        for peer in random.sample(backers, len(backers)):
            try:
                return Copy(newest, await _download(states, wanted, newest, peer, observe), peer)
            except MalformedMessage as error:
                log.warning("%s served a bad state: %s", short(peer), error)
                lied.add(peer)
                words = error.message
            except NetworkError as error:
                words = error.message
            observe(Event("passed over", newest.round, {"peer": peer.hex(), "reason": words}))
            trouble = NetworkError(f"no peer gave the state of round {newest.round}; {short(peer)}: {words}")
    raise trouble


async def _download(
    states: States, wanted: Wanted, newest: Certificate, peer: bytes, observe: Observer
) -> SharedBuffer:
    """Raises MalformedMessage, NetworkError."""
    done, told = 0, -1

    def arrived(count: int) -> None:
        nonlocal done, told
        done += count
        step = done * STEPS // max(1, wanted.state_bytes)
        if step > told:
            told = step
            observe(Event("progress", newest.round, {"bytes": done, "of": wanted.state_bytes}))

    observe(Event("downloading", newest.round, {"peer": peer.hex(), "of": wanted.state_bytes}))
    total_s = Pace().exchange_s(wanted.state_bytes, STALL_S)
    return await states.download(
        peer, newest.round, newest.state_hash, stall_s=STALL_S, total_s=total_s, what=COPY, on_bytes=arrived
    )
