"""kill -9 of a node, of its p2pd and of its trainer at each phase of a round: the others go on, and nothing is left.

"One deadline" is what a member can wait for another at worst: a search for the group that nobody answers, then the
longest silence that a live peer is allowed, once in the exchange and once in the vote.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress

import pytest

from tests.faults.conftest import OPTIONS, RECIPE
from tests.support.processes import ended, memfds, until
from tests.support.swarm import GONE_S, STEP_S, Swarm, assert_agreed, together
from ubcp_p2p.errors import LocalIOError
from ubcp_p2p.swarm.matchmaking import ANSWER_S
from ubcp_p2p.swarm.membership import SILENCE_MAX_S
from ubcp_p2p.swarm.run import MATCH_S

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(180)]

DEADLINE_S = MATCH_S + ANSWER_S + 2 * SILENCE_MAX_S
PLACES = ["matchmaking", "exchange", "outer step", "vote", "checkpoint", "writing"]
TARGETS = ["node", "p2pd", "trainer"]
QUICK = {("node", "exchange"), ("p2pd", "vote"), ("trainer", "checkpoint")}  # what `make test` runs: each target
CASES = [
    pytest.param(target, place, marks=() if (target, place) in QUICK else pytest.mark.full)
    for target in TARGETS
    for place in PLACES
]
MEMFDS_MAX = 6  # state, candidate, and the offers of three


@pytest.mark.parametrize(("target", "place"), CASES)
def test_kill(swarm: Swarm, target: str, place: str, figure: Callable[[str], None]) -> None:
    a, b, c = swarm.of("abc")
    marks = swarm.marks()
    with suppress(LocalIOError) if target == "node" else nullcontext():  # it may be gone before it has answered
        c.call("fail_at", kind=place, round=0, target=target)
    if target == "node":
        assert c.process is not None
        assert c.process.wait(STEP_S) == -9
        killed_s = time.time()
    else:
        fault = c.wait("fault", after=marks["c"])
        assert fault["place"] == place
        killed_s = fault["time"]
        assert ended(fault["pid"], GONE_S)

    went_on = [
        p.wait("committed", DEADLINE_S, after=marks[p.name], where=lambda e: e["time"] > killed_s) for p in (a, b)
    ]
    figure(f"the others committed after {max(e['time'] for e in went_on) - killed_s:.2f} s")
    for peer in (a, b):  # and once more, surely without what the victim did before its end
        place_ = peer.mark_now()
        peer.wait("committed", DEADLINE_S, after=place_)

    if target == "node":
        assert c.left_behind() == []
        c.start(swarm.seeds)
    if target == "trainer":
        failed = c.wait("failed", after=marks["c"])
        assert "was killed (signal 9)" in failed["message"]
        assert failed["hint"]
    if target != "p2pd":
        c.train(RECIPE, **OPTIONS)
    else:
        assert c.status()["p2pd_restarts"] >= 1
    whole = together([a, b, c], after=swarm.marks())
    figure(f"whole again after {whole['time'] - killed_s:.1f} s")
    assert_agreed([a, b], marks)
    # A round that ends while another begins, and an opening, have more for a moment.
    until(lambda: all(memfds(peer.pid) <= MEMFDS_MAX for peer in (a, b, c)), STEP_S, "what was killed is let go")
