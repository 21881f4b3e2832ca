"""`tfmtl demo`."""

from __future__ import annotations

import click

from tfmtl.cli.base import Command, example


@click.command(
    cls=Command, epilog=example("tfmtl demo", "tfmtl demo --raw kuairand=DIR")
)
@click.option(
    "--raw", metavar="NAME=DIR", help="Publisher's files instead of simulated logs."
)
def demo(raw: str | None) -> None:
    """Run the main job from raw logs to predictions over REST."""
    raise click.UsageError("")
