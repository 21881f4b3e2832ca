"""Metrics of whole arrays against scikit-learn and double loops."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as reference

from tfmtl.errors import ConfigError, DataError
from tfmtl.metrics import exact


def pairwise_auc(labels, scores, weights=None):
    """AUC from its definition, O(P N)."""
    weights = np.ones(len(labels)) if weights is None else weights
    wins = pairs = 0.0
    for i in np.flatnonzero(labels == 1):
        for j in np.flatnonzero(labels == 0):
            pair = weights[i] * weights[j]
            pairs += pair
            wins += pair * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
    return wins / pairs


def tie_naive_auc(labels, scores):
    """The wrong formula: ranks by position, so that ties follow the rows' order."""
    rank = np.empty(len(scores))
    rank[np.argsort(scores, kind="stable")] = np.arange(1, len(scores) + 1)
    p, n = (labels == 1).sum(), (labels == 0).sum()
    return (rank[labels == 1].sum() - p * (p + 1) / 2) / (p * n)


@pytest.fixture
def tied():
    generator = np.random.default_rng(3)
    labels = (generator.random(120) < 0.3).astype(float)
    scores = generator.integers(0, 6, 120) + labels
    return labels, scores.astype(float), generator.random(120) * 3.0


def test_auc_equals_its_definition_and_scikit_learn_on_ties(tied):
    labels, scores, weights = tied
    assert exact.auc(labels, scores) == pytest.approx(pairwise_auc(labels, scores))
    assert exact.auc(labels, scores) == pytest.approx(
        reference.roc_auc_score(labels, scores)
    )
    assert exact.auc(labels, scores, weights) == pytest.approx(
        pairwise_auc(labels, scores, weights)
    )
    assert exact.auc(labels, scores, weights) == pytest.approx(
        reference.roc_auc_score(labels, scores, sample_weight=weights)
    )


def test_the_tie_test_catches_ranks_without_ties(tied):
    labels, scores, _ = tied
    assert abs(tie_naive_auc(labels, scores) - pairwise_auc(labels, scores)) > 1e-3
    distinct = scores + 1e-6 * np.arange(len(scores))
    assert tie_naive_auc(labels, distinct) == pytest.approx(exact.auc(labels, distinct))


def test_auc_of_a_constant_score_is_one_half_and_of_one_class_undefined():
    assert exact.auc([0, 1, 0, 1], [2.0] * 4) == 0.5
    assert np.isnan(exact.auc([1, 1], [0.1, 0.2]))
    assert np.isnan(exact.auc([0, 0], [0.1, 0.2]))
    assert np.isnan(exact.auc([], []))
    assert np.isnan(exact.auc([0, 1], [0.1, 0.2], [1.0, 0.0]))
    assert exact.auc([0, 1], [-np.inf, np.inf]) == 1.0


def test_auc_integer_weights_equal_repeated_rows(tied):
    labels, scores, _ = tied
    counts = np.random.default_rng(0).integers(0, 4, len(labels))
    repeated = exact.auc(np.repeat(labels, counts), np.repeat(scores, counts))
    assert exact.auc(labels, scores, counts) == pytest.approx(repeated)


def test_auc_of_rare_positives_in_a_million_rows_matches_scikit_learn():
    generator = np.random.default_rng(5)
    labels = generator.random(1_000_000) < 1e-4
    scores = (generator.normal(size=labels.size) + labels).astype(np.float32)
    assert exact.auc(labels, scores) == pytest.approx(
        reference.roc_auc_score(labels, scores), abs=1e-12
    )


@pytest.mark.parametrize(
    ("labels", "scores", "weights", "message"),
    [
        ([0, 1], [0.1, np.nan], None, "`scores` must not be NaN"),
        ([0, np.nan], [0.1, 0.2], None, "`labels` must not be NaN"),
        ([0, 1], [0.1], None, "as long as `labels`"),
        ([0, 2], [0.1, 0.2], None, "must be 0 or 1, got 2.0 in row 1"),
        ([0, 1], [0.1, 0.2], [1.0], "as long as `labels`"),
        ([0, 1], [0.1, 0.2], [1.0, -1.0], "finite and >= 0"),
        ([0, 1], [0.1, 0.2], [1.0, np.inf], "finite and >= 0"),
        ([[0, 1]], [0.1, 0.2], None, "shape [N]"),
        ([0, 1], ["a", "b"], None, "must be numbers"),
    ],
)
def test_wrong_arrays_are_named(labels, scores, weights, message):
    with pytest.raises(DataError) as caught:
        exact.auc(labels, scores, weights)
    assert message in str(caught.value)


def test_logloss_equals_scikit_learn_and_survives_saturation(tied):
    labels, scores, weights = tied
    p = 1 / (1 + np.exp(2 - scores))
    assert exact.logloss(labels, p) == pytest.approx(reference.log_loss(labels, p))
    assert exact.logloss(labels, p, weights) == pytest.approx(
        reference.log_loss(labels, p, sample_weight=weights)
    )
    assert exact.logloss([1], [0.0]) == pytest.approx(-np.log(2.0**-52))
    assert exact.logloss([1, 0], [1.0, 0.0]) == 0.0
    assert np.isnan(exact.logloss([], []))
    with pytest.raises(DataError, match=r"must lie in \[0, 1\]"):
        exact.logloss([1], [1.5])


def test_normalized_entropy_is_one_at_the_base_rate(tied):
    labels, _, weights = tied
    rate = labels.mean()
    constant = np.full(len(labels), rate)
    assert exact.normalized_entropy(labels, constant) == pytest.approx(1.0)
    weighted = np.full(len(labels), np.average(labels, weights=weights))
    assert exact.normalized_entropy(labels, weighted, weights) == pytest.approx(1.0)
    assert exact.normalized_entropy(labels, constant * 0.5) > 1.0
    assert np.isnan(exact.normalized_entropy([1, 1], [0.5, 0.5]))


def test_constant_base_rate_is_calibrated(tied):
    labels, _, weights = tied
    constant = np.full(len(labels), labels.mean())
    assert exact.pcoc(labels, constant) == pytest.approx(1.0)
    for method in ("mass", "width"):
        ece = exact.expected_calibration_error(labels, constant, method=method)
        assert ece == pytest.approx(0.0, abs=1e-12)
    assert exact.pcoc(labels, constant * 2) == pytest.approx(2.0)
    weighted = np.full(len(labels), np.average(labels, weights=weights))
    assert exact.pcoc(labels, weighted, weights) == pytest.approx(1.0)
    assert np.isnan(exact.pcoc([0, 0], [0.1, 0.2]))


def test_relative_improvement_counts_from_chance():
    assert exact.relative_improvement(0.55, 0.55) == 0.0
    assert exact.relative_improvement(0.56, 0.55) == pytest.approx(0.2)
    assert exact.relative_improvement(0.91, 0.9) == pytest.approx(0.025)
    assert exact.relative_improvement(0.5, 0.7) == pytest.approx(-1.0)
    for baseline in (0.5, 0.4, np.nan):
        assert np.isnan(exact.relative_improvement(0.6, baseline))
    assert np.isnan(exact.relative_improvement(np.nan, 0.6))


def ece_loop(labels, p, edges_of_bin):
    total = 0.0
    for rows in edges_of_bin:
        if len(rows):
            total += len(rows) / len(p) * abs(p[rows].mean() - labels[rows].mean())
    return total


def test_ece_equals_a_loop_over_bins():
    generator = np.random.default_rng(1)
    p = generator.random(1000)
    labels = (generator.random(1000) < p**2).astype(float)
    mass = np.array_split(np.argsort(p), 20)
    assert exact.expected_calibration_error(labels, p, bins=20) == pytest.approx(
        ece_loop(labels, p, mass)
    )
    width = [np.flatnonzero(np.floor(p * 20) == b) for b in range(20)]
    assert exact.expected_calibration_error(
        labels, p, bins=20, method="width"
    ) == pytest.approx(ece_loop(labels, p, width))
    # Bins that cut through ties (positions in the sorted rows) would not be 0 here.
    tied = np.full(1000, labels.mean())
    assert ece_loop(labels, tied, np.array_split(np.argsort(p), 20)) > 0.1
    assert exact.expected_calibration_error(labels, tied, bins=20) < 1e-12


def test_ece_weights_equal_repeated_rows_and_arguments_are_checked():
    generator = np.random.default_rng(2)
    p = generator.random(50)
    labels = (generator.random(50) < p).astype(float)
    counts = generator.integers(1, 4, 50)
    assert exact.expected_calibration_error(labels, p, counts, bins=7) == pytest.approx(
        exact.expected_calibration_error(
            np.repeat(labels, counts), np.repeat(p, counts), bins=7
        )
    )
    assert exact.expected_calibration_error([1, 0], [1.0, 0.0], method="width") == 0.0
    with pytest.raises(ConfigError, match="`bins` must be >= 1"):
        exact.expected_calibration_error(labels, p, bins=0)
    with pytest.raises(ConfigError, match="'mass' or 'width'"):
        exact.expected_calibration_error(labels, p, method="equal")


def test_importing_the_exact_metrics_and_the_report_needs_no_tensorflow():
    code = (
        "import sys, tfmtl.metrics.exact, tfmtl.metrics.report, "
        "tfmtl.metrics.calibration; "
        "raise SystemExit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
