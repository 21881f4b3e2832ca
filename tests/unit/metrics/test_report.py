"""The document of an evaluation."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfmtl.errors import ConfigError, DataError
from tfmtl.metrics import bootstrap, exact, multiclass, regression
from tfmtl.metrics.report import TaskPredictions, evaluate_predictions

TABS = ("home", "search")


@pytest.fixture
def split():
    generator = np.random.default_rng(0)
    count = 500
    scenario = generator.choice([0, 1, 2], count, p=[0.6, 0.3, 0.1])
    users = np.array([b"u%d" % u for u in generator.integers(0, 25, count)], object)
    p = generator.random(count)
    click = (generator.random(count) < p).astype(float)
    like = np.where(click == 1, (generator.random(count) < 0.4).astype(float), np.nan)
    stars = np.where(
        generator.random(count) < 0.9, generator.integers(0, 3, count), np.nan
    )
    tasks = [
        TaskPredictions("click", "binary", click, p.astype(np.float32)),
        TaskPredictions("like", "binary", like, generator.random(count)),
        TaskPredictions("watch", "regression", p * 9, p * 9 + click),
        TaskPredictions(
            "stars", "multiclass", stars, generator.dirichlet([1] * 3, count)
        ),
    ]
    return tasks, scenario, users


def evaluate(split, **changes):
    tasks, scenario, users = split
    arguments = {
        "scenario": scenario,
        "scenario_names": TABS,
        "users": users,
        "resamples": 20,
    }
    return evaluate_predictions("test", tasks, **{**arguments, **changes})


def test_has_the_documented_keys_and_is_json(split):
    document = evaluate(split)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert set(document) >= {
        "split", "rows", "tasks", "mean_task_auc", "mean_cell_auc",
    }  # fmt: skip
    required = {
        "auc", "auc_ci", "gauc", "logloss", "ne", "pcoc", "ece", "positives", "rows",
    }  # fmt: skip
    for task in ("click", "like"):
        found = document["tasks"][task]
        assert set(found) >= required | {"scenarios"}
        assert list(found["scenarios"]) == ["home", "search", "unknown"]
        for cell in found["scenarios"].values():
            assert set(cell) == set(found) - {"scenarios"}
    assert set(document["tasks"]["watch"]) >= {"rmse", "mae", "rows", "scenarios"}
    assert set(document["tasks"]["stars"]) >= {"accuracy", "macro_f1", "logloss"}
    assert (document["split"], document["rows"]) == ("test", 500)


@pytest.mark.parametrize("place", [None, 0, 2])
def test_every_number_is_that_of_its_own_rows(split, place):
    tasks, scenario, users = split
    document = evaluate(split)
    name = {0: "home", 2: "unknown"}.get(place)

    def found(task):
        whole = document["tasks"][task]
        return whole if place is None else whole["scenarios"][name]

    for task in tasks:
        kept = ~np.isnan(task.labels)
        kept &= (scenario == place) | (place is None)
        y, p, u = task.labels[kept], task.predictions[kept], users[kept]
        cell = found(task.name)
        assert cell["rows"] == kept.sum()
        if task.kind == "binary":
            gauc = exact.grouped_auc(y, p, u)
            assert cell["auc"] == pytest.approx(exact.auc(y, p))
            assert cell["gauc"] == pytest.approx(gauc.value)
            assert cell["gauc_coverage"] == pytest.approx(gauc.row_coverage)
            assert cell["logloss"] == pytest.approx(exact.logloss(y, p))
            assert cell["ne"] == pytest.approx(exact.normalized_entropy(y, p))
            assert cell["pcoc"] == pytest.approx(exact.pcoc(y, p))
            ece = exact.expected_calibration_error(y, p)
            assert cell["ece"] == pytest.approx(ece)
            bins = exact.pcoc_by_score(y, p)
            assert [b["pcoc"] for b in cell["bins"]] == [
                pytest.approx(b.pcoc) if b.observed else None for b in bins
            ]
            assert sum(b["rows"] for b in cell["bins"]) == len(y)
            assert cell["positives"] == int(y.sum())
            assert cell["auc_ci"][0] < cell["auc"] < cell["auc_ci"][1]
        elif task.kind == "regression":
            assert cell["rmse"] == pytest.approx(regression.rmse(y, p))
            assert cell["mae"] == pytest.approx(regression.mae(y, p))
        else:
            assert cell["accuracy"] == pytest.approx(multiclass.accuracy(y, p))
            assert cell["macro_f1"] == pytest.approx(multiclass.macro_f1(y, p))


def test_cell_mean_is_over_declared_scenarios_only(split):
    document = evaluate(split)
    tasks = [document["tasks"][name] for name in ("click", "like")]
    cells = [task["scenarios"][tab] for task in tasks for tab in TABS]
    values = [cell["auc"] for cell in cells]
    assert document["mean_cell_auc"] == pytest.approx(np.mean(values))
    assert document["mean_cell_auc_by_rows"] == pytest.approx(
        np.average(values, weights=[cell["rows"] for cell in cells])
    )
    assert document["mean_task_auc"] == pytest.approx(
        np.mean([task["auc"] for task in tasks])
    )
    extra = [t["scenarios"]["unknown"]["auc"] for t in tasks]
    assert document["mean_cell_auc"] != pytest.approx(np.mean(values + extra))


def test_the_interval_resamples_users(split):
    tasks, _, users = split
    click = tasks[0]
    by_user = bootstrap.auc_interval(
        click.labels, click.predictions, users, resamples=20
    )
    assert evaluate(split)["tasks"]["click"]["auc_ci"] == pytest.approx(by_user[:2])
    alone = evaluate(split, users=None)["tasks"]["click"]
    by_row = bootstrap.auc_interval(click.labels, click.predictions, resamples=20)
    assert alone["auc_ci"] == pytest.approx(by_row[:2])
    assert alone["gauc"] is None
    assert alone["gauc_coverage"] is None
    assert evaluate(split, resamples=0)["tasks"]["click"]["auc_ci"] is None


def test_undefined_cells_are_null_and_left_out_of_means():
    labels = np.array([1.0, 0.0, 1.0, 1.0, np.nan])
    task = TaskPredictions("buy", "binary", labels, np.array([0.9, 0.1, 0.2, 0.3, 2.0]))
    document = evaluate_predictions(
        "test", [task], scenario=[0, 0, 1, 1, 2], scenario_names=["a", "b", "c"]
    )
    cells = document["tasks"]["buy"]["scenarios"]
    assert cells["a"]["auc"] == 1.0
    assert cells["b"]["auc"] is None
    assert cells["b"]["ne"] is None
    assert cells["b"]["pcoc"] == pytest.approx(0.25)
    assert cells["c"]["rows"] == 0
    assert cells["c"]["logloss"] is None
    assert "unknown" not in cells
    assert document["mean_cell_auc"] == 1.0
    nothing = TaskPredictions("buy", "binary", labels * np.nan, labels)
    document = evaluate_predictions("test", [nothing])
    assert document["tasks"]["buy"]["auc"] is None
    assert document["mean_task_auc"] is document["mean_cell_auc"] is None


def test_without_scenarios_a_task_is_one_cell(split):
    document = evaluate(split, scenario=None, scenario_names=())
    assert document["mean_cell_auc"] == document["mean_task_auc"]
    assert document["tasks"]["click"]["scenarios"] == {}


def test_weights_enter_the_metrics_and_not_the_counts(split):
    tasks, scenario, users = split
    click = tasks[0]
    weights = np.random.default_rng(1).random(500)
    weighted = TaskPredictions(
        "click", "binary", click.labels, click.predictions, weights
    )
    plain = evaluate(split)["tasks"]["click"]
    found = evaluate(([weighted], scenario, users))["tasks"]["click"]
    expected = exact.auc(click.labels, click.predictions, weights)
    assert found["auc"] == pytest.approx(expected)
    assert found["auc"] != plain["auc"]
    gauc = exact.grouped_auc(
        click.labels, click.predictions, users, row_weights=weights
    )
    assert found["gauc"] == pytest.approx(gauc.value)
    assert (found["rows"], found["positives"]) == (plain["rows"], plain["positives"])


def test_wrong_arguments_are_named(split):
    tasks, scenario, users = split
    with pytest.raises(ConfigError, match="no name twice"):
        evaluate(([tasks[0], tasks[0]], scenario, users))
    with pytest.raises(ConfigError, match="at least one task"):
        evaluate(([], scenario, users))
    ordinal = TaskPredictions("x", "ordinal", tasks[0].labels, tasks[0].predictions)
    with pytest.raises(ConfigError, match="`kind` of task 'x' must be one of"):
        evaluate(([ordinal], scenario, users))
    short = TaskPredictions("x", "binary", tasks[0].labels, np.zeros(3))
    with pytest.raises(DataError, match=r"task 'x' must have labels"):
        evaluate(([short], scenario, users))
    with pytest.raises(DataError, match="`users` must have one value"):
        evaluate((tasks, scenario, users[:3]))
    with pytest.raises(DataError, match="`scenario` must have one value"):
        evaluate((tasks, scenario[:3], users))
    broken = TaskPredictions("x", "binary", tasks[0].labels, np.full(500, np.nan))
    with pytest.raises(DataError, match="task 'x': `scores` must not be NaN"):
        evaluate(([broken], scenario, users))


def test_rows_without_a_user_are_no_user(split):
    tasks, scenario, users = split
    click = tasks[0]
    alone = np.random.default_rng(8).random(len(users)) < 0.3
    some = users.copy()
    some[alone] = b""
    found = evaluate(([click], scenario, some))["tasks"]["click"]
    kept = exact.grouped_auc(
        click.labels[~alone], click.predictions[~alone], users[~alone]
    )
    assert found["gauc"] == pytest.approx(kept.value)
    assert found["gauc_users"] == kept.groups_used
    covered = kept.row_coverage * np.mean(~alone)
    assert found["gauc_coverage"] == pytest.approx(covered)
    nobody = np.full(len(users), b"", object)
    nothing = evaluate(([click], scenario, nobody))["tasks"]["click"]
    rows = np.arange(len(users))
    by_row = evaluate(([click], scenario, rows))["tasks"]["click"]
    assert nothing["gauc"] is None and nothing["gauc_users"] == 0
    assert nothing["gauc_coverage"] == 0.0
    assert nothing["auc_ci"] == by_row["auc_ci"]
