"""MGDA and MGDA-UB."""

from __future__ import annotations

import numpy as np
import pydantic
import pytest

from tests.unit.balance.identity import balanced_gradient
from tests.unit.balance.properties import (
    SAMPLES,
    WELL_POSED,
    conflict_free,
    drawn,
    fails,
    gram,
    make,
    minimum_norm_kkt,
    norms,
    samples,
    scale_invariant,
    weights_of,
)
from tfmtl._keras import tf
from tfmtl.balance import MGDA, MGDAUB
from tfmtl.balance.mgda import SOLVERS, gradient_scales, mgda_weights


def plain(gradients: np.ndarray, solver: str = "exact") -> np.ndarray:
    ones = tf.ones([len(gradients)], tf.float64)
    return mgda_weights(gram(gradients), ones, solver).numpy()


def test_no_loss_rises_and_the_direction_is_the_shortest() -> None:
    for gradients in samples(*sorted(set(SAMPLES) - {"zero"})):
        weights = plain(gradients)
        minimum_norm_kkt(gradients, weights)
        conflict_free(gradients, weights @ gradients)
    opposed = np.array([[1.0, 0.0], [-3.0, 0.1]])
    assert fails(conflict_free, opposed, opposed.sum(axis=0))


def test_two_tasks_are_analytic() -> None:
    shares = np.linspace(0, 1, 20001)[:, None]
    for name in WELL_POSED:
        one, two = SAMPLES[name](2) * [[1.0], [1.3]]
        best = np.argmin(np.sum((shares * one + (1 - shares) * two) ** 2, axis=1))
        found = plain(np.stack([one, two]))
        np.testing.assert_allclose(found[0], shares[best, 0], atol=1e-4)


def test_orthogonal_gradients_weigh_by_the_inverse_square_of_their_norm() -> None:
    gradients = np.diag([1.0, 2.0, 0.5, 10.0])
    wanted = 1 / np.diag(gradients) ** 2
    np.testing.assert_allclose(plain(gradients), wanted / wanted.sum(), rtol=1e-9)


def test_opposite_gradients_cancel() -> None:
    gradients = np.stack([drawn(1)[0], -drawn(1)[0]])
    np.testing.assert_allclose(plain(gradients) @ gradients, 0, atol=1e-12)


def test_frank_wolfe_is_near_the_exact_answer_for_three_tasks() -> None:
    for name in WELL_POSED:
        gradients = SAMPLES[name](3)
        wanted = plain(gradients)
        for solver in SOLVERS:
            np.testing.assert_allclose(plain(gradients, solver), wanted, atol=1e-3)


def test_normalised_gradients_are_what_is_compared() -> None:
    losses = np.array([0.5, 2.0, 8.0])
    gradients = drawn(3) * losses[:, None]
    divided = {
        "none": gradients,
        "l2": gradients / norms(gradients)[:, None],
        "loss": gradients / losses[:, None],
        "loss+": gradients / (losses * norms(gradients))[:, None],
    }
    for kind, compared in divided.items():
        balancer = make(MGDA, 3, normalization=kind)
        weights = weights_of(balancer, gradients, losses=losses)
        np.testing.assert_allclose(
            weights @ gradients, plain(compared) @ compared, rtol=1e-5, atol=1e-6
        )
    # The solution belongs to the normalised gradients, not to those given.
    alpha = plain(divided["l2"])
    assert not np.allclose(alpha @ gradients, alpha @ divided["l2"], rtol=0.1)


def test_with_l2_the_direction_ignores_scales_and_without_it_does_not() -> None:
    def direction(kind: str):
        def weigh(gradients: np.ndarray) -> np.ndarray:
            ones = tf.ones([len(gradients)], tf.float64)
            matrix = gram(gradients)
            scales = gradient_scales(matrix, ones, kind)
            return mgda_weights(matrix, scales).numpy()

        return weigh

    for gradients in samples(*WELL_POSED):
        scale_invariant(direction("l2"), gradients)
    assert fails(scale_invariant, direction("none"), drawn(3))


def test_match_sum_is_as_long_as_the_sum() -> None:
    same = np.repeat(drawn(1), 3, axis=0)
    weights = weights_of(make(MGDA, 3, match_sum=True), same)
    np.testing.assert_allclose(weights @ same, same.sum(axis=0), rtol=1e-6)
    part = [True, True, False]
    weights = weights_of(make(MGDA, 3, match_sum=True), same, present=part)
    np.testing.assert_allclose(weights.sum(), 2.0, rtol=1e-6)


def test_the_upper_bound_is_tight_where_the_trunk_is_the_identity() -> None:
    targets = np.array([[1.0, 2.0, 0.0], [-1.0, 0.5, 0.3], [0.2, 0.2, 2.0]])
    for settings in ({}, {"normalization": "l2"}):
        full = balanced_gradient(make(MGDA, 3, **settings), targets)
        bound = balanced_gradient(make(MGDAUB, 3, **settings), targets)
        np.testing.assert_allclose(bound.shared, full.shared, rtol=1e-5)
        np.testing.assert_allclose(bound.weights, full.weights, rtol=1e-5)
    # Half the trunk's step is another Jacobian, and another bound all the same.
    half = balanced_gradient(make(MGDAUB, 3), targets, trunk=[0.5, 1.0, 4.0])
    assert not np.allclose(half.weights, full.weights, rtol=1e-2)


def test_the_upper_bound_cannot_be_asked_for_full_gradients() -> None:
    assert MGDAUB.Config().gradients == "representation"
    with pytest.raises(pydantic.ValidationError, match="representation"):
        MGDAUB.Config(gradients="full")
