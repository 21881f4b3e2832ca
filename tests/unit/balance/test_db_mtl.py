"""DB-MTL: log losses and equal norms."""

from __future__ import annotations

import numpy as np
import pydantic
import pytest

from tests.unit.balance.identity import Tiny
from tests.unit.balance.properties import drawn, fails, norms
from tfmtl._keras import tf
from tfmtl.balance import DBMTL, TaskInfo, TaskStats
from tfmtl.balance.db_mtl import equal_norm_weights, log_loss_factors

TARGETS = np.array([[1.0, 2.0, 0.0], [-1.0, 0.5, 3.0], [0.2, -0.2, 9.0]])


def make(count: int = 3, **config: object) -> DBMTL:
    return DBMTL(TaskInfo(tuple(f"t{i}" for i in range(count))), DBMTL.Config(**config))


def of_one_norm(vectors: np.ndarray, rtol: float = 1e-4) -> None:
    """All as long as the longest before."""
    np.testing.assert_allclose(norms(vectors), norms(vectors).max(), rtol=rtol)


def test_gradients_are_as_long_as_the_longest() -> None:
    for count in (1, 2, 3, 5):
        for scales in (np.ones(count), np.logspace(-6, 8, count)):
            vectors = drawn(count) * scales[:, None]
            there = tf.ones([count], tf.bool)
            weights = equal_norm_weights(tf.constant(norms(vectors)), there).numpy()
            if scales.max() / scales.min() < 1e7:
                of_one_norm(weights[:, None] * vectors / weights.min())
            assert np.all(np.isfinite(weights))
    assert fails(of_one_norm, drawn(3) * [[1.0], [2.0], [3.0]])
    absent = equal_norm_weights(
        tf.constant([1.0, 4.0]), tf.constant([True, False])
    ).numpy()
    np.testing.assert_allclose(absent, [1.0, 0.0], rtol=1e-6)
    nothing = equal_norm_weights(tf.zeros([2]), tf.constant([False, False]))
    np.testing.assert_array_equal(nothing, 0)


def test_the_factor_is_the_derivative_of_the_log_loss() -> None:
    losses = tf.constant([0.3, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(losses)
        total = tf.reduce_sum(tf.math.log(losses + 1e-8))
    found = log_loss_factors(losses, tf.constant([True, True]))
    np.testing.assert_allclose(found, tape.gradient(total, losses), rtol=1e-6)
    gone = log_loss_factors(tf.constant([0.0, 2.0]), tf.constant([False, True]))
    np.testing.assert_allclose(gone, [0.0, 0.5], rtol=1e-6)


def test_a_loss_without_a_logarithm_is_left_out() -> None:
    """Divided by a negative loss its gradient would be an ascent."""
    there = tf.constant([True, True, True])
    found = log_loss_factors(tf.constant([-0.2, 0.0, 4.0]), there)
    np.testing.assert_allclose(found, [0.0, 0.0, 0.25], rtol=1e-6)
    balancer = make(beta=0.5)
    variable = tf.Variable(tf.zeros([2]))
    balancer.prepare([variable], [False])
    rows = [[tf.constant([1.0, 0.0]), tf.constant([0.0, 1.0]), tf.constant([0.0, 2.0])]]
    stats = TaskStats(tf.constant([-0.2, 1.0, 1.0]), there, tf.constant(0, tf.int64))
    combined, weights = balancer.combine(stats, rows)
    assert float(weights[0]) == 0.0 and float(combined[0][0]) == 0.0
    np.testing.assert_array_equal(balancer.steps, [0, 1, 1])


def test_a_task_that_reaches_the_tables_alone_is_compared_by_them() -> None:
    """As one outside a funnel, whose dense shared variables are others' towers."""
    balancer = make(2, beta=0.0)
    variables = [tf.Variable(tf.zeros([2])), tf.Variable(tf.zeros([3, 1]))]
    balancer.prepare(variables, [False, True])

    @tf.function
    def weights(second: object) -> object:
        table = [
            tf.IndexedSlices(
                tf.constant([[v]]), tf.constant([row]), tf.constant([3, 1])
            )
            for v, row in ((4.0, 0), (0.5, 2))
        ]
        there = tf.constant([True, True])
        stats = TaskStats(tf.constant([1.0, 1.0]), there, tf.constant(0, tf.int64))
        dense = [tf.constant([3.0, 0.0]), second]
        return balancer.combine(stats, [dense, table])[1]

    # Norms of 5 and 0.5 with the table, and of 3 and 3 without it.
    np.testing.assert_allclose(weights(tf.constant([0.0, 0.0])), [1, 10], rtol=1e-5)
    np.testing.assert_allclose(weights(tf.constant([0.0, 3.0])), [1, 1], rtol=1e-5)


def test_without_memory_shared_gradients_are_balanced_and_heads_descend_logs() -> None:
    found = Tiny(make(beta=0.0), TARGETS)()
    logs = found.per_task / found.losses[:, None]
    wanted = norms(logs).max() * (logs / norms(logs)[:, None]).sum(axis=0)
    np.testing.assert_allclose(found.shared, wanted, rtol=1e-5)
    # Each head's loss is exp(own) times a constant: its log has slope 1.
    np.testing.assert_allclose(found.own, 1.0, rtol=1e-5)
    np.testing.assert_allclose(found.weights @ found.per_task, wanted, rtol=1e-4)


def test_losses_may_be_rescaled_at_will() -> None:
    plain = Tiny(make(), TARGETS, start=[0.5, 0.1, 0.3])
    scaled = Tiny(make(), TARGETS, start=[0.5, 0.1, 0.3])
    for t, factor in enumerate((0.01, 50.0, 3.0)):
        scaled.own[t].assign(np.log(factor))
    for step in range(3):
        one, other = plain(step=step), scaled(step=step)
        np.testing.assert_allclose(one.shared, other.shared, rtol=1e-4)
        np.testing.assert_allclose(one.own, other.own, rtol=1e-4)
    assert other.losses[1] > 10 * one.losses[1]


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_averages_are_of_the_log_gradients(sigma: float) -> None:
    network = Tiny(make(sigma=sigma), TARGETS, start=[0.5, 0.1, 0.3])
    sums, missing = np.zeros((3, 3)), 1.0
    for step in range(5):
        network.theta.assign(np.random.default_rng(step).normal(size=3))
        found = network(step=step)
        past = 0.9 / (step + 1) ** sigma
        logs = found.per_task / found.losses[:, None]
        sums, missing = past * sums + (1 - past) * logs, missing * past
        mean = sums / (1 - missing)
        wanted = norms(mean).max() * (mean / norms(mean)[:, None]).sum(axis=0)
        np.testing.assert_allclose(found.shared, wanted, rtol=1e-4)
    assert not np.allclose(norms(mean), norms(logs), rtol=0.05)


def test_an_absent_task_keeps_its_average_and_weighs_0() -> None:
    balancer = make()
    network = Tiny(balancer, TARGETS)
    network(step=0)
    before = balancer.averages[0].numpy()
    found = network([True, False, True], step=1)
    after = balancer.averages[0].numpy()
    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_array_equal(balancer.steps, [2, 1, 2])
    assert found.weights[1] == 0 and found.own[1] == 0
    assert np.all(np.isfinite(network([False] * 3, step=2).shared))


def test_tables_get_this_steps_rows_with_the_dense_variables_weights() -> None:
    balancer = make(2, beta=0.5)
    kernel, table = tf.Variable(tf.zeros([2, 2])), tf.Variable(tf.zeros([9, 2]))
    balancer.prepare([kernel, table], [False, True])
    assert [tuple(v.shape) for v in balancer.averages] == [(2, 2, 2)]

    def rows(scale: float) -> tf.IndexedSlices:
        values = scale * tf.constant([[1.0, 2.0], [3.0, 4.0]])
        return tf.IndexedSlices(values, tf.constant([4, 4]), tf.constant([9, 2]))

    losses = np.array([0.5, 2.0])
    stats = TaskStats(
        tf.constant(losses, tf.float32), tf.constant([True, True]), tf.constant(0)
    )
    for scale in (1.0, 3.0):
        dense = [scale * tf.eye(2), 6.0 * tf.ones([2, 2])]
        (found, sparse), weights = balancer.combine(
            stats, [dense, [rows(1.0), rows(-2.0)]]
        )
    logs = [np.eye(2) * (0.5 * (0.5 * 1 + 3) / 0.75) / 0.5, np.full((2, 2), 3.0)]
    sizes = np.array([np.linalg.norm(g) for g in logs])
    alpha = sizes.max() / sizes
    np.testing.assert_allclose(found, sum(a * g for a, g in zip(alpha, logs)), 1e-5)
    np.testing.assert_allclose(weights, alpha / losses, rtol=1e-5)
    assert isinstance(sparse, tf.IndexedSlices)
    wanted = weights[0] * rows(1.0).values + weights[1] * rows(-2.0).values
    total = tf.reduce_sum(sparse.values, axis=0)
    np.testing.assert_allclose(total, tf.reduce_sum(wanted, axis=0), rtol=1e-5)


def test_a_model_of_tables_alone_is_balanced_by_them() -> None:
    balancer = make(2)
    balancer.prepare([tf.Variable(tf.zeros([5, 1]))], [True])
    row = tf.IndexedSlices(tf.ones([1, 1]), tf.constant([2]), tf.constant([5, 1]))
    far = tf.IndexedSlices(5 * tf.ones([1, 1]), tf.constant([3]), tf.constant([5, 1]))
    stats = TaskStats(tf.ones([2]), tf.constant([True, True]), tf.constant(0))
    _, weights = balancer.combine(stats, [[row, far]])
    np.testing.assert_allclose(weights, [5.0, 1.0], rtol=1e-5)


def test_settings_are_checked() -> None:
    with pytest.raises(pydantic.ValidationError, match="less than 1"):
        DBMTL.Config(beta=1.0)
    with pytest.raises(pydantic.ValidationError, match="every"):
        DBMTL.Config(every=2)
