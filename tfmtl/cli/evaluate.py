"""`tfmtl evaluate`."""

from __future__ import annotations

import json
import pathlib
from typing import TYPE_CHECKING

import click

from tfmtl.cli.base import (
    IN_FOLDER,
    OUT_FILE,
    Command,
    example,
    fusion_option,
    snapshot_option,
)

if TYPE_CHECKING:
    from tfmtl.schema.fusion import FusionChoice


@click.command(
    cls=Command,
    epilog=example(
        "tfmtl evaluate run --split test",
        "tfmtl evaluate run --split validation --json report.json",
        "tfmtl evaluate run --split test --predictions predictions.parquet",
    ),
)
@click.argument("run", type=IN_FOLDER)
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    default="test",
    show_default=True,
)
@click.option("--json", "json_file", type=OUT_FILE, help="Write the report here too.")
@click.option(
    "--predictions",
    type=OUT_FILE,
    help="Write keys, labels and predictions of every row to this Parquet file.",
)
@click.option("--dataset", type=IN_FOLDER, help="Where the dataset lies now, if moved.")
@snapshot_option
@fusion_option
def evaluate(
    run: pathlib.Path,
    split: str,
    json_file: pathlib.Path | None,
    predictions: pathlib.Path | None,
    dataset: pathlib.Path | None,
    snapshot: str | None,
    fusion: FusionChoice,
) -> None:
    """Measure the model of RUN on one split, per task and scenario."""
    from tfmtl import workflow
    from tfmtl.cli.console import progress
    from tfmtl.cli.report import print_report
    from tfmtl.files import atomic_write

    with progress() as listener:
        report = workflow.evaluate(
            run,
            split,
            dataset=dataset,
            predictions_file=predictions,
            snapshot=snapshot,
            fusion=fusion,
            listener=listener,
        )
    if json_file is not None:
        atomic_write(json_file, json.dumps(report, indent=2, allow_nan=False) + "\n")
    print_report(report)
