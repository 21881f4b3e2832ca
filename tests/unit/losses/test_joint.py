"""JRC by segments against the [B, B] masks of its listing."""

from __future__ import annotations

import numpy as np

from tfmtl._keras import tf
from tfmtl.losses.joint import jrc

B = 24
DRAW = np.random.default_rng(0)
OUT = DRAW.normal(size=(B, 2)) * 2
Y = DRAW.integers(0, 2, B)
GROUPS = DRAW.integers(0, 5, B)
THERE = DRAW.random(B) < 0.8


def _listing(alpha: float, rows: np.ndarray) -> float:
    """The paper's loss of a batch, written with a mask of pairs."""
    out, y, groups = OUT[rows], Y[rows], GROUPS[rows]
    n = len(y)
    logs = out - np.log(np.exp(out).sum(1, keepdims=True))
    calibrating = -logs[np.arange(n), y].mean()
    total = 0.0
    for column in range(n):
        members = groups == groups[column]
        of_column = 0.0
        for label in (0, 1):
            s = out[members, label]
            log_p = s - np.log(np.exp(s).sum())
            of_column -= log_p[y[members] == label].sum()
        total += of_column / members.sum()
    return float(alpha * calibrating + (1 - alpha) * total / n)


def _found(alpha: float, out: np.ndarray = OUT) -> tuple[np.ndarray, np.ndarray]:
    outputs = tf.Variable(out, dtype=tf.float32)
    with tf.GradientTape() as tape:
        rows = jrc(
            outputs,
            tf.constant(Y, tf.float32),
            tf.constant(GROUPS, tf.int32),
            tf.constant(THERE),
            alpha,
        )
    return rows.numpy(), tape.gradient(rows, outputs).numpy()


def test_the_mean_over_rows_is_the_listings_loss() -> None:
    for alpha in (0.0, 0.3, 1.0):
        rows, gradient = _found(alpha)
        np.testing.assert_allclose(
            rows[THERE].mean(), _listing(alpha, THERE), rtol=1e-5
        )
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(rows[~THERE], 0)
        np.testing.assert_array_equal(gradient[~THERE], 0)
    assert not np.isclose(_found(0.3)[0][THERE].mean(), _listing(0.7, THERE), rtol=1e-2)


def test_the_ranking_part_sees_no_constant_of_a_group_and_the_other_does() -> None:
    moved = OUT + DRAW.normal(size=(5, 1))[GROUPS] * 4 * np.array([[1.0, 0.0]])
    np.testing.assert_allclose(_found(0.0, moved)[0], _found(0.0)[0], atol=2e-5)
    assert not np.allclose(_found(1.0, moved)[0], _found(1.0)[0], atol=1e-2)


def test_what_rows_without_a_label_hold_is_nothing() -> None:
    wild = np.where(THERE[:, None], OUT, np.nan)
    rows, gradient = _found(0.5, wild)
    np.testing.assert_allclose(rows, _found(0.5)[0], rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_extreme_logits_stay_numbers() -> None:
    rows, gradient = _found(0.5, OUT * 100)
    assert np.isfinite(rows).all() and np.isfinite(gradient).all()
