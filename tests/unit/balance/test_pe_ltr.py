"""PE-LTR: bounds, two steps, and the exact answer."""

from __future__ import annotations

import numpy as np
import pydantic
import pytest

from tests.unit.balance.properties import (
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
from tfmtl.balance import PELTR
from tfmtl.balance.pe_ltr import pe_ltr_weights, relaxed_weights, within_bounds
from tfmtl.balance.simplex import minimum_norm, two_point


def solve(gradients: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    return pe_ltr_weights(gram(gradients), tf.constant(bounds)).numpy()


def legal(weights: np.ndarray, bounds: np.ndarray) -> None:
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-9)
    assert np.all(weights >= bounds - 1e-12)


def value(gradients: np.ndarray, weights: np.ndarray) -> float:
    return float(np.sum((weights @ gradients) ** 2))


def some_bounds(count: int) -> np.ndarray:
    return np.linspace(0.0, 0.3, count) / max(count - 1, 1)


def test_weights_sum_to_1_above_their_bounds() -> None:
    for gradients in samples(*sorted(set(SAMPLES) - {"zero"})):
        bounds = some_bounds(len(gradients))
        legal(solve(gradients, bounds), bounds)
    # The projection as printed sums to 1 before the bounds are added.
    bounds = some_bounds(3)
    matrix = gram(drawn(3))
    relaxed = relaxed_weights(matrix, tf.constant(bounds))
    printed = within_bounds(relaxed, tf.zeros([3], tf.float64)).numpy() + bounds
    assert fails(legal, printed, bounds)


def test_the_relaxed_solution_meets_the_conditions_of_its_system() -> None:
    for gradients in samples(*WELL_POSED, "deficient", "duplicated", "opposite"):
        bounds = some_bounds(len(gradients))
        matrix = gradients @ gradients.T
        found = relaxed_weights(tf.constant(matrix), tf.constant(bounds)).numpy()
        np.testing.assert_allclose(found.sum(), 1 - bounds.sum(), rtol=1e-8)
        slopes = matrix @ (found + bounds)  # All are -lambda.
        assert np.ptp(slopes) <= 1e-8 * matrix.max()


def test_two_tasks_are_exact() -> None:
    for name in (*WELL_POSED, "opposite"):
        for factor in (0.1, 1.0, 1.7, 30.0):
            gradients = SAMPLES[name](2) * [[1.0], [factor]]
            matrix = gradients @ gradients.T
            alpha = float(two_point(*map(tf.constant, matrix[[0, 0, 1], [0, 1, 1]])))
            free = solve(gradients, np.zeros(2))
            np.testing.assert_allclose(free, [alpha, 1 - alpha], atol=1e-8)
            bounds = np.array([0.3, 0.25])
            wanted = np.clip(alpha, 0.3, 0.75)
            found = solve(gradients, bounds)
            np.testing.assert_allclose(found, [wanted, 1 - wanted], atol=1e-8)


def test_bounds_without_room_are_the_weights() -> None:
    bounds = np.array([0.5, 0.2, 0.3])
    np.testing.assert_allclose(solve(drawn(3), bounds), bounds, atol=1e-12)


def test_the_two_steps_are_never_better_than_the_exact_answer_and_may_be_worse() -> (
    None
):
    worse = 0
    bounds = np.array([0.1, 0.0, 0.05])
    for seed in range(30):
        scales = np.random.default_rng(seed).lognormal(0, 1, (3, 1))
        gradients = (drawn(3, seed) + 0.5) * scales
        exact = minimum_norm(gram(gradients), tf.constant(bounds)).numpy()
        legal(exact, bounds)
        two, best = value(gradients, solve(gradients, bounds)), value(gradients, exact)
        assert two >= best * (1 - 1e-9)
        worse += two > best * 1.001
    assert worse > 0


def test_weights_serve_the_next_update_or_this_one() -> None:
    first, second = drawn(3) * [[1.0], [3.0], [0.2]], drawn(3, 1)
    bounds = {"t0": 0.2}
    lower = np.array([0.2, 0.0, 0.0])
    later = make(PELTR, 3, bounds=bounds)
    np.testing.assert_allclose(weights_of(later, first), 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(weights_of(later, second), solve(first, lower), 1e-5)
    np.testing.assert_allclose(weights_of(later, first), solve(second, lower), 1e-5)
    now = make(PELTR, 3, bounds=bounds, use="now")
    np.testing.assert_allclose(weights_of(now, first), solve(first, lower), rtol=1e-5)
    exact = make(PELTR, 3, bounds=bounds, use="now", exact=True, match_sum=True)
    wanted = minimum_norm(gram(second), tf.constant(lower))
    np.testing.assert_allclose(weights_of(exact, second), 3 * wanted, rtol=1e-5)


def test_absent_tasks_keep_their_share_and_the_others_split_the_rest() -> None:
    balancer = make(PELTR, 3, bounds={"t0": 0.1})
    weights_of(balancer, drawn(3))
    before = balancer.weights.numpy()[0]
    used = weights_of(balancer, drawn(3, 1), present=[True, True, False])
    legal(used[:2], np.array([0.1, 0.0]))
    after = balancer.weights.numpy()[0]
    assert after[2] == before[2]
    np.testing.assert_allclose(after.sum(), 1.0, rtol=1e-9)
    found = solve(drawn(3, 1)[:2], np.array([0.1, 0.0]))
    np.testing.assert_allclose(after[:2], found * (1 - before[2]), rtol=1e-6)


def test_normalised_gradients_may_be_compared() -> None:
    gradients = drawn(3) * [[1e-3], [1.0], [1e3]]
    balancer = make(PELTR, 3, use="now", normalization="l2")
    sizes = np.linalg.norm(gradients, axis=1)
    wanted = solve(gradients / sizes[:, None], np.zeros(3)) / sizes
    np.testing.assert_allclose(weights_of(balancer, gradients), wanted, rtol=1e-5)


def test_bounds_are_checked() -> None:
    with pytest.raises(pydantic.ValidationError, match="sum to at most 1"):
        PELTR.Config(bounds={"a": 0.7, "b": 0.4})
    with pytest.raises(pydantic.ValidationError, match="greater than or equal to 0"):
        PELTR.Config(bounds={"a": -0.1})
