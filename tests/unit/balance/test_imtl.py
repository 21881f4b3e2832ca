"""IMTL-G, and the hybrid with scaled losses."""

from __future__ import annotations

import numpy as np

from tests.unit.balance.identity import Tiny
from tests.unit.balance.properties import (
    SAMPLES,
    WELL_POSED,
    cosine,
    drawn,
    equal_projections,
    fails,
    gram,
    make,
    norms,
    samples,
    scale_invariant,
    weights_of,
)
from tfmtl._keras import tf
from tfmtl.balance import IMTL, IMTLG
from tfmtl.balance.imtl import imtl_g_weights, imtl_l_step


def weigh(gradients: np.ndarray) -> np.ndarray:
    return imtl_g_weights(gram(gradients)).numpy()


def paper(gradients: np.ndarray) -> np.ndarray:
    """alpha_{2:T} = g_1 U' (D U')^-1, alpha_1 = 1 - sum."""
    units = gradients / norms(gradients)[:, None]
    differences, spread = units[0] - units[1:], gradients[0] - gradients[1:]
    rest = gradients[0] @ differences.T @ np.linalg.inv(spread @ differences.T)
    return np.concatenate([[1 - rest.sum()], rest])


def test_projections_on_unit_gradients_are_equal() -> None:
    for gradients in samples(*WELL_POSED, "opposite", "duplicated", "scaled"):
        if len(gradients) > 2 and abs(cosine(*gradients[:2]) + 1) < 1e-9:
            continue  # Two opposite ones among others: nothing but 0 is equal.
        equal_projections(gradients, weigh(gradients) @ gradients)
    skewed = drawn(3) * [[0.1], [1.0], [20.0]]
    assert fails(equal_projections, skewed, skewed.sum(axis=0))


def test_both_closed_forms_agree() -> None:
    for gradients in samples(*WELL_POSED, counts=(2, 3, 5)):
        for factors in (1.0, np.linspace(0.3, 4, len(gradients))[:, None]):
            found = weigh(factors * gradients)
            np.testing.assert_allclose(found, paper(factors * gradients), rtol=1e-6)
            np.testing.assert_allclose(found.sum(), 1.0, rtol=1e-9)


def test_two_tasks_weigh_by_the_others_norm() -> None:
    for name in (*WELL_POSED, "opposite", "duplicated"):
        gradients = SAMPLES[name](2) * [[1.0], [7.0]]
        sizes = norms(gradients)
        np.testing.assert_allclose(
            weigh(gradients), sizes[::-1] / sizes.sum(), rtol=1e-6
        )


def test_the_direction_ignores_scales() -> None:
    for gradients in samples(*WELL_POSED, "deficient", "duplicated"):
        scale_invariant(weigh, gradients)
    assert fails(scale_invariant, lambda g: np.ones(len(g)), drawn(3))


def test_a_negative_sum_neither_turns_the_direction_nor_stretches_it() -> None:
    # Between the first two, and small: its weight is negative and dominates the sum.
    gradients = np.array([[1.0, 0.9, 0.0], [1.0, -0.9, 0.0], [1e-3, 0.0, 1e-5]])
    units = np.linalg.pinv(gradients @ gradients.T) @ norms(gradients)
    assert units.sum() < 0
    combined = weigh(gradients) @ gradients
    equal_projections(gradients, combined, 1e-4)
    assert np.all(gradients @ combined > 0)
    assert np.all(gradients @ (units / units.sum() @ gradients) < 0)
    assert np.linalg.norm(combined) <= norms(gradients).max() * (1 + 1e-9)


def test_match_sum_multiplies_by_the_number_of_tasks() -> None:
    same = np.repeat(drawn(1), 4, axis=0)
    found = weights_of(make(IMTLG, 4, match_sum=True), same)
    np.testing.assert_allclose(found.sum(), 4.0, rtol=1e-6)


def test_log_scales_rest_where_scaled_losses_are_1() -> None:
    losses = tf.constant([0.2, 1.0, 40.0])
    present = tf.constant([True, True, True])
    scales = tf.zeros([3])
    for _ in range(2000):
        scales = imtl_l_step(scales, losses, present, 0.05, 10.0)
    np.testing.assert_allclose(np.exp(scales) * losses, 1.0, rtol=1e-4)
    # The slope is that of e^s L - s where it is not cut.
    tried = tf.constant([0.1, -0.4, -3.5])
    with tf.GradientTape() as tape:
        tape.watch(tried)
        total = tf.reduce_sum(tf.exp(tried) * losses - tried)
    moved = tried - imtl_l_step(tried, losses, present, 1.0, 10.0)
    np.testing.assert_allclose(moved, tape.gradient(total, tried), rtol=1e-5)
    # With the other sign s runs away from it.
    away = tried + imtl_l_step(tried, losses, present, 1.0, 10.0) * -1
    assert np.all(np.sign(away) == np.sign(np.exp(tried) * losses - 1))


def test_absent_tasks_keep_their_scale_and_huge_losses_do_not_throw_it() -> None:
    losses, present = tf.constant([1e6, 1e6]), tf.constant([True, False])
    moved = imtl_l_step(tf.zeros([2]), losses, present, 0.1, 10.0)
    np.testing.assert_allclose(moved, [-0.1, 0.0], rtol=1e-6)


def test_the_hybrid_scales_losses_everywhere_and_balances_what_is_shared() -> None:
    targets = np.array([[1.0, 2.0, 0.0], [-1.0, 0.5, 3.0], [0.2, 0.2, 2.0]])
    balancer = make(IMTL, 3, learning_rate=0.5)
    network = Tiny(balancer, targets)
    for step in range(4):
        found = network(step=step)
    scales = np.exp(balancer.scales.numpy())
    scaled = scales[:, None] * found.per_task
    np.testing.assert_allclose(found.shared, weigh(scaled) @ scaled, rtol=1e-4)
    np.testing.assert_allclose(found.own, scales * found.losses, rtol=1e-5)
    assert np.all(np.abs(scales - 1) > 0.1)
    # IMTL-G alone leaves the heads their own loss.
    alone = Tiny(make(IMTLG, 3), targets)()
    np.testing.assert_allclose(alone.own, alone.losses, rtol=1e-6)
    np.testing.assert_allclose(
        alone.shared, weigh(alone.per_task) @ alone.per_task, rtol=1e-5
    )


def test_a_scale_rests_where_the_loss_is_not_above_0_and_is_bounded() -> None:
    """No scale makes a 1 of it: e^s would grow until it is no number."""
    present = tf.constant([True, True])
    scales = tf.zeros([2])
    for _ in range(2000):
        losses = tf.constant([-0.2, 1e-6])
        scales = imtl_l_step(scales, losses, present, 0.05, 10.0)
    np.testing.assert_allclose(scales, [0.0, 10.0])
