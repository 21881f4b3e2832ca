"""Multiclass metrics against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from tfmtl.errors import DataError
from tfmtl.metrics import multiclass


@pytest.mark.parametrize("weighted", [False, True])
def test_equal_scikit_learn(weighted):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 80)
    p = generator.dirichlet(np.ones(5), 80)
    p[:, 4] = 0.0  # Neither a label nor a prediction names class 4.
    p /= p.sum(axis=1, keepdims=True)
    w = generator.random(80) if weighted else None
    guess = p.argmax(axis=1)
    assert multiclass.accuracy(labels, p, w) == pytest.approx(
        reference.accuracy_score(labels, guess, sample_weight=w)
    )
    macro = reference.f1_score(labels, guess, average="macro", sample_weight=w)
    assert multiclass.macro_f1(labels, p, w) == pytest.approx(macro)
    micro = reference.f1_score(labels, guess, average="micro", sample_weight=w)
    assert abs(macro - micro) > 1e-4
    assert multiclass.multiclass_logloss(labels, p, w) == pytest.approx(
        reference.log_loss(labels, p, labels=range(5), sample_weight=w)
    )


def test_a_class_that_is_only_predicted_counts_zero():
    p = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert multiclass.macro_f1([0, 0], p) == pytest.approx((2 / 3 + 0.0) / 2)


def test_undefined_is_nan():
    empty = np.zeros((0, 3))
    for metric in (
        multiclass.accuracy,
        multiclass.macro_f1,
        multiclass.multiclass_logloss,
    ):
        assert np.isnan(metric([], empty))


@pytest.mark.parametrize(
    ("labels", "p", "message"),
    [
        ([0, 3], [[0.5, 0.5]] * 2, "whole numbers in 0 .. 1, got 3.0 in row 1"),
        ([0.5], [[0.5, 0.5]], "whole numbers"),
        ([-1], [[0.5, 0.5]], "whole numbers"),
        ([np.nan], [[0.5, 0.5]], "NaN"),
        ([0, 1], [[0.5, 0.5]], "shape"),
        ([0], [[2.0, -1.0]], "softmax"),
        ([0], [[0.9, 0.9]], "softmax"),
    ],
)
def test_wrong_arrays_are_named(labels, p, message):
    with pytest.raises(DataError, match=message):
        multiclass.multiclass_logloss(labels, np.asarray(p))


def test_wrong_weights_are_named():
    with pytest.raises(DataError, match="`weights`"):
        multiclass.accuracy([0], [[0.5, 0.5]], [-1.0])
