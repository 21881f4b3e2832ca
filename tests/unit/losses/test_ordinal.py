"""Cumulative logits against NumPy in float64."""

from __future__ import annotations

import numpy as np

from tfmtl._keras import tf
from tfmtl.losses.ordinal import (
    cumulative_logits,
    log_probabilities,
    ordinal_cross_entropy,
)

A = np.random.default_rng(0).normal(size=(30, 4)) * 3


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _probabilities(a: np.ndarray) -> np.ndarray:
    """[B, C] by plain differences in float64."""
    c = a[:, :1] - np.concatenate(
        [np.zeros_like(a[:, :1]), np.cumsum(np.logaddexp(0, a[:, 1:]) + 1e-6, 1)], 1
    )
    above = np.concatenate(
        [np.ones_like(c[:, :1]), _sigmoid(c), np.zeros_like(c[:, :1])], 1
    )
    return above[:, :-1] - above[:, 1:]


def test_probabilities_are_differences_of_the_cumulated() -> None:
    found = np.exp(log_probabilities(tf.constant(A, tf.float32)))
    np.testing.assert_allclose(found, _probabilities(A), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    # Thresholds taken as they are would cross, with probabilities below 0.
    crossing = np.diff(_sigmoid(A), axis=1)
    assert (crossing > 0).any()


def test_the_order_holds_whatever_the_outputs() -> None:
    wild = tf.constant(np.random.default_rng(1).normal(size=(50, 6)) * 40, tf.float32)
    logits = cumulative_logits(wild).numpy()
    assert (np.diff(logits, axis=1) <= 0).all()


def test_the_loss_is_that_of_the_class_and_keeps_its_digits() -> None:
    labels = np.arange(30) % 5
    found = ordinal_cross_entropy(
        tf.constant(A, tf.float32), tf.constant(labels, tf.float32)
    )
    truth = -np.log(_probabilities(A)[np.arange(30), labels])
    np.testing.assert_allclose(found, truth, rtol=1e-3, atol=1e-5)
    # Class 1 between two thresholds at 40: in float32 both sigmoids are 1.
    far = tf.Variable([[40.0, -2.0]])
    with tf.GradientTape() as tape:
        loss = ordinal_cross_entropy(far, tf.constant([1.0]))
    gap = np.log1p(np.exp(-2.0)) + 1e-6
    truth = 40 - gap - np.log(1 - np.exp(-gap))
    np.testing.assert_allclose(loss, [truth], rtol=1e-5)
    assert np.isfinite(tape.gradient(loss, far)).all()


def test_gradients_are_finite_at_extremes() -> None:
    for a in (-60.0, 0.0, 60.0):
        for label in range(4):
            x = tf.Variable([[a, -a, a]])
            with tf.GradientTape() as tape:
                loss = ordinal_cross_entropy(x, tf.constant([float(label)]))
            assert np.isfinite(loss).all()
            assert np.isfinite(tape.gradient(loss, x)).all(), (a, label)


def test_equal_gaps_are_proportional_odds() -> None:
    # With gaps that don't depend on the row, a move of the score is one factor on the
    # odds of every threshold.
    low, high = cumulative_logits(tf.constant([[0.3, 1.0, -2.0], [1.5, 1.0, -2.0]]))
    np.testing.assert_allclose(high - low, 1.2, rtol=1e-5)
