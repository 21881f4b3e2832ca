"""Dropout masks are a pure function of (seed, step)."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers.dropout import Dropout, dropout_step

X = tf.ones([400, 30])


def _at(layer: Dropout, step: int) -> np.ndarray:
    with dropout_step(tf.constant(step, tf.int64)):
        return np.asarray(layer(X, training=True))


def test_rate_and_scale() -> None:
    dropped = _at(Dropout(0.25, seed=1), 0)
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    assert (dropped == 0).mean() == pytest.approx(0.25, abs=0.015)


def test_pure_function_of_seed_and_step() -> None:
    layer = Dropout(0.5, seed=1)
    np.testing.assert_array_equal(_at(layer, 7), _at(Dropout(0.5, seed=1), 7))
    assert (_at(layer, 7) != _at(layer, 8)).any()
    assert (_at(layer, 7) != _at(Dropout(0.5, seed=2), 7)).any()


def test_the_step_may_be_a_variable_inside_a_graph() -> None:
    layer, step = Dropout(0.5, seed=1), tf.Variable(0, dtype=tf.int64)

    @tf.function
    def run() -> tf.Tensor:
        with dropout_step(step):
            return layer(X, training=True)

    first = run()
    step.assign(7)
    np.testing.assert_array_equal(run(), _at(layer, 7))
    assert np.any(first != run())


def test_off_in_evaluation_and_at_rate_0() -> None:
    np.testing.assert_array_equal(Dropout(0.5, seed=1)(X), X)
    np.testing.assert_array_equal(Dropout(0.0, seed=1)(X, training=True), X)


def test_whole_rows_fall_together() -> None:
    dropped = _at(Dropout(0.5, seed=1, whole_rows=True), 0)
    assert (dropped.std(axis=1) == 0).all()
    assert 0.4 < (dropped[:, 0] == 0).mean() < 0.6


def test_refuses_a_rate_of_1() -> None:
    with pytest.raises(ValueError, match=r"`rate` must be in \[0, 1\). Received: 1"):
        Dropout(1, seed=0)


def test_config_round_trip() -> None:
    layer = Dropout(0.5, seed=3, whole_rows=True)
    copy = Dropout.from_config(layer.get_config())
    np.testing.assert_array_equal(_at(copy, 2), _at(layer, 2))
