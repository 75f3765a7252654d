"""Every cheat, made by real steps of digits-tiny: found on the stretches that show it; honest peers on none."""

from __future__ import annotations

import pytest
import torch

from bench.cheats import CHEATS, CPU, PEERS, Swarm, Work
from bench.validators import in_process
from ubcp_p2p.models.recipe import Recipe, load_recipe
from ubcp_p2p.training.compare import TOLERANCE_PPM, compare, fades
from ubcp_p2p.training.inner import InnerLoop
from ubcp_p2p.training.verdict import Finding
from ubcp_p2p.training.witness import Witness

pytestmark = pytest.mark.slow

# On how many of the four stretches each shows. The others hold honest work.
SHOWS = {
    "stale parameters: all steps from the state before": 2,  # the first, and the last, where the offer is measured
    "random tensor of the right norm, after all the work": 1,
    "the last stretch skipped": 1,
    "the last two stretches skipped": 2,
}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("digits-tiny")


@pytest.fixture(scope="module")
def swarm(recipe: Recipe) -> Swarm:
    """In its third round."""
    made = Swarm(recipe, "cheats")
    for _ in range(3):
        made.advance()
    return made


@pytest.fixture(scope="module")
def witness(recipe: Recipe, swarm: Swarm) -> Witness:
    return Witness(recipe, InnerLoop(recipe, swarm.task, CPU))


def findings(witness: Witness, work: Work) -> list[Finding]:
    found = []
    for index in range(work.stretches()):
        opening = work.open(index)
        assert opening is not None
        found.append(witness.check(work.claim, work.members, opening.to_bytes()).finding)
    return found


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_is_found(swarm: Swarm, witness: Witness, cheat: str) -> None:
    found = findings(witness, CHEATS[cheat](swarm))
    lies = [finding for finding in found if finding != Finding.HONEST]
    assert len(lies) == SHOWS.get(cheat, 4), found
    assert set(lies) == {Finding.DROWNED if "foretells" in cheat else Finding.STEPS}


def test_honest_peers_are_not_accused(swarm: Swarm, witness: Witness) -> None:
    for peer in PEERS:
        assert findings(witness, swarm.works[peer]) == [Finding.HONEST] * 4


def test_validators_that_compute_otherwise_agree(recipe: Recipe, swarm: Swarm) -> None:
    """Another thread count, other kernels, and float64 by code that shares nothing with the trainer's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rule = fades(recipe.inner.optimizer, recipe.inner.betas)
        for name, validator in in_process(recipe, swarm.task).items():
            for index in range(4):
                opening = swarm.works[PEERS[1]].open(index)
                assert opening is not None
                before, claimed = opening.ends(recipe.parameters())
                redone = validator(swarm.works[PEERS[1]].claim, opening)
                verdict = compare(before, claimed, *redone, rule, recipe.parameters())
                assert verdict.finding == Finding.HONEST and verdict.distance_ppm < TOLERANCE_PPM // 100, name
    finally:
        torch.set_num_threads(threads)
