"""How a run member moves to where the others stand: real standings and downloads, a trainer that only keeps bytes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.swarm.made import KEYS, RUN, Wires, certificate, digest
from ubcp_p2p.buffers import SharedBuffer
from ubcp_p2p.keys import NodeKey
from ubcp_p2p.swarm.membership import Beat, Phase
from ubcp_p2p.swarm.quorum import Certificate
from ubcp_p2p.swarm.run import ABSENCES_MAX, Event, RunMember, RunSettings
from ubcp_p2p.swarm.states import STATE_DOMAIN, States

SIZE = 256
A, B, C, D, E = KEYS[:5]


@dataclass(frozen=True)
class Ready:
    round: int
    state_hash: bytes
    state_bytes: int = SIZE
    offer_bytes: int = SIZE // 2


def state(round_: int, branch: str = "") -> tuple[bytes, bytes]:
    """(bytes, hash) of a state."""
    data = hashlib.shake_256(f"{round_ if round_ else 0} {branch}".encode()).digest(SIZE)
    return data, hashlib.sha256(STATE_DOMAIN + RUN + round_.to_bytes(8, "big") + data).digest()


def certified(round_: int, by: Iterable[NodeKey], branch: str = "", base: str = "") -> Certificate:
    signers = list(by)
    before = state(round_ - 1, base or branch if round_ > 1 else "")[1]
    return certificate(signers, signers, round_=round_ - 1, base=before, state=state(round_, branch)[1])


class Keeper:
    """A trainer that keeps a state and notes what it is told."""

    def __init__(self, round_: int, branch: str = "") -> None:
        data, name = state(round_, branch)
        self.ready = Ready(round_, name)
        self.state = SharedBuffer.create(SIZE)
        with self.state.view as view:
            view[:] = data
        self.told: list[str] = []

    async def load(self, round: int, buffer: SharedBuffer, expected_hash: bytes) -> bytes:
        self.told.append(f"load {round}")
        return expected_hash

    async def commit(self) -> None:
        self.told.append("commit")

    async def discard(self) -> None:
        self.told.append("discard")


class Swarm:
    """A is a RunMember; the others serve a standing and beat."""

    def __init__(self, round_: int, mine: Certificate | None, branch: str = "") -> None:
        self.wires = Wires()
        network: Any = self.wires.node(A)
        network.connected = frozenset()
        self.events: list[Event] = []
        self.trainer = Keeper(round_, branch)
        settings = RunSettings("run", RUN, "recipe", digest("recipe"), rounds=50, peers_max=8, weight_max=64)
        trainer: Any = self.trainer
        self.member = RunMember(network, trainer, settings, self.events.append)
        self.member.certificate = mine
        self.served: list[Keeper] = [self.trainer]

    async def peer(
        self, who: NodeKey, round_: int, proof: Certificate | None, branch: str = "", phase: Phase = Phase.READY,
        serves: str | None = None,
    ) -> None:  # fmt: skip
        states = States(self.wires.node(who), RUN, SIZE, 50, 8)
        keeper = Keeper(round_, branch if serves is None else serves)
        self.served.append(keeper)
        states.publish(keeper.state, state(round_, branch)[1], proof)
        await states.open()
        beat = Beat(RUN, 1, round_, phase, state(round_, branch)[1], 0, 0)
        self.member.view.hear(who.public, beat, time.monotonic(), connected=True)

    async def catch_up(self) -> bool:
        try:
            return await self.member._catch_up()
        finally:
            for keeper in self.served:
                keeper.state.close()

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@pytest.mark.asyncio
async def test_who_missed_the_end_downloads_what_the_others_committed() -> None:
    swarm = Swarm(3, certified(3, [A, B, C]))
    for who in (B, C):
        await swarm.peer(who, 4, certified(4, [A, B, C]))
    assert await swarm.catch_up()
    assert (swarm.member.round, swarm.member.base_hash) == (4, state(4)[1])
    assert swarm.trainer.told == ["load 4"]
    assert swarm.kinds == ["adopted"]


@pytest.mark.asyncio
async def test_whose_own_result_it_is_commits_it_without_a_download() -> None:
    swarm = Swarm(3, certified(3, [A, B, C]))
    swarm.member._candidate_hash = state(4)[1]
    await swarm.peer(B, 4, certified(4, [A, B, C]))
    assert await swarm.catch_up()
    assert swarm.trainer.told == ["commit"]


@pytest.mark.asyncio
async def test_a_far_round_on_my_own_result_is_not_committed() -> None:
    """B alone certifies A's candidate as the state of round 50: neither its certificate nor its bytes are taken."""
    swarm = Swarm(3, certified(3, [A, B]))
    swarm.member._candidate_hash = state(4)[1]
    forged = certificate([B], [B], round_=49, base=digest("any"), state=state(4)[1])
    await swarm.peer(B, 4, forged)
    assert not await swarm.catch_up()
    assert swarm.member.round == 3
    assert "commit" not in swarm.trainer.told


@pytest.mark.asyncio
async def test_newcomers_that_came_at_once_do_not_outvote_the_one_who_trained() -> None:
    swarm = Swarm(0, None)
    await swarm.peer(B, 40, certified(40, [B]))
    for who in (C, D, E):
        await swarm.peer(who, 0, None, phase=Phase.JOINING)
    assert await swarm.catch_up()
    assert swarm.member.round == 40


@pytest.mark.asyncio
async def test_those_who_wait_for_their_first_round_are_not_moved_by_one_certificate() -> None:
    swarm = Swarm(0, None)
    await swarm.peer(B, 40, certified(40, [B], "evil"), "evil")
    await swarm.peer(C, 0, None)
    await swarm.peer(D, 0, None, phase=Phase.TRAINING)
    assert not await swarm.catch_up()
    assert swarm.member.round == 0


@pytest.mark.asyncio
async def test_after_a_restart_the_companion_of_the_checkpoint_is_known() -> None:
    """Two peers; A resumes from its checkpoint while B went on alone: A follows, or the run would split for ever."""
    swarm = Swarm(3, certified(3, [A, B]))
    await swarm.peer(B, 9, certified(9, [B]))
    assert await swarm.catch_up()
    assert swarm.member.round == 9


@pytest.mark.asyncio
async def test_a_poisoned_state_is_refused_and_its_server_not_asked_for_it_again() -> None:
    swarm = Swarm(3, certified(3, [A, B, C]))
    await swarm.peer(B, 4, certified(4, [A, B, C]), serves="poison")
    assert not await swarm.catch_up()
    assert swarm.member.round == 3
    assert swarm.trainer.told == []
    assert swarm.kinds == ["bad state"]
    assert swarm.member.view.struck(time.monotonic()) == {B.public}


@pytest.mark.asyncio
async def test_the_state_comes_from_another_backer_when_one_lies() -> None:
    swarm = Swarm(3, certified(3, [A, B, C]))
    await swarm.peer(B, 4, certified(4, [A, B, C]), serves="poison")
    await swarm.peer(C, 4, certified(4, [A, B, C]))
    assert await swarm.catch_up()
    assert swarm.member.round == 4


@pytest.mark.asyncio
async def test_nobody_there_means_stay() -> None:
    assert not await Swarm(3, certified(3, [A, B])).catch_up()


@pytest.mark.asyncio
@pytest.mark.parametrize("leader", [None, C.public])
async def test_only_who_led_a_group_holds_an_absence_against_a_peer(leader: bytes | None) -> None:
    """Another leader may have kept out a peer that did come."""
    swarm = Swarm(3, certified(3, [A, B, C]))
    swarm.member.round, swarm.member.base_hash = 3, state(3)[1]
    matchmaker: Any = SimpleNamespace(leader=leader)
    swarm.member._matchmaker = matchmaker
    await swarm.peer(B, 3, certified(3, [A, B, C]))
    for _ in range(ABSENCES_MAX):
        assert swarm.member.view.struck(time.monotonic()) == set()
        swarm.member._note_left_out([B.public])
    assert swarm.member.view.struck(time.monotonic()) == ({B.public} if leader is None else set())
    for keeper in swarm.served:
        keeper.state.close()
