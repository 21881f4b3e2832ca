"""Scaled cosines."""

from __future__ import annotations

import numpy as np

from tfmtl._keras import tf
from tfmtl.layers.cosine import CosineScores

B, T, H = 6, 2, 4


def _vectors() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return tuple(draw.normal(size=(B, T, H)).astype(np.float32) for _ in range(2))


def _layer() -> CosineScores:
    layer = CosineScores(["task/a", "task/b"], scale=3.0, initial_bias=[0.5, -1.0])
    layer(*(tf.constant(v) for v in _vectors()))
    return layer


def test_equals_numpy() -> None:
    left, right = _vectors()
    logits, cosines = _layer()(tf.constant(left), tf.constant(right))
    lengths = np.linalg.norm(left, axis=2) * np.linalg.norm(right, axis=2)
    truth = (left * right).sum(axis=2) / lengths
    np.testing.assert_allclose(cosines, truth, rtol=1e-5)
    np.testing.assert_allclose(logits, 3 * truth + [0.5, -1.0], rtol=1e-5)
    assert np.abs(cosines).max() <= 1


def test_the_length_of_a_vector_does_not_matter() -> None:
    left, right = (tf.constant(v) for v in _vectors())
    layer = _layer()
    plain, _ = layer(left, right)
    for scaled in (layer(7.0 * left, right), layer(left, 0.01 * right)):
        np.testing.assert_allclose(scaled[0], plain, rtol=1e-5, atol=1e-6)
    assert np.abs(layer(-left, right)[0] - plain).max() > 0.1


def test_scale_0_makes_all_of_five_candidates_equal() -> None:
    layer = _layer()
    layer.log_scales[0].assign(-np.inf)
    logits, _ = layer(*(tf.constant(v) for v in _vectors()))
    np.testing.assert_allclose(tf.nn.softmax(logits[:5, 0]), np.full(5, 1 / 5))
    assert np.ptp(logits[:5, 1]) > 0.1


def test_a_zero_vector_gets_the_bias_and_finite_gradients() -> None:
    layer = _layer()
    zero, right = tf.zeros([B, T, H]), tf.constant(_vectors()[1])
    with tf.GradientTape() as tape:
        tape.watch(zero)
        logits, _ = layer(zero, right)
    np.testing.assert_array_equal(logits, np.tile([0.5, -1.0], (B, 1)))
    assert np.isfinite(tape.gradient(logits, zero)).all()


def test_each_task_owns_its_scale_and_bias() -> None:
    groups = _layer().variable_groups()
    assert {k: len(v) for k, v in groups.items()} == {"task/a": 2, "task/b": 2}


def test_config_round_trip() -> None:
    layer = _layer()
    copy = CosineScores.from_config(layer.get_config())
    vectors = [tf.constant(v) for v in _vectors()]
    np.testing.assert_array_equal(copy(*vectors)[0], layer(*vectors)[0])
