"""A validator's check: walk a claimed stretch again and compare. Runs where torch does: in the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from ubcp_p2p.errors import TrainingError
from ubcp_p2p.models.recipe import Recipe
from ubcp_p2p.training.compare import (
    compare,
    distance_ppm,
    do_gradients_show,
    fades,
    is_memory_possible,
    tolerance_ppm,
)
from ubcp_p2p.training.ends import DrawnEnd, WholeEnd
from ubcp_p2p.training.errors import Diverged
from ubcp_p2p.training.inner import InnerLoop
from ubcp_p2p.training.limits import BF16_PARAMETERS_MIN
from ubcp_p2p.training.opening import Opening, fault_in_leaves, leads_to_the_same
from ubcp_p2p.training.points import Point, Shape
from ubcp_p2p.training.recorder import take
from ubcp_p2p.training.shape import shape_of
from ubcp_p2p.training.trail import marks
from ubcp_p2p.training.verdict import PPM, Claim, Finding, Verdict

# By how many times what one device differs from itself, in float32 and in bfloat16, two honest ones may differ: at most
# 1.5 times on steady stretches of 5.6M parameters (docs/verification.md), which stay far below the tolerance.
SWINGS_MAX: Final = 4


class Redone(NamedTuple):
    """Where a stretch leads, and its mean loss in nats."""

    point: Point
    loss: float


def redo(loop: InnerLoop, claim: Claim, opening: Opening, shape: Shape) -> Redone:
    """Where the opened stretch leads on this device; `loop` is left there. Raises TrainingError, Diverged."""
    start = opening.start(shape.parameters)
    steps = marks(claim.steps, shape.stretch)
    loop.write(start.theta)
    loop.restore(start.memory)
    result = loop.run(
        claim.run_id, claim.round, claim.peer, opening.members, lambda step, steps, mean: True,
        first=steps[opening.index], last=steps[opening.index + 1],
    )  # fmt: skip
    return Redone(take(loop), result.loss)


def judge(
    loop: InnerLoop, recipe: Recipe, claim: Claim, opening: Opening, members: tuple[bytes, ...] | None
) -> Verdict:
    """The verdict on a stretch; `opening` is one that `require_committed` has passed, and `loop` is used up.

    members: whom the round's data is cut among, by the certificate of its base; None before the first certificate.
    """
    fault = fault_in_leaves(claim, opening, members)
    if fault is not None:
        return fault
    shape = shape_of(recipe)
    before = opening.start(shape.parameters)
    try:
        redone, loss = redo(loop, claim, opening, shape)
    except Diverged as error:
        return _diverged(error, loop, claim, opening, shape)
    except TrainingError as error:  # it has no items, so it took no step
        return Verdict(Finding.DATA, PPM**2, error.message)
    rule = fades(recipe.inner.optimizer, recipe.inner.betas)
    possible = is_memory_possible(before, rule)
    if not isinstance(opening.end, WholeEnd):
        apart, allowed = _distance_of_part_ppm(claim, opening, redone, rule), tolerance_ppm(shape.parameters)
        if possible and apart is not None and apart <= allowed and do_gradients_show(before, redone, rule):
            words = f"stretch {opening.index} leads there, by what is shown of its end"
            return Verdict(Finding.HONEST, apart, words, allowed)
        return Verdict(Finding.UNOPENED, 0, "what is shown of its end does not tell: it has to be opened whole")
    claimed = opening.ends(shape.parameters)[1]
    taken = redone.memory.steps - before.memory.steps
    if claimed.memory.steps - before.memory.steps != taken or not possible:
        return Verdict(Finding.MEMORY, PPM**2, "the inner optimizer's memory is not one that training leaves behind")
    verdict = compare(before, claimed, redone, loss, rule, shape.parameters)
    if verdict.finding == Finding.STEPS and shape.parameters >= BF16_PARAMETERS_MIN:
        verdict = _unless_unsteady(verdict, loop, claim, opening, shape, redone, rule)
    return verdict._replace(words=f"stretch {opening.index} {verdict.words}")


def _diverged(error: Diverged, loop: InnerLoop, claim: Claim, opening: Opening, shape: Shape) -> Verdict:
    """The verdict on a stretch that does not lead anywhere on this device: a lie, unless its precision explains it."""
    if shape.parameters >= BF16_PARAMETERS_MIN:
        with loop.in_other_precision(), suppress(Diverged):
            redo(loop, claim, opening, shape)
            return Verdict(Finding.DROWNED, 0, f"leads somewhere in one precision, and nowhere in another: {error}")
    return Verdict(Finding.STEPS, PPM**2, f"from the state before, the stretch does not lead anywhere: {error}")


def _unless_unsteady(
    verdict: Verdict, loop: InnerLoop, claim: Claim, opening: Opening, shape: Shape, redone: Point,
    rule: Mapping[str, float],
) -> Verdict:  # fmt: skip
    """The verdict on a stretch that leads elsewhere, in a network where some peers multiply in bfloat16.

    Where this device alone comes about as far apart in the two precisions, as in a run whose steps are too large to be
    steady, an honest peer may, too.
    """
    try:
        with loop.in_other_precision():
            other = redo(loop, claim, opening, shape).point
    except Diverged:
        swing = PPM**2
    else:
        swing = distance_ppm(opening.start(shape.parameters), other, redone, rule)
    allowed = max(verdict.allowed_ppm, min(SWINGS_MAX * swing, PPM**2))
    if verdict.distance_ppm > allowed:
        return verdict._replace(allowed_ppm=allowed)
    words = f"leads {verdict.distance_ppm / PPM:.3f} away, and is so unsteady that its own precision may explain that"
    return Verdict(Finding.DROWNED, verdict.distance_ppm, words, allowed)


def _distance_of_part_ppm(claim: Claim, opening: Opening, redone: Point, rule: Mapping[str, float]) -> int | None:
    """How far what is shown of the end is from what was found again; None where that is nothing, or cannot be."""
    if leads_to_the_same(claim, opening, redone):
        return 0
    if not isinstance(opening.end, DrawnEnd):
        return None
    before, claimed, found = opening.drawn_ends(redone)
    if claimed.memory.steps != found.memory.steps:
        return None
    return distance_ppm(before, claimed, found, rule)
