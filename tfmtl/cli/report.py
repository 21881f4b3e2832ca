"""How the command line shows an evaluation: a row per task and scenario."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from tfmtl.cli.console import print_table

_BINARY = ("auc", "gauc", "logloss", "ne", "pcoc", "ece")
_OTHER = ("rmse", "mae", "r2", "accuracy", "macro_f1")


def print_report(report: Mapping[str, Any]) -> None:
    """Prints the report of `tfmtl.workflow.evaluate`.

    Args:
        report: `{"split", "rows", "tasks": {task: {metric ..., "scenarios": {value:
            {metric ...}}}}, "mean_task_auc", "mean_cell_auc"}`; an undefined metric is
            None and shown as "-".
    """
    tasks: Mapping[str, Mapping[str, Any]] = report["tasks"]
    found = set().union(*tasks.values())
    metrics = [name for name in (*_BINARY, *_OTHER) if name in found]
    intervals = any(cells.get("auc_ci") for cells in tasks.values())
    numbers = ["rows", "positives", *metrics, *(["auc 95 %"] if intervals else [])]
    rows = []
    for task, cells in tasks.items():
        scenarios = cells.get("scenarios") or {}
        for place, cell in [("all", cells), *scenarios.items()]:
            row = [task, place, cell.get("rows"), cell.get("positives")]
            row += [_number(cell.get(m)) for m in metrics]
            rows.append(row + ([_interval(cell.get("auc_ci"))] if intervals else []))
    print_table(
        f"{report['split']} split, {report['rows']:,} rows",
        ["task", "scenario", *numbers],
        rows,
        numbers=numbers,
    )
    for name in ("mean_task_auc", "mean_cell_auc"):
        value = report.get(name)
        click.echo(f"{name}: {'-' if value is None else format(value, '.4f')}")


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _interval(value: Any) -> str | None:
    return None if not value else f"{value[0]:.4f} .. {value[1]:.4f}"
