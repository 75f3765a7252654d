"""How far a claimed stretch is from the same stretch walked again, and how far honest peers may be. numpy only.

Compared is what the stretch's gradients did: the movement of the parameters, and what came newly into each vector of
the inner optimizer's memory (its old part fades by a known factor). Each is a relative L2 distance, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from ubcp_p2p.training.limits import BF16_PARAMETERS_MIN
from ubcp_p2p.training.points import Point
from ubcp_p2p.training.state import Vector, blocks
from ubcp_p2p.training.verdict import PPM, Finding, Verdict

# Between what honest devices were measured to differ by and what cheats do (docs/verification.md): in float32, and
# where the network is so large that some peers multiply in bfloat16.
TOLERANCE_PPM: Final = 20_000
TOLERANCE_BF16_PPM: Final = 250_000
# What float32 rounds away in a step beside a vector of length 1: two operations of half a unit in the last place each,
# and as much again. Near the end of a run, where steps are small, devices differ by this and nothing else.
_ROUNDING: Final = 2.0**-22
# How many times that the gradients' own part of the first moment must be: then what rounding may hide is a hundredth of
# it, and who has not computed the gradients cannot have it right.
SHOWS_MIN: Final = 100.0
# A gradient is a network's slope times how far a softmax is from its target, which is about the loss and is rounded to
# half a unit in the last place of 1. So the smaller the loss, the more of the gradient is rounding, and AdamW makes it
# no smaller. Honest devices were measured to differ by once that much, beyond the tolerance (docs/verification.md).
_SOFTMAX_ROUNDING: Final = 16 * 2.0**-24
_LOSS_MIN: Final = 2.0**-26  # below it, what is left of a softmax is right or 0


def tolerance_ppm(parameters: int) -> int:
    """The distance that honest peers of a network of this size may have."""
    return TOLERANCE_PPM if parameters < BF16_PARAMETERS_MIN else TOLERANCE_BF16_PPM


def noise_ppm(loss: float) -> int:
    """By how much more honest peers may differ on a stretch of this mean loss, nats: a thousandth at 0.001."""
    return math.ceil(_SOFTMAX_ROUNDING / max(loss, _LOSS_MIN) * PPM)


def compare(
    before: Point, claimed: Point, redone: Point, loss: float, fades: Mapping[str, float], parameters: int
) -> Verdict:
    """What a stretch that was walked again says of the claimed one. loss: its mean, nats; parameters: the network's."""
    if not do_gradients_show(before, redone, fades):
        return Verdict(Finding.DROWNED, 0, "has gradients that do not show beside the inner optimizer's memory")
    apart, tolerance = distance_ppm(before, claimed, redone, fades), tolerance_ppm(parameters)
    allowed = tolerance + noise_ppm(loss)
    away = f"{apart / PPM:.6f} of its length away"
    if apart <= tolerance:
        return Verdict(Finding.HONEST, apart, f"leads where it is said to lead: {away}", allowed)
    if apart <= allowed:
        words = f"has gradients that hardly show: its loss is {loss:.1g}, and float32's rounding may explain {away}"
        return Verdict(Finding.DROWNED, apart, words, allowed)
    return Verdict(Finding.STEPS, apart, f"leads elsewhere: {away}, where {allowed / PPM:.3f} is allowed", allowed)


def fades(optimizer: str, betas: tuple[float, float]) -> dict[str, float]:
    """By what factor a step fades each vector of the inner optimizer's memory."""
    return {"exp_avg": betas[0], "exp_avg_sq": betas[1]} if optimizer == "adamw" else {}


def distance_ppm(before: Point, claimed: Point, redone: Point, fades: Mapping[str, float]) -> int:
    """The largest of the relative distances, in millionths, at most 10**12; 0 when all is equal to the bit."""
    steps = redone.memory.steps - before.memory.steps
    found = [_relative(before.theta, 1.0, claimed.theta, redone.theta, steps)]
    for name, fade in sorted(fades.items()):
        ends = claimed.memory.vectors[name], redone.memory.vectors[name]
        found.append(_relative(before.memory.vectors[name], fade**steps, *ends, steps))
    worst = max(found)
    return min(math.ceil(worst * PPM), PPM**2) if math.isfinite(worst) else PPM**2


def is_memory_possible(before: Point, fades: Mapping[str, float]) -> bool:
    """Whether training can leave this memory behind: no mean of squares is negative."""
    squares = before.memory.vectors["exp_avg_sq"] if "exp_avg_sq" in fades else np.zeros(0, np.float32)
    return all(float(squares[part].min(initial=0.0)) >= 0.0 for part in blocks(len(squares)))


def do_gradients_show(before: Point, redone: Point, fades: Mapping[str, float]) -> bool:
    """Whether a stretch's end tells of its gradients at all: a first moment that is large enough drowns them.

    Such a memory can be made up, and then the steps can be foretold without being taken; it can also be honest, where a
    stretch of tiny gradients follows a great one. The second moment is not asked: it remembers a thousand steps, and
    who has the first moment right has computed the gradients.
    """
    if "exp_avg" not in fades:
        return True
    steps = redone.memory.steps - before.memory.steps
    old, new = before.memory.vectors["exp_avg"], redone.memory.vectors["exp_avg"]
    fade = fades["exp_avg"] ** steps
    moved = math.fsum(
        float(np.square(new[part].astype(np.float64) - fade * old[part].astype(np.float64)).sum())
        for part in blocks(len(old))
    )
    return math.sqrt(moved) >= SHOWS_MIN * _ROUNDING * steps * math.sqrt(_norm_squared([old]))


def _relative(before: Vector, fade: float, claimed: Vector, redone: Vector, steps: int) -> float:
    """|claimed − redone| less what rounding explains ÷ |redone − fade × before|; infinite for a move out of nothing."""
    apart = moved = 0.0
    for part in blocks(len(before)):
        there = redone[part].astype(np.float64)
        apart += float(np.square(claimed[part] - there).sum())
        moved += float(np.square(there - fade * before[part].astype(np.float64)).sum())
    beyond = math.sqrt(apart) - _ROUNDING * steps * math.sqrt(_norm_squared([before]))
    if beyond <= 0.0:
        return 0.0
    return beyond / math.sqrt(moved) if moved > 0.0 else math.inf


def _norm_squared(vectors: Iterable[Vector]) -> float:
    return math.fsum(
        float(np.square(values[part].astype(np.float64)).sum()) for values in vectors for part in blocks(len(values))
    )
