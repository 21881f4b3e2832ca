"""GradVac in coefficients, against explicit gradients."""

from __future__ import annotations

import numpy as np
import pydantic
import pytest

from tests.unit.balance.properties import (
    COUNTS,
    SAMPLES,
    cosine,
    drawn,
    gram,
    make,
    orders,
    stats_of,
    weights_of,
)
from tests.unit.balance.test_pcgrad import explicit as explicit_pcgrad
from tfmtl._keras import tf
from tfmtl.balance import GradVac
from tfmtl.balance.gradvac import LIMIT, gradvac_weights


def explicit(
    gradients: np.ndarray, order: np.ndarray, targets: np.ndarray, rate: float
) -> tuple[np.ndarray, np.ndarray]:
    """The paper's rule on vectors: combined gradient and new targets."""
    targets, total = targets.copy(), np.zeros(gradients.shape[1])
    for t, row in enumerate(order):
        moved = gradients[t].copy()
        for s in row:
            size = np.linalg.norm(moved)
            if s == t or size < 1e-7 * np.linalg.norm(gradients[t]):
                continue
            phi = np.clip(cosine(moved, gradients[s]), -1, 1)
            wanted = np.clip(targets[t, s], -LIMIT, LIMIT)
            if phi < wanted:
                across = np.sqrt(1 - wanted**2)
                more = size * (wanted * np.sqrt(1 - phi**2) - phi * across)
                moved += more / (np.linalg.norm(gradients[s]) * across) * gradients[s]
            targets[t, s] = (1 - rate) * targets[t, s] + rate * phi
        total += moved
    return total, targets


def some_targets(count: int) -> np.ndarray:
    found = np.random.default_rng(3).uniform(-0.5, 1.0, (count, count))
    found[0] = 1.0  # Cut to the limit.
    return found


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - {"zero"}))
def test_coefficients_are_the_explicit_rule(name: str) -> None:
    for count in COUNTS:
        gradients, order = SAMPLES[name](count), orders(count)
        targets = some_targets(count)
        if name in ("duplicated", "opposite", "deficient"):
            # Dependent gradients may meet the angle of 0 or 180 degrees, where the
            # square root makes 1e-8 of rounding.
            targets = np.zeros_like(targets)
        weights, moved = gradvac_weights(
            gram(gradients), order, tf.constant(targets), 0.2
        )
        wanted, targets = explicit(gradients, order, targets, 0.2)
        size = np.linalg.norm(gradients, axis=1).max()
        np.testing.assert_allclose(
            weights.numpy() @ gradients, wanted, rtol=1e-6, atol=1e-6 * size
        )
        np.testing.assert_allclose(moved, targets, rtol=1e-6, atol=1e-7)


def test_after_it_the_cosine_is_the_target() -> None:
    gradients = SAMPLES["conflicting"](2)
    for target in (-0.2, 0.0, 0.4, 0.9):
        assert cosine(*gradients) < target
        # Row 0 is bent; row 1's target is met already.
        targets = tf.constant([[0.0, target], [-0.999, 0.0]], tf.float64)
        weights, _ = gradvac_weights(gram(gradients), orders(2), targets, 0.1)
        bent = weights.numpy() @ gradients - gradients[1]
        np.testing.assert_allclose(cosine(bent, gradients[1]), target, atol=1e-9)
        # Without the factor of the length it would be another angle.
        more = weights.numpy()[1] - 1
        longer = gradients[0] + more * np.linalg.norm(gradients[1]) * gradients[1]
        assert abs(cosine(longer, gradients[1]) - target) > 1e-3


def test_targets_of_0_are_pcgrad() -> None:
    for count in COUNTS:
        gradients, order = SAMPLES["conflicting"](count), orders(count)
        zeros = tf.zeros([count, count], tf.float64)
        weights, _ = gradvac_weights(gram(gradients), order, zeros, 0.1)
        np.testing.assert_allclose(
            weights.numpy() @ gradients, explicit_pcgrad(gradients, order), rtol=1e-6
        )


def test_cosines_above_their_targets_change_nothing_but_the_targets() -> None:
    for count in COUNTS:
        gradients = SAMPLES["agreeing"](count)
        low = tf.fill([count, count], tf.constant(0.01, tf.float64))
        weights, moved = gradvac_weights(gram(gradients), orders(count), low, 0.1)
        np.testing.assert_array_equal(weights, 1)
        # Moved only where something was bent, they would still be 0.01.
        others = ~np.eye(count, dtype=bool)
        assert np.all(moved.numpy()[others] > 0.02)
        np.testing.assert_array_equal(np.diag(moved), 0.01)


def test_state_is_of_pairs_and_groups_and_waits_for_absent_tasks() -> None:
    balancer = make(GradVac, 3, groups=2, beta=0.5)
    gradients = np.stack([SAMPLES["agreeing"](3), SAMPLES["conflicting"](3)])
    weights_of(balancer, gradients)
    first = balancer.targets.numpy()
    assert np.all(first[0][~np.eye(3, dtype=bool)] > 0.1)
    assert first[1].min() < -0.05
    balancer.weigh(stats_of(gradients, present=[True, False, True], step=1))
    second = balancer.targets.numpy()
    np.testing.assert_array_equal(second[:, 1], first[:, 1])
    np.testing.assert_array_equal(second[:, :, 1], first[:, :, 1])
    assert np.all(second[:, 0, 2] != first[:, 0, 2])


def test_targets_come_to_the_usual_cosine() -> None:
    balancer = make(GradVac, 2, beta=0.3)
    gradients = SAMPLES["agreeing"](2)
    for step in range(60):
        weights_of(balancer, gradients, step=step)
    wanted = cosine(*gradients)
    np.testing.assert_allclose(balancer.targets[0, 0, 1], wanted, rtol=1e-6)
    np.testing.assert_allclose(balancer.targets[0, 1, 0], wanted, rtol=1e-6)
    # Now what agrees less than usual is bent, though nothing conflicts.
    less = drawn(2) + 0.7
    assert 0 < cosine(*less) < wanted
    assert np.all(weights_of(balancer, less, step=60) > 1)


def test_layers_are_the_default_and_rates_are_checked() -> None:
    assert GradVac.Config().granularity == "layer"
    with pytest.raises(pydantic.ValidationError, match="greater than 0"):
        GradVac.Config(beta=0)
