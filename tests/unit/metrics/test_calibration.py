"""Bias fitting and smearing."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl.metrics import calibration, exact


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("shift", [-12.0, -2.0, 0.0, 3.0, 30.0])
def test_fitted_bias_matches_positives_and_keeps_the_order(shift):
    generator = np.random.default_rng(0)
    logits = generator.normal(size=500) * 2.0
    labels = generator.random(500) < sigmoid(logits - 2.0)
    moved = logits + shift
    bias = calibration.fit_bias(labels, moved)
    assert exact.pcoc(labels, sigmoid(moved + bias)) == pytest.approx(1.0, abs=1e-6)
    assert exact.auc(labels, moved + bias) == exact.auc(labels, moved)
    # The start is not already the answer.
    assert abs(exact.pcoc(labels, sigmoid(moved)) - 1.0) > 0.01


def test_fitted_bias_uses_weights_and_extreme_logits_converge():
    generator = np.random.default_rng(1)
    logits = generator.normal(size=300)
    labels = generator.random(300) < 0.2
    weights = generator.random(300)
    bias = calibration.fit_bias(labels, logits, weights)
    p = sigmoid(logits + bias)
    assert exact.pcoc(labels, p, weights) == pytest.approx(1.0, abs=1e-9)
    assert abs(exact.pcoc(labels, p) - 1.0) > 1e-4
    wide = np.where(labels, -500.0, 500.0)
    bias = calibration.fit_bias(labels, wide)
    fitted = 0.5 * (1 + np.tanh(0.5 * (wide + bias)))
    assert exact.pcoc(labels, fitted) == pytest.approx(1.0, abs=1e-6)


def test_bias_of_one_class_is_undefined():
    assert np.isnan(calibration.fit_bias([1, 1], [0.0, 1.0]))
    assert np.isnan(calibration.fit_bias([0, 0], [0.0, 1.0]))


def test_mean_log_gives_the_geometric_mean_and_smearing_the_mean():
    watch = np.random.default_rng(0).lognormal(1.0, 1.2, 2000)
    logs = np.log(watch)
    prediction = np.full(len(logs), logs.mean())
    geometric = np.exp(prediction[0])
    assert geometric < 0.7 * watch.mean()
    factor = calibration.smearing_factor(logs, prediction)
    assert factor * geometric == pytest.approx(watch.mean())
    assert calibration.smearing_factor(logs, logs) == 1.0
    assert np.isnan(calibration.smearing_factor([], []))
