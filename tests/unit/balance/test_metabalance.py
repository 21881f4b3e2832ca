"""MetaBalance: auxiliary magnitudes near the target's."""

from __future__ import annotations

import numpy as np
import pydantic
import pytest

from tests.unit.balance.properties import (
    COUNTS,
    drawn,
    fails,
    make,
    norms,
    same_direction,
    samples,
    stats_of,
    weights_of,
)
from tfmtl._keras import tf
from tfmtl.balance import MetaBalance
from tfmtl.balance.metabalance import metabalance_weights
from tfmtl.errors import ConfigError

GRADIENTS = drawn(3) * [[1.0], [0.05], [20.0]]


def now(gradients: np.ndarray = GRADIENTS, **config: object) -> np.ndarray:
    """Weights by this step's norms, where the target is task 0."""
    settings = {"target": "t0", "beta": 0.0, **config}
    return weights_of(make(MetaBalance, len(gradients), **settings), gradients)


def of_the_targets_size(gradients: np.ndarray, weights: np.ndarray) -> None:
    moved = norms(weights[:, None] * gradients)
    np.testing.assert_allclose(moved, norms(gradients)[0], rtol=1e-5)


def test_without_relaxation_it_is_the_sum() -> None:
    np.testing.assert_array_equal(now(relax=0.0), 1)


def test_fully_relaxed_all_have_the_targets_magnitude() -> None:
    for gradients in samples("random", "agreeing", "opposite", "scaled"):
        of_the_targets_size(gradients, now(gradients, relax=1.0))
    assert fails(of_the_targets_size, GRADIENTS, now(relax=0.9))
    # The ratio upside down enlarges what is large.
    assert fails(of_the_targets_size, GRADIENTS, 1 / now(relax=1.0))


def test_weights_are_the_relaxed_ratio() -> None:
    ratio = norms(GRADIENTS)[0] / norms(GRADIENTS)
    np.testing.assert_allclose(now(), 0.7 * ratio + 0.3, rtol=1e-6)


def test_strategy_a_never_enlarges_and_b_never_shrinks() -> None:
    for count in COUNTS:
        for seed in range(5):
            scales = np.random.default_rng(seed).lognormal(0, 2, (count, 1))
            gradients = drawn(count) * scales
            a, b, c = (now(gradients, strategy=s) for s in "ABC")
            assert np.all(a <= 1) and np.all(b >= 1)
            np.testing.assert_allclose(a * b, c, rtol=1e-6)  # Each does its half.
    assert now(strategy="C").min() < 1 < now(strategy="C").max()


def test_rescaling_an_auxiliary_loss_changes_nothing_the_targets_everything() -> None:
    combined = now(relax=1.0) @ GRADIENTS
    auxiliary = GRADIENTS * [[1.0], [300.0], [0.1]]
    np.testing.assert_allclose(now(auxiliary, relax=1.0) @ auxiliary, combined, 1e-5)
    target = GRADIENTS * [[7.0], [1.0], [1.0]]
    found = now(target, relax=1.0) @ target
    np.testing.assert_allclose(found, 7 * combined, rtol=1e-5)


def test_directions_of_single_gradients_stay() -> None:
    moved = now()[:, None] * GRADIENTS
    for before, after in zip(GRADIENTS, moved):
        same_direction(before, after)
    np.testing.assert_array_equal(now()[0], 1)


def test_magnitudes_are_the_papers_moving_averages() -> None:
    balancer = make(MetaBalance, 3, groups=2, target="t1", beta=0.9, strategy="A")
    averages = np.zeros((2, 3))
    for step in range(6):
        scales = np.random.default_rng(step).lognormal(0, 1, (2, 3, 1))
        gradients = np.stack([drawn(3, step), drawn(3, step + 50)]) * scales
        averages = 0.9 * averages + 0.1 * np.linalg.norm(gradients, axis=2)
        found = weights_of(balancer, gradients, step=step)
        ratio = averages[:, 1:2] / averages
        wanted = np.where(ratio < 1, 1 + 0.7 * (ratio - 1), 1)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_target_without_labels_counts_by_its_average() -> None:
    balancer = make(MetaBalance, 3, target="t0", relax=1.0)
    absent = [False, True, True]
    first = balancer.weigh(stats_of(GRADIENTS, present=absent)).numpy()[0]
    np.testing.assert_array_equal(first, [0, 1, 1])  # Nothing known of it yet.
    weights_of(balancer, GRADIENTS)
    found = weights_of(balancer, GRADIENTS, present=absent)
    ratio = norms(GRADIENTS)[0] / norms(GRADIENTS)
    np.testing.assert_allclose(found[1:], ratio[1:], rtol=1e-5)


def test_one_weight_each_tensor_is_the_default_and_the_target_is_needed() -> None:
    assert MetaBalance.Config(target="t0").granularity == "tensor"
    with pytest.raises(pydantic.ValidationError, match="target"):
        MetaBalance.Config()
    with pytest.raises(ConfigError, match=r"target` names \['buy'\]"):
        make(MetaBalance, 2, target="buy")
    zero = metabalance_weights(tf.ones([2]), tf.constant(0.0), "C", 1.0)
    np.testing.assert_array_equal(zero, 1)
