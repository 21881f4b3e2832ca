"""Moving averages of entries that are not always there."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.balance.averages import Averages, pair_places, task_places


def tf_state(name: str, values: Any) -> Any:
    return tf.Variable(values, trainable=False, name=name)


def test_each_entry_is_corrected_by_its_own_updates() -> None:
    kept = Averages((2, 3), 0.9, "kept", tf_state)
    places = task_places(tf.constant([0, 2]), 1)
    np.testing.assert_array_equal(places, [[1, 0], [1, 2]])
    values = np.random.default_rng(0).normal(size=(5, 2))
    for row in values:
        found = kept.update(places, tf.constant(row))
    weights = 0.9 ** np.arange(5)[::-1]
    wanted = weights @ values / weights.sum()
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    np.testing.assert_allclose(kept.read(places), wanted, rtol=1e-12)
    late = kept.update(task_places(tf.constant([1]), 1), tf.constant([4.0], tf.float64))
    np.testing.assert_allclose(late, [4.0], rtol=1e-12)
    # Without the correction it would read 0.4, and look ten times weaker.
    np.testing.assert_allclose(kept.sums[1, 1], 0.4, rtol=1e-12)
    np.testing.assert_array_equal(kept.sums[0], 0)
    np.testing.assert_array_equal(kept.read([[0, 0]]), [0])


def test_no_memory_keeps_the_last_value() -> None:
    kept = Averages((1, 1), 0.0, "kept", tf_state)
    for value in (3.0, 5.0):
        found = kept.update([[0, 0]], tf.constant([value], tf.float64))
        np.testing.assert_allclose(found, [value])


def test_pairs_have_places() -> None:
    places = pair_places(tf.constant([0, 2]), 1).numpy()
    np.testing.assert_array_equal(places[0, 1], [1, 0, 2])
    np.testing.assert_array_equal(places[1, 0], [1, 2, 0])


def test_checkpoints_hold_averages_and_compiled_steps_move_them(tmp_path) -> None:
    kept = Averages((1, 2), 0.5, "kept", tf_state)
    places = task_places(tf.constant([0]), 0)
    update = tf.function(kept.update, autograph=False)
    for value in (2.0, 6.0):
        found = update(places, tf.constant([value], tf.float64))
    np.testing.assert_allclose(found, [(0.5 * 2 + 6) / 1.5])
    path = tf.train.Checkpoint(kept=kept).save(str(tmp_path / "c"))
    other = Averages((1, 2), 0.5, "kept", tf_state)
    tf.train.Checkpoint(kept=other).restore(path).assert_consumed()
    np.testing.assert_allclose(other.read(places), found)
