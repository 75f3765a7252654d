"""Members of a run that lie to the group: about the samples behind an offer, or about the state that it stands on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import ubcp_p2p.peer.runs as runs_module
from ubcp_p2p.codec import fields
from ubcp_p2p.swarm.frames import Stream
from ubcp_p2p.swarm.network import Network
from ubcp_p2p.swarm.quorum import Card
from ubcp_p2p.swarm.run import Observer, RunMember, RunSettings
from ubcp_p2p.swarm.states import CERTIFICATE, STATE, States
from ubcp_p2p.swarm.trainer import Trainer
from ubcp_p2p.training.process import TrainerProcess

WEIGHT: Final = 10**9  # samples in a round, where the recipe has some hundred
SLOW_S: Final = 1.6  # less than an asker's patience, and more than a round
FOLLOW_S: Final = 0.1


class Inflator(RunMember):
    """Signs cards that claim a billion samples, so that its offer would be the whole average."""

    async def _find_group(self, card: bytes, companions: Sequence[bytes]) -> list[bytes]:
        claimed = replace(Card.from_bytes(card), weight=WEIGHT).signed(self._network.key)
        return await super()._find_group(claimed.to_bytes(), companions)


class LyingStates(States):
    """Serves noise in place of the state that a certificate names.

    To a newcomer it names its certificate slowly: by then the honest have moved on, and it alone still has that state.
    """

    async def _serve(self, stream: Stream) -> None:
        what, _ = fields(await stream.receive(timeout_s=5.0), 2)
        standing = self._standing
        if standing is None or standing.certificate is None:
            await stream.send([0] if what == STATE else [bytes(32), b""], timeout_s=5.0)
        elif what == CERTIFICATE:
            if stream.peer not in standing.certificate.group.peers:
                await asyncio.sleep(SLOW_S)
            await stream.send([standing.state_hash, standing.certificate.to_bytes()], timeout_s=5.0)
        elif what == STATE:
            noise = os.urandom(self._state_bytes)
            await stream.send([len(noise)], timeout_s=5.0)
            await stream.send_block(memoryview(noise), stall_s=10.0)


class StateLiar(RunMember):
    """Follows the group's certificates, takes part in no round, and serves what is not the state."""

    def __init__(self, network: Network, trainer: Trainer, settings: RunSettings, observe: Observer) -> None:
        super().__init__(network, trainer, settings, observe)
        self._states.__class__ = LyingStates

    async def _one_round(self) -> None:
        await self._wait_heard(FOLLOW_S)
        await self._catch_up()

    async def _load_from(self, peer: bytes, round_: int, state_hash: bytes) -> bool:
        return True  # it needs no state to say that it has one


def play(kind: type[RunMember]) -> None:
    """Let the node's runs have members of this kind."""

    class Runs(runs_module.Runs):
        def member(self, settings: RunSettings, trainer: TrainerProcess, observe: Observer) -> RunMember:
            return kind(self._network, trainer, settings, observe)

    runs_module.Runs = Runs  # type: ignore[misc]  # the node takes it from there when it starts


__all__ = ["Inflator", "StateLiar", "play"]
