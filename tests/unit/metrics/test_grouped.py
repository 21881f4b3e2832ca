"""GAUC against a loop over users."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn import metrics as reference

from tfmtl.errors import ConfigError, DataError
from tfmtl.metrics import exact
from tfmtl.metrics.arrays import group_codes


def gauc_loop(labels, scores, groups, weights, row_weights=None):
    row_weights = np.ones(len(labels)) if row_weights is None else row_weights
    values, masses = [], []
    for group in np.unique(groups):
        rows = groups == group
        y, w = labels[rows], row_weights[rows]
        if 0 < y.sum() < len(y):
            values.append(reference.roc_auc_score(y, scores[rows], sample_weight=w))
            masses.append(
                {"impressions": w.sum(), "positives": w @ y, "ones": 1.0}[weights]
            )
    return np.average(values, weights=masses)


@pytest.fixture
def rows():
    generator = np.random.default_rng(7)
    groups = generator.integers(0, 40, 400)
    labels = (generator.random(400) < 0.3).astype(float)
    labels[groups < 5] = 0.0
    scores = generator.integers(0, 8, 400) + labels + groups * 0.5
    return labels, scores, groups, generator.random(400) + 0.1


@pytest.mark.parametrize("weights", ["impressions", "positives", "ones"])
def test_equals_a_loop_over_users(rows, weights):
    labels, scores, groups, mass = rows
    found = exact.grouped_auc(labels, scores, groups, weights)
    assert found.value == pytest.approx(gauc_loop(labels, scores, groups, weights))
    weighted = exact.grouped_auc(labels, scores, groups, weights, row_weights=mass)
    assert weighted.value == pytest.approx(
        gauc_loop(labels, scores, groups, weights, mass)
    )


def test_the_three_weightings_differ_so_that_a_mix_up_shows(rows):
    labels, scores, groups, _ = rows
    values = {
        round(exact.grouped_auc(labels, scores, groups, name).value, 9)
        for name in ("impressions", "positives", "ones")
    }
    assert len(values) == 3


def test_ones_is_the_mean_of_the_users_auc(rows):
    labels, scores, groups, _ = rows
    each = [
        exact.auc(labels[groups == g], scores[groups == g]) for g in np.unique(groups)
    ]
    found = exact.grouped_auc(labels, scores, groups, "ones")
    assert found.value == pytest.approx(np.nanmean(each))


def test_one_user_is_plain_auc(rows):
    labels, scores, _, _ = rows
    found = exact.grouped_auc(labels, scores, np.zeros(len(labels), int))
    assert found == (pytest.approx(exact.auc(labels, scores)), 1, 1.0, 1.0)


def test_constants_per_user_change_auc_but_not_gauc(rows):
    labels, scores, groups, _ = rows
    moved = scores + 100.0 * np.random.default_rng(1).normal(size=40)[groups]
    assert exact.grouped_auc(labels, moved, groups).value == pytest.approx(
        exact.grouped_auc(labels, scores, groups).value
    )
    assert abs(exact.auc(labels, moved) - exact.auc(labels, scores)) > 0.01


def test_users_with_one_class_are_ignored_and_counted(rows):
    labels, scores, groups, _ = rows
    found = exact.grouped_auc(labels, scores, groups)
    usable = [g for g in np.unique(groups) if 0 < labels[groups == g].mean() < 1]
    assert found.groups_used == len(usable) < 40
    assert found.group_coverage == pytest.approx(len(usable) / 40)
    assert found.row_coverage == pytest.approx(np.isin(groups, usable).mean())
    kept = np.isin(groups, usable)
    alone = exact.grouped_auc(labels[kept], scores[kept], groups[kept])
    assert alone.value == pytest.approx(found.value)


def test_nothing_defined_is_nan_with_no_coverage():
    assert np.isnan(exact.grouped_auc([0, 1], [0.0, 1.0], [1, 2]).value)
    empty = exact.grouped_auc([], [], np.zeros(0, int))
    assert np.isnan(empty.value)
    assert empty[1:] == (0, 0.0, 0.0)


def test_groups_of_any_hashable_type_give_the_same(rows):
    labels, scores, groups, _ = rows
    expected = exact.grouped_auc(labels, scores, groups)
    text = np.array([f"u{g}" for g in groups])
    raw = np.array([f"u{g}".encode() for g in groups], dtype=object)
    for other in (text, text.astype(object), raw, list(text)):
        assert exact.grouped_auc(labels, scores, other).value == pytest.approx(
            expected.value
        )


def test_bytes_that_end_in_nul_stay_apart():
    codes, count = group_codes(np.array([b"a", b"a\0", b"a"], dtype=object))
    assert count == 2
    assert codes.tolist() == [0, 1, 0]


def test_wrong_groups_and_weights_are_named():
    for groups in ([None, "a"], [1.5, 2.5], np.array([np.nan, "a"], dtype=object)):
        with pytest.raises(DataError, match="must be integers, strings or bytes"):
            exact.grouped_auc([0, 1], [0.1, 0.2], groups)
    with pytest.raises(DataError, match="`groups` must be as long as"):
        exact.grouped_auc([0, 1], [0.1, 0.2], [1])
    with pytest.raises(ConfigError, match="'impressions', 'positives' or 'ones'"):
        exact.grouped_auc([0, 1], [0.1, 0.2], [1, 1], "clicks")


def test_time_does_not_grow_with_users():
    generator = np.random.default_rng(0)
    labels = generator.random(200_000) < 0.2
    scores = generator.random(200_000)
    seconds = []
    for users in (10, 100_000):
        groups = generator.integers(0, users, len(labels))
        start = time.process_time()
        exact.grouped_auc(labels, scores, groups)
        seconds.append(time.process_time() - start)
    # A Python loop over 86,000 users takes 100 times longer than over 10.
    assert seconds[1] < 10.0 * seconds[0] + 0.2


@pytest.mark.parametrize("nothing", ["", b""])
def test_rows_without_a_user_are_in_no_group(nothing):
    generator = np.random.default_rng(3)
    known = np.array([f"u{u}" for u in generator.integers(0, 10, 200)], object)
    groups = known.copy()
    alone = generator.random(200) < 0.4
    groups[alone] = nothing
    labels = (generator.random(200) < 0.4).astype(float)
    scores = generator.random(200)
    found = exact.grouped_auc(labels, scores, groups)
    kept = exact.grouped_auc(labels[~alone], scores[~alone], groups[~alone])
    assert found.value == pytest.approx(kept.value)
    assert found.groups_used == kept.groups_used == 10
    # They count among the rows that GAUC says nothing about.
    assert kept.row_coverage == 1.0
    assert found.row_coverage == pytest.approx(np.mean(~alone))


def test_each_empty_text_gets_a_number_of_its_own():
    codes, count = group_codes(np.array(["", "a", "", b"", "a", b""], object))
    assert count == 5
    assert codes[1] == codes[4]
    assert sorted({*codes.tolist()}) == [0, 1, 2, 3, 4]
