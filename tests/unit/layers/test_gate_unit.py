"""Gate units: factors between 0 and gamma, of one hidden layer for all owners."""

from __future__ import annotations

import numpy as np

from tfmtl._keras import tf
from tfmtl.layers.gate_unit import GateUnit

X = tf.random.stateless_normal([9, 5], [1, 2])


def test_equals_numpy() -> None:
    layer = GateUnit(4, 3, seed=1, owners=["gate/a", "gate/b"], gamma=3.0)
    layer(X)
    for variable in layer.trainable_variables:
        variable.assign_add(tf.random.stateless_normal(variable.shape, [3, 4]))
    factors, hidden = layer(X)
    prior = layer.prior
    x = np.maximum(X.numpy() @ prior.kernel[0].numpy() + prior.bias[0].numpy(), 0)
    np.testing.assert_allclose(hidden, x, rtol=1e-4, atol=1e-6)
    for t in range(2):
        kernel, bias = layer.factors.kernel[t].numpy(), layer.factors.bias[t].numpy()
        truth = 3 / (1 + np.exp(-(x @ kernel + bias)))
        np.testing.assert_allclose(factors[:, t], truth, rtol=1e-4)


def test_zeros_leave_alone_what_is_scaled() -> None:
    layer = GateUnit(4, 3, seed=1)
    layer(X)
    for variable in layer.factors.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    np.testing.assert_array_equal(layer(X)[0], np.ones([9, 1, 3]))


def test_large_logits_reach_the_bounds_and_stay_numbers() -> None:
    layer = GateUnit(4, 3, seed=1)
    found = layer(X * 1e8)[0].numpy()
    assert np.isfinite(found).all()
    assert found.min() >= 0 and found.max() <= 2
    assert {0.0, 2.0} <= set(np.unique(found))


def test_owners_and_config() -> None:
    layer = GateUnit(4, 3, seed=1, owners=["gate/a", "gate/b"])
    factors, _ = layer(X)
    assert {k: len(v) for k, v in layer.variable_groups().items()} == {
        "gate/a": 2,
        "gate/b": 2,
    }
    copy = GateUnit.from_config(layer.get_config())
    np.testing.assert_array_equal(copy(X)[0], factors)
    alone = GateUnit(4, 3, seed=1)
    alone(X)
    assert alone.variable_groups() == {}


def test_neutral_units_start_by_leaving_alone_what_is_scaled() -> None:
    layer = GateUnit(4, 3, seed=1, owners=["gate/a", "gate/b"], neutral=True)
    np.testing.assert_array_equal(layer(X)[0], np.ones([9, 2, 3]))
    assert np.abs(layer.prior.kernel).max() > 0
    assert GateUnit.from_config(layer.get_config()).neutral
