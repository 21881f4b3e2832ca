"""Intervals from resampled users."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from tfmtl.errors import ConfigError, DataError
from tfmtl.metrics import bootstrap, exact


def sample(seed, users=60, per_user=8, spread=1.0):
    """Rows whose base rate and score both shift by user: strongly clustered."""
    generator = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), per_user)
    taste = spread * generator.normal(size=users)[user]
    logit = taste + generator.normal(size=user.size)
    labels = (generator.random(user.size) < 1 / (1 + np.exp(-logit))).astype(float)
    return labels, taste + 0.5 * generator.normal(size=user.size), user


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_equals_resampling_rows_of_users_one_by_one(weighted, ties):
    labels, scores, user = sample(0, users=20)
    scores = np.round(scores) if ties else scores
    weights = np.random.default_rng(1).random(len(labels)) if weighted else None
    found = bootstrap.auc_interval(labels, scores, user, weights, resamples=25, seed=4)

    generator = np.random.default_rng(4)
    values = []
    for _ in range(25):
        drawn = generator.integers(0, 20, size=20)
        rows = np.concatenate([np.flatnonzero(user == u) for u in drawn])
        values.append(
            reference.roc_auc_score(
                labels[rows],
                scores[rows],
                sample_weight=None if weights is None else weights[rows],
            )
        )
    low, high = np.percentile(values, [2.5, 97.5])
    assert found.low == pytest.approx(low)
    assert found.high == pytest.approx(high)
    assert found.standard_error == pytest.approx(np.std(values, ddof=1))
    assert found.resamples == 25


def test_grouped_interval_equals_resampling_users_one_by_one():
    labels, scores, user = sample(2, users=20)
    found = bootstrap.grouped_auc_interval(labels, scores, user, resamples=25, seed=4)
    generator = np.random.default_rng(4)
    values = []
    for _ in range(25):
        drawn = generator.integers(0, 20, size=20)
        rows = np.concatenate([np.flatnonzero(user == u) for u in drawn])
        copies = np.repeat(np.arange(20), [np.sum(user == u) for u in drawn])
        values.append(exact.grouped_auc(labels[rows], scores[rows], copies).value)
    assert found[:2] == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))


def test_covers_the_truth_as_often_as_it_says_where_rows_do_not():
    truth = exact.auc(*sample(999, users=20_000, spread=2.0)[:2])
    by_user = by_row = 0
    for seed in range(100):
        labels, scores, user = sample(seed, spread=2.0)
        low, high = bootstrap.auc_interval(labels, scores, user, resamples=200)[:2]
        by_user += low <= truth <= high
        low, high = bootstrap.auc_interval(labels, scores, resamples=200)[:2]
        by_row += low <= truth <= high
    assert by_user >= 87
    assert by_row < by_user - 5


def test_is_a_function_of_the_seed_and_contains_the_estimate():
    labels, scores, user = sample(3)
    first = bootstrap.auc_interval(labels, scores, user, seed=1)
    assert first == bootstrap.auc_interval(labels, scores, user, seed=1)
    assert first != bootstrap.auc_interval(labels, scores, user, seed=2)
    assert first.low < exact.auc(labels, scores) < first.high
    narrow = bootstrap.auc_interval(labels, scores, user, seed=1, level=0.5)
    assert first.low < narrow.low < narrow.high < first.high


def test_undefined_where_resampling_says_nothing():
    assert np.isnan(bootstrap.auc_interval([0, 1], [0.1, 0.2], [1, 1]).low)
    assert np.isnan(bootstrap.auc_interval([1, 1], [0.1, 0.2], [1, 2]).low)
    assert np.isnan(bootstrap.auc_interval([], []).low)
    one_class_each = bootstrap.grouped_auc_interval([0, 1], [0.1, 0.2], [1, 2])
    assert np.isnan(one_class_each.low)
    # One positive among two users: half of the draws lack a class.
    pair = bootstrap.auc_interval([1, 0], [0.1, 0.2], [1, 2], resamples=400, seed=1)
    assert pair.resamples < 300


def test_wrong_arguments_are_named():
    with pytest.raises(ConfigError, match="`resamples` must be >= 2"):
        bootstrap.auc_interval([0, 1], [0.1, 0.2], resamples=1)
    with pytest.raises(ConfigError, match="`level`"):
        bootstrap.auc_interval([0, 1], [0.1, 0.2], level=95)
    with pytest.raises(DataError, match="`users` must be as long"):
        bootstrap.auc_interval([0, 1], [0.1, 0.2], [1])


def test_a_row_without_a_user_is_drawn_alone():
    labels, scores, user = sample(5, users=30)
    alone = np.arange(len(user)) >= 160
    users = np.array([b"u%d" % u for u in user], object)
    named = np.where(alone, [b"row%d" % i for i in range(len(user))], users)
    users[alone] = b""
    found = bootstrap.auc_interval(labels, scores, users)
    assert found == bootstrap.auc_interval(labels, scores, named)
    one_user_more = np.where(alone, b"somebody", users)
    assert found != bootstrap.auc_interval(labels, scores, one_user_more)
    nobody = np.full(len(users), "", object)
    rows = bootstrap.auc_interval(labels, scores, np.arange(len(users)))
    assert bootstrap.auc_interval(labels, scores, nobody) == rows
