"""How the command line shows an evaluation: a row per task and scenario."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import click

from tfmtl.cli.console import print_table
from tfmtl.errors import DataError

_METRICS = {
    "binary": ("auc", "gauc", "logloss", "ne", "pcoc", "ece"),
    "regression": ("rmse", "mae", "r2"),
    "multiclass": ("accuracy", "macro_f1", "logloss"),
}


def read_report(path: pathlib.Path) -> dict[str, Any]:
    """Reads what `tfmtl evaluate --json` wrote.

    Raises:
        DataError: The file is no JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"{str(path)!r} must hold an object, as `tfmtl evaluate` wrote")
    return document


def print_report(report: Mapping[str, Any]) -> None:
    """Prints the report of `tfmtl.workflow.evaluate`, a table per kind of task.

    Args:
        report: `{"split", "rows", "tasks": {task: {"kind", metric ..., "scenarios":
            {value: {metric ...}}}}, "mean_task_auc", "mean_cell_auc"}`; an undefined
            metric is None and shown as "-".
    """
    tasks: Mapping[str, Mapping[str, Any]] = report["tasks"]
    title = f"{report['split']} split, {report['rows']:,} rows"
    for kind, metrics in _METRICS.items():
        rows = [
            _row(task, place, cell, kind)
            for task, cells in tasks.items()
            if cells["kind"] == kind
            for place, cell in [("all", cells), *cells.get("scenarios", {}).items()]
        ]
        if rows:
            counts = ["rows", "positives"] if kind == "binary" else ["rows"]
            numbers = [*counts, *metrics]
            numbers += ["auc 95 %"] if kind == "binary" else []
            print_table(
                f"{title}: {kind} tasks",
                ["task", "scenario", *numbers],
                rows,
                numbers=numbers,
            )
    for name in ("mean_task_auc", "mean_cell_auc"):
        value = report.get(name)
        click.echo(f"{name}: {'-' if value is None else format(value, '.4f')}")


def _row(task: str, place: str, cell: Mapping[str, Any], kind: str) -> list[object]:
    row: list[object] = [task, place, cell["rows"]]
    metrics = [_number(cell.get(name)) for name in _METRICS[kind]]
    if kind == "binary":
        return [*row, cell["positives"], *metrics, _interval(cell.get("auc_ci"))]
    return [*row, *metrics]


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _interval(value: Any) -> str | None:
    return None if not value else f"{value[0]:.4f} .. {value[1]:.4f}"
