"""Four peers of which each pair meets alone, once: nobody makes that round in two, and all four make it together."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.swarm import Swarm, assert_agreed, tiny, together

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PAIRS = ("ab", "cd")
LEAD = 12  # rounds until it happens: all hear of it before


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    with Swarm("abcd") as made:
        yield made


def test_two_halves_wait_for_each_other(swarm: Swarm) -> None:
    everybody = swarm.of("abcd")
    for peer in everybody:
        peer.train(tiny(100_000, local_steps=50), peers_min=2)
    round_ = together(everybody)["round"] + LEAD
    for pair in PAIRS:
        keys = [peer.public.hex() for peer in swarm.of(pair)]
        for peer in swarm.of(pair):
            peer.call("behave", modes={"apart": {str(round_): keys}})
    marks = swarm.marks()
    for peer in everybody:
        peer.wait("apart", after=marks[peer.name])
        peer.wait("committed", after=marks[peer.name], where=lambda event: event["round"] > round_ + 2)
    assert_agreed(everybody, marks)
    event = next(event for event in everybody[0].committed(marks["a"]) if event["round"] == round_ + 1)
    assert event["attempts"] > 1
    assert len(event["members"]) > 2
    reasons = [e["reason"] for peer in everybody for e in peer.events[marks[peer.name] :] if e["kind"] == "retry"]
    assert any("could make a group too" in reason for reason in reasons), reasons
