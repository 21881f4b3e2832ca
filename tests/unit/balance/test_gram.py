"""Inner products and sums of gradients, against dense NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.balance.gram import add, gram_matrix, scale, weighted_sum

ROWS, WIDTH = 6, 3


def rows(ids: list[int], seed: int) -> Any:
    values = np.random.default_rng(seed).normal(size=(len(ids), WIDTH))
    return tf.IndexedSlices(
        tf.constant(values, tf.float32),
        tf.constant(ids, tf.int64),
        tf.constant([ROWS, WIDTH], tf.int64),
    )


def dense(gradient: Any, like: tuple[int, ...]) -> np.ndarray:
    if gradient is None:
        return np.zeros(like)
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient.numpy()
    full = np.zeros((ROWS, WIDTH))
    np.add.at(full, gradient.indices.numpy(), gradient.values.numpy())
    return full


def expected(gradients: list[list[Any]], shapes: list[tuple[int, ...]]) -> np.ndarray:
    total = np.zeros((len(gradients[0]),) * 2)
    for per_task, shape in zip(gradients, shapes):
        flat = np.stack([dense(g, shape).reshape(-1) for g in per_task])
        total += flat @ flat.T
    return total


def test_the_gram_matrix_is_that_of_dense_gradients() -> None:
    draw = np.random.default_rng(0)
    kernel = [tf.constant(draw.normal(size=(2, 4)), tf.float32) for _ in range(3)]
    kernel[1] = None
    shared_ids = [rows([1, 1, 4, 0], s) for s in (1, 2, 3)]
    other_ids = [rows([1, 1, 4], 4), None, rows([5, 4, 5, 5], 5)]
    mixed = [rows([2, 2], 6), tf.constant(draw.normal(size=(ROWS, WIDTH)), tf.float32)]
    mixed.append(None)
    nobody = [None, None, None]
    gradients = [kernel, shared_ids, other_ids, mixed, nobody]
    shapes = [(2, 4), *[(ROWS, WIDTH)] * 4]
    found = gram_matrix(gradients)
    assert found.dtype == tf.float64
    np.testing.assert_allclose(found, expected(gradients, shapes), rtol=1e-6)
    # Without summing the rows that repeat it would be another matrix.
    flat = np.stack([g.values.numpy().reshape(-1) for g in shared_ids])
    assert not np.allclose(gram_matrix([shared_ids]), flat @ flat.T, rtol=1e-3)


@pytest.mark.parametrize("compiled", [False, True])
def test_one_lookup_of_all_tasks_is_seen_and_changes_nothing(compiled: bool) -> None:
    table = tf.Variable(np.random.default_rng(0).normal(size=(ROWS, WIDTH)))
    ids = tf.constant([[1, 4], [1, 2]])

    def gram() -> Any:
        with tf.GradientTape(persistent=True) as tape:
            seen = tf.gather(table, ids)
            losses = [tf.reduce_sum(seen**k) for k in (1, 2, 3)]
        return gram_matrix([[tape.gradient(x, table) for x in losses]])

    found = (tf.function(gram) if compiled else gram)()
    values = tf.gather(table, ids).numpy()
    per_task = []
    for k in (1, 2, 3):
        full = np.zeros((ROWS, WIDTH))
        np.add.at(full, ids.numpy(), k * values ** (k - 1))
        per_task.append(full.reshape(-1))
    wanted = np.stack(per_task) @ np.stack(per_task).T
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_no_gradient_at_all_is_a_matrix_of_zeros() -> None:
    np.testing.assert_array_equal(gram_matrix([[None, None]]), np.zeros((2, 2)))


def test_sums_stay_sparse_and_are_those_of_dense_gradients() -> None:
    sparse = [rows([1, 1], 1), None, rows([3, 1, 0], 2)]
    weights = tf.constant([2.0, 5.0, -0.5])
    found = weighted_sum(sparse, weights)
    assert isinstance(found, tf.IndexedSlices)
    shape = (ROWS, WIDTH)
    wanted = 2 * dense(sparse[0], shape) - 0.5 * dense(sparse[2], shape)
    np.testing.assert_allclose(dense(found, shape), wanted, rtol=1e-6)
    full = tf.ones(shape)
    np.testing.assert_allclose(
        add([sparse[0], full]), dense(sparse[0], shape) + 1, rtol=1e-6
    )
    assert add([None, None]) is None
    assert scale(None, 2.0) is None
