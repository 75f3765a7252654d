"""The trainer's part in checks: what it takes for an answer to what was asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.cheats import CHEAT, CPU, Swarm
from ubcp_p2p.models.recipe import load_recipe
from ubcp_p2p.models.task import build_task
from ubcp_p2p.training.ends import LEAN, WHOLE, drawn_by
from ubcp_p2p.training.inner import InnerLoop
from ubcp_p2p.training.pieces import PIECE, count, drawn
from ubcp_p2p.training.points import Point
from ubcp_p2p.training.recorder import Recorder, take
from ubcp_p2p.training.state import InnerState
from ubcp_p2p.training.verdict import Finding
from ubcp_p2p.training.witness import Witness

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
LIE = (0, 7, 14, 21)  # pieces that the liar has not computed


class Sloppy(Recorder):
    """States whose pieces LIE did not move."""

    def _take(self) -> Point:
        point = take(self._loop)
        for place in LIE:
            part = slice(place * PIECE, (place + 1) * PIECE)
            point.theta[part] = self._kept[0].theta[part]
            for name, values in point.memory.vectors.items():
                values[part] = self._kept[0].memory.vectors[name][part]
        self._loop.write(point.theta)
        self._loop.restore(point.memory)
        self._kept[len(self._leaves)] = point
        return point


def test_who_is_checked_does_not_choose_which_pieces_are_looked_at() -> None:
    """A liar that is honest in most pieces shows those, by a seed that draws no others."""
    base = load_recipe("shakespeare-nano")
    model = base.model.model_copy(update={"width": 128, "layers": 2, "heads": 2, "context": 32})
    rounds = base.rounds.model_copy(update={"local_steps": 10})
    recipe = base.model_copy(update={"model": model, "rounds": rounds})
    assert count(recipe.parameters()) > max(LIE)
    swarm = Swarm(recipe, "sloppy", recorder=Sloppy, peers=(CHEAT,))
    swarm.advance()
    work, other = swarm.works[CHEAT], InnerLoop(recipe, build_task(recipe), CPU)
    witness = Witness(recipe, other)
    opening = work.open(1)
    assert opening is not None
    seeds = [bytes([number]) * 32 for number in range(40)]
    shows = [bool(set(LIE) & set(drawn(seed, recipe.parameters()))) for seed in seeds]
    blind, seeing = seeds[shows.index(False)], seeds[shows.index(True)]
    for asked, end, finding in (
        (blind, drawn_by(blind), Finding.HONEST),  # so it is with a lie in a few pieces
        (seeing, drawn_by(seeing), Finding.UNOPENED),
        (seeing, drawn_by(blind), Finding.UNOPENED),
        (None, drawn_by(blind), Finding.UNOPENED),
        (seeing, LEAN, Finding.UNOPENED),
        (seeing, WHOLE, Finding.STEPS),
    ):
        data = opening.as_asked(end).to_bytes()
        assert witness.check(work.claim, work.members, data, asked).finding == finding, (asked, end)


def test_a_part_tells_nothing_of_a_memory_that_no_training_leaves() -> None:
    recipe = load_recipe("digits-tiny")
    swarm = Swarm(recipe, "negative")
    swarm.advance()
    swarm.advance()
    memory = swarm.memory_before
    squares = np.array(memory.vectors["exp_avg_sq"])
    squares[7] = -1e-12
    swarm.memory_before = InnerState(memory.steps, {**memory.vectors, "exp_avg_sq": squares})
    work = swarm.record(CHEAT, swarm.loop, swarm.theta, swarm._walker(CHEAT))
    opening = work.open(0)
    assert opening is not None
    witness, seed = Witness(recipe, swarm.loop), bytes(32)
    found = [
        witness.check(work.claim, work.members, replace(opening).as_asked(end).to_bytes(), seed).finding
        for end in (LEAN, drawn_by(seed), WHOLE)
    ]
    assert found[1:] == [Finding.UNOPENED, Finding.MEMORY]
    assert found[0] == Finding.UNOPENED
