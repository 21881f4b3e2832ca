"""Patience and best steps of single tasks."""

from __future__ import annotations

from typing import Any

import pytest

from tfmtl.schema.control import TaskControlSpec
from tfmtl.schema.task import TaskSpec
from tfmtl.training.control import TaskControl
from tfmtl.training.watch import TaskWatch, is_better, own_metric

TASKS = (
    TaskSpec(name="click", label="click"),
    TaskSpec(name="stay", label="stay", type="regression"),
)


def watch(**specs: Any) -> TaskWatch:
    made = {t: TaskControlSpec.model_validate(s) for t, s in specs.items()}
    return TaskWatch(TASKS, TaskControl([t.name for t in TASKS], made, {}))


@pytest.mark.parametrize(
    ("metric", "value", "better"),
    [("a/auc", 0.8, True), ("a/auc", 0.7, False), ("a/rmse", 0.6, True)],
)
def test_better_knows_the_direction(metric: str, value: float, better: bool) -> None:
    assert is_better(metric, value, 0.7) is better
    assert is_better(metric, value, None)


def test_a_task_stops_when_its_own_metric_gets_no_better() -> None:
    assert [own_metric(t) for t in TASKS] == ["click/auc", "stay/rmse"]
    made, state = watch(click={"patience": 2}), {}
    told = [
        made.evaluated(state, step, {"click/auc": auc, "stay/rmse": rmse})
        for step, auc, rmse in (
            (5, 0.6, 2.0),
            (10, 0.7, 2.5),
            (15, 0.7, 1.5),
            (20, 0.6, 3.0),
            (25, 0.6, 1.0),
        )
    ]
    assert [best for best, _ in told] == [True, True, True, False, True]
    assert [ended for _, ended in told] == [[], [], [], ["click"], []]
    assert made.control.stopped.numpy().tolist() == [True, False]
    assert state["click"]["step"] == 10 and state["click"]["stopped"] == 20
    assert (state["stay"]["step"], state["stay"]["value"]) == (25, 1.0)
    assert not made.all_stopped(state)
    again = watch(click={"patience": 2})
    again.restore(state)
    assert again.control.stopped.numpy().tolist() == [True, False]


def test_evaluations_before_its_start_try_no_patience() -> None:
    made, state = watch(click={"patience": 1, "start": 10}), {}
    for step in (5, 10):
        assert made.evaluated(state, step, {"click/auc": 0.7 - step / 100})[1] == []
    assert made.evaluated(state, 15, {"click/auc": 0.1})[1] == ["click"]
    assert made.evaluated(state, 20, {})[1] == []


def test_a_score_without_a_unit_is_judged_by_no_error() -> None:
    """RMSE of a ranking score moves with its scale: it tries no patience."""
    loss = {"name": "bpr", "within": "batch"}
    both = [
        TaskSpec.model_validate({"name": n, "label": n, "type": kind, "loss": loss})
        for n, kind in (("click", "binary"), ("stay", "regression"))
    ]
    assert [own_metric(t) for t in both] == ["click/auc", None]
    mixed = TaskSpec.model_validate({**both[1].model_dump(), "loss": "mse"})
    assert own_metric(mixed) == "stay/rmse"
    made, state = TaskWatch(both, TaskControl(["click", "stay"], {}, {})), {}
    made.evaluated(state, 5, {"click/auc": 0.6, "stay/rmse": 2.0})
    best, _ = made.evaluated(state, 10, {"click/auc": 0.5, "stay/rmse": 1.0})
    assert not best and set(state) == {"click"}
