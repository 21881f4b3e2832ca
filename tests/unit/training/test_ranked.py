"""A monitor of the order inside lists: its value is the report's, or it is refused."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tfmtl import workflow
from tfmtl.errors import ConfigError
from tfmtl.schema.load import parse_experiment
from tfmtl.testing.tiny import DATASET, tiny_dataset
from tfmtl.training.rundir import RunDirectory


def experiment(monitor: str, **dataset: Any) -> Any:
    return parse_experiment(
        {
            "name": "tiny",
            "dataset": {**DATASET, **dataset},
            "model": {"class": "SharedBottom", "config": {"bottom_units": [4]}},
            "optimizers": {"default": {"learning_rate": 0.1}},
            "training": {"batch_size": 64, "steps": 6, "evaluate_every": 2}
            | {"monitor": monitor, "patience": None},
        }
    )


def test_training_watches_what_the_report_measures(tmp_path: pathlib.Path) -> None:
    monitor = "click@feed/ndcg@5"
    tiny_dataset(tmp_path / "data", {"train": 200, "validation": 300, "test": 40})
    asked = experiment(monitor)
    result = workflow.train(asked, tmp_path / "data", tmp_path / "run")
    report = workflow.evaluate(tmp_path / "run", "validation")
    subject, _, metric = monitor.rpartition("/")
    output, _, scenario = subject.partition("@")
    found = report["tasks"][output]["scenarios"][scenario]
    assert result.value == pytest.approx(found["ranking"][metric], abs=1e-6)
    values = [
        event["metrics"][monitor]
        for event in RunDirectory(tmp_path / "run").events()
        if event["kind"] == "validation"
    ]
    assert len(values) == 3
    assert result.value == max(values) > min(values)
    quick = workflow.evaluate(tmp_path / "run", "validation", resamples=0)
    assert report["tasks"][output].pop("auc_ci") is not None
    assert quick["tasks"][output].pop("auc_ci") is None
    assert quick["tasks"][output]["auc"] == report["tasks"][output]["auc"]


@pytest.mark.parametrize(
    "task",
    [
        {"loss": {"name": "jrc", "within": "batch"}},
        {"type": "regression", "loss": "ziln"},
    ],
    ids=["jrc", "ziln"],
)
def test_several_outputs_a_row_are_ordered_by_what_they_mean(
    tmp_path: pathlib.Path, task: dict[str, Any]
) -> None:
    tasks = [{"name": "click", "label": "click", **task}]
    asked = experiment("click/ndcg@5", tasks=tasks)
    rows = {"train": 100, "validation": 100, "test": 40}
    tiny_dataset(tmp_path / "data", rows, spec=asked.dataset)
    result = workflow.train(asked, tmp_path / "data", tmp_path / "run")
    report = workflow.evaluate(tmp_path / "run", "validation", resamples=0)
    found = report["tasks"]["click"]["ranking"]["ndcg@5"]
    assert result.value == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize(
    ("monitor", "dataset", "message"),
    [
        ("mean/ndcg@3", {}, "of one task, not of a mean"),
        ("click/ndcg", {}, "must be task/metric"),
        ("clik/ndcg@3", {}, "must be task/metric"),
        ("click/gmap@3", {}, "needs `evaluation.ranking.value`"),
        ("click/ndcg@3", {"keys": {}}, r"keys: \{group: column\}"),
        ("click@x/ndcg@3", {}, "names scenario 'x'"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    monitor: str, dataset: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment(monitor, **dataset)


def test_without_a_list_it_is_undefined(tmp_path: pathlib.Path) -> None:
    tiny_dataset(tmp_path / "data", {"train": 200, "validation": 1, "test": 40})
    with pytest.raises(ConfigError, match="is undefined on the validation split"):
        workflow.train(experiment("click/hr@1"), tmp_path / "data", tmp_path / "run")
