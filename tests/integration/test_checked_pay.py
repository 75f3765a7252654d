"""Pay depends on checks: over real daemons with a ledger, who cheats is found and not paid, and honest peers are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_checks import all_checked, verified
from tests.integration.test_promise import RECIPE as PROMISED
from tests.integration.test_promise import SERVING, asked, earned
from tests.support.live import all_know, charter_file, open_chains, short_slices, submission, ubcp
from tests.support.processes import until
from tests.support.swarm import STEP_S, Peer, Swarm

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(300)]
SLICE_S = 20
SLICES = 6
RECIPE = all_checked(PROMISED)


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    with Swarm(bootstrap=False, faulty=False) as made:
        yield made


def checks(payer: Peer) -> dict[str, dict[str, Any]]:
    """What the paymaster knows of each contributor, by node."""
    return {row["node"]: row for row in asked(payer, "plays").get("checks", ())}


def test_a_cheat_is_found_and_not_paid_and_the_honest_are(swarm: Swarm, tmp_path: Path) -> None:
    world = short_slices(57, SLICE_S, grace_slices=1)
    more = charter_file(swarm.home, world)
    payer = swarm.add("payer", more=more).start()
    patient = SERVING + "rounds_unpaid_max = 100\n"  # while the payer is down
    b, d, cheat = (swarm.add(name, more=more + patient) for name in ("b", "d", "cheat"))
    cheat.program = "tests.support.cheating_node"
    peers = (payer, b, d, cheat)
    for peer in (b, d, cheat):
        peer.start(payer.own())
    for peer in peers:
        open_chains(peer, world)
    all_know(peers, world)

    ask = submission(RECIPE, tmp_path, "plays", SLICES * SLICE_S)
    done = ubcp(payer, *ask, "--peers-max", "3")
    assert done.code == 0, done.err

    until(lambda: earned(b) > 0 and earned(d) > 0, STEP_S, "honest rounds are paid when their checks are over")
    name = cheat.public.hex()
    until(lambda: checks(payer).get(name, {}).get("barred", False), STEP_S, "the cheat is found")
    found = checks(payer)[name]
    assert "no honest work" in found["words"]
    shown = verified(Path(found["evidence"]), str(tmp_path / "recipe.toml"))
    assert (shown.returncode, json.loads(shown.stdout)["lie"]) == (1, True), shown.stderr
    until(lambda: any("no honest work" in row["words"] for row in cheat.status()["earning"]), STEP_S, "it is told why")

    payer.kill()  # what it knows of the cheat, and what waits for checks, is on its disk
    got, before = earned(cheat), (earned(b), earned(d))
    payer.start(b.own())
    until(lambda: earned(b) > before[0] and earned(d) > before[1], STEP_S, "the honest are paid on")
    after = checks(payer)
    assert (after[name]["barred"], after[name]["evidence"]) == (True, found["evidence"])
    assert earned(cheat) == got < min(earned(b), earned(d))
    for peer in (b, d):
        assert not after[peer.public.hex()]["barred"]
    for line in ("nothing more is paid", "ubcp verify"):
        assert line in ubcp(payer, "runs", "show", "plays").out
