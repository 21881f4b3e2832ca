"""`tfmtl predict`."""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

import click

from tfmtl.cli.base import Command, example, print_json
from tfmtl.errors import DataError

_ROWS = click.Path(dir_okay=False, allow_dash=True, path_type=pathlib.Path)


@click.command(
    cls=Command,
    epilog=example(
        "tfmtl predict http://127.0.0.1:8501/v1/models/model --rows rows.json",
        'echo \'[{"user_id": "u1", "scenario": "feed"}]\' \\',
        "    | tfmtl predict http://127.0.0.1:8501/v1/models/model --rows -",
    ),
)
@click.argument("url")
@click.option(
    "--rows",
    type=_ROWS,
    required=True,
    help="JSON: a list of objects, feature to value; - reads standard input.",
)
def predict(url: str, rows: pathlib.Path) -> None:
    """Ask the server at URL for predictions; print JSON.

    A feature that a row lacks counts as missing.
    """
    from serving.client import Client

    with Client(url) as client:
        answers = client.predict(_read(rows))
    print_json([{name: _finite(v) for name, v in row.items()} for row in answers])


def _finite(value: Any) -> Any:
    """An output as JSON has it: null for what is no number."""
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
    with click.open_file(str(path), encoding="utf-8") as file:
        try:
            rows = json.load(file)
        except ValueError as error:
            raise DataError(f"--rows {str(path)!r} is no JSON: {error}") from error
    if isinstance(rows, dict) and isinstance(rows.get("instances"), list):
        rows = rows["instances"]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(
            "--rows must hold a list of objects, one per row to predict. Received: "
            f"{str(path)!r} with {json.dumps(rows)[:80]}"
        )
    return rows
