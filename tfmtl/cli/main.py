"""`tfmtl`: the group of all commands, and the entry point."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

import tfmtl
from tfmtl.cli import errors, logs
from tfmtl.cli.balancers import balancers
from tfmtl.cli.base import Group, example
from tfmtl.cli.calibrate import calibrate
from tfmtl.cli.config import config
from tfmtl.cli.data import data
from tfmtl.cli.demo import demo
from tfmtl.cli.diagnose import diagnose
from tfmtl.cli.doctor import doctor
from tfmtl.cli.evaluate import evaluate
from tfmtl.cli.export import export
from tfmtl.cli.fuse import fuse
from tfmtl.cli.models import models
from tfmtl.cli.predict import predict
from tfmtl.cli.preprocess import preprocess
from tfmtl.cli.score import score
from tfmtl.cli.serve import serve
from tfmtl.cli.train import train
from tfmtl.cli.tune import tune

_EXAMPLE = example(
    "tfmtl data simulate --out logs --rows 200000 --seed 1",
    "tfmtl preprocess experiment.yaml --input 'logs/logs/*.parquet' --output dataset",
    "tfmtl train experiment.yaml --dataset dataset --run run",
    "tfmtl evaluate run --split test",
    "tfmtl export run --output model",
    "tfmtl serve model",
)


class _InOrder(Group):
    """Lists the commands in the order in which they are used, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, as they were added."""
        return list(self.commands)


@click.group(
    cls=_InOrder,
    epilog=_EXAMPLE,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(tfmtl.__version__, prog_name="tfmtl")
def cli() -> None:
    """Multi-task, multi-scenario ranking on TensorFlow.

    From raw logs to a served prediction: every step is a command, every result a
    folder. Exit codes: 0 done, 2 wrong usage or experiment, 3 failure, 130 Ctrl-C.
    """


for _command in (
    data,
    preprocess,
    train,
    tune,
    calibrate,
    evaluate,
    fuse,
    diagnose,
    score,
    export,
    serve,
    predict,
    config,
    models,
    balancers,
    doctor,
    demo,
):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Without the program's name; those of the process where absent.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    own = given[: given.index("--")] if "--" in given else given
    debug = "--debug" in own or os.environ.get("TFMTL_DEBUG", "") not in ("", "0")
    logs.configure(verbose="--verbose" in own)
    with errors.orderly_signals():
        return errors.run(
            lambda: cli.main(given, prog_name="tfmtl", standalone_mode=False),
            debug=debug,
        )
