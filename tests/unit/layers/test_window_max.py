"""Convolutions with a maximum over time against NumPy loops."""

from __future__ import annotations

import numpy as np

from tfmtl._keras import tf
from tfmtl.layers.window_max import WindowMax

B, L, D, K = 4, 6, 3, 5
WINDOWS = (1, 2, 3, 8)
LENGTHS = np.array([6, 3, 0, 1])
MASK = np.arange(L) < LENGTHS[:, None]


def _values() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(B, L, D)).astype(np.float32)


def _layer(windows: tuple[int, ...] = WINDOWS) -> WindowMax:
    layer = WindowMax(windows, K, seed=1)
    layer(tf.constant(_values()), mask=tf.constant(MASK))
    layer.bias.assign(np.random.default_rng(2).normal(size=layer.bias.shape))
    return layer


def _numpy(layer: WindowMax, masked_maximum: bool = True) -> np.ndarray:
    result = []
    for window, kernel in zip(layer.windows, layer._kernels):
        best = np.zeros((B, K))
        for b in range(B):
            found = []
            for t in range(L if not masked_maximum else LENGTHS[b]):
                total = np.zeros(K)
                for j in range(window):
                    at = t + j - (window - 1) // 2
                    if 0 <= at < LENGTHS[b]:
                        total += _values()[b, at] @ kernel[j].numpy()
                found.append(total)
            best[b] = np.max(found, axis=0) if found else -np.inf
        result.append(best)
    return np.maximum(np.concatenate(result, axis=1) + layer.bias.numpy(), 0)


def test_equals_numpy() -> None:
    layer = _layer()
    found = layer(tf.constant(_values()), mask=tf.constant(MASK))
    assert found.shape == [B, len(WINDOWS) * K]
    np.testing.assert_allclose(found, _numpy(layer), rtol=1e-4, atol=1e-5)
    wrong = _numpy(layer, masked_maximum=False)
    assert np.abs(found - wrong).max() > 1e-2, "a maximum at padded steps passes too"


def test_padding_has_no_influence() -> None:
    layer = _layer()
    values = tf.constant(_values())
    plain = layer(values, mask=tf.constant(MASK))
    noise = 9.0 * tf.cast(~MASK[:, :, None], tf.float32)
    np.testing.assert_allclose(
        layer(values + noise, mask=tf.constant(MASK)), plain, rtol=1e-6, atol=1e-6
    )
    longer = tf.pad(values, [[0, 0], [0, 3], [0, 0]], constant_values=9.0)
    mask = np.pad(MASK, [[0, 0], [0, 3]])
    np.testing.assert_allclose(
        layer(longer, mask=tf.constant(mask)), plain, rtol=1e-5, atol=1e-5
    )


def test_window_one_does_not_see_the_order_and_window_two_does() -> None:
    order = [3, 1, 5, 0, 4, 2]
    full = tf.ones([B, L], tf.bool)
    for windows, same in (((1,), True), ((2,), False)):
        layer = _layer(windows)
        one = layer(tf.constant(_values()), mask=full)
        two = layer(tf.constant(_values()[:, order]), mask=full)
        assert (np.abs(one - two).max() < 1e-5) == same


def test_no_history_gives_zeros_and_finite_gradients() -> None:
    layer = _layer()
    with tf.GradientTape() as tape:
        found = layer(tf.constant(_values()), mask=tf.constant(MASK))
        total = tf.reduce_sum(found * found)
    np.testing.assert_array_equal(found[2], 0)
    assert np.abs(found[0]).max() > 0
    for gradient in tape.gradient(total, layer.trainable_variables):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


def test_a_window_starts_like_a_dense_layer() -> None:
    layer = WindowMax((4,), 128, seed=1)
    layer(tf.zeros([1, 4, 64]), mask=tf.ones([1, 4], tf.bool))
    limit = np.sqrt(12 / (4 * 64 + 128))
    np.testing.assert_allclose(
        layer._kernels[0].numpy().std(), limit / np.sqrt(3), rtol=0.03
    )


def test_config_round_trip() -> None:
    layer = WindowMax(WINDOWS, K, seed=3)
    copy = WindowMax.from_config(layer.get_config())
    values, mask = tf.constant(_values()), tf.constant(MASK)
    np.testing.assert_array_equal(copy(values, mask=mask), layer(values, mask=mask))
