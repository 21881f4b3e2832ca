"""Building blocks of T x T algebra."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.balance.properties import COUNTS, SAMPLES, drawn, fails, gram, samples
from tfmtl._keras import tf
from tfmtl.balance.solvers import (
    cosines_and_norms,
    minimise_with_barrier,
    project_to_simplex,
    pseudo_inverse,
    solve_semidefinite,
)


def nearest(point: np.ndarray, values: np.ndarray, radius: float) -> None:
    """The conditions of the quadratic programme: values - point is one threshold where
    the point is positive, and at most that elsewhere."""
    np.testing.assert_allclose(point.sum(), radius, atol=1e-12)
    assert np.all(point >= 0)
    if radius == 0:
        return
    gap = values - point
    threshold = gap[point > 0]
    np.testing.assert_allclose(threshold, threshold[0], atol=1e-12)
    assert np.all(gap <= threshold[0] + 1e-12)


@pytest.mark.parametrize("radius", [1.0, 0.3, 2.5, 0.0])
def test_the_projection_is_the_nearest_point_of_the_simplex(radius: float) -> None:
    draw = np.random.default_rng(0)
    for count in (1, 2, 3, 5, 9):
        for scale in (0.1, 1.0, 100.0):
            values = scale * draw.normal(size=count)
            point = project_to_simplex(tf.constant(values), radius).numpy()
            nearest(point, values, radius)
            again = project_to_simplex(tf.constant(point), radius)
            np.testing.assert_allclose(again, point, atol=1e-12)


def test_cutting_and_dividing_is_not_the_projection() -> None:
    values = np.array([0.9, 0.4, -0.2])
    cut = np.maximum(values, 0)
    assert fails(nearest, cut / cut.sum(), values, 1.0)


def test_the_pseudo_inverse_is_numpys() -> None:
    for matrix in (
        drawn(4) @ drawn(4).T,
        SAMPLES["deficient"](5) @ SAMPLES["deficient"](5).T,
        np.block([[np.ones((3, 3)), np.ones((3, 1))], [np.ones((1, 3)), 0.0]]),
        np.zeros((2, 2)),
    ):
        wanted = np.linalg.pinv(matrix, rcond=1e-10, hermitian=True)
        np.testing.assert_allclose(pseudo_inverse(matrix), wanted, atol=1e-10)
    # Without the cut rounding is inverted.
    deficient = SAMPLES["deficient"](5)
    inverse = pseudo_inverse(gram(deficient), 0.0).numpy()
    assert np.abs(inverse).max() > 1e9


def test_cosines_have_ones_on_the_diagonal_at_any_scale() -> None:
    for gradients in samples():
        cosines, norms = cosines_and_norms(gram(gradients))
        np.testing.assert_array_equal(np.diag(cosines), 1)
        np.testing.assert_allclose(norms, np.linalg.norm(gradients, axis=1), rtol=1e-12)
        size = norms[:, None] * norms[None]
        np.testing.assert_allclose(
            np.where(np.eye(len(gradients)) > 0, size, cosines * size),
            np.where(np.eye(len(gradients)) > 0, size, gradients @ gradients.T),
            rtol=1e-9,
            atol=1e-12 * np.max(size),
        )


def test_semidefinite_systems_are_solved_where_they_can_be() -> None:
    cosines = cosines_and_norms(gram(drawn(4)))[0]
    right = tf.constant(np.random.default_rng(1).normal(size=(4, 2)))
    np.testing.assert_allclose(
        solve_semidefinite(cosines, right), np.linalg.solve(cosines, right), rtol=1e-9
    )
    singular = tf.ones([3, 3], tf.float64)
    found = solve_semidefinite(singular, tf.ones([3, 1], tf.float64))
    np.testing.assert_allclose(tf.matmul(singular, found), np.ones((3, 1)), rtol=1e-6)


def test_the_barrier_problem_is_stationary() -> None:
    for name in ("random", "agreeing", "conflicting", "duplicated", "opposite"):
        for count in COUNTS:
            cosines = cosines_and_norms(gram(SAMPLES[name](count)))[0].numpy()
            matrix = cosines + 1e-8 * np.eye(count)
            found = minimise_with_barrier(tf.constant(matrix)).numpy()
            assert np.all(found > 0)
            np.testing.assert_allclose(found * (matrix @ found), 1.0, atol=1e-6)


def test_without_damping_newton_leaves_the_positive_numbers() -> None:
    matrix = 2 * np.array([[100.0, 9.0], [9.0, 1.0]])
    start = np.full(2, 1 / np.sqrt(2))
    hessian = matrix + np.diag(1 / start**2)
    full = start - np.linalg.solve(hessian, matrix @ start - 1 / start)
    assert full.min() < 0
    found = minimise_with_barrier(tf.constant(matrix)).numpy()
    np.testing.assert_allclose(found * (matrix @ found), 1.0, atol=1e-9)
