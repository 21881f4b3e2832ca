"""`tfmtl config schema`."""

from __future__ import annotations

import pathlib

import click

from tfmtl.cli.base import IN_FILE, Command, example, print_json


@click.command(
    cls=Command,
    epilog=example(
        "tfmtl config schema > experiment.schema.json",
        "# first line of experiment.yaml, for editors with the YAML language server:",
        "# yaml-language-server: $schema=experiment.schema.json",
    ),
)
@click.argument("experiment", type=IN_FILE, required=False)
def schema(experiment: pathlib.Path | None) -> None:
    """Print the JSON Schema of experiment files.

    EXPERIMENT, if given, is checked against its rules first.
    """
    from tfmtl.schema.experiment import Experiment
    from tfmtl.schema.load import load_experiment

    if experiment is not None:
        load_experiment(experiment)
    document = Experiment.model_json_schema(by_alias=True)
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    print_json(document)
