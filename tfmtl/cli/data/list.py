"""`tfmtl data list`."""

from __future__ import annotations

import click

from tfmtl.cli.base import Command, example, json_option, print_json


@click.command(
    "list", cls=Command, epilog=example("tfmtl data list", "tfmtl data list --json")
)
@json_option
def list_command(as_json: bool) -> None:
    """List the data sets whose raw files `tfmtl data prepare` reads."""
    from tfmtl.adapters import catalogue
    from tfmtl.cli.console import print_table

    adapters = catalogue.ADAPTERS
    if as_json:
        print_json(
            [
                {
                    "name": a.name,
                    "summary": a.summary,
                    "licence": a.licence,
                    "citation": a.citation,
                    "files": list(a.files),
                    "downloadable": bool(a.downloads),
                    "instructions": a.instructions,
                }
                for a in adapters
            ]
        )
        return
    print_table(
        "data sets",
        ["name", "summary", "download", "licence"],
        [[a.name, a.summary, bool(a.downloads), a.licence] for a in adapters],
    )
