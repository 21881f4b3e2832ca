"""Calibrators against their defining equations, scikit-learn and the exact AUC."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tfmtl.calibration.fit import FITS, LEAST_SLOPE, apply, bias, isotonic, platt
from tfmtl.metrics.exact import auc, pcoc
from tfmtl.schema.calibration import Calibrator


def sigmoid(s: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-s))


def drawn(rows: int, seed: int, slope: float = 0.5, shift: float = -1.0):
    """float32 logits that are off by a slope and a shift, and labels."""
    random = np.random.default_rng(seed)
    s = random.normal(0, 2, rows).astype(np.float32)
    y = (random.random(rows) < sigmoid(slope * s.astype(float) + shift)).astype(float)
    return y, s.astype(np.float64), random.random(rows) + 0.1


def staircase(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Isotonic regression as it is: what a calibrator here must not be."""
    from sklearn.isotonic import IsotonicRegression

    return np.asarray(IsotonicRegression().fit_transform(logits, labels))


@pytest.mark.parametrize("method", FITS)
@pytest.mark.parametrize("weighted", [False, True])
def test_predicted_and_observed_positives_agree(method: str, weighted: bool) -> None:
    y, s, w = drawn(3_000, 1)
    weights = w if weighted else None
    assert abs(pcoc(y, sigmoid(s), weights) - 1) > 0.1
    after = sigmoid(apply(FITS[method](y, s, weights), s))
    assert pcoc(y, after, weights) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("method", FITS)
def test_auc_is_exactly_what_it_was(method: str) -> None:
    y, s, _ = drawn(5_000, 2)
    s = np.concatenate([s, s[:500]])  # ties stay ties
    y = np.concatenate([y, 1 - y[:500]])
    before = auc(y, s)
    after = apply(FITS[method](y, s), s)
    assert auc(y, after) == before
    assert (np.diff(after[np.argsort(s, kind="stable")]) >= 0).all()
    # Isotonic regression's own staircase ties rows that the model tells apart.
    assert auc(y, staircase(y, s)) != before
    assert auc(y, -after) != before


def test_nearest_logits_stay_apart() -> None:
    y, s, _ = drawn(2_000, 3)
    low = np.float32(1.5) + np.arange(200) * np.spacing(np.float32(1.5))
    for method in FITS.values():
        assert (np.diff(apply(method(y, s), low.astype(np.float64))) > 0).all()


def test_bias_of_a_shifted_model_is_the_shift() -> None:
    y, s, _ = drawn(200_000, 4, slope=1.0, shift=-2.0)
    found = bias(y, s)
    assert found.x == (0.0,)
    assert found.slopes == (1.0, 1.0)
    assert found.y[0] == pytest.approx(-2, abs=0.03)


def test_platt_is_logistic_regression() -> None:
    y, s, w = drawn(4_000, 5)
    found = platt(y, s, w)
    # scikit-learn's prior is on a, ours on a - 1: both are weak here.
    plain = LogisticRegression(C=1e6, tol=1e-10).fit(s[:, None], y, sample_weight=w)
    assert found.low_slope == pytest.approx(plain.coef_[0, 0], rel=2e-3)
    assert found.y[0] == pytest.approx(plain.intercept_[0], abs=2e-3)
    p = sigmoid(apply(found, s))
    score = w @ (s * (y - p)) - w.mean() * (found.low_slope - 1)
    assert abs(score) < 1e-6 * w.sum(), "the derivative by the slope is 0"


@pytest.mark.parametrize("method", FITS)
def test_a_common_factor_of_all_weights_changes_nothing(method: str) -> None:
    y, s, w = drawn(60, 8)  # so few rows that the prior is felt
    w[::3] = 0  # as good as not there
    found = FITS[method](y, s, w)
    for factor in (1e-6, 1e-2, 1e4):
        other = FITS[method](y, s, factor * w)
        np.testing.assert_allclose(apply(other, s), apply(found, s), rtol=1e-7)
    used = FITS[method](y[w > 0], s[w > 0], w[w > 0])
    np.testing.assert_allclose(apply(used, s), apply(found, s), rtol=1e-7)
    assert not np.allclose(apply(FITS[method](y, s), s), apply(found, s), rtol=1e-2)


def test_platt_stays_rising_and_finite() -> None:
    y, s, _ = drawn(1_000, 6)
    backwards = platt(y, -s)
    assert backwards.low_slope == backwards.high_slope == LEAST_SLOPE
    separated = platt((s > 0).astype(float), s)
    assert np.isfinite(separated.low_slope) and separated.low_slope > 1
    assert pcoc(y, sigmoid(apply(backwards, -s))) == pytest.approx(1, abs=1e-9)


def test_isotonic_follows_a_bent_curve() -> None:
    random = np.random.default_rng(7)
    s = random.uniform(-4, 4, 40_000)
    truth = sigmoid(np.where(s < 0, 0.2 * s, 2 * s) - 1)
    y = (random.random(len(s)) < truth).astype(float)
    found = {m: sigmoid(apply(f(y, s), s)) for m, f in FITS.items()}
    error = {m: np.abs(p - truth).mean() for m, p in found.items()}
    assert error["isotonic"] < 0.012
    assert error["isotonic"] < min(error["platt"], error["bias"]) / 3


def test_isotonic_of_constant_logits_and_of_one_class_ends() -> None:
    y = np.tile([0.0, 0.0, 0.0, 1.0], 50)
    flat = isotonic(y, np.zeros(200))
    assert len(flat.x) == 1
    assert sigmoid(np.array(flat.y))[0] == pytest.approx(0.25, abs=1e-9)
    s = np.linspace(-3, 3, 200)
    ends = isotonic((s > 0).astype(float), s)
    assert np.isfinite(apply(ends, np.array([-30.0, 30.0]))).all()


@pytest.mark.parametrize("wrong", [(1.0, 0.0), (0.0, 0.0), (0.0, float("nan"))])
def test_a_calibrator_that_does_not_rise_is_refused(wrong) -> None:
    Calibrator(x=(0.0, 1.0), y=(0.0, 1.0))
    with pytest.raises(ValueError, match="strictly rising"):
        Calibrator(x=(0.0, 1.0), y=wrong)
    with pytest.raises(ValueError, match="greater than 0"):
        Calibrator(low_slope=0.0)
