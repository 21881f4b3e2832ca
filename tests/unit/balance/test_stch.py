"""STCH: a smooth maximum, its weights, its reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydantic
import pytest

from tests.unit.balance.stats import made, stats
from tfmtl._keras import tf
from tfmtl.balance import STCH
from tfmtl.balance.stch import smooth_maximum, stch_weights
from tfmtl.errors import ConfigError

F = np.array([0.3, -0.4, 1.1])
PREFERENCE = np.array([0.2, 0.5, 0.3])
IDEAL = np.array([0.0, -1.0, 0.4])
ALL = tf.constant([True] * 3)


def maximum(mu: float, values: Any = F) -> float:
    parts = [tf.constant(x, tf.float64) for x in (values, PREFERENCE, IDEAL)]
    return float(smooth_maximum(*parts, mu))


def weights(mu: float, used: Any = ALL, values: Any = F) -> np.ndarray:
    parts = [tf.constant(x, tf.float64) for x in (values, PREFERENCE, IDEAL)]
    return np.asarray(stch_weights(*parts, mu, used))


def test_small_mu_is_the_maximum_within_its_bound() -> None:
    worst = np.max(PREFERENCE * (F - IDEAL))
    for mu in (0.3, 0.01, 1e-4):
        assert worst <= maximum(mu) <= worst + mu * np.log(3) + 1e-12
    np.testing.assert_allclose(maximum(1e-6), worst, rtol=1e-5)
    assert maximum(1.0) > worst + 0.5
    np.testing.assert_allclose(weights(1e-6), [0, 0.5, 0], atol=1e-9)


def test_large_mu_weighs_all_by_their_preference() -> None:
    np.testing.assert_allclose(weights(1e6), PREFERENCE / 3, rtol=1e-5)


@pytest.mark.parametrize("mu", [0.1, 1.0, 10.0])
def test_weights_are_the_gradient(mu: float) -> None:
    values = tf.Variable(F)
    with tf.GradientTape() as tape:
        total = smooth_maximum(values, tf.constant(PREFERENCE), tf.constant(IDEAL), mu)
    np.testing.assert_allclose(weights(mu), tape.gradient(total, values), rtol=1e-10)
    assert not np.allclose(weights(mu), weights(2 * mu), rtol=1e-3)


def test_large_values_stay_finite() -> None:
    assert np.isfinite(maximum(1e-3, F * 1e6))
    assert np.isfinite(weights(1e-3, values=F * 1e6)).all()


def test_after_the_warmup_losses_count_relative_to_their_reference() -> None:
    draw = np.random.default_rng(0)
    losses = draw.uniform(0.2, 2, (6, 3)).astype("f4")
    config = {"warmup_steps": 4, "reference_steps": 2, "mu": 0.5}
    balancer = made(STCH, preference={"click": 2.0}, ideal={"buy": 0.1}, **config)
    found = np.stack([balancer.weigh(stats(x)) for x in losses])
    np.testing.assert_allclose(found[:4], 1 / losses[:4], rtol=1e-5)
    reference = losses[2:4].mean(axis=0)
    for step in (4, 5):
        variable = tf.Variable(losses[step])
        with tf.GradientTape() as tape:
            total = 3 * smooth_maximum(
                tf.math.log(variable / reference),
                tf.constant([0.5, 0.25, 0.25]),
                tf.constant([0.0, 0.0, 0.1]),
                0.5,
            )
        np.testing.assert_allclose(
            found[step], tape.gradient(total, variable), rtol=1e-4
        )
    assert not np.allclose(reference, losses[:4].mean(axis=0), rtol=0.05)


def test_rescaling_a_loss_rescales_its_weight_alone() -> None:
    losses = np.random.default_rng(1).uniform(0.2, 2, (4, 3))
    factor = np.array([1e3, 1, 1e-2])
    plain, scaled = made(STCH), made(STCH)
    for x in losses:
        a, b = plain.weigh(stats(x)), scaled.weigh(stats(x * factor))
        np.testing.assert_allclose(b * factor, a, rtol=1e-4)


def test_absent_tasks_are_left_out_and_a_late_one_takes_its_first_loss() -> None:
    balancer = made(STCH, warmup_steps=1)
    shown = [True, False, True]
    np.testing.assert_allclose(
        balancer.weigh(stats([0.5, 0.3, 2.0], shown)), [2, 0, 0.5], rtol=1e-6
    )
    found = balancer.weigh(stats([0.5, 0.3, 2.0], shown)).numpy()
    np.testing.assert_allclose(found, [0.5 * 2, 0, 0.5 * 0.5], rtol=1e-5)
    third = balancer.weigh(stats([0.5, 0.3, 2.0])).numpy()
    np.testing.assert_allclose(third, [2 / 3, 1 / 0.9, 0.5 / 3], rtol=1e-5)
    np.testing.assert_allclose(balancer.sums, [0.5, 0.3, 2.0])


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"`balancer.config.ideal` names \['bye'\]"):
        made(STCH, ideal={"bye": 1.0})
    with pytest.raises(pydantic.ValidationError, match="finite and > 0"):
        made(STCH, preference={"buy": 0.0})


def test_a_run_that_is_all_warm_up_is_refused() -> None:
    balancer = made(STCH, warmup_steps=50)
    balancer.check_plan(51)
    with pytest.raises(ConfigError, match=r"warmup_steps.*50 .* in 50 steps"):
        balancer.check_plan(50)
