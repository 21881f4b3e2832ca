"""Pairs of rows and scenarios: one for a known scenario, all for an unknown one."""

from __future__ import annotations

import numpy as np

from tfmtl._keras import tf
from tfmtl.layers.pairs import pair_rows

SCENARIO = tf.constant([1, 3, 0, 1, 4], tf.int64)


def test_each_row_meets_its_scenario_and_an_unknown_row_all() -> None:
    pairs = pair_rows(SCENARIO, 3)
    found = set(zip(pairs.row.numpy(), pairs.scenario.numpy()))
    assert found == {
        (0, 1),
        (2, 0),
        (3, 1),
        *((r, s) for r in (1, 4) for s in range(3)),
    }
    assert len(pairs.row) == len(found)
    np.testing.assert_array_equal(pairs.unknown, [False, True, False, False, True])


def test_features_follow_their_row_under_the_pairs_scenario() -> None:
    pairs = pair_rows(SCENARIO, 3)
    rows = {"x": tf.range(5) * 10, "scenario": SCENARIO}
    found = pairs.features(rows)
    np.testing.assert_array_equal(found["x"], pairs.row * 10)
    np.testing.assert_array_equal(found["scenario"], pairs.scenario)


def test_an_unknown_row_gets_the_mean_and_trains_nothing() -> None:
    pairs = pair_rows(SCENARIO, 3)
    values = tf.random.stateless_normal([len(pairs.row), 2], [1, 2])
    with tf.GradientTape() as tape:
        tape.watch(values)
        rows = pairs.answers(values)
        total = tf.reduce_sum(rows)
    gradient = tape.gradient(total, values).numpy()
    for row in range(5):
        own = pairs.row.numpy() == row
        np.testing.assert_allclose(rows[row], values.numpy()[own].mean(0), rtol=1e-6)
        assert (gradient[own] == (0 if row in (1, 4) else 1)).all()


def test_no_row_is_known_and_all_are() -> None:
    for scenario in ([3], [0], [2, 2]):
        pairs = pair_rows(tf.constant(scenario), 3)
        values = tf.cast(pairs.scenario, tf.float32)[:, None]
        expected = [[1.0]] if scenario == [3] else [[float(s)] for s in scenario]
        np.testing.assert_allclose(pairs.answers(values), expected)
