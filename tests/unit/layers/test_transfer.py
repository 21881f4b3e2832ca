"""AITM's transfer: a softmax over two vectors, the same maps for both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers.transfer import AdaptiveTransfer


def make(dropout: float = 0.0) -> AdaptiveTransfer:
    layer = AdaptiveTransfer(["task/a", "task/b"], 4, seed=3, dropout=dropout)
    layer(*draw())
    return layer


def draw() -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    return tuple(tf.constant(rng.normal(size=(9, 2, 4)), tf.float32) for _ in "pq")


def test_equals_numpy() -> None:
    layer, (passed, own) = make(), draw()
    mixed, weights = layer.mix(passed, own)
    for n in range(2):
        h1, h2, h3 = (
            d.kernel[n].numpy() for d in (layer.value, layer.query, layer.key)
        )
        both = [v[:, n].numpy() for v in (passed, own)]
        scores = np.stack([((u @ h2) * (u @ h3)).sum(1) for u in both], 1) / 2
        shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        np.testing.assert_allclose(weights[:, n], shares, rtol=1e-5)
        z = shares[:, :1] * (both[0] @ h1) + shares[:, 1:] * (both[1] @ h1)
        np.testing.assert_allclose(mixed[:, n], z, rtol=1e-4, atol=1e-5)
        across = np.stack([(both[0] @ h2 * (both[1] @ h3)).sum(1)] * 2, 1) / 2
        assert np.abs(weights[:, n] - np.exp(across)).max() > 0.1


def test_equal_vectors_weigh_a_half() -> None:
    layer, (passed, _) = make(), draw()
    mixed, weights = layer.mix(passed, passed)
    np.testing.assert_allclose(weights, np.full([9, 2, 2], 0.5))
    np.testing.assert_allclose(mixed, layer.value(passed), rtol=1e-5, atol=1e-6)


def test_swapping_the_two_changes_nothing() -> None:
    layer, (passed, own) = make(), draw()
    mixed, weights = layer.mix(passed, own)
    swapped, other = layer.mix(own, passed)
    np.testing.assert_allclose(mixed, swapped, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weights, other[..., ::-1], rtol=1e-5)
    assert np.abs(weights - 0.5).max() > 0.05


@pytest.mark.parametrize("part", ["query", "key"])
def test_without_query_or_key_both_weigh_the_same(part: str) -> None:
    layer, (passed, own) = make(), draw()
    for kernel in getattr(layer, part)._kernels:
        kernel.assign(tf.zeros_like(kernel))
    np.testing.assert_allclose(layer.mix(passed, own)[1], np.full([9, 2, 2], 0.5))


def test_what_is_passed_on_is_a_relu_layer_with_dropout() -> None:
    layer, (before, own) = make(), draw()
    passed = tf.nn.relu(
        tf.einsum("bnk,nkh->bnh", before, layer.passed.kernel) + layer.passed.bias
    )
    truth, _ = layer.mix(passed, own)
    np.testing.assert_allclose(layer(before, own)[0], truth, rtol=1e-5, atol=1e-6)
    lossy = make(dropout=0.5)
    np.testing.assert_allclose(lossy(before, own)[0], truth, rtol=1e-5, atol=1e-6)
    dropped = lossy(before, own, training=True)[0]
    assert np.abs(dropped - truth).max() > 0.01


def test_maps_are_linear_and_owned_by_their_step() -> None:
    groups = make().variable_groups()
    assert set(groups) == {"task/a", "task/b"}
    for variables in groups.values():
        assert sorted(tuple(v.shape) for v in variables) == [(4,), *[(4, 4)] * 4]
