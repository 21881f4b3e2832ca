"""PCOC bin by bin; the calibration error is tested among the exact metrics."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl.errors import ConfigError
from tfmtl.metrics import exact
from tfmtl.metrics.score_bins import pcoc_by_score


@pytest.fixture
def rows():
    """1000 predictions, too high at the low end and too low at the high end."""
    draw = np.random.default_rng(1)
    p = draw.random(1000)
    return (draw.random(1000) < p**2 * (3 - 2 * p)).astype(float), p


def test_pcoc_of_each_bin_equals_a_loop(rows):
    labels, p = rows
    found = pcoc_by_score(labels, p)
    parts = np.array_split(np.argsort(p), 10)
    assert [b.rows for b in found] == [100] * 10
    for part, b in zip(parts, found):
        assert b.pcoc == pytest.approx(p[part].sum() / labels[part].sum())
        assert b.pcoc == pytest.approx(exact.pcoc(labels[part], p[part]))
        assert b.predicted == pytest.approx(p[part].mean())
        assert b.observed == pytest.approx(labels[part].mean())
    # One number would hide it: the errors at both ends cancel.
    assert exact.pcoc(labels, p) == pytest.approx(1.0, abs=0.05)
    assert found[1].pcoc > 1.2 and found[-3].pcoc < 0.95
    width = pcoc_by_score(labels, p, bins=4, method="width")
    for number, b in enumerate(width):
        part = np.floor(4 * p) == number
        assert b.pcoc == pytest.approx(p[part].sum() / labels[part].sum())


def test_the_bins_are_those_of_the_calibration_error(rows):
    labels, p = rows
    for bins in (3, 100):
        found = pcoc_by_score(labels, p, bins=bins)
        error = sum(b.weight * abs(b.predicted - b.observed) for b in found) / 1000
        assert exact.expected_calibration_error(labels, p, bins=bins) == pytest.approx(
            error
        )


def test_weights_ties_and_bins_without_a_positive(rows):
    labels, p = rows
    counts = np.random.default_rng(2).integers(0, 4, 1000)
    weighted = pcoc_by_score(labels, p, counts, bins=7)
    repeated = pcoc_by_score(np.repeat(labels, counts), np.repeat(p, counts), bins=7)
    assert [b.pcoc for b in weighted] == pytest.approx([b.pcoc for b in repeated])
    (tied,) = pcoc_by_score(labels, np.full(1000, labels.mean()))
    assert tied.rows == 1000 and tied.pcoc == pytest.approx(1.0)
    low, high = pcoc_by_score([0, 0, 1, 1], [0.1, 0.2, 0.7, 0.8], bins=2)
    assert np.isnan(low.pcoc) and high.pcoc == pytest.approx(0.75)
    assert pcoc_by_score([], []) == []
    assert pcoc_by_score(labels, p, np.zeros(1000)) == []
    with pytest.raises(ConfigError, match="`bins` must be >= 1"):
        pcoc_by_score(labels, p, bins=0)
