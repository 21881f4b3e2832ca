"""Attention by query and user against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers.attention import ContextAttention

B, L, S, C, D = 4, 5, 3, 2, 6
MASK = np.arange(L) < np.array([5, 3, 0, 1])[:, None]


def _inputs() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    draw = np.random.default_rng(0)
    shapes = ([B, L, S], [B, C], [B, L, D])
    return tuple(tf.constant(draw.normal(size=s).astype(np.float32)) for s in shapes)


def _layer(units: tuple[int, ...] = (8, 4), context: bool = True) -> ContextAttention:
    layer = ContextAttention(units, seed=1)
    steps, about, values = _inputs()
    layer((steps, about) if context else steps, values, tf.constant(MASK))
    draw = np.random.default_rng(7)
    for variable in layer.trainable_variables:
        variable.assign_add(draw.normal(0, 0.5, variable.shape))
    return layer


def _numpy(
    layer: ContextAttention, masked: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    steps, context, values = (v.numpy().astype(np.float64) for v in _inputs())
    pooled, weights = np.zeros((B, D)), np.zeros((B, L))
    for b in range(B):
        scores = np.full(L, -np.inf)
        for t in range(L):
            x = np.concatenate([steps[b, t], context[b]])
            x = np.maximum(x @ layer.kernel.numpy() + layer.bias.numpy(), 0)
            for dense in layer.hidden.layers:
                x = np.maximum(x @ dense.kernel[0].numpy() + dense.bias[0].numpy(), 0)
            if MASK[b, t] or not masked:
                scores[t] = (x @ layer.score.kernel.numpy())[0]
        if MASK[b].any() or not masked:
            a = np.exp(scores - scores.max())
            weights[b] = a / a.sum()
        pooled[b] = weights[b] @ values[b]
    return pooled, weights


@pytest.mark.parametrize("units", [(8,), (8, 4)])
def test_equals_numpy(units: tuple[int, ...]) -> None:
    layer = _layer(units)
    steps, context, values = _inputs()
    found = layer((steps, context), values, tf.constant(MASK))
    for mine, theirs in zip(found, _numpy(layer)):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    wrong, _ = _numpy(layer, masked=False)
    assert np.abs(found[0] - wrong).max() > 1e-2, "padding in the softmax passes too"


def test_weights_sum_to_one_over_the_history() -> None:
    steps, context, values = _inputs()
    _, weights = _layer()((steps, context), values, tf.constant(MASK))
    np.testing.assert_allclose(
        tf.reduce_sum(weights, axis=1), [1, 1, 0, 1], rtol=1e-6, atol=0
    )
    np.testing.assert_array_equal(weights.numpy()[~MASK], 0)
    assert weights.numpy()[0].std() > 1e-3


def test_no_history_gives_zeros_and_finite_gradients() -> None:
    layer = _layer()
    steps, context, values = _inputs()
    with tf.GradientTape() as tape:
        tape.watch([steps, values])
        pooled, _ = layer((steps, context), values, tf.constant(MASK))
        total = tf.reduce_sum(pooled * pooled)
    np.testing.assert_array_equal(pooled[2], 0)
    read = [steps, values, *layer.trainable_variables]
    for gradient in tape.gradient(total, read):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


def test_padding_has_no_influence() -> None:
    layer = _layer()
    steps, context, values = _inputs()
    noise = 9.0 * tf.cast(~MASK[:, :, None], tf.float32)
    plain = layer((steps, context), values, tf.constant(MASK))
    other = layer((steps + noise, context), values + noise, tf.constant(MASK))
    for a, b in zip(plain, other):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_it_follows_the_context() -> None:
    layer = _layer()
    steps, context, values = _inputs()
    _, one = layer((steps, context), values, tf.constant(MASK))
    _, two = layer((steps, -context), values, tf.constant(MASK))
    assert np.abs(one - two).max() > 1e-3
    alone = _layer(context=False)
    assert alone.kernel.shape == [S, 8]
    _, weights = alone(steps, values, tf.constant(MASK))
    np.testing.assert_allclose(tf.reduce_sum(weights[0]), 1, rtol=1e-6)


def test_config_round_trip() -> None:
    layer = ContextAttention((8, 4), seed=3, dropout=0.2)
    copy = ContextAttention.from_config(layer.get_config())
    steps, context, values = _inputs()
    for training in (False, True):
        a, b = (
            one((steps, context), values, tf.constant(MASK), training=training)[0]
            for one in (layer, copy)
        )
        np.testing.assert_array_equal(a, b)
