"""`tfmtl tune`: search loss weights, learning rates, sizes, architectures."""

from __future__ import annotations

import functools
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from tfmtl.cli.base import (
    IN_FILE,
    IN_FOLDER,
    OUT_FOLDER,
    Command,
    example,
    json_option,
    overwrite_option,
    print_json,
    set_option,
)

if TYPE_CHECKING:
    from tfmtl.schema.experiment import Experiment


@click.command(
    cls=Command,
    epilog=example(
        "tfmtl tune experiment.yaml --dataset dataset --directory search",
        "tfmtl tune experiment.yaml --dataset dataset --directory search --resume \\",
        "    --max-trials 60 --workers 2",
        "tfmtl tune --directory search --choose 'like/auc >= 0.75, max click/auc'",
        "tfmtl train search/best.yaml --dataset dataset --run run",
    ),
)
@click.argument("experiment", type=IN_FILE, required=False)
@click.option(
    "--dataset",
    "datasets",
    type=IN_FOLDER,
    multiple=True,
    help="What `preprocess` wrote; once for each value of what the space changes in "
    "the records.",
)
@click.option(
    "--directory", type=OUT_FOLDER, required=True, help="Of the search, to write."
)
@click.option(
    "--max-trials", type=click.IntRange(1), help="Instead of `tuning.max_trials`."
)
@click.option(
    "--seeds",
    type=click.IntRange(0),
    help="Instead of `tuning.seeds`: train the best trials and the controls again on "
    "so many seeds, before the winner is named.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that run trials at the same time.",
)
@click.option("--resume", is_flag=True, help="Continue an interrupted search.")
@click.option(
    "--choose",
    metavar="'BOUND, max METRIC'",
    help="Search nothing: pick a trial of a finished search, and write chosen.yaml.",
)
@overwrite_option
@set_option
@json_option
def tune(
    experiment: pathlib.Path | None,
    datasets: tuple[pathlib.Path, ...],
    directory: pathlib.Path,
    max_trials: int | None,
    seeds: int | None,
    workers: int,
    resume: bool,
    choose: str | None,
    overwrite: bool,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Search the space in the `tuning` section of EXPERIMENT.

    Every trial is a run directory in --directory. Beside them: best.yaml, the winner's
    experiment file; trials.parquet; report.md and report.json; plots. A search that is
    interrupted continues with --resume; a finished one is taken over by the next over
    the same space.

    Several machines: give each the same command, a --directory that all see, and
    keras-tuner's KERASTUNER_ORACLE_IP, KERASTUNER_ORACLE_PORT and KERASTUNER_TUNER_ID,
    which is `chief` for one of them.
    """
    if choose is not None:
        _choose(directory, choose, as_json)
        return
    if experiment is None or not datasets:
        raise click.UsageError(
            "a search needs EXPERIMENT and --dataset; only --choose does without"
        )
    if resume and overwrite:
        raise click.UsageError(
            "--resume continues the search and --overwrite throws it away: give one"
        )
    from tfmtl.schema.lines import naming_lines

    spec = _with_budget(experiment, overrides, max_trials, seeds)
    with naming_lines(experiment, overrides):
        _search(
            spec,
            datasets,
            directory,
            workers,
            resume=resume,
            overwrite=overwrite,
            as_json=as_json,
        )


def _with_budget(
    path: pathlib.Path,
    overrides: Sequence[str],
    max_trials: int | None,
    seeds: int | None,
) -> Experiment:
    from tfmtl.schema.load import load_experiment

    given = {"tuning.max_trials": max_trials, "tuning.seeds": seeds}
    more = [f"{key}={value}" for key, value in given.items() if value is not None]
    plain = load_experiment(path, overrides)
    # Without a section, `tuning.max_trials` alone would be refused for want of a space.
    return load_experiment(path, [*overrides, *more]) if plain.tuning else plain


def _worker_command(
    datasets: Sequence[pathlib.Path], directory: pathlib.Path
) -> list[str]:
    """What a worker on this machine is started with: on a search's resolved file."""
    file = directory / "experiment.yaml"
    command = [sys.executable, "-m", "tfmtl", "tune", str(file)]
    for dataset in datasets:
        command += ["--dataset", str(dataset)]
    return [*command, "--directory", str(directory)]


def _search(
    experiment: Experiment,
    datasets: Sequence[pathlib.Path],
    directory: pathlib.Path,
    workers: int,
    *,
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    from tfmtl import workflow
    from tfmtl.cli.console import progress

    with progress() as listener:
        report = workflow.tune(
            experiment,
            datasets,
            directory,
            workers=workers,
            worker_command=functools.partial(_worker_command, datasets),
            resume=resume,
            overwrite=overwrite,
            listener=listener,
        )
    if report is None:
        return
    if as_json:
        print_json(report)
        return
    _print(report, directory)


def _print(report: Mapping[str, Any], directory: pathlib.Path) -> None:
    click.echo((directory / "report.md").read_text())
    click.echo(f"next: tfmtl train {directory}/best.yaml --dataset ... --run ...")


def _choose(directory: pathlib.Path, text: str, as_json: bool) -> None:
    from tfmtl import workflow
    from tfmtl.cli.console import print_table

    record, path = workflow.choose(directory, text)
    if as_json:
        chosen = {"trial": record.trial, "values": record.values}
        print_json({**chosen, "metrics": record.metrics, "experiment": path})
        return
    print_table(
        f"trial {record.trial}",
        ["setting", "value"],
        [[key, str(value)] for key, value in record.values.items()],
    )
    overall = {k: v for k, v in record.metrics.items() if "@" not in k}
    print_table(
        "validation", ["metric", "value"], list(overall.items()), numbers=["value"]
    )
    click.echo(f"written: {path}")
