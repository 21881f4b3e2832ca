"""The TensorFlow table against the NumPy function, per scenario."""

from __future__ import annotations

import numpy as np

from tfmtl._keras import tf
from tfmtl.calibration.fit import apply
from tfmtl.calibration.table import CalibratorTable
from tfmtl.schema.calibration import Calibrator

BENT = Calibrator(x=(-1.0, 0.5, 2.0), y=(-2.0, -1.9, 3.0), low_slope=0.3, high_slope=2)
PLATT = Calibrator(y=(0.7,), low_slope=0.5, high_slope=0.5)
IDENTITY = Calibrator()


def test_each_row_takes_the_calibrator_of_its_scenario() -> None:
    random = np.random.default_rng(0)
    logits = np.concatenate([random.normal(0, 3, 300), BENT.x]).astype(np.float32)
    scenario = random.integers(0, 3, len(logits)).astype(np.int32)
    table = (BENT, PLATT, IDENTITY)
    run = tf.function(CalibratorTable(table), autograph=False)
    found = run(tf.constant(logits), tf.constant(scenario)).numpy()
    assert found.dtype == np.float32
    expected = np.array([apply(table[s], x) for s, x in zip(scenario, logits)])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(found[scenario == 2], logits[scenario == 2])
    turned = np.array([apply(table[s - 1], x) for s, x in zip(scenario, logits)])
    assert np.abs(found - turned).max() > 0.1


def test_one_calibrator_for_all_needs_no_scenario() -> None:
    logits = tf.constant([-2.0, 0.0, 5.0])
    table = CalibratorTable([BENT] * 3)
    found = table(logits, tf.constant([0, 2, 1]))
    np.testing.assert_allclose(found, apply(BENT, logits.numpy()), rtol=1e-6)


def test_knots_meet_and_ends_go_on() -> None:
    np.testing.assert_allclose(apply(BENT, BENT.x), BENT.y, atol=1e-12)
    below = np.nextafter(np.array(BENT.x), -np.inf)
    np.testing.assert_allclose(apply(BENT, below), BENT.y, atol=1e-12)
    assert apply(BENT, [-3.0])[0] == -2 + 0.3 * -2
    assert apply(BENT, [4.0])[0] == 3 + 2 * 2
