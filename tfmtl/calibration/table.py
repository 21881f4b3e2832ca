"""Calibrators of one output in TensorFlow: a table of knots, a row a scenario."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.schema.calibration import Calibrator


class CalibratorTable:
    """Applies the calibrator of each row's scenario; stock ops, 64 bits inside.

    A float32 would round two near logits to one where a slope is small.

    Args:
        calibrators: S + 1 of them, the last one for every other scenario.
    """

    def __init__(self, calibrators: Sequence[Calibrator]) -> None:
        self._one = all(c == calibrators[0] for c in calibrators)
        rows = calibrators[:1] if self._one else calibrators
        width = max(len(c.x) for c in rows)
        # A knot at infinity is never reached.
        self._x = np.full([len(rows), width], np.inf)
        self._y = np.zeros([len(rows), width])
        self._slopes = np.ones([len(rows), width + 1])
        for n, calibrator in enumerate(rows):
            self._x[n, : len(calibrator.x)] = calibrator.x
            self._y[n, : len(calibrator.y)] = calibrator.y
            self._slopes[n, : len(calibrator.slopes)] = calibrator.slopes

    def __call__(self, logits: Any, scenario: Any) -> Any:
        """Logits [B] float32 of rows of scenarios [B] -> [B] float32."""
        row = tf.zeros_like(scenario) if self._one else scenario
        s = tf.cast(logits, tf.float64)
        x = tf.gather(tf.constant(self._x), row)  # [B, K]
        passed = tf.cast(x <= s[:, tf.newaxis], tf.int32)
        piece = tf.reduce_sum(passed, axis=1)  # 0 .. K
        knot = tf.maximum(piece - 1, 0)
        start = tf.gather(x, knot, batch_dims=1)
        height = tf.gather(tf.gather(tf.constant(self._y), row), knot, batch_dims=1)
        slopes = tf.gather(tf.constant(self._slopes), row)
        slope = tf.gather(slopes, piece, batch_dims=1)
        return tf.cast(height + slope * (s - start), tf.float32)
