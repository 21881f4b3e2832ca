"""Nash-MTL: the bargaining condition."""

from __future__ import annotations

import numpy as np

from tests.unit.balance.identity import Tiny
from tests.unit.balance.properties import (
    SAMPLES,
    WELL_POSED,
    bargain,
    cosine,
    drawn,
    fails,
    gram,
    make,
    norms,
    samples,
    scale_invariant,
    weights_of,
)
from tfmtl.balance import NashMTL
from tfmtl.balance.nash_mtl import nash_weights


def weigh(gradients: np.ndarray) -> np.ndarray:
    return nash_weights(gram(gradients)).numpy()


def test_the_bargain_is_struck_and_its_direction_has_length_root_t() -> None:
    for gradients in samples(*WELL_POSED, "duplicated", "scaled"):
        bargain(gradients, weigh(gradients), rtol=1e-5)
    assert fails(bargain, drawn(3), weigh(drawn(3)) * 1.01)
    assert fails(bargain, drawn(3), 1 / norms(drawn(3)))
    assert fails(bargain, drawn(3), weigh(drawn(3)) ** 2)  # M a = 1 / a, not 1 / a^2


def test_two_tasks_are_analytic() -> None:
    for name in WELL_POSED:
        gradients = SAMPLES[name](2) * [[1.0], [30.0]]
        wanted = 1 / (norms(gradients) * np.sqrt(1 + cosine(*gradients)))
        np.testing.assert_allclose(weigh(gradients), wanted, rtol=1e-6)


def test_the_direction_ignores_scales() -> None:
    for gradients in samples(*WELL_POSED, "duplicated"):
        scale_invariant(weigh, gradients)


def test_where_gradients_cancel_weights_stay_bounded_and_the_direction_vanishes() -> (
    None
):
    gradients = SAMPLES["opposite"](2)
    weights = weigh(gradients)
    assert np.all(weights * norms(gradients) <= 1.01e4)
    np.testing.assert_allclose(weights @ gradients, 0, atol=1e-6)


def test_the_length_can_be_cut() -> None:
    gradients = drawn(3)
    free = weights_of(make(NashMTL, 3), gradients)
    for longest, length in ((1.0, 1.0), (9.0, np.sqrt(3))):
        cut = weights_of(make(NashMTL, 3, max_norm=longest), gradients)
        np.testing.assert_allclose(np.linalg.norm(cut @ gradients), length, rtol=1e-5)
        np.testing.assert_allclose(cut / cut.sum(), free / free.sum(), rtol=1e-5)


def test_own_parts_descend_their_losses_or_weighted_ones() -> None:
    targets = np.array([[1.0, 2.0, 0.0], [-1.0, 0.5, 3.0]])
    plain = Tiny(make(NashMTL, 2), targets)()
    np.testing.assert_allclose(plain.own, plain.losses, rtol=1e-6)
    weighted = Tiny(make(NashMTL, 2, own="weighted"), targets)()
    np.testing.assert_allclose(
        weighted.own, weighted.weights * weighted.losses, rtol=1e-5
    )
    np.testing.assert_allclose(weighted.shared, plain.shared, rtol=1e-6)
    bargain(weighted.per_task, weighted.weights.astype("f8"), rtol=1e-4)
