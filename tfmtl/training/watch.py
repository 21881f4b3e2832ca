"""Each task's own validation metric: its best step, and when its patience ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl.metrics.names import lower_is_better, metric_key
from tfmtl.schema.task import TaskSpec
from tfmtl.training.control import TaskControl

_METRICS = {"binary": "auc", "regression": "rmse", "multiclass": "accuracy"}


def own_metric(task: TaskSpec) -> str | None:
    """Name of the validation metric that a task is judged by, such as `like/auc`.

    None for a regression with a pure ranking loss: its errors are those of a score
    without a unit, and no metric of an order is kept while a split passes.
    """
    if task.orders_alone:
        return None
    return metric_key(task.name, _METRICS[task.type])


def is_better(metric: str, value: float, best: float | None) -> bool:
    """Whether a value of a metric beats the best so far; the first one does."""
    if best is None:
        return True
    return value < best if lower_is_better(metric) else value > best


class TaskWatch:
    """Notes what each evaluation means for each task.

    The state of a task is a plain mapping, kept in `Progress.tasks`: `metric`, the best
    `value` and its `step`, `stale` (evaluations since then in which the task took
    part), and `stopped`, the step at which its patience ran out, or None.

    Args:
        tasks: T tasks.
        control: Stops the tasks.
    """

    def __init__(self, tasks: Sequence[TaskSpec], control: TaskControl) -> None:
        self.tasks = tuple(tasks)
        self.control = control

    def evaluated(
        self, state: dict[str, dict[str, Any]], step: int, metrics: Mapping[str, float]
    ) -> tuple[bool, list[str]]:
        """Takes an evaluation in.

        Args:
            state: Of the tasks; changed.
            step: Updates done.
            metrics: Of the validation split.

        Returns:
            Whether it is some task's best, and the tasks whose patience ran out.
        """
        best, ended = False, []
        # A task that takes part for the first time in the next step learnt nothing yet.
        learnt = self.control.active(step - 1).numpy()
        for t, task in enumerate(self.tasks):
            metric = own_metric(task)
            if metric is None or metric not in metrics:
                continue
            mine = state.setdefault(
                task.name,
                {
                    "metric": metric,
                    "value": None,
                    "step": None,
                    "stale": 0,
                    "stopped": None,
                },
            )
            if is_better(metric, metrics[metric], mine["value"]):
                mine.update(value=float(metrics[metric]), step=step, stale=0)
                best = True
            elif learnt[t]:
                mine["stale"] += 1
            patience = self.control.specs[task.name].patience
            if learnt[t] and patience is not None and mine["stale"] >= patience:
                mine["stopped"] = step
                ended.append(task.name)
        if ended:
            self.restore(state)
        return best, ended

    def restore(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Stops the tasks that are stopped in a state."""
        self.control.stopped.assign(
            [state.get(t.name, {}).get("stopped") is not None for t in self.tasks]
        )

    def all_stopped(self, state: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether no task has any patience left."""
        return all(state.get(t.name, {}).get("stopped") is not None for t in self.tasks)
