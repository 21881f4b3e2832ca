"""`tfmtl preprocess`: the Beam job."""

from __future__ import annotations

import pathlib

import click

from tfmtl.cli.base import (
    IN_FILE,
    OUT_FOLDER,
    Command,
    example,
    overwrite_option,
    set_option,
)


@click.command(
    cls=Command,
    epilog=example(
        "tfmtl preprocess experiment.yaml --input 'logs/*.parquet' --output dataset",
        "tfmtl preprocess experiment.yaml --input logs.csv --output dataset \\",
        "    -- --runner=FlinkRunner --flink_master=localhost:8081",
    ),
)
@click.argument("experiment", type=IN_FILE)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="GLOB",
    help="Parquet, CSV or Avro files; quote the pattern. Repeatable.",
)
@click.option(
    "--output",
    type=OUT_FOLDER,
    required=True,
    help="Dataset directory, in a file system that this machine and all workers share.",
)
@click.option(
    "--layout",
    type=click.Choice(["blocks", "rows"]),
    default="blocks",
    show_default=True,
    help="Blocks of rows, or one ordinary tf.Example per row.",
)
@click.option(
    "--compression",
    type=click.Choice(["none", "gzip"]),
    default="none",
    show_default=True,
)
@click.option(
    "--block-rows",
    type=click.IntRange(1, 1_000_000),
    default=4096,
    show_default=True,
    help="Rows of a block.",
)
@click.option("--shards", type=click.IntRange(1), help="Files per split.")
@overwrite_option
@set_option
@click.argument("beam_args", nargs=-1, type=click.UNPROCESSED, metavar="[-- BEAM...]")
def preprocess(
    experiment: pathlib.Path,
    inputs: tuple[str, ...],
    output: pathlib.Path,
    layout: str,
    compression: str,
    block_rows: int,
    shards: int | None,
    overwrite: bool,
    overrides: tuple[str, ...],
    beam_args: tuple[str, ...],
) -> None:
    """Turn raw files into a dataset directory, per EXPERIMENT.

    Fits vocabularies and scales on the training split and writes records, the transform
    graph and dataset.json. Rows that break the schema go to rejected/, with the reason.
    Everything after -- is an option for Apache Beam. Its workers write straight to the
    output: Flink, Spark or Dataflow need a mount that this machine and all workers see
    under one path. An object store is no output, but may be an input.
    """
    if beam_args and not beam_args[0].startswith("-"):
        raise click.UsageError(
            f"unexpected argument {beam_args[0]!r}: one EXPERIMENT is read, raw files "
            "are given by --input 'GLOB' (quoted), and after -- come Beam's options"
        )

    from tfmtl.cli.console import progress
    from tfmtl.cli.datasets import print_manifest
    from tfmtl.cli.logs import is_verbose
    from tfmtl.files import check_target
    from tfmtl.schema.load import load_experiment

    spec = load_experiment(experiment, overrides)
    check_target(output, overwrite=overwrite)
    from pipeline import preprocess as job

    with progress() as listener:
        manifest = job.run(
            spec,
            inputs,
            output,
            layout=layout,
            compression=compression,
            block_rows=block_rows,
            shards=shards,
            overwrite=overwrite,
            beam_args=beam_args,
            listener=listener,
            verbose=is_verbose(),
        )
    print_manifest(manifest)
