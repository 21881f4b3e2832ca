"""Properties that metrics have for any labels, scores and weights."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tfmtl.metrics import calibration, exact
from tfmtl.metrics.histogram import histogram_auc

SETTINGS = hypothesis.settings(max_examples=30, deadline=None)


@st.composite
def labelled(draw, max_size=60):
    """Labels of both classes, scores with ties, users and weights."""
    size = draw(st.integers(2, max_size))
    labels = draw(arrays.arrays(np.int8, size, elements=st.integers(0, 1)))
    hypothesis.assume(0 < labels.sum() < size)
    scores = draw(arrays.arrays(np.int16, size, elements=st.integers(-9, 9))) / 4.0
    users = draw(arrays.arrays(np.int64, size, elements=st.integers(0, 4)))
    weights = draw(arrays.arrays(np.int64, size, elements=st.integers(1, 4)))
    return labels, scores, users, weights.astype(float)


@SETTINGS
@hypothesis.given(labelled())
def test_auc_is_the_chance_that_a_positive_wins(rows):
    labels, scores, _, weights = rows
    gap = scores[labels == 1][:, None] - scores[labels == 0][None]
    pair = weights[labels == 1][:, None] * weights[labels == 0][None]
    wins = (gap > 0) + 0.5 * (gap == 0)
    expected = (pair * wins).sum() / pair.sum()
    assert exact.auc(labels, scores, weights) == pytest.approx(expected)


@SETTINGS
@hypothesis.given(labelled())
def test_auc_depends_on_the_order_only(rows):
    labels, scores, _, weights = rows
    value = exact.auc(labels, scores, weights)
    for moved in (scores * 7 - 3, np.exp(scores), np.arctan(scores), scores**3):
        assert exact.auc(labels, moved, weights) == value


@SETTINGS
@hypothesis.given(labelled())
def test_auc_mirrors_when_labels_or_scores_are_reversed(rows):
    labels, scores, _, weights = rows
    value = exact.auc(labels, scores, weights)
    assert exact.auc(1 - labels, scores, weights) == pytest.approx(1 - value)
    assert exact.auc(labels, -scores, weights) == pytest.approx(1 - value)


@SETTINGS
@hypothesis.given(labelled(), st.randoms(use_true_random=False))
def test_the_order_of_rows_is_of_no_account(rows, random):
    labels, scores, users, weights = rows
    order = np.asarray(random.sample(range(len(labels)), len(labels)))
    p = 1 / (1 + np.exp(-scores))
    for metric, prediction in (
        (exact.auc, scores),
        (exact.logloss, p),
        (exact.pcoc, p),
        (exact.normalized_entropy, p),
        (exact.expected_calibration_error, p),
    ):
        assert metric(
            labels[order], prediction[order], weights[order]
        ) == pytest.approx(metric(labels, prediction, weights), abs=1e-12)
    shuffled = exact.grouped_auc(labels[order], scores[order], users[order])
    assert shuffled == pytest.approx(
        exact.grouped_auc(labels, scores, users), nan_ok=True
    )


@SETTINGS
@hypothesis.given(labelled())
def test_gauc_is_the_weighted_mean_over_users_with_both_classes(rows):
    labels, scores, users, _ = rows
    values = {u: exact.auc(labels[users == u], scores[users == u]) for u in set(users)}
    used = [u for u, value in values.items() if not np.isnan(value)]
    found = exact.grouped_auc(labels, scores, users)
    assert found.groups_used == len(used)
    if used:
        masses = [np.sum(users == u) for u in used]
        expected = np.average([values[u] for u in used], weights=masses)
        assert found.value == pytest.approx(expected)
    else:
        assert np.isnan(found.value)


@SETTINGS
@hypothesis.given(labelled(), st.integers(1, 12), st.integers(0, 60))
def test_histograms_add_and_stay_within_the_bound(rows, bins, cut):
    labels, scores, _, weights = rows
    place = np.clip(((scores + 2.5) / 5 * bins).astype(int), 0, bins - 1)

    def counts(part):
        return np.stack(
            [
                np.bincount(
                    place[part], weights[part] * (labels[part] == c), minlength=bins
                )
                for c in (0, 1)
            ]
        )

    whole = counts(slice(None))
    np.testing.assert_array_equal(
        counts(slice(0, cut)) + counts(slice(cut, None)), whole
    )
    found = histogram_auc(*whole)
    error = abs(found.auc - exact.auc(labels, scores, weights))
    assert error <= found.bound + 1e-12


@SETTINGS
@hypothesis.given(labelled())
def test_fitted_bias_calibrates_and_keeps_auc(rows):
    labels, scores, _, weights = rows
    bias = calibration.fit_bias(labels, scores, weights)
    p = 1 / (1 + np.exp(-(scores + bias)))
    assert exact.pcoc(labels, p, weights) == pytest.approx(1.0, abs=1e-6)
    assert exact.auc(labels, p, weights) == pytest.approx(
        exact.auc(labels, scores, weights)
    )


@SETTINGS
@hypothesis.given(labelled())
def test_calibration_error_is_at_least_the_global_bias(rows):
    labels, scores, _, weights = rows
    p = 1 / (1 + np.exp(-scores))
    bias = abs(np.average(p - labels, weights=weights))
    for method in ("mass", "width"):
        ece = exact.expected_calibration_error(labels, p, weights, method=method)
        assert bias - 1e-12 <= ece <= 1.0
