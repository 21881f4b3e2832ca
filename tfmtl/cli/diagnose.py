"""`tfmtl diagnose`: what is wrong with a run."""

from __future__ import annotations

import dataclasses
import pathlib

import click

from tfmtl.cli.base import IN_FOLDER, Command, example, json_option, print_json


@click.command(
    cls=Command, epilog=example("tfmtl diagnose run", "tfmtl diagnose run --json")
)
@click.argument("run", type=IN_FOLDER)
@click.option("--dataset", type=IN_FOLDER, help="Where the dataset lies now, if moved.")
@json_option
def diagnose(run: pathlib.Path, dataset: pathlib.Path | None, as_json: bool) -> None:
    """Say what is wrong with RUN: experts, gates, tasks, calibration, overfitting.

    Each finding has its figure, the threshold, and what to try. The exit code is 0 with
    findings, too.
    """
    from tfmtl import workflow
    from tfmtl.cli.console import progress

    with progress() as listener:
        found = workflow.diagnose(run, dataset=dataset, listener=listener)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    read = found.looked_at
    click.echo(
        f"looked at {read['diagnostics']} measurements of gradients, gates and "
        f"experts, {read['evaluations']} evaluations, {read['rows']:,} validation rows"
    )
    for note in found.notes:
        click.echo(f"note: {note}")
    for finding in found.findings:
        click.echo(f"- {finding.text}\n  try: {finding.advice}")
    if not found.findings:
        click.echo("no finding")
