"""Metrics and predictions of a split against scikit-learn and the targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from tfmtl import build
from tfmtl.schema.task import TaskSpec
from tfmtl.testing.tiny import SCENARIOS, tiny_columns
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
