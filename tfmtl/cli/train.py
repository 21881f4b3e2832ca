"""`tfmtl train`."""

from __future__ import annotations

import pathlib

import click

from tfmtl.cli.base import (
    IN_FILE,
    IN_FOLDER,
    OUT_FOLDER,
    Command,
    example,
    overwrite_option,
    set_option,
)


@click.command(
    cls=Command,
    epilog=example(
        "tfmtl train experiment.yaml --dataset dataset --run run",
        "tfmtl train experiment.yaml --dataset dataset --run run2 \\",
        "    --set training.epochs=3 --set optimizers.default.learning_rate=3e-4",
        "tfmtl train experiment.yaml --dataset dataset --run run --resume",
    ),
)
@click.argument("experiment", type=IN_FILE)
@click.option(
    "--dataset", type=IN_FOLDER, required=True, help="What `preprocess` wrote."
)
@click.option("--run", type=OUT_FOLDER, required=True, help="Run directory to write.")
@click.option(
    "--resume", is_flag=True, help="Continue from the last checkpoint in --run."
)
@click.option(
    "--refit",
    is_flag=True,
    help="Then train anew on train + validation, for the number of steps chosen.",
)
@overwrite_option
@set_option
def train(
    experiment: pathlib.Path,
    dataset: pathlib.Path,
    run: pathlib.Path,
    resume: bool,
    refit: bool,
    overwrite: bool,
    overrides: tuple[str, ...],
) -> None:
    """Train the model of EXPERIMENT on a dataset directory.

    Writes the resolved experiment, metrics.jsonl, TensorBoard events and checkpoints to
    the run directory. SIGTERM saves a checkpoint first; --resume goes on from it.
    """
    if resume and overwrite:
        raise click.UsageError(
            "--resume continues the run and --overwrite throws it away: give one"
        )

    from tfmtl.cli.calibrations import print_calibration
    from tfmtl.cli.console import progress
    from tfmtl.schema.calibration import read_calibration
    from tfmtl.schema.lines import naming_lines
    from tfmtl.schema.load import load_experiment

    spec = load_experiment(experiment, overrides)
    from tfmtl import workflow

    with naming_lines(experiment, overrides), progress() as listener:
        result = workflow.train(
            spec,
            dataset,
            run,
            resume=resume,
            overwrite=overwrite,
            refit=refit,
            listener=listener,
        )
    value = "undefined" if result.value is None else f"{result.value:.5f}"
    click.echo(
        f"{result.parameters:,} parameters, {result.steps:,} steps ({result.reason}); "
        f"best at step {result.step:,}: {result.monitor} {value}"
        + (", refitted on train + validation" if result.refit else "")
    )
    calibration = read_calibration(run)
    if calibration is not None:
        print_calibration(calibration)
    click.echo(f"next: tfmtl evaluate {run} --split test")
