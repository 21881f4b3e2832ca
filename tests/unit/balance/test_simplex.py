"""The shortest vector in the hull, three ways that must agree."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.unit.balance.properties import (
    COUNTS,
    SAMPLES,
    WELL_POSED,
    drawn,
    fails,
    gram,
    minimum_norm_kkt,
    samples,
)
from tfmtl._keras import tf
from tfmtl.balance.simplex import (
    frank_wolfe,
    minimum_norm,
    projected_gradient,
    two_point,
)


def grid(count: int, steps: int, lower: np.ndarray) -> np.ndarray:
    """All weights of a grid on the simplex above the bounds."""
    room = 1 - lower.sum()
    places = itertools.product(range(steps + 1), repeat=count - 1)
    kept = np.array([p for p in places if sum(p) <= steps]) / steps
    return lower + room * np.column_stack([kept, 1 - kept.sum(axis=1)])


def value(gradients: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.sum((weights @ gradients) ** 2, axis=-1)


def test_two_tasks_have_a_closed_form() -> None:
    shares = np.linspace(0, 1, 10001)
    both = np.column_stack([shares, 1 - shares])
    for factor in (0.05, 0.5, 1.0, 3.0, 40.0):
        for name in (*WELL_POSED, "opposite", "duplicated"):
            gradients = SAMPLES[name](2) * [[1.0], [factor]]
            matrix = gradients @ gradients.T
            first = float(two_point(*map(tf.constant, matrix[[0, 0, 1], [0, 1, 1]])))
            assert 0 <= first <= 1
            found = value(gradients, np.array([first, 1 - first]))
            assert found <= value(gradients, both).min() * (1 + 1e-12) + 1e-20


@pytest.mark.parametrize("solver", [frank_wolfe, projected_gradient])
def test_iterations_reach_the_exact_answer(solver) -> None:
    for gradients in samples(*WELL_POSED, "deficient", "duplicated", "opposite"):
        matrix = gram(gradients)
        exact, found = minimum_norm(matrix).numpy(), solver(matrix).numpy()
        np.testing.assert_allclose(found.sum(), 1.0, rtol=1e-9)
        assert np.all(found >= 0)
        size = np.min(np.sum(gradients**2, axis=1))
        difference = value(gradients, found) - value(gradients, exact)
        assert -1e-9 * size <= difference <= 1e-6 * size


def test_the_exact_answer_meets_its_conditions() -> None:
    for gradients in samples(*sorted(set(SAMPLES) - {"zero"})):
        minimum_norm_kkt(gradients, minimum_norm(gram(gradients)).numpy())
    skewed = drawn(3) * [[1.0], [4.0], [0.5]]
    assert fails(minimum_norm_kkt, skewed, np.full(3, 1 / 3))
    # End points 0.999 and 0.001, as public solvers have them.
    aligned = np.array([[1.0, 0.0], [3.0, 1.0]])
    minimum_norm_kkt(aligned, minimum_norm(gram(aligned)).numpy())
    assert fails(minimum_norm_kkt, aligned, np.array([0.999, 0.001]))


def test_bounds_are_kept_and_cost_as_little_as_can_be() -> None:
    lower = np.array([0.1, 0.3, 0.05])
    for name in WELL_POSED:
        for factors in ([1, 1, 1], [0.2, 5, 1], [3, 0.1, 1]):
            gradients = SAMPLES[name](3) * np.array(factors)[:, None]
            found = minimum_norm(gram(gradients), tf.constant(lower)).numpy()
            np.testing.assert_allclose(found.sum(), 1.0, rtol=1e-12)
            assert np.all(found >= lower - 1e-12)
            best = value(gradients, grid(3, 200, lower)).min()
            assert value(gradients, found) <= best * (1 + 1e-12)
            assert value(gradients, found) > 0.97 * best  # The grid is no finer.


def test_bounds_without_room_are_the_answer() -> None:
    for lower in ([0.2, 0.3, 0.5], [1.0, 0.0, 0.0]):
        found = minimum_norm(gram(drawn(3)), tf.constant(np.array(lower)))
        np.testing.assert_allclose(found, lower, atol=1e-12)


def test_bounds_at_all_scales_are_numbers_that_sum_to_1() -> None:
    for count in COUNTS:
        lower = np.full(count, 0.4 / count)
        for sample in SAMPLES.values():
            found = minimum_norm(gram(sample(count)), tf.constant(lower)).numpy()
            np.testing.assert_allclose(found.sum(), 1.0, rtol=1e-9)
            assert np.all(found >= lower - 1e-12)
