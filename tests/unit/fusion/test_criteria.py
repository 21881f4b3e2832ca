"""What a search may be asked for, and what it answers to the rest."""

from __future__ import annotations

import pytest

from tfmtl.errors import ConfigError
from tfmtl.fusion.criteria import (
    Constraint,
    Criterion,
    parse_constraint,
    parse_criterion,
)

TASKS = [
    {"name": "click", "label": "click"},
    {"name": "buy", "label": "buy", "given": "click"},
    {"name": "watch", "label": "watch", "type": "regression"},
    {"name": "grade", "label": "grade", "type": "multiclass", "classes": 3},
]


@pytest.fixture(scope="module")
def experiment(make_experiment):
    return make_experiment(tasks=TASKS)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("buy/ndcg@10", Criterion("buy", "ndcg", 10)),
        (" buy|click/map@5 ", Criterion("buy|click", "map", 5)),
        ("click@feed/hr@1", Criterion("click", "hr", 1, "feed")),
        ("click/mrr", Criterion("click", "mrr")),
        ("watch/ndcg@3", Criterion("watch", "ndcg", 3)),
    ],
)
def test_criteria_are_read_and_written(experiment, text, wanted):
    found = parse_criterion(text, experiment, "--objective")
    assert found == wanted
    assert str(found) == text.strip()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("by/ndcg@10", "Did you mean 'buy'"),
        ("ndcg@10", "must be output/metric"),
        ("grade/ndcg@10", r"outputs: \['buy', 'buy|click', 'click', 'watch'\]"),
        ("buy/auc", r"metrics: \['ndcg@K'"),
        ("buy/ndcg", r"metrics: \['ndcg@K'"),
        ("buy/ndcg@0", r"metrics: \['ndcg@K'"),
        ("buy/ndcg@²", r"metrics: \['ndcg@K'"),
        ("buy/mrr@10", r"metrics: \['ndcg@K'"),
        ("watch/map@10", "the metric of a regression is ndcg@K"),
        ("buy/gndcg@10", "needs `evaluation.ranking.value`"),
        ("buy@home/ndcg@10", r"scenario 'home'; scenarios: \['feed', 'search'"),
    ],
)
def test_what_names_nothing_is_refused(experiment, text, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_criterion(text, experiment, "--objective")
    assert "--objective" in str(error.value)


def test_constraints(experiment):
    criterion = Criterion("click", "ndcg", 10)
    for text, wanted in {
        "click/ndcg@10 >= 0.4": Constraint(criterion, ">=", 0.4),
        "click/ndcg@10<=1e-1": Constraint(criterion, "<=", 0.1),
        "click/ndcg@10 >= baseline": Constraint(criterion, ">=", 0.0, True),
        "click/ndcg@10 >= baseline - 0.02": Constraint(criterion, ">=", -0.02, True),
        "click/ndcg@10 <= baseline+0.1": Constraint(criterion, "<=", 0.1, True),
        "click/ndcg@10 <= baseline + 1e+0": Constraint(criterion, "<=", 1.0, True),
        "click/ndcg@10 >= baseline - 1e-3": Constraint(criterion, ">=", -1e-3, True),
        "click/ndcg@10 >= baseline + -0.5": Constraint(criterion, ">=", -0.5, True),
        "click/ndcg@10 >= -0.5": Constraint(criterion, ">=", -0.5),
    }.items():
        found = parse_constraint(text, experiment)
        assert found == wanted
        assert parse_constraint(str(found), experiment) == wanted
    low = parse_constraint("click/ndcg@10 >= baseline - 0.02", experiment).resolved(0.5)
    assert low.violation(0.48) == pytest.approx(0, abs=1e-12)
    assert low.violation(0.4) == pytest.approx(0.08)
    high = parse_constraint("click/ndcg@10 <= 0.3", experiment)
    assert (high.violation(0.2), high.violation(0.5)) == (0.0, 0.2)


def test_scenarios_with_spaces_and_signs(make_experiment):
    scenario = {"column": "page", "values": ["new users", ">=18"]}
    experiment = make_experiment(tasks=TASKS, dataset={"scenario": scenario})
    for value in scenario["values"]:
        found = parse_constraint(f"click@{value}/ndcg@10 >= 0.4", experiment)
        criterion = Criterion("click", "ndcg", 10, value)
        assert found == Constraint(criterion, ">=", 0.4)
        assert found.criterion == criterion


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("click/ndcg@10 > 0.4", "must be a metric and a bound"),
        ("click/ndcg@10 >= good", "must be a metric and a bound"),
        ("click/ndcg@10 >= 1.2.3", "must be a metric and a bound"),
        ("click/ndcg@10 >= 1.01", r"cannot be kept.*lies in \[0, 1\]"),
        ("click/ndcg@10 <= -0.1", "cannot be kept"),
        ("clik/ndcg@10 >= 0.4", "Did you mean 'click'"),
        ("click/ndcg@10 >= 0.4 >= 0.3", r"metrics: \[.ndcg@K."),
        ("click ndcg@10 >= 0.4", "must be output/metric"),
    ],
)
def test_constraints_that_cannot_be(experiment, text, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_constraint(text, experiment)
    assert "--constraint" in str(error.value)
