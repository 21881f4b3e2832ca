"""Aligned-MTL: a perfectly conditioned matrix of gradients."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.balance.properties import (
    COUNTS,
    WELL_POSED,
    drawn,
    fails,
    gram,
    make,
    norms,
    samples,
    weights_of,
)
from tfmtl.balance import AlignedMTL
from tfmtl.balance.aligned_mtl import alignment
from tfmtl.errors import ConfigError

EPS = float(np.finfo("float32").eps)
PICKS = {
    "min": np.min,
    "median": lambda x: np.sort(x)[(len(x) - 1) // 2],
    "rmse": lambda x: np.sqrt(np.mean(x**2)),
}


def matrix(gradients: np.ndarray, mode: str = "min") -> np.ndarray:
    return alignment(gram(gradients), mode, EPS).numpy()


def well_conditioned(aligned: np.ndarray, size: float, rank: int) -> None:
    """All singular values that are not 0 are one."""
    values = np.linalg.svd(aligned, compute_uv=False)
    np.testing.assert_allclose(values[:rank], size, rtol=1e-5)
    assert np.all(values[rank:] <= 1e-5 * size)


@pytest.mark.parametrize("mode", PICKS)
def test_the_aligned_gradients_have_one_singular_value(mode: str) -> None:
    for gradients in samples(*WELL_POSED, "deficient", "duplicated", "opposite"):
        values = np.linalg.svd(gradients, compute_uv=False)
        rank = int(np.sum(values > 1e-6 * values[0]))
        size = PICKS[mode](values[:rank])
        well_conditioned(matrix(gradients, mode) @ gradients, size, rank)
    skewed = drawn(3) * [[0.1], [1.0], [5.0]]
    assert fails(well_conditioned, skewed, norms(skewed).min(), 3)
    # Normalised gradients are of one length, but not orthogonal.
    units = drawn(3) / norms(drawn(3))[:, None]
    assert fails(well_conditioned, units, 1.0, 3)


def test_orthogonal_gradients_get_the_shortest_ones_norm() -> None:
    gradients = np.diag([1.0, 3.0, 0.5])
    np.testing.assert_allclose(matrix(gradients) @ gradients, 0.5 * np.eye(3), 1e-9)


def test_orthogonal_gradients_of_one_norm_keep_their_shares() -> None:
    gradients = 4.0 * np.eye(3)
    np.testing.assert_allclose(weights_of(make(AlignedMTL, 3), gradients), 1 / 3, 1e-6)
    chosen = make(AlignedMTL, 3, preference={"t1": 2.0})
    np.testing.assert_allclose(weights_of(chosen, gradients), [0.25, 0.5, 0.25], 1e-6)
    part = weights_of(chosen, gradients, present=[True, True, False])
    np.testing.assert_allclose(part, [1 / 3, 2 / 3, 0], rtol=1e-6)
    summed = make(AlignedMTL, 3, match_sum=True)
    np.testing.assert_allclose(weights_of(summed, gradients), 1.0, rtol=1e-6)


def test_no_gradient_leaves_the_shares() -> None:
    for count in COUNTS:
        np.testing.assert_array_equal(matrix(np.zeros((count, 4))), np.eye(count))


def test_what_float32_cannot_tell_from_0_is_left_out() -> None:
    gradients = np.stack([drawn(1)[0]] * 2)
    gradients[1] += 1e-7 * drawn(2)[1]
    kept = matrix(gradients) @ gradients
    assert np.linalg.norm(kept[0]) > 0.5 * np.linalg.norm(gradients[0])
    # With a tolerance of float64 the step would be that of the rounding.
    followed = alignment(gram(gradients), "min", 1e-16).numpy() @ gradients
    assert np.linalg.norm(followed[0]) < 1e-5 * np.linalg.norm(gradients[0])


def test_a_preference_names_tasks() -> None:
    with pytest.raises(ConfigError, match=r"preference` names \['buy'\]"):
        make(AlignedMTL, 2, preference={"buy": 1.0})
