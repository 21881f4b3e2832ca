"""CAGrad: dual, primal and limits."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.balance.properties import (
    COUNTS,
    SAMPLES,
    WELL_POSED,
    drawn,
    fails,
    gram,
    make,
    samples,
    weights_of,
)
from tfmtl._keras import tf
from tfmtl.balance import CAGrad
from tfmtl.balance.cagrad import cagrad_dual, cagrad_weights
from tfmtl.balance.simplex import minimum_norm


def dual_kkt(gradients: np.ndarray, weights: np.ndarray, radius: float) -> None:
    """Slopes of the dual are least, and the same, where weights are positive."""
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-9)
    assert np.all(weights >= 0)
    combined = weights @ gradients
    slopes = gradients @ (
        gradients.mean(axis=0) + radius * combined / np.linalg.norm(combined)
    )
    used = slopes[weights > 1e-6]
    assert np.ptp(used) <= 1e-5 * np.abs(slopes).max()
    assert np.all(slopes >= used.min() - 1e-5 * np.abs(slopes).max())


def direction(gradients: np.ndarray, c: float) -> np.ndarray:
    return cagrad_weights(gram(gradients), c).numpy() @ gradients


@pytest.mark.parametrize("c", [0.1, 0.4, 0.9, 3.0])
def test_the_dual_is_at_its_minimum(c: float) -> None:
    for gradients in samples(*WELL_POSED):
        # Of unlike norms, so that some weights are 0.
        gradients = gradients * np.linspace(0.5, 2.0, len(gradients))[:, None]
        radius = c * np.linalg.norm(gradients.mean(axis=0))
        weights = cagrad_dual(gram(gradients), tf.constant(radius)).numpy()
        dual_kkt(gradients, weights, radius)
    skewed = drawn(3) * [[0.2], [1.0], [3.0]]
    assert fails(dual_kkt, skewed, np.full(3, 1 / 3), 0.4)


@pytest.mark.parametrize("c", [0.1, 0.4, 0.9])
def test_the_direction_is_on_the_sphere_around_the_mean(c: float) -> None:
    for gradients in samples(*WELL_POSED, "deficient", "duplicated", "scaled"):
        mean = gradients.mean(axis=0)
        away = np.linalg.norm(direction(gradients, c) - mean)
        np.testing.assert_allclose(away, c * np.linalg.norm(mean), rtol=1e-6)


def test_the_worst_task_gains_and_no_direction_of_the_ball_is_better() -> None:
    draw = np.random.default_rng(0)
    for gradients in samples(*sorted(set(SAMPLES) - {"zero"})):
        mean, found = gradients.mean(axis=0), direction(gradients, 0.4)
        radius = 0.4 * np.linalg.norm(mean)
        worst = np.min(gradients @ found)
        size = 1e-9 * np.linalg.norm(gradients, axis=1).max() * radius
        assert worst >= np.min(gradients @ mean) - size
        # Tries in the span, where the best one is.
        tries = draw.normal(size=(500, len(gradients))) @ gradients
        tries *= radius / np.linalg.norm(tries, axis=1)[:, None]
        assert worst >= np.min(gradients @ (mean + tries).T, axis=0).max() - 10 * size


def test_a_radius_of_0_is_the_mean_gradient() -> None:
    for gradients in samples():
        weights = cagrad_weights(gram(gradients), 0.0)
        np.testing.assert_allclose(weights, 1 / len(gradients), rtol=1e-12)


def test_a_large_radius_is_mgda() -> None:
    for count in COUNTS:
        gradients = drawn(count)
        matrix = gram(gradients)
        weights = cagrad_dual(matrix, tf.constant(1e7, tf.float64))
        np.testing.assert_allclose(weights, minimum_norm(matrix), atol=1e-5)


def test_the_radius_is_a_share_of_the_norm_not_of_its_root() -> None:
    gradients = 100 * SAMPLES["conflicting"](3)
    mean = gradients.mean(axis=0)
    away = np.linalg.norm(direction(gradients, 0.4) - mean)
    assert away > 2 * 0.4 * np.sqrt(np.linalg.norm(mean))
    # All scaled alike, the weights are the same.
    np.testing.assert_allclose(
        cagrad_weights(gram(gradients), 0.4),
        cagrad_weights(gram(gradients / 1e6), 0.4),
        rtol=1e-6,
    )


def test_rescaling_is_the_authors() -> None:
    gradients = drawn(3)
    plain = weights_of(
        make(CAGrad, 3, c=0.5, rescale="none", match_sum=False), gradients
    )
    for rescale, factor in (("none", 1.0), ("square", 1.25), ("linear", 1.5)):
        found = weights_of(make(CAGrad, 3, c=0.5, rescale=rescale), gradients)
        np.testing.assert_allclose(found, 3 * plain / factor, rtol=1e-6)
