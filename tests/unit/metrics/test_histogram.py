"""AUC from counts."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl.metrics import exact
from tfmtl.metrics.histogram import histogram_auc


def test_equals_exact_auc_of_the_binned_scores_and_is_within_its_bound():
    generator = np.random.default_rng(0)
    labels = generator.random(500) < 0.3
    scores = generator.random(500) + 0.2 * labels
    bins = (scores * 10).astype(int)
    counts = [np.bincount(bins[labels == c], minlength=12) for c in (0, 1)]
    found = histogram_auc(*counts)
    assert found.auc == pytest.approx(exact.auc(labels, bins))
    error = abs(found.auc - exact.auc(labels, scores))
    assert 0.0 < error <= found.bound
    # The bound is reached where all pairs of a bin are ordered the same way.
    one = histogram_auc(np.array([3]), np.array([2]))
    assert (one.auc, one.bound) == (0.5, 0.5)


def test_leading_axes_and_undefined_cells():
    negatives = np.array([[1, 1], [0, 0], [2, 0]])
    positives = np.array([[0, 2], [1, 1], [0, 2]])
    found = histogram_auc(negatives, positives)
    np.testing.assert_allclose(found.auc, [0.75, np.nan, 1.0])
    np.testing.assert_allclose(found.bound, [0.25, np.nan, 0.0])
