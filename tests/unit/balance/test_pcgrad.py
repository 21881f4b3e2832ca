"""PCGrad in coefficients, against explicit gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.unit.balance.properties import (
    COUNTS,
    SAMPLES,
    conflict_free,
    drawn,
    fails,
    gram,
    make,
    orders,
    weights_of,
)
from tfmtl.balance import PCGrad
from tfmtl.balance.pcgrad import pcgrad_weights, random_orders


def explicit(
    gradients: np.ndarray, order: np.ndarray, project: Callable | None = None
) -> np.ndarray:
    """Algorithm 1 on vectors."""
    total = np.zeros(gradients.shape[1])
    moved_so_far = gradients.copy()
    for t, row in enumerate(order):
        moved = gradients[t].copy()
        for s in row:
            onto = (moved_so_far if project == "updated" else gradients)[s]
            tested = gradients[t] if project == "original" else moved
            if s != t and tested @ onto < 0:
                moved -= (tested @ onto) / (onto @ onto) * onto
        moved_so_far[t] = moved
        total += moved
    return total


def combined(gradients: np.ndarray, order: np.ndarray) -> np.ndarray:
    return pcgrad_weights(gram(gradients), order).numpy() @ gradients


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - {"zero"}))
def test_coefficients_are_the_explicit_projections(name: str) -> None:
    for count in COUNTS:
        for seed in range(3):
            gradients, order = SAMPLES[name](count), orders(count, seed)
            wanted = explicit(gradients, order)
            # Against what was added up: opposite gradients leave rounding.
            size = np.linalg.norm(gradients, axis=1).max()
            np.testing.assert_allclose(
                combined(gradients, order), wanted, rtol=1e-6, atol=1e-9 * size
            )


@pytest.mark.parametrize("variant", ["updated", "original"])
def test_other_projections_are_other_directions(variant: str) -> None:
    gradients, order = SAMPLES["conflicting"](5), orders(5)
    other = explicit(gradients, order, variant)
    assert not np.allclose(combined(gradients, order), other, rtol=1e-3)


def test_two_tasks_end_orthogonal_to_each_other() -> None:
    gradients, order = np.array([[1.0, 0.2], [-2.0, 0.3]]), orders(2)
    first, second = gradients
    one = first - (first @ second) / (second @ second) * second
    two = second - (first @ second) / (first @ first) * first
    np.testing.assert_allclose([one @ second, two @ first], 0, atol=1e-12)
    np.testing.assert_allclose(combined(gradients, order), one + two, rtol=1e-9)
    conflict_free(gradients, combined(gradients, order))
    assert fails(conflict_free, gradients * [[1.0], [5.0]], 5 * second + first)


def test_without_conflicts_it_is_the_sum() -> None:
    for count in COUNTS:
        gradients = SAMPLES["agreeing"](count)
        assert np.all(gradients @ gradients.T > 0)
        weights = pcgrad_weights(gram(gradients), orders(count))
        np.testing.assert_array_equal(weights, 1)


def test_opposite_gradients_cancel() -> None:
    for factor in (0.01, 1.0, 300.0):
        gradients = np.stack([drawn(1)[0], -factor * drawn(1)[0]])
        found = combined(gradients, orders(2))
        np.testing.assert_allclose(found, 0, atol=1e-9 * factor)


def test_orders_follow_seed_step_and_group_alone() -> None:
    chosen = np.arange(5, dtype="i4")

    def order(seed: int = 0, step: int = 3, group: int = 0) -> np.ndarray:
        return random_orders(seed, step, group, 5, chosen).numpy()

    np.testing.assert_array_equal(np.sort(order(), axis=1), [np.arange(5)] * 5)
    np.testing.assert_array_equal(order(), order())
    for other in (order(seed=1), order(step=4), order(group=1)):
        assert np.any(other != order())


def test_the_order_matters_and_is_drawn_anew() -> None:
    gradients = SAMPLES["conflicting"](5)
    balancer = make(PCGrad, 5)
    found = [weights_of(balancer, gradients, step=s) for s in (0, 0, 1)]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2], rtol=1e-3)
    wanted = explicit(
        gradients, random_orders(7, 1, 0, 5, np.arange(5, dtype="i4")).numpy()
    )
    np.testing.assert_allclose(found[2] @ gradients, wanted, rtol=1e-4, atol=1e-5)
