"""`tfmtl data describe`."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import TYPE_CHECKING

import click

from tfmtl.cli.base import IN_PATH, Command, example, json_option, print_json

if TYPE_CHECKING:
    from tfmtl.adapters.profile import ColumnProfile

_SHOWN = 24


@click.command(
    cls=Command,
    epilog=example(
        "tfmtl data describe logs/logs",
        "tfmtl data describe dataset --json",
    ),
)
@click.argument("path", type=IN_PATH)
@json_option
def describe(path: pathlib.Path, as_json: bool) -> None:
    """Show the columns of raw files, or what a dataset directory holds.

    PATH is a Parquet or CSV file, a folder of them, or a dataset directory. Of raw
    files every column is shown: type, missing, distinct and frequent values, range.
    """
    from tfmtl.adapters.profile import profile
    from tfmtl.cli.console import print_table
    from tfmtl.cli.datasets import print_manifest
    from tfmtl.schema.manifest import DATASET_FILE, read_dataset

    if (path / DATASET_FILE).is_file():
        manifest = read_dataset(path)
        if as_json:
            print_json(json.loads(manifest.model_dump_json()))
        else:
            print_manifest(manifest)
        return
    columns = profile(path)
    if as_json:
        print_json([dataclasses.asdict(column) for column in columns])
        return
    numbers = ["missing", "distinct", "least", "mean", "most"]
    print_table(
        f"{path}: {columns[0].rows if columns else 0:,} rows",
        ["column", "type", *numbers, "frequent values"],
        [_row(column) for column in columns],
        numbers=numbers,
    )


def _row(column: ColumnProfile) -> list[object]:
    missing = column.nulls / column.rows if column.rows else 0.0
    return [
        column.name,
        column.type,
        f"{missing:.1%}",
        f"{column.distinct:,}" if column.counted_all else f">= {column.distinct:,}",
        *[None if n is None else f"{n:.6g}" for n in _range(column)],
        ", ".join(f"{_short(value)} ({count:,})" for value, count in column.top),
    ]


def _range(column: ColumnProfile) -> tuple[float | None, float | None, float | None]:
    return column.least, column.mean, column.most


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
