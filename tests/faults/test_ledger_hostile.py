"""Peers that send junk to a ledger are ignored for a while, and the others go on undisturbed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.support.live import agreed, charter_file, hand_in, ledger_of
from tests.support.processes import until
from tests.support.swarm import STEP_S, Peer, Swarm
from ubcp_p2p.ledger.world import World
from ubcp_p2p.swarm.addresses import short

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

GOSSIPED = ("garbage", "oversize", "forged", "flood")
ASKED = ("questions", "long question", "broken frame")
ANSWERED = ("4 GB", "another kind", "endless", "not asked for", "forged answers")
QUICK = ("garbage", "4 GB", "broken frame")  # what `make test` runs: one of each


class Town:
    """Two honest nodes, and as many others as there are cases."""

    def __init__(self, swarm: Swarm) -> None:
        self.world = World(21)
        self._more = charter_file(swarm.home, self.world)
        self._swarm = swarm
        self.a = swarm.add("a", more=self._more).start()
        self.b = swarm.add("b", more=self._more).start(self.a.own())
        self.written = 0

    def stranger(self, name: str) -> Peer:
        """A node that is connected to both."""
        peer = self._swarm.add(name, more=self._more).start([*self.a.own(), *self.b.own()])
        until(lambda: peer.status()["connected"] >= 2, STEP_S, "it is connected to both")
        return peer

    def goes_on(self) -> float:
        """A new entry at a is soon at b; returns the seconds."""
        start_s = time.monotonic()
        self.written += 1
        self.world.account(f"person {self.written}")
        hand_in(self.a, self.world.entries[-2:])
        agreed([self.a, self.b], self.world, timeout_s=20.0)
        return time.monotonic() - start_s


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with Swarm(bootstrap=False) as swarm:
        yield Town(swarm)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(how, marks=() if how in QUICK else pytest.mark.full, id=how)
        for how in (*GOSSIPED, *ASKED, *ANSWERED)
    ],
)
def test_who_sends_junk_is_ignored(town: Town, how: str, figure: Callable[[str], None]) -> None:
    liar = town.stranger(how.replace(" ", "-"))
    town.goes_on()
    name = short(liar.public)

    def ignored() -> bool:
        return all(name in [ban["peer"] for ban in ledger_of(peer)["banned"]] for peer in (town.a, town.b))

    for _ in range(10):  # gossip of somebody who has just come may be lost
        assert liar.call("ledger-assault", how=how, timeout_s=60.0)["sent"] > 0
        with suppress(AssertionError):
            until(ignored, 3.0, "it is ignored")
            break
    until(ignored, STEP_S, "it is ignored")
    figure(f"a new entry took {town.goes_on():.2f} s meanwhile")
    honest = {short(town.a.public), short(town.b.public)}
    for peer in (town.a, town.b):
        assert not honest & {ban["peer"] for ban in ledger_of(peer)["banned"]}
        assert peer.status()["p2pd_restarts"] == 0
    liar.close()


def test_streams_that_hang_keep_nobody_out(town: Town) -> None:
    liar = town.stranger("hang")
    liar.call("ledger-assault", how="hang", timeout_s=60.0)
    assert town.goes_on() < 20.0
    late = town.stranger("late")
    agreed([late], town.world)
    liar.close()
