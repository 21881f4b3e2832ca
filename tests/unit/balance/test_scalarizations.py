"""Balancers of a line: logarithms, the geometric mean, random weights, IMTL-L."""

from __future__ import annotations

import numpy as np

from tests.unit.balance.stats import TASKS, made, stats
from tfmtl._keras import tf
from tfmtl.balance import GeometricLoss, ImtlL, LogLoss, RandomWeights, TaskInfo
from tfmtl.balance.imtl_l import scale_slope

LOSSES = np.array([0.4, 2.0, 0.05], "f4")
SHOWN = [True, False, True]


def test_log_loss_descends_the_sum_of_logarithms() -> None:
    losses = tf.Variable(LOSSES)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.math.log(losses))
    found = made(LogLoss).weigh(stats(LOSSES))
    np.testing.assert_allclose(found, tape.gradient(total, losses), rtol=1e-6)
    np.testing.assert_allclose(
        made(LogLoss).weigh(stats(LOSSES * 9)) * LOSSES * 9, [1, 1, 1], rtol=1e-6
    )
    np.testing.assert_allclose(
        made(LogLoss).weigh(stats(LOSSES, SHOWN)), [2.5, 0, 20], rtol=1e-6
    )
    none = made(LogLoss).weigh(stats([0.0, -1.0, 4.0]))
    np.testing.assert_array_equal(none, [0, 0, 0.25])


def test_geometric_loss_descends_the_geometric_mean() -> None:
    losses = tf.Variable(LOSSES)
    with tf.GradientTape() as tape:
        total = tf.reduce_prod(losses) ** (1 / 3)
    found = made(GeometricLoss).weigh(stats(LOSSES)).numpy()
    np.testing.assert_allclose(found, tape.gradient(total, losses), rtol=1e-5)
    by_log = made(LogLoss).weigh(stats(LOSSES)).numpy()
    np.testing.assert_allclose(found / found[0], by_log / by_log[0], rtol=1e-5)
    assert not np.allclose(found, by_log, rtol=0.1)
    two = made(GeometricLoss).weigh(stats(LOSSES, SHOWN)).numpy()
    mean = np.sqrt(LOSSES[0] * LOSSES[2])
    np.testing.assert_allclose(two, mean / 2 * np.array([2.5, 0, 20]), rtol=1e-5)
    # A product of a thousand small losses would be 0.
    many = TaskInfo(tuple(f"t{i}" for i in range(1000)))
    small = made(GeometricLoss, many).weigh(stats(np.full(1000, 1e-3)))
    np.testing.assert_allclose(small, np.full(1000, 1e-3), rtol=1e-3)


def test_random_weights_are_a_softmax_drawn_by_seed_and_step() -> None:
    balancer = made(RandomWeights)
    drawn = np.stack([balancer.weigh(stats(LOSSES, step=s)) for s in range(2000)])
    np.testing.assert_allclose(drawn.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(drawn.mean(axis=0), [1 / 3] * 3, atol=0.02)
    again = made(RandomWeights)
    np.testing.assert_array_equal(again.weigh(stats(LOSSES, step=7)), drawn[7])
    assert len(np.unique(drawn[:, 0])) > 1990
    other = made(RandomWeights, TaskInfo(TASKS.names, seed=1))
    assert not np.allclose(other.weigh(stats(LOSSES, step=7)), drawn[7])
    np.testing.assert_allclose(
        made(RandomWeights, match_sum=True).weigh(stats(LOSSES, step=7)), 3 * drawn[7]
    )
    # Logits are standard normal: so are differences of logarithms, but for sqrt(2).
    difference = np.log(drawn[:, 0]) - np.log(drawn[:, 1])
    np.testing.assert_allclose(difference.std(), np.sqrt(2), rtol=0.06)


def test_imtl_l_settles_where_scaled_losses_are_1() -> None:
    balancer = made(ImtlL, learning_rate=0.2)
    for step in range(600):
        weights = balancer.weigh(stats(LOSSES, step=step))
    np.testing.assert_allclose(weights * LOSSES, [1, 1, 1], rtol=1e-3)
    np.testing.assert_allclose(balancer.scales, -np.log(LOSSES), rtol=1e-3, atol=1e-3)


def test_imtl_l_moves_by_its_own_slope() -> None:
    scales = tf.Variable([0.3, -1.0, 2.0])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.exp(scales) * LOSSES - scales)
    np.testing.assert_allclose(
        scale_slope(tf.constant(scales), LOSSES),
        tape.gradient(total, scales),
        rtol=1e-6,
    )
    balancer = made(ImtlL, learning_rate=0.1)
    np.testing.assert_array_equal(balancer.weigh(stats(LOSSES, SHOWN)), [1, 1, 1])
    np.testing.assert_allclose(balancer.scales, [0.1 * 0.6, 0, 0.1 * 0.95], rtol=1e-5)
    balancer.weigh(stats([1e8, 1.0, 1.0]))
    assert float(balancer.scales[0]) == -10
