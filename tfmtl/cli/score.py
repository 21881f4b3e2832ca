"""`tfmtl score`: predictions for raw rows, without a server."""

from __future__ import annotations

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
        "tfmtl score model --input 'new/*.parquet' --output scores.parquet",
        "tfmtl score run --input new.csv --output scores.parquet --dataset moved",
    ),
)
@click.argument("model_or_run", type=IN_FOLDER)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="GLOB",
    help="Raw Parquet or CSV files, the columns of training without the labels. "
    "Repeatable.",
)
@click.option("--output", type=OUT_FILE, required=True, help="Parquet file to write.")
@click.option(
    "--dataset", type=IN_FOLDER, help="Where the dataset of a run lies now, if moved."
)
@snapshot_option
@fusion_option
def score(
    model_or_run: pathlib.Path,
    inputs: tuple[str, ...],
    output: pathlib.Path,
    dataset: pathlib.Path | None,
    snapshot: str | None,
    fusion: FusionChoice,
) -> None:
    """Predict raw rows offline, with an export or a run.

    Rows that do not parse go to OUTPUT.rejected.parquet, with the reason; rows read,
    scored and rejected are counted in OUTPUT.counts.json.
    """
    if output.suffix != ".parquet":
        raise click.BadParameter(
            f"must end in .parquet. Received: {str(output)!r}", param_hint="'--output'"
        )

    from tfmtl import workflow
    from tfmtl.cli.console import progress
    from tfmtl.workflow.score import rejected_path

    with progress() as listener:
        counts = workflow.score(
            model_or_run,
            inputs,
            output,
            dataset=dataset,
            snapshot=snapshot,
            fusion=fusion,
            listener=listener,
        )
    click.echo(f"{counts.written:,} of {counts.read:,} rows scored: {output}")
    if counts.rejected:
        click.echo(f"{counts.rejected:,} rows rejected: {rejected_path(output)}")
