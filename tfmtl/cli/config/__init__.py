"""`tfmtl config`: experiment files, checked and resolved."""

from __future__ import annotations

import click

from tfmtl.cli.base import Group, example
from tfmtl.cli.config.check import check
from tfmtl.cli.config.schema import schema
from tfmtl.cli.config.show import show


@click.group(
    cls=Group,
    epilog=example(
        "tfmtl config check experiment.yaml",
        "tfmtl config show experiment.yaml --set training.epochs=3",
    ),
)
def config() -> None:
    """Check or print an experiment file, print its JSON Schema."""


for _command in (check, show, schema):
    config.add_command(_command)
