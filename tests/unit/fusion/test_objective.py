"""The quick values of criteria are the values of the metrics."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl.errors import ConfigError, DataError
from tfmtl.fusion import counting
from tfmtl.fusion.counting import PlaceCounter
from tfmtl.fusion.criteria import Criterion
from tfmtl.fusion.objective import Judge
from tfmtl.fusion.scores import fuse
from tfmtl.metrics import ranking
from tfmtl.metrics.lists import find_places, make_lists
from tfmtl.schema.fusion import FusionSpec

CRITERIA = (
    Criterion("buy", "ndcg", 3),
    Criterion("click", "ndcg", 3, "feed"),
    Criterion("click", "map", 2),
    Criterion("click", "mrr"),
    Criterion("like", "hr", 2),
)
PLAIN = {
    "ndcg": ranking.ndcg,
    "map": ranking.mean_average_precision,
    "hr": ranking.hit_rate,
}


def by_metrics(table, score, criterion):
    rows = ~np.isnan(table.labels[criterion.output])
    if criterion.scenario:
        rows &= table.scenario == criterion.scenario
    arrays = (table.labels[criterion.output][rows], score[rows], table.lists[rows])
    if criterion.metric == "mrr":
        return ranking.mean_reciprocal_rank(*arrays)
    return PLAIN[criterion.metric](*arrays, criterion.at)


@pytest.mark.parametrize("most", [0, 10_000])
@pytest.mark.parametrize("form", ["product", "sum", "rank"])
def test_values_are_those_of_the_served_score(
    make_experiment, table, form, most, monkeypatch
):
    monkeypatch.setattr(counting, "_MOST", most)  # sorts, or counts
    fusion = FusionSpec(form=form, weights={"click": 1.0, "like": 0.0, "buy": 2.0})
    judge = Judge(table, make_experiment(), fusion, CRITERIA)
    for weights in ((1.0, 2.0), (1.0, -0.3), (1.0, 1e-9)):
        found = judge(np.array(weights))
        named = FusionSpec(form=form, weights=dict(zip(fusion.used, weights)))
        score = fuse(table.predictions, named, table.lists).astype(np.float32)
        wanted = [by_metrics(table, score, c) for c in CRITERIA]
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
        other = [by_metrics(table, -score, c) for c in CRITERIA]
        assert np.abs(found - other).min() > 1e-4


def test_counts_are_those_of_the_sort():
    draw = np.random.default_rng(0)
    sizes = [1, 2, 3, 9, 40]
    groups = draw.permutation(np.repeat(np.arange(5), sizes))
    labels = (draw.random(55) < 0.4).astype(float)
    labels[groups == 1] = [1.0, 0.0]
    lists = make_lists(labels, groups)
    counter = PlaceCounter(lists, 55, hits=True)
    assert not counter.sorts
    for levels in (2, 6, 1000):
        scores = draw.integers(0, levels, 56).astype(np.float32)
        scores[-1] = -np.inf
        for found, wanted in zip(counter(scores), find_places(lists, scores[:-1])):
            np.testing.assert_array_equal(found, wanted)


def test_spread_is_what_differs_inside_lists(make_experiment, table):
    fusion = FusionSpec(form="sum", weights={"click": 1.0, "buy": 1.0})
    moved = {**table.predictions}
    moved["click"] = moved["click"] + 5.0 * table.lists  # the same for a whole list
    moved["buy"] = 3.0 * moved["buy"]
    before = Judge(table, make_experiment(), fusion, CRITERIA).spread
    changed = type(table)(moved, table.labels, table.lists, table.scenario)
    after = Judge(changed, make_experiment(), fusion, CRITERIA).spread
    np.testing.assert_allclose(after, before * [1.0, 3.0], rtol=1e-9)


def test_what_cannot_be_measured(make_experiment, table):
    fusion = FusionSpec(weights={"click": 1.0, "buy": 1.0})
    labels = {**table.labels, "buy": np.zeros(table.rows)}
    empty = type(table)(table.predictions, labels, table.lists, table.scenario)
    with pytest.raises(ConfigError, match="'buy/ndcg@3' is undefined"):
        Judge(empty, make_experiment(), fusion, CRITERIA)
    judge = Judge(table, make_experiment(), fusion, CRITERIA)
    with pytest.raises(DataError, match="not finite under the weights"):
        judge(np.array([1.0, np.inf]))


def test_what_is_measured_beside_is_left_out_where_it_is_undefined(
    make_experiment, table
):
    fusion = FusionSpec(weights={"click": 1.0, "buy": 1.0})
    feed = Criterion("click", "ndcg", 3, "feed")
    none = np.where(table.scenario == "feed", 0.0, table.labels["click"])
    signed = table.labels["click"] - 0.5
    whole = Judge(table, make_experiment(), fusion, [CRITERIA[0]])
    for labels in (none, signed):
        here = {**table.labels, "click": labels}
        changed = type(table)(table.predictions, here, table.lists, table.scenario)
        asked = [CRITERIA[0], feed]
        judge = Judge(changed, make_experiment(), fusion, asked, [feed])
        assert (judge.criteria, judge.left_out) == ((CRITERIA[0],), (feed,))
        weights = np.array([1.0, 2.0])
        np.testing.assert_array_equal(judge(weights), whole(weights))
        with pytest.raises(ConfigError, match="'click@feed/ndcg@3' is undefined"):
            Judge(changed, make_experiment(), fusion, asked)
