"""`tfmtl config check`."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import click

from tfmtl.cli.base import IN_FILE, Command, example, set_option

if TYPE_CHECKING:
    from tfmtl.schema.experiment import Experiment


@click.command(
    cls=Command,
    epilog=example(
        "tfmtl config check experiment.yaml",
        "tfmtl config check experiment.yaml --set model.class=MMoE",
    ),
)
@click.argument("experiment", type=IN_FILE)
@set_option
def check(experiment: pathlib.Path, overrides: tuple[str, ...]) -> None:
    """Check EXPERIMENT: the file, then the settings of its model and balancer.

    Of a search, every dimension of its space is tried at its ends.
    """
    from tfmtl.schema.lines import naming_lines
    from tfmtl.schema.load import load_experiment

    spec = load_experiment(experiment, overrides)
    from tfmtl import build

    with naming_lines(experiment, overrides):
        build.check(spec)
        build.check_tuning(spec)
    data = spec.dataset
    click.echo(
        f"{experiment} is sound: {spec.name}, {len(data.features)} features, "
        f"{len(data.tasks)} tasks ({', '.join(data.task_names)}), "
        f"{len(data.scenario_values)} scenarios, model {spec.model.class_name}, "
        f"balancer {spec.balancer.class_name}{_search(spec)}"
    )


def _search(spec: Experiment) -> str:
    if spec.tuning is None:
        return ""
    return (
        f"; a {spec.tuning.oracle} search over {len(spec.tuning.space)} settings for "
        f"{', '.join(spec.tuning.objectives)}"
    )
