"""How the command line shows calibrators: predicted over observed, before and after."""

from __future__ import annotations

import click

from tfmtl.cli.console import print_table
from tfmtl.schema.calibration import Calibration


def print_calibration(calibration: Calibration) -> None:
    """Prints a row for each binary output and scenario."""
    if not calibration.outputs:
        click.echo("no calibrators")
        return
    rows: list[list[object]] = []
    for name, output in calibration.outputs.items():
        for place, cell in [("all", output.all), *output.scenarios.items()]:
            source = "product of its steps" if output.product else _SOURCES[cell.source]
            before, after = cell.pcoc_before, cell.pcoc_after
            rows.append([name, place, cell.rows, cell.positives, before, after, source])
    print_table(
        f"calibration: {calibration.method} by {calibration.by}, validation split",
        ["output", "scenario", "rows", "positives", "pcoc before", "after", "fit on"],
        rows,
        numbers=["rows", "positives", "pcoc before", "after"],
    )


_SOURCES = {
    "cell": "these rows",
    "task": "all rows of the output",
    "identity": "nothing: too few rows",
}
