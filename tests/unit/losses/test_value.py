"""Zero-inflated log-normal values and Duan's factor against NumPy."""

from __future__ import annotations

import numpy as np

from tfmtl._keras import tf
from tfmtl.losses.value import (
    from_log1p,
    odds,
    smearing_sums,
    zero_inflated_lognormal,
    zero_inflated_mean,
)

DRAW = np.random.default_rng(0)
OUT = DRAW.normal(size=(40, 3))
Y = np.where(DRAW.random(40) < 0.4, 0, np.exp(DRAW.normal(size=40) * 2))


def _f(values: np.ndarray) -> tf.Tensor:
    return tf.constant(values, tf.float32)


def test_the_likelihood_is_that_of_a_spike_and_a_log_normal() -> None:
    p, sigma = 1 / (1 + np.exp(-OUT[:, 0])), np.logaddexp(0, OUT[:, 2])
    safe = np.where(Y > 0, Y, 1)
    density = np.exp(-((np.log(safe) - OUT[:, 1]) ** 2) / (2 * sigma**2)) / (
        safe * sigma * np.sqrt(2 * np.pi)
    )
    truth = -np.log(np.where(Y > 0, p * density, 1 - p))
    found = zero_inflated_lognormal(_f(OUT), _f(Y))
    np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-5)
    without_y = truth - np.where(Y > 0, np.log(safe), 0)  # a normal density of log y
    assert not np.allclose(found, without_y, rtol=1e-2)


def test_zeros_leave_the_density_without_a_gradient() -> None:
    out = tf.Variable(OUT, dtype=tf.float32)
    for labels in (np.zeros(40), np.full(40, -3.0)):
        with tf.GradientTape() as tape:
            rows = zero_inflated_lognormal(out, _f(labels))
        gradient = tape.gradient(rows, out).numpy()
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient[:, 1:], 0)
        assert (gradient[:, 0] > 0).all()


def test_the_answer_is_the_expectation() -> None:
    p, sigma = 1 / (1 + np.exp(-OUT[:, 0])), np.logaddexp(0, OUT[:, 2])
    truth = p * np.exp(OUT[:, 1] + sigma**2 / 2)
    found = zero_inflated_mean(_f(OUT))
    np.testing.assert_allclose(found, truth, rtol=1e-5)
    assert not np.allclose(found, p * np.exp(OUT[:, 1]), rtol=1e-2)  # the median's
    row = OUT[:1]
    draw = np.random.default_rng(1)
    values = np.where(
        draw.random(10**6) < p[0], np.exp(draw.normal(row[0, 1], sigma[0], 10**6)), 0
    )
    error = values.std() / 1000
    assert abs(values.mean() - truth[0]) < 4 * error


def test_extreme_outputs_stay_numbers() -> None:
    wild = tf.Variable([[90.0, 300.0, 50.0], [-90.0, -300.0, -200.0]])
    with tf.GradientTape() as tape:
        rows = zero_inflated_lognormal(wild, tf.constant([1.0, 0.0]))
        mean = zero_inflated_mean(wild)
    assert np.isfinite(rows).all() and np.isfinite(mean).all()
    assert np.isfinite(tape.gradient(rows, wild)).all()
    assert np.isfinite(odds(tf.constant([-500.0, 500.0]))).all()


def test_a_mean_of_logs_is_a_geometric_mean_and_smearing_makes_it_the_mean() -> None:
    # D11. Log-normal values around means of logs that differ by row.
    draw = np.random.default_rng(0)
    mu = draw.normal(2, 0.5, 200_000)
    y = np.exp(mu + draw.normal(0, 0.8, 200_000)) - 1
    total, weight = smearing_sums(_f(mu), _f(y), tf.ones(len(y))).numpy()
    factor = total / weight
    # y is cut at 0, which lifts it by little.
    np.testing.assert_allclose(factor, np.exp(0.8**2 / 2), rtol=0.01)
    plain = from_log1p(_f(mu)).numpy().astype(float)
    np.testing.assert_allclose(plain, np.expm1(mu), rtol=1e-4, atol=1e-5)
    smeared = from_log1p(_f(mu), factor).numpy().astype(float)
    np.testing.assert_allclose(smeared.mean(), y.mean(), rtol=0.01)
    assert plain.mean() < 0.8 * y.mean()


def test_smearing_is_the_weighted_mean_over_the_population() -> None:
    s, y = np.array([1.0, 2.0, np.nan]), np.array([3.0, 0.0, 9.0])
    total, weight = smearing_sums(_f(s), _f(y), _f(np.array([2.0, 1.0, 0.0]))).numpy()
    truth = 2 * 4 / np.e + 1 / np.e**2
    np.testing.assert_allclose([total, weight], [truth, 3], rtol=1e-6)
    np.testing.assert_allclose(from_log1p(_f(s[:2]), 1.0), from_log1p(_f(s[:2])))
