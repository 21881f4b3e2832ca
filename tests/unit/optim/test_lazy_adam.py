"""LazyAdam against NumPy: touched rows move, others keep value and moments."""

from __future__ import annotations

import numpy as np

from tfmtl._keras import keras, tf
from tfmtl.optim import LazyAdam

RATE, B1, B2, EPS = 0.05, 0.8, 0.95, 1e-7
BATCHES = [[0, 2], [2, 2, 1], [4], [0, 4, 0, 2]]


def _gradients() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.normal(size=(len(ids), 3)).astype(np.float32) for ids in BATCHES]


def _run(optimizer: keras.optimizers.legacy.Optimizer, table: tf.Variable) -> None:
    for ids, values in zip(BATCHES, _gradients()):
        slices = tf.IndexedSlices(tf.constant(values), tf.constant(ids), [6, 3])
        optimizer.apply_gradients([(slices, table)])


def _start() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)


def _numpy(lazy: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    w, m, v = _start().astype(np.float64), np.zeros((6, 3)), np.zeros((6, 3))
    for t, (ids, values) in enumerate(zip(BATCHES, _gradients()), start=1):
        g = np.zeros((6, 3))
        np.add.at(g, ids, values)
        rows = sorted(set(ids)) if lazy else list(range(6))
        m[rows] = B1 * m[rows] + (1 - B1) * g[rows]
        v[rows] = B2 * v[rows] + (1 - B2) * g[rows] ** 2
        rate = RATE * np.sqrt(1 - B2**t) / (1 - B1**t)
        w[rows] -= rate * m[rows] / (np.sqrt(v[rows]) + EPS)
    return w, m, v


def test_equals_numpy_with_duplicates() -> None:
    table, optimizer = tf.Variable(_start()), LazyAdam(RATE, B1, B2, EPS)
    _run(optimizer, table)
    w, m, v = _numpy()
    np.testing.assert_allclose(table, w, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(optimizer.get_slot(table, "m"), m, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(optimizer.get_slot(table, "v"), v, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(table.numpy()[[3, 5]], _start()[[3, 5]])


def test_differs_from_adam_which_moves_every_row_that_has_momentum() -> None:
    table = tf.Variable(_start())
    _run(keras.optimizers.legacy.Adam(RATE, B1, B2, EPS), table)
    np.testing.assert_allclose(table, _numpy(lazy=False)[0], rtol=1e-4, atol=1e-5)
    assert np.abs(table - _numpy()[0]).max() > 0.01


def test_dense_variables_are_adams() -> None:
    a, b = tf.Variable(_start()), tf.Variable(_start())
    lazy, adam = (
        LazyAdam(RATE, B1, B2, EPS),
        keras.optimizers.legacy.Adam(RATE, B1, B2, EPS),
    )
    for step in range(4):
        gradient = tf.sin(a + step)
        adam.apply_gradients([(gradient, b)])
        lazy.apply_gradients([(gradient, a)])
    np.testing.assert_array_equal(a, b)


def test_inside_a_graph() -> None:
    table, optimizer = tf.Variable(_start()), LazyAdam(RATE, B1, B2, EPS)
    optimizer._create_all_weights([table])

    @tf.function(reduce_retracing=True)
    def step(values: tf.Tensor, ids: tf.Tensor) -> None:
        slices = tf.IndexedSlices(values, ids, tf.constant([6, 3]))
        optimizer.apply_gradients([(slices, table)])

    for ids, values in zip(BATCHES, _gradients()):
        step(tf.constant(values), tf.constant(ids))
    np.testing.assert_allclose(table, _numpy()[0], rtol=1e-4, atol=1e-6)
