"""Sub-expert integration and normed experts equal the loop over their members."""

from __future__ import annotations

import numpy as np

from tfmtl._keras import tf
from tfmtl.layers.normed_experts import NormedExperts
from tfmtl.layers.sub_experts import SubExpertIntegration

X = tf.random.stateless_normal([9, 5], [1, 2])


def stirred(layer: object) -> object:
    layer(X)
    for variable in layer.trainable_variables:
        variable.assign_add(0.5 * tf.random.stateless_normal(variable.shape, [3, 4]))
    return layer


def test_integration_equals_a_loop() -> None:
    layer = stirred(SubExpertIntegration(2, 3, [6, 4], seed=1))
    found, weights = layer(X)
    assert found.shape == [9, 2, 4]
    for n in range(2):
        logits = X.numpy() @ layer.gate.kernel[n].numpy() + layer.gate.bias[n].numpy()
        share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        np.testing.assert_allclose(weights[:, n], share, rtol=1e-4)
        truth = 0
        for k in range(3):
            x = X.numpy()
            for dense in layer.networks.layers:
                m = 3 * n + k
                x = np.maximum(x @ dense.kernel[m].numpy() + dense.bias[m].numpy(), 0)
            truth = truth + share[:, [k]] * x
        np.testing.assert_allclose(found[:, n], truth, rtol=1e-4, atol=1e-5)


def test_integration_of_one_is_a_plain_network() -> None:
    layer = stirred(SubExpertIntegration(1, 1, [4], seed=1))
    found, weights = layer(X)
    np.testing.assert_array_equal(weights, np.ones([9, 1, 1]))
    np.testing.assert_allclose(found, layer.networks(X), rtol=1e-6)


def test_normed_experts_equal_a_loop() -> None:
    layer = stirred(NormedExperts(3, 6, seed=1))
    found = layer(X).numpy()
    assert found.shape == (9, 3, 6)
    for e in range(3):
        x = X.numpy() @ layer.dense.kernel[e].numpy() + layer.dense.bias[e].numpy()
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        x = x * layer.scale[e].numpy() + layer.shift[e].numpy()
        np.testing.assert_allclose(found[:, e], np.maximum(x, 0), rtol=1e-4, atol=1e-5)


def test_normed_experts_forget_the_scale_of_their_input() -> None:
    layer = NormedExperts(2, 6, seed=1)  # biases start at 0
    np.testing.assert_allclose(layer(100 * X), layer(X), rtol=1e-3, atol=1e-3)
    constant = NormedExperts(2, 1, seed=1)  # one output has no variance
    assert np.isfinite(constant(X)).all()


def test_configs() -> None:
    for layer in (
        SubExpertIntegration(2, 3, [6, 4], seed=1),
        NormedExperts(3, 6, seed=1),
    ):
        copy = type(layer).from_config(layer.get_config())
        for a, b in zip(tf.nest.flatten(layer(X)), tf.nest.flatten(copy(X))):
            np.testing.assert_array_equal(a, b)
