"""`tfmtl data`: raw data sets, their preparation, and simulated logs."""

from __future__ import annotations

import click

from tfmtl.cli.base import Group, example
from tfmtl.cli.data.describe import describe
from tfmtl.cli.data.download import download
from tfmtl.cli.data.item_vectors import item_vectors
from tfmtl.cli.data.list import list_command
from tfmtl.cli.data.prepare import prepare
from tfmtl.cli.data.simulate import simulate


@click.group(
    cls=Group,
    epilog=example(
        "tfmtl data list",
        "tfmtl data simulate --out logs --rows 200000 --seed 1",
        "tfmtl data prepare movielens-1m --raw ml-1m --out movielens",
    ),
)
def data() -> None:
    """Raw data: list, download, prepare, simulate, describe; vectors of items."""


for _command in (list_command, download, prepare, simulate, describe, item_vectors):
    data.add_command(_command)
