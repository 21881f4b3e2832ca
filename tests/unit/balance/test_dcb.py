"""DCB: its steps, its limits, and the whole against explicit gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydantic
import pytest

from tests.unit.balance.properties import (
    COUNTS,
    SAMPLES,
    cosine,
    drawn,
    fails,
    gram,
    make,
    norms,
    same_direction,
    samples,
    weights_of,
)
from tests.unit.balance.test_pcgrad import explicit as explicit_pcgrad
from tfmtl._keras import tf
from tfmtl.balance import DCB
from tfmtl.balance.dcb import (
    amplification,
    conflict_free,
    cooperation,
    progress_factors,
    reference_magnitude,
)
from tfmtl.balance.metabalance import metabalance_weights

PLAIN: dict[str, Any] = {"conflict": False, "r_max": 1.0, "ratio": 1e12, "beta": 0.0}


class Explicit:
    """B4's steps 1 to 8 on vectors, with NumPy's own state."""

    def __init__(self, count: int, preference: np.ndarray | None = None) -> None:
        shares = np.ones(count) if preference is None else preference
        self.pi = shares / shares.sum()
        self.mu, self.c, self.k = np.zeros(count), np.zeros((count, count)), 0
        self.losses, self.first = np.zeros(count), None

    def __call__(self, gradients: np.ndarray, losses: np.ndarray) -> np.ndarray:
        count = len(gradients)
        self.k += 1
        self.first = losses if self.first is None else self.first
        self.losses = 0.9 * self.losses + 0.1 * losses
        sizes = norms(gradients)
        self.mu = 0.9 * self.mu + 0.1 * sizes
        cosines = gradients @ gradients.T / np.outer(sizes, sizes)
        self.c = 0.99 * self.c + 0.01 * cosines
        kept = self.c / (1 - 0.99**self.k)
        reference = np.exp(np.sum(self.pi * np.log(self.mu)))
        remaining = self.losses / (1 - 0.9**self.k) / self.first
        total = np.zeros(gradients.shape[1])
        for t in range(count):
            others = [s for s in range(count) if s != t]
            chi = self.pi[others] @ kept[t, others] / self.pi[others].sum()
            rho = np.clip(reference / self.mu[t], 0.1, 10)
            relax = 0.9 if rho <= 1 else 0.9 * (1 + chi) / 2
            factor = 1 + relax * (rho - 1)
            factor *= np.clip((remaining[t] / remaining.mean()) ** 0.5, 0.5, 2)
            moved = gradients[t].copy()
            for s in others:
                if kept[t, s] < 0 and cosines[t, s] < 0:
                    inner = gradients[t] @ gradients[s] / sizes[s] ** 2
                    moved -= abs(kept[t, s]) * inner * gradients[s]
            total += self.pi[t] * count * factor * moved
        return total


def test_all_steps_together_are_the_explicit_ones() -> None:
    for count in (2, 3, 5):
        balancer = make(DCB, count, progress=0.5, preference={"t0": 2.0, "t1": 0.5})
        wanted = Explicit(count, np.array([2.0, 0.5, 1.0, 1.0, 1.0])[:count])
        draw = np.random.default_rng(count)
        for step in range(12):
            gradients = SAMPLES["conflicting"](count) + drawn(count, step)
            gradients *= draw.lognormal(0, 1.5, (count, 1))
            losses = draw.uniform(0.5, 3, count)
            found = weights_of(balancer, gradients, losses=losses, step=step)
            expected = wanted(gradients, losses.astype("f4"))
            size = np.linalg.norm(gradients, axis=1).max()
            np.testing.assert_allclose(
                found @ gradients, expected, rtol=1e-5, atol=1e-5 * size
            )


def test_identical_and_orthogonal_gradients_are_left_alone() -> None:
    for count in COUNTS:
        same = np.repeat(drawn(1), count, axis=0)
        np.testing.assert_allclose(weights_of(make(DCB, count), same), 1, rtol=1e-6)
        orthogonal = 3.0 * np.eye(count)
        np.testing.assert_allclose(
            weights_of(make(DCB, count), orthogonal), 1, rtol=1e-6
        )


def rescaled_loss_keeps_the_direction(**config: Any) -> None:
    for gradients in samples("random", "agreeing", counts=(2, 3, 5)):
        scaled = gradients.copy()
        scaled[0] *= 20.0
        one, other = (
            make(DCB, len(gradients), **config),
            make(DCB, len(gradients), **config),
        )
        same_direction(
            weights_of(one, gradients) @ gradients, weights_of(other, scaled) @ scaled
        )


def test_rescaling_a_loss_keeps_the_direction_where_all_cooperate() -> None:
    rescaled_loss_keeps_the_direction(**PLAIN, relax=1.0)  # As chi = 1.
    # Computed, the factor of a weak task follows how it cooperates.
    assert fails(rescaled_loss_keeps_the_direction, **PLAIN)
    assert fails(rescaled_loss_keeps_the_direction, **{**PLAIN, "ratio": 2.0}, relax=1)


def test_opposite_gradients_vanish_as_the_conflict_lasts() -> None:
    balancer = make(DCB, 2)
    gradients = SAMPLES["opposite"](2)
    for step in range(3):
        weights = weights_of(balancer, gradients, step=step)
    left = np.linalg.norm(weights @ gradients)
    assert left < 1e-5 * norms(gradients).min()
    kept = weights_of(make(DCB, 2, conflict=False), gradients) @ gradients
    assert np.linalg.norm(kept) > 0.1 * norms(gradients).min()


def test_conflicts_that_do_not_last_are_not_removed() -> None:
    balancer = make(DCB, 2, r_max=0.0)
    agreeing, opposed = SAMPLES["agreeing"](2), SAMPLES["conflicting"](2)
    for step in range(5):
        weights_of(balancer, agreeing, step=step)
    np.testing.assert_allclose(weights_of(balancer, opposed, step=5), 1, rtol=1e-6)
    assert np.all(weights_of(make(DCB, 2, r_max=0.0), opposed) > 1.01)


def test_with_a_target_and_full_cooperation_it_is_metabalance_c() -> None:
    for count in (2, 3, 5):
        gradients = drawn(count) * np.geomspace(0.1, 10, count)[:, None]
        found = weights_of(
            make(DCB, count, mode="target", target="t1", relax=1.0, **PLAIN), gradients
        )
        sizes = tf.constant(norms(gradients))
        wanted = metabalance_weights(sizes, sizes[1], "C", 1.0)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
        assert found[1] == 1


def test_without_relaxation_and_conflicts_all_weigh_1() -> None:
    for gradients in samples("random", "conflicting", "scaled", "opposite"):
        balancer = make(DCB, len(gradients), r_max=0.0, conflict=False)
        np.testing.assert_allclose(weights_of(balancer, gradients), 1, rtol=1e-6)


def test_lasting_conflicts_are_removed_as_by_pcgrad_all_at_once() -> None:
    for count in (2, 3, 5):
        gradients = SAMPLES["conflicting"](count)
        everywhere = -tf.ones([count, count], tf.float64)
        rows = conflict_free(gram(gradients), everywhere).numpy()
        if count == 2:
            order = np.array([[0, 1], [0, 1]])
            np.testing.assert_allclose(
                rows.sum(axis=0) @ gradients, explicit_pcgrad(gradients, order), 1e-9
            )
        for t, moved in enumerate(rows @ gradients):
            wanted = gradients[t].copy()
            for s in range(count):
                if s != t and gradients[t] @ gradients[s] < 0:
                    onto = gradients[s] / (gradients[s] @ gradients[s])
                    wanted -= gradients[t] @ gradients[s] * onto
            np.testing.assert_allclose(moved, wanted, rtol=1e-9, atol=1e-9)


def test_a_dominating_task_is_always_reduced_a_weak_one_as_far_as_it_helps() -> None:
    magnitudes = tf.constant([4.0, 0.25], tf.float64)
    for chi, weak in ((1.0, 1 + 0.9 * 3), (0.0, 1 + 0.45 * 3), (-1.0, 1.0)):
        found = amplification(
            magnitudes, 1.0, tf.constant([chi] * 2, tf.float64), 0.9, 10.0
        )
        np.testing.assert_allclose(found, [1 - 0.9 * 0.75, weak], rtol=1e-9)
    far = amplification(tf.constant([1e6], tf.float64), 1.0, np.ones(1), 1.0, 10.0)
    np.testing.assert_allclose(far, [0.1], rtol=1e-9)


def test_cooperation_is_the_others_mean_by_preference() -> None:
    kept = np.array([[1.0, 0.5, -0.3], [0.5, 1.0, 0.0], [-0.3, 0.0, 1.0]])
    pi = np.array([0.5, 0.25, 0.25])
    found = cooperation(tf.constant(kept), tf.constant(pi)).numpy()
    np.testing.assert_allclose(found, [0.1, 1 / 3, -0.2], rtol=1e-9)
    np.testing.assert_array_equal(cooperation(np.ones((1, 1)), np.ones(1)), 1)


def test_the_reference_is_a_geometric_mean_and_progress_is_cut() -> None:
    found = reference_magnitude(tf.constant([1e-6, 1e8], tf.float64), np.ones(2))
    np.testing.assert_allclose(found, 10.0, rtol=1e-9)
    remaining = tf.constant([0.5, 1.0, 1.5, 100.0], tf.float64)
    np.testing.assert_array_equal(progress_factors(remaining, 0.0), 1)
    found = progress_factors(remaining, 0.5).numpy()
    wanted = np.clip(np.sqrt(remaining / np.mean(remaining)), 0.5, 2)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_slow_tasks_get_more() -> None:
    balancer = make(DCB, 2, progress=0.5, **PLAIN)
    gradients = 2.0 * np.eye(2)
    weights_of(balancer, gradients, losses=[1.0, 4.0])
    for step in range(1, 40):
        found = weights_of(balancer, gradients, losses=[0.25, 4.0], step=step)
    assert found[1] > 1.2 > 0.8 > found[0]


def test_settings_that_contradict_each_other_are_refused() -> None:
    assert DCB.Config().granularity == "layer"
    for wrong in ({"mode": "target"}, {"target": "t0"}):
        with pytest.raises(pydantic.ValidationError, match="needs `target`"):
            DCB.Config(**wrong)
    with pytest.raises(pydantic.ValidationError, match="`auto` or in"):
        DCB.Config(relax=1.5)
    assert cosine(*SAMPLES["conflicting"](2)) < 0  # What these tests rely on.
