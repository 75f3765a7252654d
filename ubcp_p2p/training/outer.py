"""The outer step: weighted mean of the offers, then SGD or Nesterov, bit-identical on every machine.

Only element-wise float32 +, −, ×, ÷, each rounded correctly by IEEE 754 and in a stated order: no BLAS, no sums over a
vector, no fused multiply-add. Works block by block, so the only full-size memory is the caller's own.

Source: DiLoCo (Douillard et al. 2023), algorithm 1; Nesterov momentum in PyTorch's form (Sutskever et al. 2013).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ubcp_p2p.errors import TrainingError
from ubcp_p2p.training.errors import Diverged, RoundFailed
from ubcp_p2p.training.limits import OFFERS_MAX, WEIGHT_MAX
from ubcp_p2p.training.state import BLOCK, FLOAT32_LE, Vector, blocks, is_finite, peak, within

# An offer is refused when weight × value could exceed this. 64 such terms sum to at most 2**126 < float32's maximum
# of about 2**128, so finite offers can never add up to an infinite aggregate, whatever their senders intend.
_PRODUCT_MAX = 2.0**120
# With three or more offers, one is refused whose largest value for each sample behind it is this many times the median
# of the group: finite, and made to wreck the model. Honest offers differ by a small factor (peers on different data).
_PEAK_RATIO_MAX = 32.0


@dataclass(frozen=True)
class OuterRule:
    """The outer optimizer: θ' = θ − lr·g (sgd), or m' = μ·m + g; θ' = θ − lr·(g + μ·m') (nesterov)."""

    optimizer: Literal["sgd", "nesterov"]
    lr: float
    momentum: float = 0.0

    def state_values(self, parameters: int) -> int:
        """Length of the state vector of a model with `parameters` values."""
        return parameters * 2 if self.optimizer == "nesterov" else parameters


def usable(offer: Vector, weight: int) -> bool:
    """Whether an offer may enter the aggregate: all finite, and not so large that a weighted sum could overflow."""
    return within(offer, _PRODUCT_MAX / weight)


def unusable(offers: Sequence[tuple[Vector, int]]) -> tuple[int, ...]:
    """Indices of the offers that may not enter the aggregate: see `usable`, and among three or more also the outsized.

    Exact and the same everywhere: maxima and float64 divisions, no sums.
    """
    refused = {index for index, (offer, weight) in enumerate(offers) if not usable(offer, weight)}
    rates = {i: peak(offer) / weight for i, (offer, weight) in enumerate(offers) if i not in refused}
    if len(rates) >= 3:
        median = sorted(rates.values())[(len(rates) - 1) // 2]
        refused |= {index for index, rate in rates.items() if median > 0.0 and rate > _PEAK_RATIO_MAX * median}
    return tuple(sorted(refused))


def outer_step(state: Vector, offers: Sequence[tuple[Vector, int]], rule: OuterRule, out: Vector) -> tuple[int, ...]:
    """Write the state after one outer step on Σ wᵢΔᵢ / Σ wᵢ into `out`; return the indices of the offers left out.

    state, out: P or 2P values (rule.state_values); `out` must not overlap `state`. offers: (P values, weight ≥ 1) in
    the order that all peers agreed on; the order is part of the result's bits.
    Raises TrainingError for a wrong shape or weight, RoundFailed when no offer is usable, Diverged when the new state
    would not be finite (the momentum of an earlier round can do that).
    """
    parameters = len(state) // 2 if rule.optimizer == "nesterov" else len(state)
    if len(state) != rule.state_values(parameters) or len(out) != len(state):
        raise TrainingError(f"a state of {len(state)} values does not fit one of {len(out)} under {rule.optimizer}")
    if not 1 <= len(offers) <= OFFERS_MAX:
        raise TrainingError(f"{len(offers)} offers; an outer step takes 1 to {OFFERS_MAX}")
    for index, (offer, weight) in enumerate(offers):
        if len(offer) != parameters:
            raise TrainingError(f"offer {index} has {len(offer)} values; this run's have {parameters}")
        if not 1 <= weight <= WEIGHT_MAX:
            raise TrainingError(f"offer {index} has weight {weight}; allowed are 1 to {WEIGHT_MAX}")
    _require_ieee()
    rejected = unusable(offers)
    kept = [(offer, np.float32(weight)) for i, (offer, weight) in enumerate(offers) if i not in rejected]
    if not kept:
        raise RoundFailed(
            f"none of the {len(offers)} offers is usable: each holds non-finite or absurdly large values",
            hint="lower the inner learning rate if this repeats with honest peers",
        )
    total = np.float32(sum(weight for i, (_, weight) in enumerate(offers) if i not in rejected))
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # judged below, on the result
        _step(state, kept, total, rule, out, parameters)
    if not is_finite(out):
        raise Diverged("the outer step overflowed: the run's momentum or parameters are too large")
    return rejected


def _step(
    state: Vector,
    kept: Sequence[tuple[Vector, np.float32]],
    total: np.float32,
    rule: OuterRule,
    out: Vector,
    parameters: int,
) -> None:
    lr, mu = np.float32(rule.lr), np.float32(rule.momentum)
    mean_block = np.empty(BLOCK, dtype=FLOAT32_LE)
    term_block = np.empty(BLOCK, dtype=FLOAT32_LE)
    for part in blocks(parameters):
        size = part.stop - part.start
        mean, term = mean_block[:size], term_block[:size]
        first, weight = kept[0]
        np.multiply(first[part], weight, out=mean)
        for offer, weight in kept[1:]:
            np.multiply(offer[part], weight, out=term)
            np.add(mean, term, out=mean)
        np.divide(mean, total, out=mean)
        if rule.optimizer == "nesterov":
            moment_part = slice(parameters + part.start, parameters + part.stop)
            moment = out[moment_part]
            np.multiply(state[moment_part], mu, out=moment)
            np.add(moment, mean, out=moment)
            np.multiply(moment, mu, out=term)
            np.add(mean, term, out=mean)
        np.multiply(mean, lr, out=mean)
        np.subtract(state[part], mean, out=out[part])


def _require_ieee() -> None:
    """Refuse where a library has set the processor to flush subnormals: the bits would differ from other peers'."""
    tiny = np.full(1, 1e-39, dtype=np.float32)
    if not np.multiply(tiny, np.float32(0.5))[0] > 0:
        raise TrainingError(
            "this process flushes subnormal numbers to zero, so its state would differ from that of other peers",
            hint="a library built with -ffast-math does this when it is imported; remove it from this environment",
        )
