"""A member that lies, at each place where it can: the honest two go on, agree in every round, and learn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.conftest import OPTIONS
from tests.faults.conftest import UNCHECKED as RECIPE
from tests.faults.test_kill import DEADLINE_S
from tests.support.swarm import STEP_S, Peer, Swarm, assert_agreed, run_id, until

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(180)]

CHANCE_LOSS = math.log(10)  # ten classes
ROUNDS = 8  # enough for each of three to lead at least once, nearly always
RUN_ID = run_id("run", RECIPE.hash())

# name → (modes, and what shows that the lie arrived: an event at an honest
# peer, words in its log, or, where all that shows is that nothing happens, that the lie was told)
LIES: dict[str, tuple[dict[str, Any], str]] = {
    "offers NaN": ({"offer": "nan"}, "event rejected"),
    "offers infinity": ({"offer": "inf"}, "event rejected"),
    "offers values that would wreck the model": ({"offer": "1e30"}, "event rejected"),
    "offers what would overflow": ({"offer": "3e38", "weight": 2**40}, "event rejected"),
    "offers one element": ({"offer_bytes": 4}, "an offer of 4 bytes where the model has"),
    "offers nothing": ({"offer_bytes": 0}, "an offer of 0 bytes where the model has"),
    "serves less than its card says": ({"serve": "short"}, "hung up after 4 of"),
    "serves its offer and stops": ({"serve": "stall"}, "event retry"),
    "serves its offer a byte a second": ({"serve": "drip"}, "event retry"),
    "serves garbage": ({"serve": "garbage"}, "frame of 4294967295 bytes"),
    "claims round 10⁶": ({"state": "far"}, "a certificate for round 1000000 of"),
    "stands on a state of its own": ({"state": "own"}, "told"),
    "stands on a state of NaN": ({"state": "own", "fill": "nan"}, "told"),
    "votes for another state": ({"vote": "other"}, "told"),
    "votes for another state at each": ({"vote": "two"}, "told"),
    "votes in the others' names": ({"vote": "forge"}, "told"),
    "says it is ready and never comes": ({"match": "absent"}, "told"),
    "leads each with another list": ({"leader": "split"}, "told"),
    "shows each another payer": ({"leader": "faces", "serve": "relay", "vote": "echo"}, "event two payers"),
}

QUICK = {  # what `make test` runs
    "offers NaN", "offers values that would wreck the model", "offers one element", "claims round 10⁶",
    "stands on a state of its own", "votes for another state at each",
}  # fmt: skip


def goes_on(swarm: Swarm, marks: dict[str, int], rounds: int = ROUNDS) -> float:
    """The honest two commit so many rounds more, each within the deadline and with one state; the longest gap in s."""
    gaps: list[float] = []
    for peer in swarm.of("ab"):
        before, place = time.time(), marks[peer.name]
        for _ in range(rounds):
            event = peer.wait("committed", DEADLINE_S, after=place)
            place = peer.events.index(event, place) + 1
            gaps.append(event["time"] - before)
            before = event["time"]
    return max(gaps)


def loss(peer: Peer) -> float:
    return float(peer.call("evaluate", timeout_s=STEP_S, run="run")["loss"])


@pytest.mark.parametrize("lie", [pytest.param(lie, marks=() if lie in QUICK else pytest.mark.full) for lie in LIES])
def test_a_lie(swarm: Swarm, lie: str, figure: Callable[[str], None]) -> None:
    a, b, liar = swarm.of("abc")
    modes, evidence = LIES[lie]
    marks = swarm.marks()
    liar.call("behave", modes=modes)
    longest_s = goes_on(swarm, marks)
    figure(f"longest round {longest_s:.1f} s, retries {[p.count('retry', marks[p.name]) for p in (a, b)]}")
    until(lambda: arrived(evidence, swarm, marks), DEADLINE_S, f"{evidence!r} was seen")
    goes_on(swarm, swarm.marks(), 2)
    assert_agreed([a, b], marks)
    for peer in (a, b):
        assert all(math.isfinite(e["loss"]) and e["loss"] < CHANCE_LOSS for e in peer.committed(marks[peer.name]))
        assert loss(peer) < 0.5 * CHANCE_LOSS
        assert peer.run()["error"] is None
        assert peer.count("mismatch", marks[peer.name]) == 0
        assert peer.run()["round"] < 10_000


def arrived(evidence: str, swarm: Swarm, marks: dict[str, int]) -> bool:
    """Whether the lie came to where it was to be refused."""
    if evidence == "told":
        return swarm["c"].count("lied", marks["c"]) > 0
    for peer in swarm.of("ab"):
        if evidence.startswith("event "):
            if peer.count(evidence.removeprefix("event "), marks[peer.name]):
                return True
        elif evidence in (peer.profile.log / "ubcp.log").read_text():
            return True
    return False


def test_a_poisoned_state_is_refused_and_had_from_another(swarm: Swarm) -> None:
    a, b, liar = swarm.of("abc")
    liar.call("behave", modes={"state": "poison"})
    late = swarm.add("late")
    try:
        late.start(swarm.seeds).call("behave", modes={"first": liar.public.hex()})
        marks = swarm.marks()
        late.train(RECIPE, **OPTIONS)
        bad = late.wait("bad state")
        assert bad["peer"] == liar.public.hex()
        assert "does not match" in bad["reason"]
        assert late.wait("adopted")["source"] != liar.public.hex()
        event = late.wait("committed")
        until(lambda: any(e["round"] > event["round"] for e in a.committed(marks["a"])), STEP_S, "a went on")
        assert_agreed([a, b, late], {**marks, "late": 0})
    finally:
        late.kill()
    assert late.left_behind() == []


@pytest.mark.parametrize("how", ["streams", "hang", "gossip"])
def test_bytes_that_no_peer_sends(swarm: Swarm, how: str, figure: Callable[[str], None]) -> None:
    a, b, liar = swarm.of("abc")
    marks = swarm.marks()
    restarts = [peer.status()["p2pd_restarts"] for peer in (a, b)]
    answer = liar.call("assault", run_id=RUN_ID.hex(), how=how, timeout_s=STEP_S)
    figure(f"{answer}, longest round {goes_on(swarm, marks):.1f} s")
    assert_agreed([a, b], marks)
    assert [peer.status()["p2pd_restarts"] for peer in (a, b)] == restarts
