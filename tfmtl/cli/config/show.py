"""`tfmtl config show`."""

from __future__ import annotations

import pathlib

import click

from tfmtl.cli.base import IN_FILE, Command, example, set_option


@click.command(
    cls=Command,
    epilog=example("tfmtl config show experiment.yaml --set training.epochs=3"),
)
@click.argument("experiment", type=IN_FILE)
@set_option
def show(experiment: pathlib.Path, overrides: tuple[str, ...]) -> None:
    """Print EXPERIMENT as YAML, overrides applied and every default written out."""
    from tfmtl.schema.load import dump_experiment, load_experiment

    click.echo(dump_experiment(load_experiment(experiment, overrides)), nl=False)
