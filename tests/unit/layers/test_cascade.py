"""Scores of behaviours that build on one another."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers.cascade import cascade


def loop(own: np.ndarray, bias: np.ndarray, form: str) -> np.ndarray:
    """The recursion, score by score."""
    bias = np.broadcast_to(bias, own.shape)
    scores = [own[:, 0] + bias[:, 0]]
    for r in range(1, own.shape[1]):
        entered = own[:, r] + scores[-1]
        scores.append((entered if form == "sum" else entered / 2) + bias[:, r])
    return np.stack(scores, axis=1)


def draw(count: int, biases: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(7, count)), rng.normal(size=(7, biases))


@pytest.mark.parametrize("form", ["sum", "mean"])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("shared", [True, False])
def test_is_the_recursion(form: str, count: int, shared: bool) -> None:
    own, bias = draw(count, 1 if shared else count)
    found = cascade(tf.constant(own), tf.constant(bias), form).numpy()
    np.testing.assert_allclose(found, loop(own, bias, form), rtol=1e-12)
    if count > 1:
        other = "mean" if form == "sum" else "sum"
        assert np.abs(found - loop(own, bias, other)).max() > 0.1


def test_behaviours_that_add_nothing() -> None:
    own, bias = draw(4, 1)
    own[:, 1:] = 0
    first = own[:, :1]
    summed = cascade(tf.constant(own), tf.constant(0 * bias), "sum")
    np.testing.assert_allclose(summed, np.repeat(first, 4, axis=1))
    mean = cascade(tf.constant(own), tf.constant(0 * bias), "mean")
    np.testing.assert_allclose(mean, first / 2.0 ** np.arange(4))


@pytest.mark.parametrize(("form", "last"), [("sum", 1.0), ("mean", 0.125)])
def test_a_score_moves_all_that_follow(form: str, last: float) -> None:
    own, bias = (tf.constant(v) for v in draw(4, 1))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(own)
        scores = tf.unstack(cascade(own, bias, form), axis=1)
    slopes = np.array([tape.gradient(s, own)[0] for s in scores])
    assert ((slopes != 0) == np.tri(4, dtype=bool)).all()
    assert slopes[-1, 0] == pytest.approx(last)
