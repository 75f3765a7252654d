"""SIGSTOP: a daemon that stands still for 20 s, and a p2pd and a trainer that hang."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.faults.test_kill import DEADLINE_S
from tests.support.swarm import STEP_S, Swarm, assert_agreed, together

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.mark.parametrize(
    ("place", "still_s"),
    [pytest.param(place, 20, marks=pytest.mark.full) for place in ("exchange", "vote")],
)
def test_a_daemon_that_stands_still_resyncs(
    swarm: Swarm, place: str, still_s: int, figure: Callable[[str], None]
) -> None:
    a, b, c = swarm.of("abc")
    marks = swarm.marks()
    c.call("fail_at", kind=place, round=0, target="node", signal=int(signal.SIGSTOP))
    assert os.waitid(os.P_PID, c.pid, os.WSTOPPED | os.WNOWAIT) is not None
    here = swarm.marks()
    first = [p.wait("committed", DEADLINE_S, after=here[p.name]) for p in (a, b)]
    stopped_s = min(e["time"] for e in first)
    later = [
        p.wait("committed", STEP_S, after=here[p.name], where=lambda e: e["time"] > stopped_s + still_s) for p in (a, b)
    ]
    assert all(c.public.hex() not in event["members"] for event in later)
    os.kill(c.pid, signal.SIGCONT)
    whole = together([a, b, c], after=swarm.marks())
    figure(f"in again {whole['time'] - max(e['time'] for e in later):.1f} s after SIGCONT")
    c.wait("adopted", after=marks["c"])
    assert_agreed([a, b], marks)


@pytest.mark.parametrize("target", [pytest.param(t, marks=pytest.mark.full) for t in ("p2pd", "trainer")])
def test_a_child_that_hangs_does_not_hold_up_the_others(swarm: Swarm, target: str) -> None:
    a, b, c = swarm.of("abc")
    marks = swarm.marks()
    c.call("fail_at", kind="exchange", round=0, target=target, signal=int(signal.SIGSTOP))
    fault = c.wait("fault", after=marks["c"])
    here = swarm.marks()
    for peer in (a, b):
        peer.wait("committed", DEADLINE_S, after=here[peer.name])
    with suppress(ProcessLookupError):  # a p2pd that does not answer is killed and replaced by its node
        os.kill(fault["pid"], signal.SIGCONT)
    together([a, b, c], after=swarm.marks())
    assert_agreed([a, b], marks)
