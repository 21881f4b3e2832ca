"""`tfmtl data prepare`."""

from __future__ import annotations

import pathlib

import click

from tfmtl.cli.base import IN_FOLDER, OUT_FOLDER, Command, example, overwrite_option


@click.command(
    cls=Command,
    epilog=example(
        "tfmtl data prepare kuairand --raw KuaiRand-Pure/data --out kuairand",
        "tfmtl preprocess kuairand/experiment.yaml \\",
        "    --input 'kuairand/logs/*.parquet' --output dataset",
    ),
)
@click.argument("name")
@click.option(
    "--raw", type=IN_FOLDER, required=True, help="Folder with the publisher's files."
)
@click.option("--out", type=OUT_FOLDER, required=True, help="Folder to write.")
@overwrite_option
def prepare(name: str, raw: pathlib.Path, out: pathlib.Path, overwrite: bool) -> None:
    """Turn the publisher's files of a data set into Parquet logs.

    NAME is one of `tfmtl data list`. Writes logs/*.parquet, side tables, a worked
    experiment.yaml and summary.json with the counts.
    """
    from tfmtl.adapters import catalogue
    from tfmtl.cli.console import print_table, progress

    with progress() as listener:
        summary = catalogue.prepare(
            name, raw, out, overwrite=overwrite, listener=listener
        )
    click.echo(
        f"{summary.rows_read:,} rows read: {summary.rows_written:,} written, "
        f"{summary.duplicates_dropped:,} duplicates, {summary.rows_rejected:,} rejected"
    )
    print_table("", ["label", "positives"], list(summary.positive_rates.items()))
    for note in summary.notes:
        click.echo(f"note: {note}")
    logs = out / "logs" / "*.parquet"
    file = out / "experiment.yaml"
    click.echo(f"next: tfmtl preprocess {file} --input '{logs}' --output ...")
