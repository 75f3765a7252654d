"""Two members fund one run by requests of their own: each round is paid by one of them, as its certificate says.

Real daemons; the paymasters never speak of it. One contributor is honest, one bills each round to both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_promise import RECIPE, SERVING
from tests.support.live import all_know, charter_file, open_chains, short_slices, submission, ubcp
from tests.support.processes import until
from tests.support.swarm import STEP_S, Peer, Swarm
from ubcp_p2p.codec import decode
from ubcp_p2p.files import read_limited
from ubcp_p2p.peer.paying.shelf import PROMISE_BYTES_MAX
from ubcp_p2p.peer.paying.wire import Promise

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(300)]
SLICE_S = 8
SLICES = 8
ENOUGH = 8  # rounds that each of the two has paid for


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    with Swarm(bootstrap=False, faulty=False) as made:
        yield made


def paid_rounds(peer: Peer) -> list[int]:
    """How many rounds each voucher of the node is over."""
    files = sorted(peer.profile.paying.glob("*.voucher"))
    read = (read_limited(path, bytes_max=PROMISE_BYTES_MAX) for path in files)
    return [Promise.of(decode(data, bytes_max=PROMISE_BYTES_MAX)).voucher.rounds for data in read]


def is_paid_by_both(peer: Peer) -> bool:
    found = paid_rounds(peer)
    return len(found) == 2 and min(found) >= ENOUGH


def test_a_round_is_paid_by_one_of_two_payers(swarm: Swarm, tmp_path: Path) -> None:
    world = short_slices(59, SLICE_S, grace_slices=1)
    more = charter_file(swarm.home, world)
    first = swarm.add("first", more=more).start()
    second = swarm.add("second", more=more).start(first.own())
    b, cheat = (swarm.add(name, more=more + SERVING) for name in ("b", "cheat"))
    cheat.program = "tests.support.double_billing_node"
    peers = (first, second, b, cheat)
    for peer in (b, cheat):
        peer.start(first.own())
    for peer in peers:
        open_chains(peer, world)
    all_know(peers, world)
    ask = submission(RECIPE, tmp_path, "plays", SLICES * SLICE_S)
    for payer in (first, second):
        done = ubcp(payer, *ask, "--peers-max", "3")
        assert done.code == 0, done.err

    until(lambda: is_paid_by_both(b) and is_paid_by_both(cheat), SLICES * SLICE_S, "both are paid by both")
    for peer in (b, cheat):
        billed = paid_rounds(peer)
        assert sum(billed) <= peer.run("plays")["round"], billed
    until(
        lambda: any("names another payer" in row["words"] for row in cheat.status()["earning"]),
        STEP_S, "the second bill for a round is refused in words",
    )  # fmt: skip
    assert not any("another payer" in row["words"] for row in b.status()["earning"])
