"""Pairs of a batch against a double loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.losses.pairwise import bpr

B = 37
DRAW = np.random.default_rng(0)
SCORES = DRAW.normal(size=B)
LEVELS = DRAW.integers(0, 3, B).astype(float)
WEIGHTS = DRAW.integers(0, 3, B).astype(float)
GROUPS = DRAW.integers(0, 5, B)


def _loop(scores: Any, gap: bool, sign: int = 1) -> tuple[float, int, float]:
    total, count, weight = 0.0, 0, 0.0
    for i in range(B):
        for j in range(B):
            share = WEIGHTS[i] * WEIGHTS[j]
            if GROUPS[i] == GROUPS[j] and LEVELS[i] > LEVELS[j] and share > 0:
                share *= LEVELS[i] - LEVELS[j] if gap else 1
                total += share * np.logaddexp(0, -sign * (scores[i] - scores[j]))
                count += 1
                weight += share
    return total, count, weight


def _bpr(scores: Any = SCORES, **options: Any) -> tuple[Any, Any]:
    s = tf.Variable(scores, dtype=tf.float32)
    with tf.GradientTape() as tape:
        sums = bpr(
            s,
            tf.constant(LEVELS, tf.float32),
            tf.constant(WEIGHTS, tf.float32),
            tf.constant(GROUPS, tf.int32),
            **options,
        )
    return sums, tf.convert_to_tensor(tape.gradient(sums.total, s)).numpy()


@pytest.mark.parametrize("gap", [False, True])
@pytest.mark.parametrize("block", [1, 4, 512])
def test_equals_a_double_loop_in_blocks_of_any_size(gap: bool, block: int) -> None:
    sums, gradient = _bpr(gap=gap, block=block)
    np.testing.assert_allclose([float(v) for v in sums], _loop(SCORES, gap), rtol=1e-5)
    numeric = np.zeros(B)
    for i in range(B):
        moved = np.eye(B)[i] * 1e-5
        numeric[i] = (
            _loop(SCORES + moved, gap)[0] - _loop(SCORES - moved, gap)[0]
        ) / 2e-5
    np.testing.assert_allclose(gradient, numeric, rtol=1e-3, atol=1e-4)


def test_minimises_the_other_sign_of_nmtrs_release() -> None:
    total = float(_bpr()[0].total)
    assert not np.isclose(total, _loop(SCORES, False, sign=-1)[0], rtol=1e-2)
    _, gradient = _bpr()
    better, worse = _bpr(SCORES - 0.01 * gradient), _bpr(SCORES + 0.01 * gradient)
    assert float(better[0].total) < total < float(worse[0].total)


def test_equal_scores_cost_ln_2() -> None:
    sums, _ = _bpr(np.full(B, 0.7))
    np.testing.assert_allclose(sums.total / sums.weight, np.log(2), rtol=1e-6)


def test_a_constant_of_a_group_changes_nothing() -> None:
    sums, gradient = _bpr()
    moved, other = _bpr(SCORES + DRAW.normal(size=5)[GROUPS] * 3)
    np.testing.assert_allclose(moved.total, sums.total, rtol=1e-5)
    np.testing.assert_allclose(other, gradient, rtol=1e-4, atol=1e-5)
    for group in range(5):
        np.testing.assert_allclose(gradient[group == GROUPS].sum(), 0, atol=1e-4)
    # A constant of something else does.
    assert not np.isclose(_bpr(SCORES + 3 * (np.arange(B) % 2))[0].total, sums.total)


def test_nothing_to_compare_is_0_with_a_gradient_of_0() -> None:
    for labels, weights in ((np.ones(4), np.ones(4)), (np.arange(4), np.zeros(4))):
        s = tf.Variable([1.0, 2.0, 3.0, 4.0])
        with tf.GradientTape() as tape:
            sums = bpr(
                s,
                tf.constant(labels, tf.float32),
                tf.constant(weights, tf.float32),
                tf.zeros([4], tf.int32),
            )
        assert [float(v) for v in sums] == [0, 0, 0]
        gradient = tf.convert_to_tensor(tape.gradient(sums.total, s))
        np.testing.assert_array_equal(gradient, 0)


def test_works_in_a_graph_with_an_unknown_batch_size() -> None:
    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([None])] * 3 + [tf.TensorSpec([None], tf.int32)],
    )
    def run(s: Any, y: Any, w: Any, g: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(s)
            sums = bpr(s, y, w, g, block=4)
        return sums.total, tf.convert_to_tensor(tape.gradient(sums.total, s))

    arrays = [SCORES, LEVELS, WEIGHTS]
    found = run(
        *(tf.constant(a, tf.float32) for a in arrays), tf.constant(GROUPS, tf.int32)
    )
    sums, gradient = _bpr()
    np.testing.assert_allclose(found[0], sums.total, rtol=1e-5)
    np.testing.assert_allclose(found[1], gradient, rtol=1e-5, atol=1e-6)
