"""`tfmtl models`: the architectures that `model: {class: ...}` may name."""

from __future__ import annotations

import click

from tfmtl.cli.base import Command, example, json_option


@click.command(cls=Command, epilog=example("tfmtl models", "tfmtl models --json"))
@json_option
def models(as_json: bool) -> None:
    """List the model architectures and their sources."""
    from tfmtl.cli.catalogue import show
    from tfmtl.models import catalogue

    show("models", catalogue(), as_json=as_json)
