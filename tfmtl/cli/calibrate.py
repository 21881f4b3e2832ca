"""`tfmtl calibrate`."""

from __future__ import annotations

import pathlib

import click

from tfmtl.cli.base import IN_FOLDER, Command, example


@click.command(
    cls=Command,
    epilog=example(
        "tfmtl calibrate run --method platt",
        "tfmtl calibrate run --method isotonic --by scenario",
        "tfmtl calibrate run --method none",
    ),
)
@click.argument("run", type=IN_FOLDER)
@click.option(
    "--method",
    type=click.Choice(["none", "bias", "platt", "isotonic"]),
    help="What to fit; the experiment's where absent. none takes calibrators away.",
)
@click.option(
    "--by",
    type=click.Choice(["task", "scenario"]),
    help="One calibrator an output, or one for each scenario too.",
)
@click.option("--dataset", type=IN_FOLDER, help="Where the dataset lies now, if moved.")
def calibrate(
    run: pathlib.Path, method: str | None, by: str | None, dataset: pathlib.Path | None
) -> None:
    """Fit calibrators of RUN on its validation split.

    They are stored in the run; evaluate, score and export apply them from then on. A
    model that was exported before stays as it is: export again.
    """
    from tfmtl import workflow
    from tfmtl.cli.calibrations import print_calibration
    from tfmtl.cli.console import progress

    with progress() as listener:
        found = workflow.calibrate(
            run, method=method, by=by, dataset=dataset, listener=listener
        )
    print_calibration(found)
    click.echo(f"next: tfmtl evaluate {run} --split test")
