"""FAMO: weights that sum to 1, logits that follow the improvements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.balance.stats import made, stats
from tfmtl._keras import tf
from tfmtl.balance import FAMO
from tfmtl.balance.famo import famo_slope, famo_weights, masked_softmax

LOSSES = np.array([0.4, 2.0, 0.05])


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def test_weights_sum_to_1_and_start_as_the_inverse_losses() -> None:
    found = made(FAMO).weigh(stats(LOSSES)).numpy()
    np.testing.assert_allclose(found, 1 / LOSSES / np.sum(1 / LOSSES), rtol=1e-5)
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(
        made(FAMO, match_sum=True).weigh(stats(LOSSES)), 3 * found, rtol=1e-6
    )


def test_weights_ignore_a_common_scale_but_not_a_tasks_own() -> None:
    shares = tf.constant(softmax(np.array([0.3, -1.0, 0.5])))
    found = famo_weights(shares, tf.constant(LOSSES))
    np.testing.assert_allclose(
        famo_weights(shares, tf.constant(LOSSES * 50)), found, rtol=1e-12
    )
    own = famo_weights(shares, tf.constant(LOSSES * [50, 1, 1]))
    assert not np.allclose(own, found, rtol=0.1)


def test_weights_are_the_gradient_of_the_weighted_logarithms() -> None:
    shares, bound = softmax(np.array([0.3, -1.0, 0.5])), np.array([0.1, 0.5, 0.0])
    losses = tf.Variable(LOSSES)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(shares * tf.math.log(losses - bound))
    slope = tape.gradient(total, losses).numpy()
    balancer = made(FAMO, minimum={"click": 0.1, "like": 0.5})
    balancer.logits.assign(np.log(shares))
    np.testing.assert_allclose(
        balancer.weigh(stats(LOSSES)), slope / slope.sum(), rtol=1e-5
    )


def test_the_slope_is_the_softmax_jacobian_times_the_improvements() -> None:
    logits, fell = np.array([0.2, -0.7, 1.0]), np.array([0.1, 0.4, -0.2])
    z = softmax(logits)
    jacobian = np.diag(z) - np.outer(z, z)
    found = famo_slope(tf.constant(z), tf.constant(fell))
    np.testing.assert_allclose(found, jacobian.T @ fell, rtol=1e-12)
    equal = famo_slope(tf.constant(z), tf.constant([0.3, 0.3, 0.3], tf.float64))
    np.testing.assert_allclose(equal, 0, atol=1e-15)


class Reference:
    """Adam down the slope, in NumPy."""

    def __init__(self, rate: float, decay: float) -> None:
        self.rate, self.decay = rate, decay
        self.x, self.m, self.v, self.k = np.zeros(3), 0.0, 0.0, 0

    def step(self, old: np.ndarray, new: np.ndarray) -> None:
        z, fell = softmax(self.x), np.log(old) - np.log(new)
        slope = z * (fell - z @ fell) + self.decay * self.x
        self.k += 1
        self.m = 0.9 * self.m + 0.1 * slope
        self.v = 0.999 * self.v + 0.001 * slope**2
        mean, size = self.m / (1 - 0.9**self.k), self.v / (1 - 0.999**self.k)
        self.x = self.x - self.rate * mean / (np.sqrt(size) + 1e-8)


def test_logits_move_by_adam_and_decay() -> None:
    draw = np.random.default_rng(0)
    balancer, wanted = made(FAMO, weight_decay=0.1), Reference(0.025, 0.1)
    for _ in range(5):
        old, new = draw.uniform(0.5, 1, 3), draw.uniform(0.3, 0.9, 3)
        balancer.after_update(stats(old), tf.constant(new, tf.float32))
        wanted.step(old, new)
    np.testing.assert_allclose(balancer.logits, wanted.x, rtol=1e-3, atol=1e-5)
    assert not np.allclose(balancer.logits, -wanted.x, atol=1e-2)


def test_a_task_that_improved_more_loses_weight() -> None:
    balancer = made(FAMO)
    balancer.after_update(stats([1.0, 1.0, 1.0]), tf.constant([0.5, 0.9, 0.9]))
    logits = balancer.logits.numpy()
    assert logits[0] < 0 < logits[1] == pytest.approx(logits[2])


def test_an_absent_task_is_left_out_and_keeps_its_state() -> None:
    balancer = made(FAMO)
    balancer.after_update(stats([1.0, 1.0, 1.0]), tf.constant([0.5, 0.7, 0.9]))
    kept: list[Any] = [
        v.numpy()[1] for v in (balancer.logits, balancer.first, balancer.second)
    ]
    given = stats([1.0, 1.0, 1.0], [True, False, True])
    weights = balancer.weigh(given).numpy()
    assert weights[1] == 0
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)
    balancer.after_update(given, tf.constant([0.4, 0.0, 0.8]))
    after = [v.numpy()[1] for v in (balancer.logits, balancer.first, balancer.second)]
    assert kept == after
    np.testing.assert_array_equal(balancer.steps, [2, 1, 2])
    nobody = masked_softmax(tf.zeros([3]), tf.constant([False] * 3))
    np.testing.assert_array_equal(nobody, [0, 0, 0])
