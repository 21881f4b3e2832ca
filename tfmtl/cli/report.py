"""How the command line shows an evaluation: a row per task and scenario."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
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
    print_order(f"{title}: order by each output", tasks)
    fusion = report.get("fusion")
    if fusion is not None:
        print_order(f"{title}: order by the fused score", fusion["outputs"])
    for name in ("mean_task_auc", "mean_cell_auc"):
        value = report.get(name)
        click.echo(f"{name}: {'-' if value is None else format(value, '.4f')}")


def print_order(title: str, outputs: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the order inside lists, a row per output and scenario; or nothing.

    Args:
        title: Above the table; what a list is is added.
        outputs: `{output: {"ranking": see `ranking_document`, "scenarios": {value:
            {same}}}}`; an output without `ranking` is left out.
    """
    cells = [
        (output, place, cell["ranking"])
        for output, whole in outputs.items()
        for place, cell in [("all", whole), *whole.get("scenarios", {}).items()]
        if cell.get("ranking") is not None
    ]
    if not cells:
        return
    metrics = _ranking_columns([document for _, _, document in cells])
    numbers = ["lists", "no positive", *metrics]
    rows: list[list[object]] = [
        [
            output,
            place,
            document["lists"],
            document["lists_without_positives"],
            *(_number(document.get(name)) for name in metrics),
        ]
        for output, place, document in cells
    ]
    print_table(
        f"{title}, a list for each {cells[0][2]['by']}",
        ["output", "scenario", *numbers],
        rows,
        numbers=numbers,
    )


def _ranking_columns(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """NDCG at each K; of the other metrics the one of the greatest K."""
    names = list(dict.fromkeys(name for d in documents for name in d["ci"]))
    last = {name.partition("@")[0]: name for name in names}
    return [n for n in names if n.startswith("ndcg@") or n in last.values()]


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
