"""The document about the order inside lists, and its intervals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfmtl.errors import DataError
from tfmtl.metrics import ranking
from tfmtl.metrics.bootstrap import mean_intervals
from tfmtl.metrics.ranking_report import Ranking, ranking_document
from tfmtl.metrics.report import TaskPredictions, evaluate_predictions


@pytest.fixture
def rows():
    draw = np.random.default_rng(0)
    groups = draw.integers(0, 60, 300)
    groups[:3] = [100, 101, 102]
    scores = draw.random(300)
    labels = (draw.random(300) < 0.3 * (0.3 + scores)).astype(float)
    return labels, scores, groups, draw.integers(0, 9, 300).astype(float)


def test_every_number_is_that_of_the_metrics(rows):
    labels, scores, groups, value = rows
    lists = Ranking(groups, "group", (2, 5), value=value)
    found = ranking_document(labels, scores, lists, resamples=20)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for at in (2, 5):
        for name, metric, options in (
            ("ndcg", ranking.ndcg, {}),
            ("map", ranking.mean_average_precision, {}),
            ("hr", ranking.hit_rate, {}),
            ("gndcg", ranking.ndcg, {"value": value}),
            ("gmap", ranking.mean_average_precision, {"value": value}),
        ):
            wanted = metric(labels, scores, groups, at, **options)
            assert found[f"{name}@{at}"] == pytest.approx(wanted)
    assert found["mrr"] == ranking.mean_reciprocal_rank(labels, scores, groups)
    assert found["by"] == "group"
    size = np.bincount(groups)
    positives = np.bincount(groups, labels)
    assert found["lists"] == (size > 1).sum()
    assert found["lists_of_one"] == (size == 1).sum() >= 3
    empty = int(((size > 1) & (positives == 0)).sum())
    assert found["lists_without_positives"] == empty > 0
    assert set(found["ci"]) == set(found) - {
        "by", "lists", "lists_without_positives", "lists_of_one", "ci",
    }  # fmt: skip
    for name, (low, high) in found["ci"].items():
        assert low < found[name] < high


def test_lists_without_a_positive_may_count_as_zero(rows):
    labels, scores, groups, _ = rows
    skip, zero = (
        ranking_document(labels, scores, Ranking(groups, "group", (3,), empty))
        for empty in ("skip", "zero")
    )
    share = 1 - zero["lists_without_positives"] / zero["lists"]
    for name in ("ndcg@3", "map@3", "hr@3", "mrr"):
        assert zero[name] == pytest.approx(share * skip[name])
        assert zero["ci"][name][0] < skip["ci"][name][0]


def test_amounts_have_ndcg_alone(rows):
    _, scores, groups, value = rows
    lists = Ranking(groups, "user", (4,))
    found = ranking_document(value, scores, lists, graded=True, gain="exponential")
    wanted = ranking.ndcg(value, scores, groups, 4, gain="exponential")
    assert set(found["ci"]) == {"ndcg@4"}
    assert found["ndcg@4"] == wanted != ranking.ndcg(value, scores, groups, 4)
    below = ranking_document(value - 1, scores, lists, graded=True)
    assert below["ndcg@4"] is None and below["ci"]["ndcg@4"] is None


def test_what_no_list_defines_is_null():
    labels, scores = np.array([1.0, 0.0, 0.0]), np.arange(3.0)
    for groups in (np.arange(3), np.array([0, 1, 1])):
        found = ranking_document(labels, scores, Ranking(groups, "group", (1,)))
        assert found["lists"] == (len(set(groups)) == 2)
        assert [found[n] for n in ("ndcg@1", "map@1", "hr@1", "mrr")] == [None] * 4
        assert set(found["ci"].values()) == {None}
    nothing = np.zeros(0)
    found = ranking_document(nothing, nothing, Ranking(nothing.astype(int), "user"))
    assert found["lists"] == 0 and found["mrr"] is None


def test_means_over_lists_are_resampled_by_user():
    draw = np.random.default_rng(1)
    effect = np.repeat(draw.normal(size=40), 25)  # lists of one user are alike
    values = np.stack([effect, effect + 1, np.full(1000, np.nan)], axis=1)
    values[draw.random(1000) < 0.3, 0] = np.nan
    users = np.repeat(np.arange(40), 25)
    one, two, none = mean_intervals(values, users, resamples=400)
    alone = mean_intervals(values, resamples=400)
    assert one.standard_error > 3 * alone[0].standard_error
    spread = effect[::25].std(ddof=1)
    assert two.standard_error == pytest.approx(spread / np.sqrt(40), rel=0.2)
    assert two.low < effect.mean() + 1 < two.high
    assert np.isnan(none.low) and none.resamples == 0
    again = mean_intervals(values, users, resamples=400)
    assert again[0] == one
    assert mean_intervals(values, users, resamples=400, seed=1)[0] != one
    assert np.isnan(mean_intervals(values[:25], users[:25])[0].low)  # one user
    assert np.isnan(mean_intervals(np.zeros((0, 1)))[0].low)


def test_the_report_has_it_for_each_task_and_scenario(rows):
    labels, scores, groups, value = rows
    scenario = np.arange(300) % 2
    missing = np.where(np.arange(300) % 5 == 0, np.nan, labels)
    tasks = [
        TaskPredictions("click", "binary", missing, scores),
        TaskPredictions("watch", "regression", value, scores, gain="exponential"),
        TaskPredictions("by_score", "order", labels, 7 * scores - 90),
        TaskPredictions("of_watch", "graded_order", value, scores),
    ]
    arguments = {"scenario": scenario, "scenario_names": ("a", "b"), "resamples": 0}
    found = evaluate_predictions(
        "test", tasks, ranking=Ranking(groups, "group", (3,)), **arguments
    )["tasks"]
    known = ~np.isnan(missing)
    for number, name in ((None, None), (0, "a"), (1, "b")):
        place = np.ones(300, bool) if number is None else scenario == number

        def cell(task, name=name):
            whole = found[task]
            return (whole if name is None else whole["scenarios"][name])["ranking"]

        used = place & known
        wanted = ranking.ndcg(missing[used], scores[used], groups[used], 3)
        assert cell("click")["ndcg@3"] == wanted
        watch = value[place], scores[place], groups[place], 3
        assert cell("watch")["ndcg@3"] == ranking.ndcg(*watch, gain="exponential")
        assert cell("of_watch")["ndcg@3"] == ranking.ndcg(*watch)
        plain = ranking.ndcg(labels[place], scores[place], groups[place], 3)
        assert cell("by_score")["ndcg@3"] == plain
    assert found["by_score"]["auc"] is not None
    without = evaluate_predictions("test", tasks, **arguments)["tasks"]
    assert without["click"]["ranking"] is None
    with pytest.raises(DataError, match="`ranking` must have one value"):
        evaluate_predictions("test", tasks, ranking=Ranking(groups[:9], "group"))
