"""The joint logit of a funnel against float64."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers.funnel import (
    conditional_logit,
    joint_logit,
    log1mexp,
    mixture_logit,
    order_violation,
)
from tfmtl.losses.pointwise import binary_cross_entropy


def _logs(*logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log p and log(1 - p) of the product of probabilities, in float64."""
    return _logs_of(sum(-np.logaddexp(0, -np.float64(s)) for s in logits))


def _logs_of(log_p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    near = log_p > -np.log(2)
    log_q = np.where(
        near,
        np.log(-np.expm1(np.where(near, log_p, -1))),
        np.log1p(-np.exp(np.where(near, -1, log_p))),
    )
    return log_p, log_q


GRID = np.array(np.meshgrid(*[np.linspace(-30, 30, 41)] * 2)).reshape(2, -1)


def test_matches_float64() -> None:
    log_p, log_q = _logs(*GRID)
    found = joint_logit(*tf.constant(GRID, tf.float32)).numpy()
    # Near 0 the logit is a difference of two numbers of about 0.7.
    np.testing.assert_allclose(found, log_p - log_q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_cross_entropy_of_the_joint_matches_float64(label: float) -> None:
    log_p, log_q = _logs(*GRID)
    truth = -(label * log_p + (1 - label) * log_q)
    logits = joint_logit(*tf.constant(GRID, tf.float32))
    found = binary_cross_entropy(logits, tf.fill(logits.shape, label)).numpy()
    np.testing.assert_allclose(found, truth, rtol=2e-5, atol=1e-7)


def test_log1mexp_matches_float64_over_26_decades() -> None:
    a = -np.logspace(-26, 1.9, 200)
    truth = np.log(-np.expm1(a))
    found = log1mexp(tf.constant(a, tf.float32)).numpy()
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-7)
    assert np.isfinite(log1mexp(tf.zeros([1]))).all()


@pytest.mark.parametrize("logits", [(60.0, 60.0), (-60.0, -60.0), (60.0, -60.0)])
def test_finite_with_a_gradient_far_out(logits: tuple[float, float]) -> None:
    values = [tf.Variable([s]) for s in logits]
    with tf.GradientTape() as tape:
        joint = joint_logit(*values)
    gradients = tape.gradient(joint, values)
    assert np.isfinite(joint).all()
    assert all(np.isfinite(g).all() for g in gradients)
    # The limiting step decides: its logit moves the joint one to one.
    assert max(float(g[0]) for g in gradients) > 0.4


def test_a_clip_would_be_found() -> None:
    log_p, log_q = _logs(np.array([30.0]), np.array([30.0]))
    clipped = np.log(-np.expm1(np.minimum(log_p, -1e-7)))
    assert abs(clipped - log_q) > 10


def test_probabilities_multiply_for_three_steps() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    joint = tf.sigmoid(joint_logit(*tf.constant(logits))).numpy()
    product = np.prod(1 / (1 + np.exp(-logits.astype(np.float64))), axis=0)
    np.testing.assert_allclose(joint, product, rtol=1e-5)


def test_the_conditional_undoes_the_product() -> None:
    above = tf.constant([-6.0, -1.0, 0.5, 4.0])
    step = tf.constant([2.0, -3.0, 0.0, -8.0])
    found = conditional_logit(joint_logit(above, step), above)
    np.testing.assert_allclose(found, step, rtol=1e-4, atol=1e-4)


def test_a_step_likelier_than_the_one_above_it_counts_as_almost_sure() -> None:
    found = tf.sigmoid(conditional_logit(tf.constant([3.0]), tf.constant([-3.0])))
    np.testing.assert_allclose(found, [1 - 1e-6], rtol=1e-6)


def _log_sigmoid(s: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -np.float64(s))


def _mixture_logs(s2: Any, s3: Any, s4: Any) -> tuple[np.ndarray, np.ndarray]:
    """log p and log(1 - p) of y2 y3 + (1 - y2) y4, in float64."""
    yes, no = _log_sigmoid(s2), _log_sigmoid(-s2)
    return (
        np.logaddexp(yes + _log_sigmoid(s3), no + _log_sigmoid(s4)),
        np.logaddexp(yes + _log_sigmoid(-s3), no + _log_sigmoid(-s4)),
    )


CUBE = np.array(np.meshgrid(*[np.linspace(-30, 30, 13)] * 3)).reshape(3, -1)


def test_mixture_matches_float64() -> None:
    log_p, log_q = _mixture_logs(*CUBE)
    found = mixture_logit(*tf.constant(CUBE, tf.float32)).numpy()
    np.testing.assert_allclose(found, log_p - log_q, rtol=1e-5, atol=1e-5)
    wrong = np.logaddexp(
        _log_sigmoid(CUBE[0]) + _log_sigmoid(CUBE[1]), _log_sigmoid(CUBE[2])
    )
    assert np.abs(found - (wrong - log_q)).max() > 0.5, "y4 counts where y2 does not"


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_cross_entropy_of_a_mixture_below_a_step_matches_float64(label: float) -> None:
    above = np.random.default_rng(0).uniform(-30, 30, CUBE.shape[1])
    log_p = _log_sigmoid(above) + _mixture_logs(*CUBE)[0]
    _, log_q = _logs_of(log_p)
    truth = -(label * log_p + (1 - label) * log_q)
    steps = tf.constant(np.stack([above, *CUBE]), tf.float32)
    logits = joint_logit(steps[0], mixture_logit(*tf.unstack(steps[1:])))
    found = binary_cross_entropy(logits, tf.fill(logits.shape, label)).numpy()
    np.testing.assert_allclose(found, truth, rtol=5e-5, atol=1e-7)


@pytest.mark.parametrize("signs", list(itertools.product([-60.0, 60.0], repeat=3)))
def test_mixture_is_finite_with_a_gradient_far_out(signs: Any) -> None:
    values = [tf.Variable([s]) for s in signs]
    with tf.GradientTape() as tape:
        mixed = mixture_logit(*values)
    gradients = tape.gradient(mixed, values)
    assert np.isfinite(mixed).all()
    assert all(np.isfinite(g).all() for g in gradients)
    assert sum(abs(float(g[0])) for g in gradients) > 0.1


def test_the_paths_of_a_mixture_share_the_gradient_at_a_tie() -> None:
    values = [tf.Variable([0.0]) for _ in range(3)]
    with tf.GradientTape() as tape:
        mixed = mixture_logit(*values)
    _, taken, otherwise = tape.gradient(mixed, values)
    np.testing.assert_allclose([taken, otherwise], [[0.5], [0.5]], rtol=1e-6)


def test_the_calibrator_is_zero_iff_the_order_holds() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        above, step = draw.random((2, 6)).astype(np.float32)
        found = float(order_violation(tf.constant(step), tf.constant(above)))
        assert found == pytest.approx(np.maximum(step - above, 0).mean(), rel=1e-5)
        assert (found == 0) == bool((step <= above).all())
        assert float(order_violation(*(tf.constant(np.minimum(above, step)),) * 2)) == 0


def test_the_calibrator_moves_violating_rows_alone() -> None:
    step = tf.Variable([0.5, 0.2, 0.3, 0.9])
    above = tf.Variable([0.4, 0.6, 0.3, 0.1])
    with tf.GradientTape() as tape:
        loss = order_violation(step, above)
    of_step, of_above = tape.gradient(loss, [step, above])
    np.testing.assert_allclose(of_step, [0.25, 0, 0, 0.25])
    np.testing.assert_allclose(of_above, [-0.25, 0, 0, -0.25])
