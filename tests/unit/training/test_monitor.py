"""A monitor that the validation split leaves undefined is refused before training."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tfmtl.errors import ConfigError
from tfmtl.schema.manifest import LabelStats, SplitStats
from tfmtl.schema.task import TaskSpec
from tfmtl.testing.tiny import SCENARIOS, tiny_spec
from tfmtl.training.monitor import check_monitor, mean_members
from tfmtl.workflow.train import train

TASKS: list[dict[str, Any]] = [
    {"name": "click", "label": "click"},
    {"name": "buy", "label": "buy", "given": "click"},
    {"name": "grade", "label": "grade", "type": "multiclass", "classes": 3},
    {"name": "seconds", "label": "s", "type": "regression", "given": "click"},
]
ENOUGH = LabelStats(rows=50, total=20)


def check(
    experiment: Any,
    dataset: Any,
    monitor: str,
    cells: dict[str, dict[str, LabelStats]],
    **spec: Any,
) -> None:
    """Checks a monitor on a split in which every cell not given has enough."""
    asked = tiny_spec(tasks=TASKS, **spec)
    training = experiment(monitor="click/auc").training
    asked_for = experiment().model_copy(
        update={
            "dataset": asked,
            "training": training.model_copy(update={"monitor": monitor}),
        }
    )
    all_cells = {
        t: dict.fromkeys(SCENARIOS, ENOUGH) | cells.get(t, {}) for t in asked.task_names
    }
    tasks = {
        t: LabelStats(
            rows=sum(c.rows for c in of.values()),
            total=sum(c.total for c in of.values()),
        )
        for t, of in all_cells.items()
    }
    split = SplitStats(rows=200, files=(), tasks=tasks, cells=all_cells)
    manifest = dataset[1].model_copy(
        update={"splits": {**dataset[1].splits, "validation": split}}
    )
    check_monitor(asked_for, manifest)


def everywhere(task: str, rows: int, total: float) -> dict[str, Any]:
    return {task: dict.fromkeys(SCENARIOS, LabelStats(rows=rows, total=total))}


NO_CLICK = everywhere("click", 50, 0)
ALL_CLICKS = everywhere("click", 50, 50)
NO_BUY = everywhere("buy", 50, 0)
ONE_FEED = {"click": {"feed": LabelStats(rows=9, total=9)}}
NO_FEED = {"click": {"feed": LabelStats(rows=0, total=0)}}


@pytest.mark.parametrize(
    ("monitor", "cells"),
    [
        ("click/auc", NO_CLICK),
        ("click/auc", ALL_CLICKS),
        ("click@feed/auc", ONE_FEED),
        ("click@feed/logloss", NO_FEED),
        ("buy/auc", NO_BUY),
        ("buy|click/auc", NO_BUY),
        ("buy/auc", NO_CLICK),
        ("buy|click/logloss", NO_CLICK),
        ("seconds/rmse", NO_CLICK),
        ("seconds/rmse", everywhere("seconds", 0, 0)),
        ("grade/accuracy", everywhere("grade", 0, 0)),
        ("mean/accuracy", everywhere("grade", 0, 0)),
        ("mean/auc", {**NO_CLICK, **NO_BUY}),
        ("mean_cell/auc", {**NO_CLICK, **NO_BUY}),
        ("mean@feed/auc", {}),
    ],
)
def test_undefined(experiment: Any, dataset: Any, monitor: str, cells: Any) -> None:
    with pytest.raises(ConfigError, match=r"`training.monitor` = .*is undefined on"):
        check(experiment, dataset, monitor, cells)


@pytest.mark.parametrize(
    ("monitor", "cells"),
    [
        ("click/auc", ONE_FEED),
        ("click@search/auc", ONE_FEED),
        ("click@feed/logloss", ONE_FEED),
        ("click/logloss", NO_CLICK),
        ("buy/logloss", NO_CLICK),
        ("buy|click/auc", {}),
        # The negatives are the rows without a click.
        ("buy/auc", everywhere("buy", 50, 50)),
        ("mean/auc", NO_BUY),
        ("mean_cell/auc", ONE_FEED),
        ("mean/rmse", {}),
        ("grade@live/accuracy", {}),
        ("grade/logloss", {}),
    ],
)
def test_defined(experiment: Any, dataset: Any, monitor: str, cells: Any) -> None:
    check(experiment, dataset, monitor, cells)


def test_without_scenarios(experiment: Any, dataset: Any) -> None:
    check(experiment, dataset, "mean_cell/auc", {}, scenario=None)
    with pytest.raises(ConfigError, match="is undefined"):
        check(experiment, dataset, "mean_cell/auc", NO_CLICK | NO_BUY, scenario=None)


def accepted(experiment: Any, dataset: Any, monitor: str) -> bool:
    training = experiment().training.model_copy(update={"monitor": monitor})
    try:
        asked = experiment().model_copy(update={"training": training})
        check_monitor(asked, dataset[1])
    except ConfigError:
        return False
    return True


def test_accepts_what_an_evaluation_has(
    experiment: Any, dataset: Any, tmp_path: pathlib.Path
) -> None:
    found = train(experiment(steps=1), dataset[0], tmp_path / "run").metrics
    subjects = ["mean", "mean_cell"]
    for task in ("click", "like", "buy"):
        subjects += [task, *[f"{task}@{s}" for s in SCENARIOS]]
    names = [f"{s}/{m}" for s in subjects for m in ("auc", "logloss")]
    by_counts = {n for n in names if accepted(experiment, dataset, n)}
    assert by_counts == set(names) & set(found)
    assert "buy@live/auc" not in found, "the case of a cell that lacks a class"


def test_auxiliary_tasks_are_in_no_mean() -> None:
    tasks = [TaskSpec(name=n, label=n, role=r) for n, r in
             (("a", "main"), ("b", "auxiliary"))]  # fmt: skip
    assert mean_members(tasks, ())["mean/auc"] == ["a/auc"]
