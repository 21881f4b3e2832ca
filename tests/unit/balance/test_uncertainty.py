"""Uncertainty weighting: slopes, minimisers, and the losses it then descends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.balance.stats import TASKS, made, stats
from tfmtl._keras import tf
from tfmtl.balance import TaskInfo, Uncertainty
from tfmtl.balance.uncertainty import uncertainty_slope, uncertainty_weights

LOSSES = np.array([0.4, 2.0, 0.05])
OBJECTIVES = {
    "regression": lambda s, x: 0.5 * np.exp(-s) * x + 0.5 * s,
    "classification": lambda s, x: np.exp(-s) * x + 0.5 * s,
    "toy": lambda s, x: np.exp(-s) * x + s,
    "revised": lambda s, x: x / (2 * np.exp(s)) + np.log1p(np.exp(s)),
}
MINIMISERS = {
    "regression": np.log(LOSSES),
    "classification": np.log(2 * LOSSES),
    "toy": np.log(LOSSES),
    "revised": np.log((LOSSES + np.sqrt(LOSSES**2 + 8 * LOSSES)) / 4),
}


def settled(kind: str, losses: np.ndarray = LOSSES) -> Any:
    balancer = made(Uncertainty, kind=kind, learning_rate=0.5)
    for step in range(400):
        weights = balancer.weigh(stats(losses, step=step))
    return balancer.log_variances.numpy(), weights.numpy()


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_weights_and_slopes_are_the_derivatives_of_the_objective(kind: str) -> None:
    objective, near = OBJECTIVES[kind], 1e-5
    s = np.array([-1.0, 0.3, 2.0])
    kinds: Any = (kind,) * 3
    slope = uncertainty_slope(tf.constant(s), tf.constant(LOSSES), kinds)
    numeric = objective(s + near, LOSSES) - objective(s - near, LOSSES)
    np.testing.assert_allclose(slope, numeric / (2 * near), rtol=1e-6)
    by_loss = objective(s, LOSSES + near) - objective(s, LOSSES - near)
    weights = uncertainty_weights(tf.constant(s), kinds)
    np.testing.assert_allclose(weights, by_loss / (2 * near), rtol=1e-6)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_s_settles_at_its_minimiser(kind: str) -> None:
    found, _ = settled(kind)
    np.testing.assert_allclose(found, MINIMISERS[kind], rtol=1e-3, atol=1e-4)
    others = [k for k in OBJECTIVES if k not in (kind, "toy", "regression")]
    for other in others:
        assert not np.allclose(found, MINIMISERS[other], atol=0.05)


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_at_the_minimiser_it_descends_half_the_sum_of_logarithms(kind: str) -> None:
    _, weights = settled(kind)
    np.testing.assert_allclose(weights, 1 / (2 * LOSSES), rtol=1e-3)
    _, scaled = settled(kind, LOSSES * [7, 1, 1])
    np.testing.assert_allclose(scaled * LOSSES * [7, 1, 1], weights * LOSSES, rtol=1e-3)


def test_the_revised_objective_is_never_negative() -> None:
    s = np.linspace(-5, 5, 50)
    assert (OBJECTIVES["revised"](s, 1e-3) >= 0).all()
    assert (OBJECTIVES["classification"](s, 1e-3) < 0).any()


def test_auto_follows_the_type_of_task() -> None:
    kinds = ("binary", "regression", "multiclass")
    tasks = TaskInfo(TASKS.names, kinds, classes=(None, None, 4))
    weights = made(Uncertainty, tasks).weigh(stats(LOSSES))
    np.testing.assert_allclose(weights, [1, 0.5, 1])
    weights = made(Uncertainty, tasks, start=-0.5).weigh(stats(LOSSES))
    np.testing.assert_allclose(weights, np.exp(0.5) * np.array([1, 0.5, 1]), rtol=1e-6)


def test_s_moves_after_its_weights_are_read_and_not_for_an_absent_task() -> None:
    balancer = made(Uncertainty, learning_rate=0.1)
    weights = balancer.weigh(stats(LOSSES, [True, False, True]))
    np.testing.assert_array_equal(weights, [1, 1, 1])
    moved = -0.1 * (0.5 - LOSSES)
    np.testing.assert_allclose(
        balancer.log_variances, [moved[0], 0, moved[2]], rtol=1e-5
    )


def test_s_is_clipped() -> None:
    balancer = made(Uncertainty)
    for losses in ([1e8, 1.0, 1.0], [1e8, 1.0, 1.0]):
        balancer.weigh(stats(losses))
    assert float(balancer.log_variances[0]) == 5
    small = made(Uncertainty, bound=1.0, learning_rate=10.0)
    small.weigh(stats([0.0, 1.0, 1.0]))
    assert float(small.log_variances[0]) == -1
