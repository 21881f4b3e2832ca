"""Losses of single rows against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.losses.pointwise import (
    binary_cross_entropy,
    softmax_cross_entropy,
    squared_error,
)

S = np.concatenate(
    [np.linspace(-60, 60, 121), np.random.default_rng(0).normal(size=50)]
)


@pytest.mark.parametrize("label", [0.0, 1.0, 0.3])
def test_cross_entropy_matches_float64_and_never_falls_below_0(label: float) -> None:
    truth = np.logaddexp(0, S) - label * S
    found = binary_cross_entropy(
        tf.constant(S, tf.float32), tf.fill(S.shape, np.float32(label))
    ).numpy()
    # Where S is large and right, 1e-5 of a number that two large ones would cancel to.
    right = -S if label == 1.0 else S
    exact = np.log1p(np.exp(-np.abs(S))) + np.maximum(right, 0)
    truth = exact if label in (0.0, 1.0) else truth
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-30)
    assert (found >= 0).all()


def test_cross_entropy_gradient_is_probability_minus_label() -> None:
    s = tf.Variable(S, dtype=tf.float32)
    y = tf.cast(np.arange(len(S)) % 2, tf.float32)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(binary_cross_entropy(s, y))
    truth = 1 / (1 + np.exp(-S)) - y.numpy()
    np.testing.assert_allclose(tape.gradient(total, s), truth, atol=1e-6)


def test_squared_error_gradient_is_the_error() -> None:
    s, y = tf.Variable([1.0, -2.0, 3.0]), tf.constant([0.5, 0.5, 3.0])
    with tf.GradientTape() as tape:
        rows = squared_error(s, y)
    np.testing.assert_allclose(rows, [0.125, 3.125, 0])
    np.testing.assert_allclose(tape.gradient(rows, s), [0.5, -2.5, 0])


def test_softmax_matches_float64() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 5)) * 8
    labels = np.arange(20) % 5
    top = logits.max(1)
    log_sum = np.log(np.exp(logits - top[:, None]).sum(1)) + top
    found = softmax_cross_entropy(
        tf.constant(logits, tf.float32), tf.constant(labels, tf.float32)
    )
    truth = log_sum - logits[np.arange(20), labels]
    np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-5)
