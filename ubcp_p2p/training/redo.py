"""A validator's check: walk a claimed stretch again and compare. Runs where torch does: in the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

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
from ubcp_p2p.training.opening import Opening, fault_in_leaves, leads_to_the_same
from ubcp_p2p.training.points import Point, Shape
from ubcp_p2p.training.recorder import take
from ubcp_p2p.training.shape import shape_of
from ubcp_p2p.training.trail import marks
from ubcp_p2p.training.verdict import PPM, Claim, Finding, Verdict


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
        return Verdict(Finding.STEPS, PPM**2, f"from the state before, the stretch does not lead anywhere: {error}")
    except TrainingError as error:  # it has no items, so it took no step
        return Verdict(Finding.DATA, PPM**2, error.message)
    rule = fades(recipe.inner.optimizer, recipe.inner.betas)
    if not isinstance(opening.end, WholeEnd):
        apart, allowed = _distance_of_part_ppm(claim, opening, redone, rule), tolerance_ppm(shape.parameters)
        if apart is not None and apart <= allowed and do_gradients_show(before, redone, rule):
            words = f"stretch {opening.index} leads there, by what is shown of its end"
            return Verdict(Finding.HONEST, apart, words, allowed)
        return Verdict(Finding.UNOPENED, 0, "what is shown of its end does not tell: it has to be opened whole")
    claimed = opening.ends(shape.parameters)[1]
    taken = redone.memory.steps - before.memory.steps
    if claimed.memory.steps - before.memory.steps != taken or not is_memory_possible(before, rule):
        return Verdict(Finding.MEMORY, PPM**2, "the inner optimizer's memory is not one that training leaves behind")
    verdict = compare(before, claimed, redone, loss, rule, shape.parameters)
    return verdict._replace(words=f"stretch {opening.index} {verdict.words}")


def _distance_of_part_ppm(claim: Claim, opening: Opening, redone: Point, rule: Mapping[str, float]) -> int | None:
    """How far what is shown of the end is from what was found again; None where that is nothing, or cannot be."""
    if leads_to_the_same(claim, opening, redone):
        return 0
    if not isinstance(opening.end, DrawnEnd):
        return None
    before, claimed, found = opening.drawn_ends(redone)
    if claimed.memory.steps != found.memory.steps or not is_memory_possible(before, rule):
        return None
    return distance_ppm(before, claimed, found, rule)
