"""Names of metric values: `task/metric`, `task@scenario/metric`, `mean/metric`."""

from __future__ import annotations

from collections.abc import Sequence


def unknown_name(scenarios: Sequence[str]) -> str:
    """The key under which rows of undeclared scenarios are reported.

    Args:
      scenarios: the declared values.

    Returns:
      "unknown", with underscores before it where a declared scenario has that name.
    """
    name = "unknown"
    while name in scenarios:
        name = f"_{name}"
    return name


def metric_key(task: str, metric: str, scenario: str | None = None) -> str:
    """Joins the parts of a metric's name.

    Args:
      task: name of the task, or "mean" / "mean_cell".
      metric: such as "auc".
      scenario: its value, or None for all rows.

    Returns:
      `task/metric` or `task@scenario/metric`.
    """
    return f"{task}/{metric}" if scenario is None else f"{task}@{scenario}/{metric}"


def lower_is_better(name: str) -> bool:
    """Whether small values of a metric, by its name, are the good ones."""
    return name.rpartition("/")[2] in ("logloss", "rmse", "mae")
