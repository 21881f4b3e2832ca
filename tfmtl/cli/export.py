"""`tfmtl export`."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import click

from tfmtl.cli.base import (
    IN_FILE,
    IN_FOLDER,
    OUT_FOLDER,
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
        "tfmtl export run --output model",
        "tfmtl evaluate run --split test --json report.json",
        "tfmtl export run --output model --metrics report.json",
        "tfmtl serve model",
    ),
)
@click.argument("run", type=IN_FOLDER)
@click.option(
    "--output",
    type=OUT_FOLDER,
    required=True,
    help="Model directory; the export becomes a numbered version in it.",
)
@click.option(
    "--version", type=click.IntRange(1), help="Its number; the next by default."
)
@click.option("--dataset", type=IN_FOLDER, help="Where the dataset lies now, if moved.")
@click.option(
    "--metrics",
    type=IN_FILE,
    help="Report for the model card, as `tfmtl evaluate RUN --json` writes it; the "
    "validation metrics by default.",
)
@snapshot_option
@fusion_option
def export(
    run: pathlib.Path,
    output: pathlib.Path,
    version: int | None,
    dataset: pathlib.Path | None,
    metrics: pathlib.Path | None,
    snapshot: str | None,
    fusion: FusionChoice,
) -> None:
    """Export the best model of RUN for TensorFlow Serving.

    The SavedModel holds the transform graph, so that it takes raw columns, and needs
    neither the dataset nor the run directory any more.
    """
    from tfmtl import workflow
    from tfmtl.cli.console import progress
    from tfmtl.cli.report import read_report

    report = None if metrics is None else read_report(metrics)
    with progress() as listener:
        manifest = workflow.export(
            run,
            output,
            version=version,
            dataset=dataset,
            metrics=report,
            snapshot=snapshot,
            fusion=fusion,
            listener=listener,
        )
    click.echo(
        f"exported {manifest.name} ({manifest.model}, {manifest.parameters:,} "
        f"parameters{', refitted' if manifest.refit else ''}) to {output}; outputs: "
        f"{', '.join(manifest.outputs)}"
    )
