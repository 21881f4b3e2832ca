"""Masked pooling and target attention against NumPy loops."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers.pooling import TargetAttention, masked_mean, masked_sum

B, L, K, D = 5, 4, 3, 6


def _inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    keys = draw.normal(size=(B, L, K)).astype(np.float32)
    query = draw.normal(size=(B, K)).astype(np.float32)
    values = draw.normal(size=(B, L, D)).astype(np.float32)
    mask = np.arange(L) < np.array([4, 2, 0, 1, 3])[:, None]
    return keys, query, values, mask


def test_mean_and_sum_equal_numpy_and_are_0_for_nothing() -> None:
    _, _, values, mask = _inputs()
    for row in range(B):
        kept = values[row, mask[row]]
        total = kept.sum(0)
        mean = kept.mean(0) if len(kept) else np.zeros(D)
        np.testing.assert_allclose(masked_sum(values, mask)[row], total, atol=1e-6)
        np.testing.assert_allclose(masked_mean(values, mask)[row], mean, atol=1e-6)
    assert np.abs(masked_mean(values, mask) - values.mean(1)).max() > 0.1


def test_padding_holds_no_influence() -> None:
    keys, query, values, mask = _inputs()
    attention = TargetAttention([8], seed=1)
    hidden = 9 * (~mask[..., None]).astype(np.float32)
    for pool in (
        lambda k, v: masked_sum(v, mask),
        lambda k, v: masked_mean(v, mask),
        lambda k, v: attention(k, query, v, mask)[0],
    ):
        plain = pool(tf.constant(keys), tf.constant(values))
        other = pool(tf.constant(keys + hidden), tf.constant(values + hidden))
        np.testing.assert_allclose(plain, other, atol=1e-6)


@pytest.mark.parametrize("units", [(8,), (8, 4)])
def test_attention_equals_numpy(units: tuple[int, ...]) -> None:
    keys, query, values, mask = _inputs()
    attention = TargetAttention(units, seed=1)
    pooled, weights = attention(
        tf.constant(keys), tf.constant(query), tf.constant(values), tf.constant(mask)
    )
    attention.score.kernel.assign(attention.score.kernel * 20)
    pooled, weights = attention(
        tf.constant(keys), tf.constant(query), tf.constant(values), tf.constant(mask)
    )
    truth = np.zeros((B, L))
    for b in range(B):
        for position in range(L):
            k, q = keys[b, position], query[b]
            h = np.concatenate([k, q, k * q, k - q])
            for layer in attention.hidden.layers:
                h = np.maximum(h @ layer.kernel[0].numpy() + layer.bias[0].numpy(), 0)
            score = h @ attention.score.kernel.numpy() + attention.score.bias.numpy()
            truth[b, position] = score[0] * mask[b, position]
    np.testing.assert_allclose(weights, truth, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        pooled, np.einsum("bl,bld->bd", truth, values), rtol=1e-4, atol=1e-4
    )
    # Not a softmax: the strength of a match is kept.
    assert np.abs(truth.sum(1)[:2] - 1).max() > 0.1
    assert (pooled[2].numpy() == 0).all()


def test_attention_follows_the_query() -> None:
    keys, query, values, mask = _inputs()
    attention = TargetAttention(seed=1)
    one = attention(keys, tf.constant(query), tf.constant(values), mask)[0]
    two = attention(keys, tf.constant(-query), tf.constant(values), mask)[0]
    assert np.abs(one - two).max() > 1e-4


def test_attention_config_round_trip() -> None:
    keys, query, values, mask = (tf.constant(v) for v in _inputs())
    attention = TargetAttention((8, 4), seed=3)
    expected = attention(keys, query, values, mask)[0]
    copy = TargetAttention.from_config(attention.get_config())
    np.testing.assert_array_equal(copy(keys, query, values, mask)[0], expected)
