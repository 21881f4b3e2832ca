"""Vectors in a cube."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers.dropout import dropout_step
from tfmtl.layers.tanh_encoder import TanhEncoder

X = np.random.default_rng(0).normal(0, 3, (20, 5)).astype(np.float32)


def test_equals_numpy() -> None:
    layer = TanhEncoder((6, 4, 3), seed=1)
    found = layer(tf.constant(X))
    x = X
    for dense in layer.hidden.layers:
        x = np.maximum(x @ dense.kernel[0].numpy() + dense.bias[0].numpy(), 0)
    truth = np.tanh(x @ layer.last.kernel[0].numpy() + layer.last.bias[0].numpy())
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-6)
    assert truth.min() < 0 < truth.max()


def test_one_width_has_no_hidden_layer() -> None:
    layer = TanhEncoder((3,), seed=1)
    found = layer(tf.constant(X))
    truth = np.tanh(X @ layer.last.kernel[0].numpy())
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-6)
    assert len(layer.trainable_variables) == 2


def test_dropout_acts_on_hidden_layers_in_training() -> None:
    layer = TanhEncoder((6, 3), seed=1, dropout=0.5)
    plain = layer(tf.constant(X))
    with dropout_step(tf.constant(0, tf.int64)):
        dropped = layer(tf.constant(X), training=True)
    assert np.abs(dropped - plain).max() > 0.1
    assert np.abs(dropped).max() <= 1
    # Masks are below the last layer: no single output is 0, but for lack of any input.
    zeros = np.asarray(dropped) == 0
    assert (zeros.any(axis=1) == zeros.all(axis=1)).all()
    assert not zeros.all()


def test_config_makes_the_same_layer() -> None:
    layer = TanhEncoder((6, 3), seed=1, dropout=0.25)
    twin = TanhEncoder.from_config(layer.get_config())
    np.testing.assert_array_equal(layer(tf.constant(X)), twin(tf.constant(X)))
    assert twin.dropout == 0.25


def test_widths_are_needed() -> None:
    with pytest.raises(ValueError, match="`units` must hold a width"):
        TanhEncoder((), seed=1)
