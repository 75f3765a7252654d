"""A peer that takes a seat in rounds in which it has none: the two that have them make the round without it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.swarm import Swarm, tiny
from ubcp_p2p.peer.seats import allocated

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(180)]

ROUNDS = 12


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    with Swarm("abc") as made:
        yield made


def test_a_seat_that_was_not_given(swarm: Swarm) -> None:
    a, b, greedy = swarm.of("abc")
    recipe = tiny(100_000, local_steps=10, peers_max=2)
    for peer in (a, b, greedy):
        peer.train(recipe, peers_min=2)
    for peer in (a, b, greedy):
        peer.wait("refused a seat")  # all three are there
    first = a.wait("committed", after=a.mark_now())["round"]
    greedy.call("behave", modes={"seat": "greedy"})
    keys = [peer.public for peer in (a, b, greedy)]
    without = [
        round_ for round_ in range(first + 1, first + 200) if greedy.public not in allocated(round_, keys, 2).seated
    ][:ROUNDS]
    # Round n has ended as round n + 1 begins: the event has the number of the next one.
    for peer in (a, b):
        peer.wait("committed", 60.0, where=lambda event: event["round"] > without[-1])
    groups = {event["round"] - 1: event["members"] for peer in (a, b) for event in peer.committed()}
    assert greedy.count("lied") > 0
    made = [groups[round_] for round_ in without if round_ in groups]
    assert len(made) >= ROUNDS // 2
    assert all(greedy.public.hex() not in members for members in made)
