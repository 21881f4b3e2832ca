"""`tfmtl balancers`: the methods that `balancer: {class: ...}` may name."""

from __future__ import annotations

import click

from tfmtl.cli.base import Command, example, json_option


@click.command(cls=Command, epilog=example("tfmtl balancers", "tfmtl balancers --json"))
@json_option
def balancers(as_json: bool) -> None:
    """List the methods that weigh tasks against each other."""
    from tfmtl.balance import catalogue
    from tfmtl.cli.catalogue import show

    show("balancers", catalogue(), as_json=as_json)
