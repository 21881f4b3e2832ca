"""Losses of single rows against NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.losses.pointwise import (
    binary_cross_entropy,
    distillation,
    focal,
    huber,
    probability_to_logit,
    signed_logistic,
    softmax_cross_entropy,
    squared_error,
    weighted_logistic,
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


# === Other losses of a row ===

P = 1 / (1 + np.exp(-S))
Y = (np.arange(len(S)) % 2).astype(float)


def _f(values: Any) -> Any:
    return tf.constant(values, tf.float32)


def test_smoothing_moves_labels_towards_a_half() -> None:
    found = binary_cross_entropy(_f(S), _f(Y), smoothing=0.2)
    moved = 0.8 * Y + 0.1
    np.testing.assert_allclose(found, np.logaddexp(0, S) - moved * S, rtol=1e-4)
    plain = binary_cross_entropy(_f(S), _f(Y))
    assert not np.allclose(found, plain)
    np.testing.assert_array_equal(binary_cross_entropy(_f(S), _f(Y), 0.0), plain)


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_the_papers_formula(gamma: float, alpha: float | None) -> None:
    near = np.abs(S) < 15  # beyond, NumPy's own 1 - p has no digits
    true = np.where(Y == 1, P, 1 - P)[near]
    weight = np.where(Y == 1, alpha, 1 - alpha)[near] if alpha else 1.0
    truth = -weight * (1 - true) ** gamma * np.log(true)
    found = focal(_f(S), _f(Y), gamma, alpha).numpy()
    np.testing.assert_allclose(found[near], truth, rtol=2e-3, atol=1e-12)
    if gamma:
        wrong = -weight * true**gamma * np.log(true)
        assert not np.allclose(found[near], wrong, rtol=1e-2)
    elif alpha is None:
        np.testing.assert_allclose(
            found, binary_cross_entropy(_f(S), _f(Y)), rtol=1e-5, atol=1e-30
        )


def test_focal_has_a_gradient_at_any_logit() -> None:
    s = tf.Variable([-60.0, -1.0, 0.0, 1.0, 60.0])
    for label in (0.0, 1.0):
        with tf.GradientTape() as tape:
            rows = focal(s, tf.fill([5], label), 2.0, 0.25)
        assert np.isfinite(tape.gradient(rows, s)).all()


def test_l2r_is_the_cross_entropy_of_01_labels() -> None:
    found = signed_logistic(_f(S), _f(Y))
    truth = binary_cross_entropy(_f(S), _f(Y))
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-30)
    assert not np.allclose(signed_logistic(_f(-S), _f(Y)), truth)


def test_huber_is_half_a_square_then_a_line() -> None:
    errors = np.array([-3.0, -1.5, -0.5, 0, 0.5, 1.5, 3])
    s = tf.Variable(errors + 2, dtype=tf.float32)
    with tf.GradientTape() as tape:
        rows = huber(s, tf.fill([7], 2.0), 1.5)
    truth = np.where(
        np.abs(errors) <= 1.5, errors**2 / 2, 1.5 * (np.abs(errors) - 0.75)
    )
    np.testing.assert_allclose(rows, truth, rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(rows, s), np.clip(errors, -1.5, 1.5))
    assert not np.allclose(rows, squared_error(s, tf.fill([7], 2.0)))


def _best(loss: Any) -> float:
    """The one logit that fits best, by bisection of the gradient."""
    low, high = -10.0, 10.0
    for _ in range(60):
        s = tf.Variable((low + high) / 2)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(loss(s))
        low, high = (
            (low, float(s)) if float(tape.gradient(total, s)) > 0 else (float(s), high)
        )
    return (low + high) / 2


def test_the_odds_of_a_weighted_logistic_loss_are_the_expected_label() -> None:
    seconds = np.array([0, 0, 0, 0, 0, 0, 30, 12.5])

    def loss(s: Any, negatives: str) -> Any:
        return weighted_logistic(tf.fill([8], s), _f(seconds), negatives)

    every = _best(lambda s: loss(s, "all"))
    np.testing.assert_allclose(np.exp(every), seconds.mean(), rtol=1e-4)
    # As in the source: above it by the share of zeros.
    zeros = _best(lambda s: loss(s, "zeros"))
    np.testing.assert_allclose(np.exp(zeros), seconds.mean() / 0.75, rtol=1e-4)


def test_weighting_positives_multiplies_the_odds() -> None:
    # D1: with positives weighted by w the learned odds are w times the true ones.
    y, w = np.array([1, 0, 0, 0.0]), 5.0

    def loss(s: Any) -> Any:
        return np.where(y == 1, w, 1.0) * binary_cross_entropy(tf.fill([4], s), _f(y))

    np.testing.assert_allclose(np.exp(_best(loss)), w / 3, rtol=1e-4)


def test_distillation_is_the_mixture_of_two_cross_entropies() -> None:
    teacher = np.random.default_rng(1).normal(size=len(S)) * 3
    teacher[::7] = np.nan
    t, mix = 2.5, 0.3
    r = 1 / (1 + np.exp(-teacher / t))
    soft = t**2 * (np.logaddexp(0, S / t) - r * S / t)
    hard = np.logaddexp(0, S) - Y * S
    truth = np.where(np.isnan(teacher), hard, (1 - mix) * hard + mix * soft)
    s = tf.Variable(S, dtype=tf.float32)
    with tf.GradientTape() as tape:
        found = distillation(s, _f(Y), _f(teacher), t, mix)
    np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-5)
    assert np.isfinite(tape.gradient(found, s)).all()
    unscaled = np.where(np.isnan(teacher), hard, (1 - mix) * hard + mix * soft / t**2)
    assert not np.allclose(found, unscaled, rtol=1e-2)


def test_a_student_that_answers_as_its_teacher_has_no_gradient() -> None:
    s = tf.Variable([-2.0, 0.5, 3.0])
    with tf.GradientTape() as tape:
        rows = distillation(s, _f([1, 0, 1]), tf.constant(s), 3.0, 1.0)
    np.testing.assert_allclose(tape.gradient(rows, s), 0, atol=1e-6)


def test_probabilities_of_a_teacher_become_its_logits() -> None:
    found = probability_to_logit(_f([0.5, 0.9, 0.0, 1.0, np.nan]))
    assert np.isfinite(found[:4]).all() and np.isnan(found[4])
    np.testing.assert_allclose(found[:2], [0, np.log(9)], rtol=1e-5)


def test_smoothed_softmax() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 5)) * 3
    labels = np.arange(20) % 5
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    q = 0.9 * np.eye(5)[labels] + 0.1 / 5
    found = softmax_cross_entropy(_f(logits), _f(labels), smoothing=0.1)
    np.testing.assert_allclose(found, -(q * logs).sum(1), rtol=1e-5)
