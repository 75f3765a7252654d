"""Checks that happen by themselves: real nodes, one of whose trainers lives on its first round's offer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.swarm import ROOT, STEP_S, Peer, Swarm, assert_agreed, tiny, together
from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.swarm.standing import LIED
from ubcp_p2p.training.shape import shape_of
from ubcp_p2p.verification.evidence import Evidence

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


def all_checked(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"checks": recipe.checks.model_copy(update={"rate": 1.0})})


RECIPE = all_checked(tiny(2000))


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    with Swarm(faulty=False) as made:
        yield made


def verified(evidence: Path, recipe: str) -> subprocess.CompletedProcess[str]:
    """`ubcp verify`, as a stranger who has nothing but the two files."""
    command = [sys.executable, "-m", "ubcp_p2p", "verify", str(evidence), recipe, "--json"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=STEP_S, check=False)


def checks(peer: Peer) -> list[dict[str, Any]]:
    return [event for event in peer.events if event["kind"] == "checked"]


@pytest.mark.full
def test_a_trainer_that_lives_on_an_old_offer_is_found_and_nobody_else(swarm: Swarm, tmp_path: Path) -> None:
    honest = [swarm.add("a"), swarm.add("b")]
    cheat = swarm.add("c")
    cheat.program = "tests.support.cheating_node"
    for peer in (*honest, cheat):
        peer.start(swarm.seeds)
    for peer in (*honest, cheat):
        peer.train(RECIPE, peers_min=2)  # who has found the cheat makes no more rounds with it
    names = {peer.public.hex() for peer in honest}
    others = {peer.name: next(name for name in names if name != peer.public.hex()) for peer in honest}
    for peer in honest:  # each has judged the other's work
        found = peer.wait("checked", where=lambda event, peer=peer: event["peer"] == others[peer.name])  # type: ignore[misc]
        assert found["finding"] == "honest"

    def is_of_cheat(event: dict[str, Any]) -> bool:
        return event["peer"] == cheat.public.hex() and event["evidence"] is not None

    # Each round draws a validator: within a few, an honest one has drawn the cheat; the other may never.
    seen: dict[str, Any] | None = None
    round_ = 0
    while seen is None:
        last = honest[0].wait("committed", where=lambda event: event["round"] > round_)  # noqa: B023
        round_ = last["round"]
        seen = next((event for peer in honest for event in checks(peer) if is_of_cheat(event)), None)
    found = seen
    blob = Path(found["evidence"]).read_bytes()
    assert Evidence.from_bytes(blob, RECIPE, shape_of(RECIPE)).card.peer == cheat.public

    recipe, evidence = tmp_path / "recipe.toml", tmp_path / "a.evidence"
    recipe.write_text(RECIPE.to_toml())
    evidence.write_bytes(blob)
    shown = verified(evidence, str(recipe))
    assert shown.returncode == 1, shown.stderr
    document = json.loads(shown.stdout)
    assert (document["lie"], document["round"], document["run"]) == (True, found["round"], "run")
    assert document["finding"] == found["finding"] in ("steps", "memory")
    elsewhere = verified(evidence, "digits-tiny")
    assert (elsewhere.returncode, elsewhere.stdout) == (2, "")

    for peer in honest:
        accused = {event["peer"] for event in checks(peer) if event["finding"] != "honest"}
        assert accused <= {cheat.public.hex()}


@pytest.mark.full
def test_all_honest_members_leave_a_liar_out_from_one_round_on(swarm: Swarm, figure: Callable[[str], None]) -> None:
    """One has drawn it; the others judge its evidence, and so does who comes later. No round is made twice."""
    honest = [swarm.add(name) for name in "abd"]
    cheat, late = swarm.add("c"), swarm.add("e")
    cheat.program = "tests.support.cheating_node"
    for peer in (*honest, cheat, late):
        peer.start(swarm.seeds)
    for peer in (*honest, cheat):
        peer.train(RECIPE, peers_min=3)
    shunned = [peer.wait("shunned") for peer in honest]
    assert {event["peer"] for event in shunned} == {cheat.public.hex()}
    first = min(event["from_round"] for event in shunned)
    assert cheat.wait("refused")["reason"] == LIED
    marks = swarm.marks()
    for _ in range(10):
        together(honest, after=marks)
        marks = swarm.marks()
    late.train(RECIPE, peers_min=3)
    assert late.wait("shunned")["peer"] == cheat.public.hex()
    together([*honest, late], after=swarm.marks())

    rounds = [event for peer in (*honest, late) for event in peer.committed()]  # each tells the one that it begins
    assert not any(cheat.public.hex() in event["members"] for event in rounds if event["round"] > first)
    assert assert_agreed([*honest, late, cheat], dict.fromkeys(swarm.peers, 0)) > 10
    figure(f"most were convinced in round {min(event['round'] for event in shunned)}, left out from round {first} on")
