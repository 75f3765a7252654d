"""Seats in a run's group: the allocator's choice, which is the plain draw while nothing is verified."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.swarm.made import KEYS, RUN, Wires, digest
from tests.unit.swarm.test_catch_up import Keeper
from ubcp_p2p.allocator.problem import Reason
from ubcp_p2p.peer.seats import allocated
from ubcp_p2p.swarm.events import Event, RunSettings
from ubcp_p2p.swarm.run import RunMember
from ubcp_p2p.swarm.seating import ChooseSeats, drawn, lot

PEERS = [key.public for key in KEYS]
peers_of = st.lists(st.binary(min_size=32, max_size=32), max_size=12, unique=True)
rounds = st.integers(0, 2**32)


@pytest.mark.slow
@given(rounds, peers_of, st.integers(0, 8), st.randoms(use_true_random=False))
def test_while_nothing_is_verified_it_is_the_draw(
    round_: int, peers: list[bytes], seats: int, rng: random.Random
) -> None:
    before = drawn(round_, peers, seats)
    rng.shuffle(peers)  # members hear of each other in any order
    found = allocated(round_, peers, seats)
    assert found.seated == before.seated
    assert found.refused.keys() == before.refused.keys() == set(peers) - set(found.seated)
    assert all(found.refused.values())


@pytest.mark.slow
@given(rounds, peers_of, st.integers(0, 8), st.data())
def test_verified_work_comes_first_and_who_is_out_stays_out(
    round_: int, peers: list[bytes], seats: int, data: st.DataObject
) -> None:
    work = {peer: data.draw(st.integers(0, 3)) for peer in peers}
    out = {peer: Reason.FROZEN for peer in peers if data.draw(st.booleans())}
    found = allocated(round_, peers, seats, verified=work, standing=out)
    best = sorted((peer for peer in peers if peer not in out), key=lambda peer: (-work[peer], lot(round_, peer)))
    assert found.seated == tuple(best[:seats])
    for peer in out:
        assert "frozen" in found.refused[peer]


@pytest.mark.slow
@pytest.mark.parametrize("choose", [drawn, allocated])
def test_nobody_is_shut_out_for_ever(choose: ChooseSeats) -> None:
    waits = dict.fromkeys(PEERS[:5], 0)
    longest = 0
    for round_ in range(500):
        seated = choose(round_, PEERS[:5], 2).seated
        for peer in waits:
            waits[peer] = 0 if peer in seated else waits[peer] + 1
        longest = max(longest, *waits.values())
    assert longest <= 25  # of five for two seats: 0.6^25 is one in 350,000


def test_the_reason_is_in_words() -> None:
    alike = allocated(7, PEERS[:3], 2)
    (words,) = alike.refused.values()
    assert words.startswith("no seat in this round: 3 peers asked for 2; others of the same verified work drew lower")
    assert "number 1 of those without; it is decided anew in each round" in words
    earned = allocated(7, PEERS[:3], 2, verified={PEERS[0]: 9, PEERS[1]: 9})
    assert set(earned.seated) == {PEERS[0], PEERS[1]}
    assert "others have more verified work; yours would displace 900.0 % more" in earned.refused[PEERS[2]]


class Network:
    """A node of the test whose neighbours are given."""

    def __init__(self, connected: set[bytes]) -> None:
        self._node: Any = Wires().node(KEYS[0])
        self.connected = frozenset(connected)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)


def member(connected: set[bytes], seats: int, events: list[Event]) -> RunMember:
    settings = RunSettings(
        "run", RUN, "recipe", digest("recipe"), rounds=50, peers_max=seats, weight_max=64, seats=allocated
    )
    network: Any = Network(connected)
    trainer: Any = Keeper(0)
    return RunMember(network, trainer, settings, events.append)


@pytest.mark.asyncio
async def test_a_member_without_a_seat_is_told_once_a_round() -> None:
    events: list[Event] = []
    others = PEERS[1:4]
    this = member(set(others), 2, events)
    refused = []
    for this.round in range(20):
        chosen = [this._seats(others) for _ in range(3)]  # asked again and again until the round is over
        assert chosen[0] == chosen[1] == chosen[2] == list(allocated(this.round, PEERS[:4], 2).seated)
        if this._network.public not in chosen[0]:
            refused.append(this.round)
    assert 0 < len(refused) < 20
    assert [(event.kind, event.round) for event in events] == [("refused a seat", round_) for round_ in refused]
    assert all("4 peers asked for 2" in event.data["reason"] for event in events)
    this._trainer.state.close()


@pytest.mark.asyncio
async def test_names_that_are_only_heard_of_come_last() -> None:
    events: list[Event] = []
    this = member({PEERS[1]}, 3, events)
    for this.round in range(20):
        chosen = this._seats(PEERS[1:])
        assert set(chosen[:2]) == {PEERS[0], PEERS[1]}
        assert len(chosen) == 3
    assert events == []
    this._trainer.state.close()
