"""A member that lies, at each place where it can: the honest two go on, agree in every round, and learn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.conftest import OPTIONS, RECIPE
from tests.faults.test_kill import DEADLINE_S
from tests.support.swarm import STEP_S, Peer, Swarm, assert_agreed, run_id, together

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

CHANCE_LOSS = math.log(10)  # ten classes
ROUNDS = 8  # enough for each of three to lead at least once, nearly always
RUN_ID = run_id("run", RECIPE.hash())

LIES: dict[str, dict[str, Any]] = {
    "offers NaN": {"offer": "nan"},
    "offers infinity": {"offer": "inf"},
    "offers what would overflow": {"offer": "3e38", "weight": 2**40},
    "offers one element": {"offer_bytes": 4},
    "offers nothing": {"offer_bytes": 0},
    "serves less than its card says": {"serve": "short"},
    "serves its offer and stops": {"serve": "stall"},
    "serves its offer a byte a second": {"serve": "drip"},
    "serves garbage": {"serve": "garbage"},
    "claims round 10⁶": {"state": "far"},
    "stands on a state of its own": {"state": "own"},
    "stands on a state of NaN": {"state": "own", "fill": float("nan")},
    "votes for another state": {"vote": "other"},
    "votes for another state at each": {"vote": "two"},
    "votes in the others' names": {"vote": "forge"},
    "leads each with another list": {"leader": "split"},
}


def goes_on(swarm: Swarm, marks: dict[str, int], rounds: int = ROUNDS) -> float:
    """The honest two commit so many rounds more, each within the deadline and with one state; the longest gap in s."""
    gaps = []
    for peer in swarm.of("ab"):
        before, place = time.time(), marks[peer.name]
        for _ in range(rounds):
            event = peer.wait("committed", DEADLINE_S, after=place)
            place = peer.events.index(event, place) + 1
            gaps.append(event["time"] - before)
            before = event["time"]
    return max(gaps)


def loss(peer: Peer) -> float:
    return float(peer.call("evaluate", run="run", timeout_s=STEP_S)["loss"])


@pytest.mark.parametrize("lie", LIES)
def test_a_lie(honest: Swarm, intruder: Callable[[], Peer], lie: str, figure: Callable[[str], None]) -> None:
    liar = intruder()
    marks = honest.marks()
    liar.call("behave", modes=LIES[lie])
    longest_s = goes_on(honest, marks)
    a, b = honest.of("ab")
    retries = a.count("retry", marks["a"]), b.count("retry", marks["b"])
    figure(f"longest round {longest_s:.1f} s, retries {retries}")
    assert_agreed([a, b], marks)
    assert all(math.isfinite(e["loss"]) and e["loss"] < CHANCE_LOSS for p in (a, b) for e in p.committed(marks[p.name]))
    assert loss(a) < 0.5 * CHANCE_LOSS
    assert loss(b) < 0.5 * CHANCE_LOSS
    for peer in (a, b):
        assert peer.run()["error"] is None
        assert peer.count("mismatch", marks[peer.name]) == 0
        assert all(event["round"] < 10_000 for event in peer.events)


def test_a_poisoned_state_is_refused_and_had_from_another(honest: Swarm, intruder: Callable[[], Peer]) -> None:
    liar = intruder()
    liar.call("behave", modes={"state": "poison"})
    late = honest.add("late")
    try:
        late.start(honest.seeds).call("behave", modes={"first": liar.public.hex()})
        late.train(RECIPE, **OPTIONS)
        bad = late.wait("bad state")
        assert bad["peer"] == liar.public.hex()
        assert "does not match" in bad["reason"]
        adopted = late.wait("adopted")
        assert adopted["source"] != liar.public.hex()
        event = late.wait("committed")
        others = {e["state_hash"] for p in honest.of("ab") for e in p.committed() if e["round"] == event["round"]}
        assert others == {event["state_hash"]}
    finally:
        late.kill()
    assert late.left_behind() == []


@pytest.mark.parametrize("how", ["streams", "hang", "gossip"])
def test_bytes_that_no_peer_sends(
    honest: Swarm, intruder: Callable[[], Peer], how: str, figure: Callable[[str], None]
) -> None:
    liar = intruder()
    marks = honest.marks()
    answer = liar.call("assault", run_id=RUN_ID.hex(), how=how, timeout_s=STEP_S)
    figure(f"{answer}, longest round {goes_on(honest, marks):.1f} s")
    here = honest.marks()
    together([*honest.of("ab"), liar], after=here)  # the daemon that sent them is a member like before
    a, b = honest.of("ab")
    assert_agreed([a, b], marks)
    assert all(peer.status()["p2pd_restarts"] == 0 for peer in (a, b))
