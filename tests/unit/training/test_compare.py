"""Distances between stretches: what is found, what rounding explains, and which memories are none of training."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.trails import values
from ubcp_p2p.training.compare import (
    TOLERANCE_BF16_PPM,
    TOLERANCE_PPM,
    compare,
    distance_ppm,
    do_gradients_show,
    fades,
    is_memory_possible,
    noise_ppm,
    tolerance_ppm,
)
from ubcp_p2p.training.limits import BF16_PARAMETERS_MIN
from ubcp_p2p.training.points import Point
from ubcp_p2p.training.state import InnerState, Vector
from ubcp_p2p.training.verdict import PPM, Finding

N = 1000
ADAM = fades("adamw", (0.9, 0.95))


def point(theta: Vector, mean: Vector, square: Vector, steps: int) -> Point:
    return Point(theta, InnerState(steps, {"exp_avg": mean, "exp_avg_sq": square}))


def one_step(start: Point, gradient: Vector, lr: float) -> Point:
    """A step of Adam without corrections, in float32."""
    mean = np.float32(0.9) * start.memory.vectors["exp_avg"] + np.float32(0.1) * gradient
    square = np.float32(0.95) * start.memory.vectors["exp_avg_sq"] + np.float32(0.05) * gradient**2
    theta = start.theta - np.float32(lr) * mean / (np.sqrt(square) + np.float32(1e-8))
    return point(theta.astype(np.float32), mean, square.astype(np.float32), start.memory.steps + 1)


SQUARE: Vector = values(N, 3) * values(N, 3)
START = point(values(N, 1), values(N, 2), SQUARE, 5)
GRADIENT = values(N, 4)


def test_equal_ends_are_no_distance_apart() -> None:
    end = one_step(START, GRADIENT, 0.01)
    assert distance_ppm(START, end, end, ADAM) == 0


@pytest.mark.parametrize("part", ["theta", "exp_avg", "exp_avg_sq"])
def test_each_part_counts_relative_to_what_the_steps_did_to_it(part: str) -> None:
    end = one_step(START, GRADIENT, 0.01)
    vectors, theta = dict(end.memory.vectors), end.theta.copy()
    if part == "theta":
        theta += np.float32(0.1) * (theta - START.theta)
    else:
        vectors[part] = vectors[part].copy()
        vectors[part] += np.float32(0.1) * (vectors[part] - np.float32(ADAM[part]) * START.memory.vectors[part])
    other = Point(theta, InnerState(end.memory.steps, vectors))
    assert distance_ppm(START, other, end, ADAM) == pytest.approx(0.1 * PPM, rel=0.01)


def test_steps_so_small_that_rounding_decides_accuse_nobody() -> None:
    end = one_step(START, GRADIENT, 1e-8)
    assert np.any(end.theta != START.theta)
    other = end._replace(theta=np.nextafter(end.theta, np.float32(9)))
    assert distance_ppm(START, other, end, ADAM) == 0


def test_a_move_out_of_nothing_is_as_far_as_can_be() -> None:
    still = START
    moved = still._replace(theta=START.theta + 1)
    assert distance_ppm(still, moved, still, {}) == PPM**2


@pytest.mark.parametrize(("factor", "shows"), [(0.0, True), (1.0, True), (100.0, True), (10_000.0, False)])
def test_gradients_show_beside_a_memory_that_is_not_too_large(factor: float, shows: bool) -> None:
    mean, square = START.memory.vectors.values()
    before = point(START.theta, mean * np.float32(factor), square, 5)
    assert do_gradients_show(before, one_step(before, GRADIENT, 0.01), ADAM) is shows


def test_an_old_spike_of_gradients_accuses_nobody() -> None:
    """The second moment remembers it long after the gradients are too small to show in it."""
    before = point(START.theta, START.memory.vectors["exp_avg"], SQUARE * np.float32(1e9), 5)
    end = one_step(before, GRADIENT, 0.01)
    assert is_memory_possible(before, ADAM) and do_gradients_show(before, end, ADAM)
    vectors = {**end.memory.vectors, "exp_avg": np.float32(0.9) * before.memory.vectors["exp_avg"]}
    coasted = Point(end.theta, InnerState(end.memory.steps, vectors))
    assert distance_ppm(before, coasted, end, ADAM) > TOLERANCE_BF16_PPM


def test_no_squares_are_negative() -> None:
    before = point(START.theta, START.memory.vectors["exp_avg"], -START.memory.vectors["exp_avg_sq"], 5)
    assert not is_memory_possible(before, ADAM)
    assert is_memory_possible(START, ADAM)


def test_plain_sgd_remembers_nothing() -> None:
    assert fades("sgd", (0.9, 0.95)) == {}
    assert is_memory_possible(START, {}) and do_gradients_show(START, START, {})


def test_large_networks_may_differ_by_bfloat16() -> None:
    assert tolerance_ppm(BF16_PARAMETERS_MIN - 1) == TOLERANCE_PPM < TOLERANCE_BF16_PPM
    assert tolerance_ppm(BF16_PARAMETERS_MIN) == TOLERANCE_BF16_PPM


@pytest.mark.parametrize(
    ("loss", "off", "finding"),
    [
        (1.0, 0.01, Finding.HONEST),
        (1.0, 0.05, Finding.STEPS),
        (1e-3, 0.05, Finding.STEPS),
        (1e-5, 0.01, Finding.HONEST),  # what is near enough is paid, however small the loss
        (1e-5, 0.05, Finding.DROWNED),
        (1e-5, 0.5, Finding.STEPS),
        (0.0, 5.0, Finding.DROWNED),
        (0.0, 500.0, Finding.STEPS),  # rounding has an end
    ],
)
def test_what_a_tiny_loss_leaves_to_rounding_convicts_nobody(loss: float, off: float, finding: Finding) -> None:
    """A stretch whose first moment went elsewhere by `off` of its length."""
    end = one_step(START, GRADIENT, 0.01)
    mean: Vector = end.memory.vectors["exp_avg"]
    elsewhere: Vector = (mean + off * (mean - 0.9 * START.memory.vectors["exp_avg"])).astype(np.float32)
    vectors = {**end.memory.vectors, "exp_avg": elsewhere}
    claimed = Point(end.theta, InnerState(end.memory.steps, vectors))
    verdict = compare(START, claimed, end, loss, ADAM, N)
    assert verdict.finding == finding
    assert verdict.distance_ppm == pytest.approx(off * PPM, rel=0.01)
    assert verdict.allowed_ppm == TOLERANCE_PPM + noise_ppm(loss)


def test_a_loss_of_ordinary_size_widens_nothing() -> None:
    assert noise_ppm(0.01) < TOLERANCE_PPM // 100
