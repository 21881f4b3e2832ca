"""Metrics and predictions of a split against scikit-learn and the targets."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from tfmtl import build
from tfmtl.metrics.report import TaskPredictions, evaluate_predictions
from tfmtl.schema.manifest import RecordColumn
from tfmtl.schema.task import TaskSpec, outputs_of
from tfmtl.testing.records import write_records
from tfmtl.testing.tiny import COLUMNS, SCENARIOS, tiny_columns, tiny_spec
from tfmtl.training.evaluation import SplitEvaluator, predictions, to_unit


@pytest.fixture(scope="module")
def model(experiment: Any, dataset: Any) -> Any:
    asked = experiment()
    asked = asked.model_copy(
        update={
            "regularization": asked.regularization.model_copy(
                update={"embedding_std": 1.0}
            )
        }
    )
    return build.make_model(asked, dataset[1], dataset[0])


def _predicted(experiment: Any, dataset: Any, model: Any) -> Any:
    reader = build.make_reader(
        experiment(), dataset[1], dataset[0], "validation", keys=True
    )
    return predictions(model, reader)


def test_predictions_cover_the_split_in_order(
    experiment: Any, dataset: Any, model: Any
) -> None:
    found, labels, scenario, keys = _predicted(experiment, dataset, model)
    truth = tiny_columns(80, seed=1)  # the second split of the tiny data
    assert keys["row"].tolist() == [f"r{i}".encode() for i in range(80)]
    np.testing.assert_array_equal(scenario, truth["scenario"])
    assert set(found) == {"click", "like", "buy|click", "buy"}
    np.testing.assert_allclose(
        found["buy"], found["click"] * found["buy|click"], rtol=1e-4
    )
    clicked = truth["label/click"] == 1
    wanted = {
        "click": truth["label/click"],
        "like": truth["label/like"],
        "buy": truth["label/buy"],
        "buy|click": np.where(clicked, truth["label/buy"], np.nan),
    }
    for output, values in wanted.items():
        np.testing.assert_array_equal(labels[output]["labels"], values, err_msg=output)


def test_metrics_equal_scikit_learn(experiment: Any, dataset: Any, model: Any) -> None:
    reader = build.make_reader(experiment(), dataset[1], dataset[0], "validation")
    evaluate = SplitEvaluator(model, reader)
    metrics = evaluate()
    assert evaluate() == metrics, "a second call starts afresh"
    found, labels, scenario, _ = _predicted(experiment, dataset, model)
    means = []
    for output, p in found.items():
        y = labels[output]["labels"]
        for name, rows in [("", scenario >= 0)] + [
            (f"@{s}", scenario == i) for i, s in enumerate(SCENARIOS)
        ]:
            kept = rows & ~np.isnan(y)
            if len(set(y[kept])) < 2:
                assert f"{output}{name}/auc" not in metrics
                continue
            auc = metrics[f"{output}{name}/auc"]
            assert auc == pytest.approx(roc_auc_score(y[kept], p[kept]), abs=0.01)
            assert metrics[f"{output}{name}/logloss"] == pytest.approx(
                log_loss(y[kept], p[kept].astype(np.float64)), rel=1e-4
            )
        if "|" not in output:
            means.append(metrics[f"{output}/auc"])
    assert metrics["mean/auc"] == pytest.approx(np.mean(means))


def test_auxiliary_tasks_stay_out_of_the_means(
    experiment: Any, dataset: Any, model: Any
) -> None:
    reader = build.make_reader(experiment(), dataset[1], dataset[0], "validation")
    tasks = model.tasks
    try:
        model.tasks = tuple(
            t.model_copy(update={"role": "auxiliary"}) if t.name != "like" else t
            for t in tasks
        )
        metrics = SplitEvaluator(model, reader)()
    finally:
        model.tasks = tasks
    assert metrics["mean/auc"] == metrics["like/auc"]


def test_outputs_come_in_the_unit_of_the_label() -> None:
    def unit(value: Any, **task: Any) -> np.ndarray:
        spec = TaskSpec(name="x", label="x", **task)
        return np.asarray(to_unit(spec, np.float32(value)))

    assert unit(0.0) == 0.5
    assert unit(2.5, type="regression") == 2.5
    assert unit(np.log(8), type="regression", transform="log1p") == pytest.approx(7)
    assert np.isfinite(unit(1e4, type="regression", transform="log1p"))
    np.testing.assert_allclose(
        unit([0.0, np.log(3)], type="multiclass", classes=2), [0.25, 0.75], rtol=1e-6
    )


TYPES: list[dict[str, Any]] = [
    {"name": "click", "label": "click", "weight": "a"},
    {"name": "like", "label": "like"},
    {"name": "buy", "label": "buy", "given": "click", "weight": "b"},
    {"name": "grade", "label": "grade", "type": "multiclass", "classes": 3}
    | {"weight": "c"},
    {"name": "mood", "label": "mood", "type": "multiclass", "classes": 2},
    {"name": "seconds", "label": "seconds", "type": "regression", "weight": "d"},
]
WEIGHTED = ("click", "buy", "grade", "seconds")


@pytest.fixture(scope="module")
def weighted(experiment: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Experiment, manifest, folder and model: each type with weights and without."""
    spec = tiny_spec(tasks=TYPES)
    draw = np.random.default_rng(0)
    splits = {}
    for number, split in enumerate(("train", "validation")):
        columns = tiny_columns(300, number)
        columns["label/grade"] = draw.integers(0, 3, 300).astype(float)
        columns["label/mood"] = draw.integers(0, 2, 300).astype(float)
        columns["label/seconds"] = draw.exponential(9, 300)
        columns |= {f"weight/{n}": draw.random(300) * 4 for n in WEIGHTED}
        splits[split] = columns
    names = [f"label/{t['name']}" for t in TYPES[3:]]
    names += [f"weight/{n}" for n in WEIGHTED]
    columns = COLUMNS + tuple(RecordColumn(name=n, dtype="float") for n in names)
    folder = tmp_path_factory.mktemp("weighted")
    manifest = write_records(folder, spec, columns, splits)
    asked = experiment()
    embeddings = asked.regularization.model_copy(update={"embedding_std": 1.0})
    asked = asked.model_copy(update={"dataset": spec, "regularization": embeddings})
    return asked, manifest, folder, build.make_model(asked, manifest, folder)


def test_weights_enter_as_they_enter_the_report(weighted: Any) -> None:
    asked, manifest, folder, model = weighted
    reader = build.make_reader(asked, manifest, folder, "validation")
    metrics = SplitEvaluator(model, reader)()
    keyed = build.make_reader(asked, manifest, folder, "validation", keys=True)
    found, labels, scenario, _ = predictions(model, keyed)

    def report(with_weights: bool) -> dict[str, Any]:
        tasks = [
            TaskPredictions(
                name=name,
                kind=task.type,
                labels=labels[name]["labels"],
                predictions=found[name].astype(np.float64),
                weights=labels[name]["weights"]
                if task.weight and with_weights
                else None,
            )
            for name, task in outputs_of(model.tasks).items()
        ]
        return evaluate_predictions(
            "validation",
            tasks,
            scenario=scenario,
            scenario_names=SCENARIOS,
            resamples=0,
        )["tasks"]

    document, plain = report(True), report(False)
    compared = 0
    for name in document:
        for place in ("", *SCENARIOS):
            cell, other = document[name], plain[name]
            if place:
                cell, other = cell["scenarios"][place], other["scenarios"][place]
            for metric in ("auc", "logloss", "pcoc", "rmse", "mae", "accuracy"):
                if cell.get(metric) is None:
                    continue
                key = f"{name}@{place}/{metric}" if place else f"{name}/{metric}"
                close = {"abs": 0.01} if metric == "auc" else {"rel": 1e-4}
                assert metrics[key] == pytest.approx(cell[metric], **close), key
                if name.split("|")[0] in WEIGHTED and not place and metric != "auc":
                    assert cell[metric] != pytest.approx(other[metric], rel=1e-3), key
                compared += 1
    assert compared > 40


def test_a_mean_is_over_tasks_of_one_type(weighted: Any) -> None:
    asked, manifest, folder, model = weighted
    reader = build.make_reader(asked, manifest, folder, "validation")
    metrics = SplitEvaluator(model, reader)()
    binary = [metrics[f"{n}/logloss"] for n in ("click", "like", "buy")]
    assert metrics["mean/logloss"] == pytest.approx(np.mean(binary))
    classes = [metrics[f"{n}/accuracy"] for n in ("grade", "mood")]
    assert metrics["mean/accuracy"] == pytest.approx(np.mean(classes))
    assert metrics["mean/rmse"] == metrics["seconds/rmse"]
    cells = [
        metrics[f"{n}@{s}/logloss"] for n in ("click", "like", "buy") for s in SCENARIOS
    ]
    assert metrics["mean_cell/logloss"] == pytest.approx(np.mean(cells))


def test_without_scenarios_a_cell_mean_is_over_tasks(
    experiment: Any, tmp_path: pathlib.Path
) -> None:
    spec = tiny_spec(scenario=None)
    columns = {"train": tiny_columns(100), "validation": tiny_columns(100, 1)}
    kept = tuple(c for c in COLUMNS if c.name != "scenario")
    manifest = write_records(tmp_path, spec, kept, columns)
    asked = experiment().model_copy(update={"dataset": spec})
    model = build.make_model(asked, manifest, tmp_path)
    reader = build.make_reader(asked, manifest, tmp_path, "validation")
    metrics = SplitEvaluator(model, reader)()
    assert metrics["mean_cell/auc"] == metrics["mean/auc"]
