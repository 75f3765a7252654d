"""Steps taken again from the middle of a round, on the real networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ubcp_p2p.errors import TrainingError
from ubcp_p2p.models.recipe import Recipe, load_recipe
from ubcp_p2p.models.task import ImageTask, build_task
from ubcp_p2p.training import compare as compare_module
from ubcp_p2p.training import recorder as recorder_module
from ubcp_p2p.training import redo as redo_module
from ubcp_p2p.training.compare import TOLERANCE_BF16_PPM
from ubcp_p2p.training.ends import LEAN, WholeEnd, drawn_by
from ubcp_p2p.training.errors import Diverged
from ubcp_p2p.training.inner import InnerLoop
from ubcp_p2p.training.opening import Opening, require_committed
from ubcp_p2p.training.recorder import Recorder, Trail, open_stretch, take
from ubcp_p2p.training.redo import judge, redo
from ubcp_p2p.training.shape import shape_of
from ubcp_p2p.training.state import InnerState, Vector, offer_hash, state_hash
from ubcp_p2p.training.verdict import Claim, Finding

RUN, PEER = bytes(32), b"peer"
MEMBERS = (b"other", PEER)
CPU = torch.device("cpu")


def short(name: str, local_steps: int = 7) -> Recipe:
    base = load_recipe(name)
    return base.model_copy(update={"rounds": base.rounds.model_copy(update={"local_steps": local_steps})})


def a_round(recipe: Recipe, loop: InnerLoop, steps: int) -> tuple[Trail, Claim]:
    """One peer's round of so many steps, recorded."""
    shape = shape_of(recipe)
    base: Vector = np.zeros(shape.state_values, dtype=np.float32)
    base[: shape.parameters] = loop.read()
    digest = state_hash(RUN, 3, base.data)
    recorder = Recorder(loop, shape.stretch, recipe.rounds.local_steps)

    def after(step: int, of: int, mean: object) -> bool:
        recorder.after_step(step)
        return step < steps

    loop.run(RUN, 3, PEER, MEMBERS, after)
    offer = offer_hash((base[: shape.parameters] - loop.read()).data)
    trail = recorder.finish(RUN, 3, PEER, MEMBERS, base, digest, offer)
    return trail, Claim(RUN, 3, PEER, digest, steps, offer, trail.hash())


def sent(opening: Opening, claim: Claim, recipe: Recipe) -> Opening:
    shape = shape_of(recipe)
    received = Opening.from_bytes(opening.to_bytes(), shape)
    require_committed(claim, received, shape)
    return received


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits-tiny", "fashion-cnn", "shakespeare-nano"])
@pytest.mark.parametrize("steps", [7, 5, 4])  # all; in haste within a stretch; in haste at a stretch's end
def test_every_stretch_is_walked_again_to_the_bit(name: str, steps: int) -> None:
    """Also where images are mirrored at random: each step draws from a place of its own."""
    recipe = short(name)
    task = build_task(recipe)
    if isinstance(task, ImageTask):
        task._flip = True  # what Fashion-MNIST's own images are; those that stand in for them are not
    loop, other = InnerLoop(recipe, task, CPU), InnerLoop(recipe, task, CPU)
    trail, claim = a_round(recipe, loop, steps)
    assert [leaf.step for leaf in trail.leaves] == [*range(0, steps, 2), steps]
    for index in range(len(trail.leaves) - 1):
        opening = sent(open_stretch(loop, trail, index), claim, recipe)
        other.run(RUN, 0, b"somebody", (), lambda step, steps, mean: step < 2)  # what happened before does not matter
        verdict = judge(other, recipe, claim, opening, MEMBERS)
        assert (verdict.finding, verdict.distance_ppm) == (Finding.HONEST, 0), verdict.words
        lean, part = (sent(opening.as_asked(end), claim, recipe) for end in (LEAN, drawn_by(bytes(32))))
        assert len(lean.to_bytes()) < 0.7 * len(opening.to_bytes())
        for asked in (lean, part):
            verdict = judge(other, recipe, claim, asked, MEMBERS)
            assert (verdict.finding, verdict.distance_ppm) == (Finding.HONEST, 0), verdict.words
        assert isinstance(opening.end, WholeEnd)
        if opening.end.after is not None:
            assert redo(other, claim, opening, shape_of(recipe)).point.theta.tobytes() == opening.end.after.tobytes()


def test_a_part_of_an_opening_convicts_nobody_of_its_steps() -> None:
    """Other bits may be another device's: the whole opening tells. What the leaves show needs no state."""
    recipe = short("digits-tiny")
    loop = InnerLoop(recipe, build_task(recipe), CPU)
    trail, claim = a_round(recipe, loop, 7)
    stolen = claim._replace(peer=next(member for member in MEMBERS if member != PEER))
    for index in range(len(trail.leaves) - 1):
        opening = open_stretch(loop, trail, index)
        assert judge(loop, recipe, stolen, opening, MEMBERS).finding == Finding.STEPS
        for end in (LEAN, drawn_by(bytes(32))):
            asked = opening.as_asked(end)
            assert judge(loop, recipe, stolen, asked, MEMBERS).finding == Finding.UNOPENED
            assert judge(loop, recipe, claim, asked, MEMBERS[:1]).finding == Finding.DATA


def test_states_that_do_not_fit_the_budget_are_walked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = short("digits-tiny")
    loop = InnerLoop(recipe, build_task(recipe), CPU)
    full, _ = a_round(recipe, loop, 7)
    monkeypatch.setattr(recorder_module, "KEPT_BYTES_MAX", 1)
    loop = InnerLoop(recipe, build_task(recipe), CPU)
    lean, _ = a_round(recipe, loop, 7)
    assert lean.hash() == full.hash()
    assert len(lean.kept) == 1 < len(full.kept)
    for index in range(4):
        assert open_stretch(loop, lean, index).to_bytes() == open_stretch(loop, full, index).to_bytes()


def test_a_device_that_does_not_repeat_itself_is_told() -> None:
    recipe = short("digits-tiny")
    loop = InnerLoop(recipe, build_task(recipe), CPU)
    trail, _ = a_round(recipe, loop, 7)
    start = trail.kept[0]
    drifted = start._replace(theta=start.theta + np.float32(1e-3))
    broken = Trail(**{**vars(trail), "kept": {0: drifted}})
    with pytest.raises(TrainingError, match="did not repeat") as caught:
        open_stretch(loop, broken, 2)
    assert caught.value.hint


@pytest.mark.parametrize("index", [-1, 4])
def test_a_stretch_that_is_not_there_is_told(index: int) -> None:
    recipe = short("digits-tiny")
    loop = InnerLoop(recipe, build_task(recipe), CPU)
    trail, _ = a_round(recipe, loop, 7)
    with pytest.raises(TrainingError, match="of a trail that has 4"):
        open_stretch(loop, trail, index)


def test_a_stretch_that_diverges_is_a_lie() -> None:
    """Parameters that no step can be taken from were not reached by steps."""
    recipe = short("digits-tiny")
    loop = InnerLoop(recipe, build_task(recipe), CPU)
    loop.write(np.full(recipe.parameters(), 3e38, dtype=np.float32))
    point = take(loop)
    shape = shape_of(recipe)
    trail, claim = a_round(recipe, InnerLoop(recipe, build_task(recipe), CPU), 7)
    opening = open_stretch(loop, trail, 1)
    hopeless = Opening(**{**vars(opening), "before": point.theta})
    verdict = judge(loop, recipe, claim, hopeless, None)
    assert verdict.finding == Finding.STEPS
    assert "does not lead anywhere" in verdict.words
    assert shape.parameters == len(point.theta)


def test_a_peer_without_data_took_no_steps() -> None:
    recipe = short("digits-tiny")
    loop = InnerLoop(recipe, build_task(recipe), CPU)
    trail, claim = a_round(recipe, loop, 7)
    crowd = tuple(b"%d" % number for number in range(2000))
    opening = Opening(**{**vars(open_stretch(loop, trail, 1)), "members": crowd})
    assert judge(loop, recipe, claim._replace(peer=b"late"), opening, crowd).finding == Finding.DATA


def test_a_count_of_steps_that_does_not_fit_is_a_lie() -> None:
    recipe = short("digits-tiny")
    loop = InnerLoop(recipe, build_task(recipe), CPU)
    trail, claim = a_round(recipe, loop, 7)
    opening = open_stretch(loop, trail, 1)
    assert isinstance(opening.end, WholeEnd)
    memory = InnerState(opening.end.memory.steps + 1, opening.end.memory.vectors)
    more = replace(opening, end=replace(opening.end, memory=memory))
    assert judge(loop, recipe, claim, more, None).finding == Finding.MEMORY
    leaf, path = more.leaves[2]
    elsewhere = replace(more, leaves={**more.leaves, 2: (replace(leaf, name=bytes(32)), path)})  # to other bits
    for opened, finding in ((replace(elsewhere, end=opening.end), Finding.HONEST), (elsewhere, Finding.UNOPENED)):
        part = opened.as_asked(drawn_by(bytes(32)))
        assert judge(loop, recipe, claim, part, None).finding == finding


def test_a_stretch_that_is_unsteady_in_itself_convicts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps so large that bfloat16 and float32 part: as in any network where some peers multiply in bfloat16."""
    for module in (redo_module, compare_module):
        monkeypatch.setattr(module, "BF16_PARAMETERS_MIN", 1)
    base = short("digits-tiny", 50)
    recipe = base.model_copy(update={"inner": base.inner.model_copy(update={"lr": 0.3, "warmup_steps": 0})})
    task = build_task(recipe)
    loop, other = (InnerLoop(recipe, task, CPU, bf16=bf16) for bf16 in (True, False))
    trail, claim = a_round(recipe, loop, 50)
    stolen = claim._replace(peer=next(member for member in MEMBERS if member != PEER))
    for index in range(len(trail.leaves) - 1):
        opening = sent(open_stretch(loop, trail, index), claim, recipe)
        verdict = judge(other, recipe, claim, opening, MEMBERS)
        if index == 0:  # from a fresh network
            assert verdict.finding == Finding.DROWNED, verdict.words
            assert TOLERANCE_BF16_PPM < verdict.distance_ppm <= verdict.allowed_ppm
            assert "unsteady" in verdict.words
        else:
            assert verdict.finding == Finding.HONEST, verdict.words
            assert judge(other, recipe, stolen, opening, MEMBERS).finding == Finding.STEPS
        assert not judge(other, recipe, claim, opening.as_asked(LEAN), MEMBERS).is_lie


@pytest.mark.parametrize("diverges_too", [False, True])
def test_what_leads_nowhere_in_one_precision_alone_is_no_lie(
    diverges_too: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = short("digits-tiny")
    loop = InnerLoop(recipe, build_task(recipe), CPU)
    trail, claim = a_round(recipe, loop, 7)
    opening = open_stretch(loop, trail, 1)
    real, walks = redo_module.redo, []

    def walk(*arguments: Any) -> Any:
        walks.append(loop._autocast)
        if diverges_too or not loop._autocast:
            raise Diverged("not finite")
        return real(*arguments)

    monkeypatch.setattr(redo_module, "redo", walk)
    assert judge(loop, recipe, claim, opening, MEMBERS).finding == Finding.STEPS  # small networks know one precision
    assert walks == [False]
    monkeypatch.setattr(redo_module, "BF16_PARAMETERS_MIN", 1)
    finding = judge(loop, recipe, claim, opening, MEMBERS).finding
    assert finding == (Finding.STEPS if diverges_too else Finding.DROWNED)
    assert walks == [False, False, True]
    assert not loop._autocast
