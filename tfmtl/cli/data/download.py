"""`tfmtl data download`."""

from __future__ import annotations

import pathlib

import click

from tfmtl.cli.base import OUT_FOLDER, Command, example


@click.command(
    cls=Command, epilog=example("tfmtl data download movielens-1m --out ml-1m")
)
@click.argument("name")
@click.option("--out", type=OUT_FOLDER, required=True, help="Folder to fetch into.")
def download(name: str, out: pathlib.Path) -> None:
    """Fetch the publisher's files of a data set, where anyone may.

    NAME is one of `tfmtl data list`. An interrupted download goes on where it stopped;
    checksums are compared. Where a publisher asks for a form or an account, says what
    to fetch where.
    """
    from tfmtl.adapters.download import download as fetch
    from tfmtl.cli.console import progress

    with progress() as listener:
        files = fetch(name, out, listener=listener)
    click.echo(f"fetched {', '.join(file.name for file in files)}: {out}")
    click.echo(f"next: tfmtl data prepare {name} --raw {out} --out ...")
