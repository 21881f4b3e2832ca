"""GradNorm: its slope, what it converges to, what it compares losses with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.balance.stats import TASKS, made, stats
from tfmtl._keras import tf
from tfmtl.balance import GradNorm, TaskInfo
from tfmtl.balance.gradnorm import gradnorm_slope

NORMS = np.array([0.5, 1.0, 4.0])


def by_tape(w: np.ndarray, norms: np.ndarray, r: np.ndarray, alpha: float) -> Any:
    """The gradient of the published L_grad through norms of weighted gradients."""
    weights = tf.Variable(w)
    directions = tf.linalg.diag(tf.constant(norms))  # gradients of these norms
    with tf.GradientTape() as tape:
        sizes = tf.norm(weights[:, None] * directions, axis=1)
        target = tf.stop_gradient(tf.reduce_mean(sizes) * r**alpha)
        total = tf.reduce_sum(tf.abs(sizes - target))
    return tape.gradient(total, weights)


def test_the_slope_is_that_of_the_objective_with_a_constant_target() -> None:
    draw = np.random.default_rng(0)
    for alpha in (0.0, 0.12, 1.5):
        w, r = draw.uniform(0.1, 2, 3), draw.uniform(0.5, 2, 3)
        found = gradnorm_slope(
            tf.constant(w), tf.constant(NORMS), tf.constant(r), alpha
        )
        np.testing.assert_allclose(found, by_tape(w, NORMS, r, alpha), rtol=1e-12)


def test_with_alpha_0_gradients_of_weighted_losses_become_equal() -> None:
    balancer = made(GradNorm, alpha=0, initial_steps=1, learning_rate=2e-3)
    weigh = tf.function(balancer.weigh)
    given = stats([1.0, 1.0, 1.0], norms=NORMS)
    for step in range(1200):
        weigh(given)
        if step % 100 == 0:
            np.testing.assert_allclose(np.sum(balancer.weights), 3, rtol=1e-5)
    wanted = 3 / NORMS / np.sum(1 / NORMS)
    np.testing.assert_allclose(balancer.weights, wanted, rtol=0.05)
    assert not np.allclose(balancer.weights, wanted[::-1], rtol=0.3)


def test_alpha_pulls_the_slow_task_along() -> None:
    balancer = made(GradNorm, alpha=1.5, initial_steps=1)
    balancer.weigh(stats([1.0, 1.0, 1.0], norms=[1, 1, 1]))
    found = balancer.weigh(stats([0.9, 0.5, 0.5], norms=[1, 1, 1]))
    np.testing.assert_array_equal(found, [1, 1, 1])  # those from before the move
    moved = np.array([1.025, 0.975, 0.975])
    np.testing.assert_allclose(balancer.weights, 3 * moved / moved.sum(), rtol=1e-5)


def test_losses_are_compared_with_their_first_steps() -> None:
    balancer = made(GradNorm, initial_steps=2)
    shown = [True, False, True]
    for losses, present in (([1.0, 9.0, 2.0], shown), ([3.0, 1.0, 4.0], None)):
        balancer.weigh(stats(losses, present, norms=NORMS))
    np.testing.assert_allclose(balancer.sums, [4, 1, 6])
    np.testing.assert_allclose(balancer.counts, [2, 1, 2])
    # The second task is not known yet: only the others moved, and kept their sum.
    assert float(balancer.weights[1]) == 1
    assert abs(float(balancer.weights[0] - 1)) > 1e-3
    np.testing.assert_allclose(np.sum(balancer.weights), 3, rtol=1e-6)
    balancer.weigh(stats([7.0, 1.0, 7.0], norms=NORMS))
    np.testing.assert_allclose(balancer.sums, [4, 2, 6])


@pytest.mark.parametrize(
    ("kind", "classes", "wanted"),
    [
        ("binary", None, np.log(2)),
        ("multiclass", 5, np.log(5)),
        ("regression", None, 0),
    ],
)
def test_or_with_what_theory_says(kind: str, classes: Any, wanted: float) -> None:
    tasks = TaskInfo(("a", "b"), (kind, "binary"), classes=(classes, None))
    balancer = made(GradNorm, tasks, initial="theory", initial_steps=1)
    given = stats([0.2, 0.3], norms=[1, 2])
    initial, ready = balancer._initial(given)
    first = wanted or 0.2
    np.testing.assert_allclose(initial, [first, np.log(2)], rtol=1e-6)
    assert np.all(ready)


def test_weights_stay_positive_and_an_absent_task_keeps_its_own() -> None:
    balancer = made(GradNorm, initial_steps=1, learning_rate=10.0)
    for _ in range(3):
        balancer.weigh(stats([1.0, 1.0, 1.0], norms=NORMS))
        assert np.all(balancer.weights > 1e-5)
    before = balancer.weights.numpy()
    balancer.weigh(stats([1.0, 5.0, 1.0], [True, False, True], norms=[1, 0, 2]))
    assert float(balancer.weights[1]) == before[1]
    np.testing.assert_allclose(np.sum(balancer.weights), 3, rtol=1e-5)
    assert TASKS.classes == (None, None, None)


def test_a_task_that_misses_the_layer_rests() -> None:
    """Its norm of 0 would pull the mean down until it had all the weight."""
    balancer = made(GradNorm, initial_steps=1)
    weigh = tf.function(balancer.weigh)
    given = stats([1.0, 1.0, 1.0], norms=[0.3, 0.6, 0.0])
    for _ in range(400):
        weigh(given)
    found = np.array(balancer.weights)
    assert found[2] == 1.0
    np.testing.assert_allclose(found[:2].sum(), 2, rtol=1e-5)
    np.testing.assert_allclose(found[0] * 0.3, found[1] * 0.6, rtol=0.1)
