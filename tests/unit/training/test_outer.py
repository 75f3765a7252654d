"""The outer step against a scalar reference, bit for bit, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ubcp_p2p.errors import TrainingError
from ubcp_p2p.training import outer, state
from ubcp_p2p.training.errors import Diverged, RoundFailed
from ubcp_p2p.training.limits import OFFERS_MAX, WEIGHT_MAX
from ubcp_p2p.training.outer import OuterRule, outer_step, unusable, usable
from ubcp_p2p.training.state import BLOCK, Vector

NESTEROV = OuterRule("nesterov", lr=0.7, momentum=0.6)
SGD = OuterRule("sgd", lr=1.0)
F = np.float32


def reference(theta: Vector, offers: list[tuple[Vector, int]], rule: OuterRule) -> Vector:
    """The same step one number at a time, in the order that the definition gives."""
    parameters = len(offers[0][0])
    total = F(sum(weight for _, weight in offers))
    result = np.array(theta, copy=True)
    for i in range(parameters):
        g = F(offers[0][0][i] * F(offers[0][1]))
        for offer, weight in offers[1:]:
            g = F(g + F(offer[i] * F(weight)))
        g = F(g / total)
        if rule.optimizer == "nesterov":
            m = F(F(theta[parameters + i] * F(rule.momentum)) + g)
            result[parameters + i] = m
            g = F(g + F(m * F(rule.momentum)))
        result[i] = F(theta[i] - F(g * F(rule.lr)))
    return result


floats = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=60)
@given(
    st.integers(1, 9).flatmap(
        lambda n: st.tuples(
            st.lists(floats, min_size=2 * n, max_size=2 * n),
            st.lists(
                st.tuples(st.lists(floats, min_size=n, max_size=n), st.integers(1, 10**6)), min_size=1, max_size=5
            ),
        )
    ),
    st.sampled_from([NESTEROV, SGD]),
)
def test_equals_the_scalar_reference_to_the_bit(
    case: tuple[list[float], list[tuple[list[float], int]]], rule: OuterRule
) -> None:
    values, raw = case
    offers = [(np.array(offer, dtype=F), weight) for offer, weight in raw]
    theta = np.array(values[: rule.state_values(len(offers[0][0]))], dtype=F)
    out = np.empty_like(theta)
    rejected = outer_step(theta, offers, rule, out)
    assert rejected == unusable(offers)
    kept = [offer for index, offer in enumerate(offers) if index not in rejected]
    assert out.tobytes() == reference(theta, kept, rule).tobytes()


@pytest.mark.parametrize(("values", "rejected"), [
    ([1.0, 1.0, 2.0**119], (2,)), ([1.0, -40.0, 1.0], (1,)), ([1.0, 31.0, 1.0], ()), ([1.0, 2.0**60], ()),
    ([0.0, 0.0, 5.0], ()), ([1.0, 1.0, 1e30, float("nan")], (2, 3)),
])  # fmt: skip
def test_an_outsized_offer_is_left_out_where_a_median_tells(values: list[float], rejected: tuple[int, ...]) -> None:
    offers = [(np.array([0.0, value], dtype=F), 1) for value in values]
    theta = np.zeros(2, dtype=F)
    assert outer_step(theta, offers, SGD, np.empty_like(theta)) == rejected


def test_a_larger_weight_allows_a_larger_offer() -> None:
    steps = [(np.array([1.0], dtype=F), 8), (np.array([1.0], dtype=F), 8), (np.array([40.0], dtype=F), 200)]
    assert unusable(steps) == ()


def test_result_does_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    length = BLOCK + 17
    theta = rng.standard_normal(2 * length, dtype=F)
    offers = [(rng.standard_normal(length, dtype=F), 3 + i) for i in range(3)]
    results = []
    for block in (BLOCK, 1000, 1 << 20):
        monkeypatch.setattr(state, "BLOCK", block)
        monkeypatch.setattr(outer, "BLOCK", block)
        out = np.full_like(theta, np.nan)
        outer_step(theta, offers, NESTEROV, out)
        results.append(out.tobytes())
    assert len(set(results)) == 1


def test_synchronous_sgd_takes_the_mean_of_local_parameters() -> None:
    theta = np.array([1, 2], dtype=F)
    locals_ = [np.array([0, 2], dtype=F), np.array([4, 6], dtype=F)]
    out = np.empty_like(theta)
    outer_step(theta, [(theta - local, 1) for local in locals_], SGD, out)
    assert out.tolist() == [2, 4]


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK])
def test_a_poisoned_offer_is_left_out_and_named(poison: float, at: int) -> None:
    good = np.ones(BLOCK + 1, dtype=F)
    bad = np.ones(BLOCK + 1, dtype=F)
    bad[at] = poison
    theta = np.zeros(BLOCK + 1, dtype=F)
    out, alone = np.empty_like(theta), np.empty_like(theta)
    assert outer_step(theta, [(good, 5), (bad, 2**20), (good, 3)], SGD, out) == (1,)
    outer_step(theta, [(good, 5), (good, 3)], SGD, alone)
    assert out.tobytes() == alone.tobytes()


def test_offers_that_pass_cannot_overflow_together() -> None:
    largest = np.full(1, 2.0**80, dtype=F)
    assert usable(largest, 2**40)
    assert not usable(largest * F(1.001), 2**40)
    out = np.empty(1, dtype=F)
    assert outer_step(np.zeros(1, dtype=F), [(largest, 2**40)] * OFFERS_MAX, SGD, out) == ()
    assert np.isfinite(out).all()


def test_refusals() -> None:
    theta, out = np.zeros(4, dtype=F), np.zeros(4, dtype=F)
    one, two = np.ones(1, dtype=F), np.ones(2, dtype=F)
    with pytest.raises(RoundFailed):
        outer_step(theta, [(two * F(np.nan), 1)], NESTEROV, out)
    with pytest.raises(TrainingError, match="offer 1 has 1 values"):  # no broadcast
        outer_step(theta, [(two, 1), (one, 1)], NESTEROV, out)
    for weight in (0, -1, WEIGHT_MAX + 1):
        with pytest.raises(TrainingError, match="weight"):
            outer_step(theta, [(two, weight)], NESTEROV, out)
    for offers in ([], [(two, 1)] * (OFFERS_MAX + 1)):
        with pytest.raises(TrainingError, match="offers"):
            outer_step(theta, offers, NESTEROV, out)
    with pytest.raises(TrainingError, match="does not fit"):
        outer_step(theta, [(two, 1)], NESTEROV, out[:3])
    with pytest.raises(TrainingError, match="does not fit"):
        outer_step(theta[:3], [(two, 1)], NESTEROV, out[:3])


def test_a_momentum_that_overflows_is_told() -> None:
    theta = np.array([0, 3e38], dtype=F)
    with pytest.raises(Diverged):
        outer_step(
            theta, [(np.full(1, 1e35, dtype=F), 1)], OuterRule("nesterov", lr=3.0, momentum=0.99), np.empty_like(theta)
        )


def test_subnormals_survive() -> None:
    """Flushing them would make this peer's bits differ from those of another processor."""
    theta = np.zeros(1, dtype=F)
    out = np.empty_like(theta)
    outer_step(theta, [(np.full(1, 1e-40, dtype=F), 1)], SGD, out)
    assert out[0] == -F(1e-40)
