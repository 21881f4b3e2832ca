"""Errors of predicted values against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from tfmtl.errors import DataError
from tfmtl.metrics import regression


@pytest.mark.parametrize("weighted", [False, True])
def test_equal_scikit_learn(weighted):
    generator = np.random.default_rng(0)
    y = generator.normal(size=60)
    p = y + generator.normal(size=60)
    w = generator.random(60) if weighted else None
    mse = reference.mean_squared_error(y, p, sample_weight=w)
    assert regression.rmse(y, p, w) == pytest.approx(np.sqrt(mse))
    assert regression.rmse(y, p, w) != pytest.approx(mse)
    mae = reference.mean_absolute_error(y, p, sample_weight=w)
    assert regression.mae(y, p, w) == pytest.approx(mae)
    r2 = reference.r2_score(y, p, sample_weight=w)
    assert regression.r2(y, p, w) == pytest.approx(r2)


def test_undefined_values_are_nan_and_nan_is_refused():
    assert np.isnan(regression.rmse([], []))
    assert np.isnan(regression.mae([], []))
    assert np.isnan(regression.r2([2.0, 2.0], [1.0, 3.0]))
    with pytest.raises(DataError, match="`labels` must not be NaN"):
        regression.rmse([np.nan], [1.0])
    with pytest.raises(DataError, match="as long as"):
        regression.mae([1.0], [1.0, 2.0])
