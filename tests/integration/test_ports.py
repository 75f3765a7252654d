"""A node comes back at the address that it had, with a real p2pd; where the port is taken it still starts."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.support.processes import until
from tests.support.swarm import STEP_S, Peer, Swarm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Swarm(bootstrap=False, faulty=False) as swarm:
        yield swarm.add("a").start()


def test_a_restarted_node_has_the_same_address(peer: Peer) -> None:
    before = peer.own()
    assert before
    peer.stop()
    assert peer.start().own() == before
    peer.kill()
    assert peer.start().own() == before
    restarts = peer.status()["p2pd_restarts"]
    os.kill(peer.status()["p2pd_pid"], signal.SIGKILL)
    until(lambda: bool(peer.status()["p2pd_restarts"] > restarts), STEP_S, "p2pd was started again")
    assert peer.wait_up().own() == before


def test_with_its_port_taken_it_starts_at_another(peer: Peer) -> None:
    (before,) = peer.own()
    peer.stop()
    port = int(before.split("/")[4])
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        (now,) = peer.start().own()
    assert now != before
    assert f"port {port}, which this node had before, is taken" in (peer.profile.log / "ubcp.log").read_text()
    peer.stop()
    assert peer.start().own() == [now]  # the new one is the one to keep
