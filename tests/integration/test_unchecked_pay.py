"""Work that nobody checks: refused without the payer's word, paid up to a share, and who has that hears why it ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_promise import RECIPE as PROMISED
from tests.integration.test_promise import SERVING, asked, earned
from tests.support.live import all_know, charter_file, ledger_of, open_chains, short_slices, submission, ubcp
from tests.support.processes import until
from tests.support.swarm import STEP_S, Swarm
from ubcp_p2p.models.recipe import ChecksConfig

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(300)]
SLICE_S = 20
SLICES = 6
SHARE = 3  # µcredits
RECIPE = PROMISED.model_copy(update={"checks": ChecksConfig(rate=0.0)})


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    with Swarm(bootstrap=False, faulty=False) as made:
        yield made


def test_unchecked_work_is_paid_up_to_a_share(swarm: Swarm, tmp_path: Path) -> None:
    world = short_slices(58, SLICE_S, grace_slices=1)
    more = charter_file(swarm.home, world)
    payer = swarm.add("payer", more=more).start()
    b, d = (swarm.add(name, more=more + SERVING).start(payer.own()) for name in ("b", "d"))
    peers = (payer, b, d)
    for peer in peers:
        open_chains(peer, world)
    all_know(peers, world)

    budget = f"0.00000{2 * SHARE}"
    ask = (*submission(RECIPE, tmp_path, "plays", SLICES * SLICE_S), "--peers-max", "2", "--budget", budget, "--part")
    refused = ubcp(payer, *ask)
    assert refused.code == 1 and "nobody checks" in refused.err and "--accept-unchecked" in refused.err
    assert ledger_of(payer)["entries"] == len(world.entries)  # nothing is reserved
    done = ubcp(payer, *ask, "--accept-unchecked")
    assert done.code == 0, done.err

    for peer in (b, d):
        until(lambda p=peer: any("capped" in row["words"] for row in p.status()["earning"]), STEP_S, "it is told why")  # type: ignore[misc]
        assert earned(peer) == SHARE
    until(lambda: "unchecked: " in ubcp(payer, "runs", "show", "plays").out, STEP_S, "it says so")
    assert all("capped" in row["words"] for row in asked(payer, "plays")["checks"])
