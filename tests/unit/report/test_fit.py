"""Findings on calibration and overfitting: made-up cases with and without."""

from __future__ import annotations

import pytest

from tfmtl.report.fit import miscalibrated, overfitting


def facts(pcoc: float, ece: float, rows: int = 100_000, positives: int = 10_000):
    return {"rows": rows, "positives": positives, "pcoc": pcoc, "ece": ece}


@pytest.mark.parametrize("pcoc", [0.85, 1.2])
def test_pcoc_outside_its_bounds_is_found(pcoc: float) -> None:
    (found,) = miscalibrated("click", facts(pcoc, 0.005))
    assert found.number == pcoc and found.threshold == pytest.approx(
        1.1 if pcoc > 1 else 0.9
    )
    assert f"{pcoc:.3f} times as many" in found.text


def test_an_ece_beyond_a_tenth_of_the_rate_is_found() -> None:
    (found,) = miscalibrated("click", facts(1.0, 0.02))
    # Two errors of a perfect model: 2 sqrt(2 / pi) sqrt(0.09 / 1000) = 0.0151.
    assert found.threshold == pytest.approx(0.01514, rel=1e-3)
    (found,) = miscalibrated("click", facts(1.0, 0.02, 10**7, 10**6))
    assert found.threshold == pytest.approx(0.01)


def test_what_chance_explains_is_no_finding() -> None:
    assert not list(miscalibrated("click", facts(1.09, 0.012)))
    assert not list(miscalibrated("click", facts(1.3, 0.05, 400, 40)))
    assert not list(miscalibrated("click", facts(1.3, 0.5, 400, 0)))


def test_overfitting_is_a_rise_against_a_falling_training_loss() -> None:
    losses = [(0.6, 0.55), (0.5, 0.5), (0.4, 0.52)]
    (found,) = overfitting("click", losses, "click/logloss")
    assert found.number == pytest.approx(0.04) and "by 4.0%" in found.text
    for fine in (
        [(0.6, 0.55), (0.5, 0.5), (0.4, 0.505)],  # hardly
        [(0.6, 0.55), (0.5, 0.5), (0.55, 0.6)],  # both rise
        [(0.6, 0.55), (0.5, 0.5)],
        [(0.6, 0.5)],
        [(None, 0.5), (0.4, 0.6)],
    ):
        assert not list(overfitting("click", fine, "click/logloss"))
