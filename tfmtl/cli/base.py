"""What all commands share: click classes, options, the JSON printer."""

from __future__ import annotations

import difflib
import json
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])

IN_FILE = click.Path(exists=True, dir_okay=False, path_type=pathlib.Path)
IN_FOLDER = click.Path(exists=True, file_okay=False, path_type=pathlib.Path)
IN_PATH = click.Path(exists=True, path_type=pathlib.Path)
OUT_FILE = click.Path(dir_okay=False, path_type=pathlib.Path)
OUT_FOLDER = click.Path(file_okay=False, path_type=pathlib.Path)


def _shared_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            help="Show the traceback of an error (or set TFMTL_DEBUG=1).",
        ),
        click.Option(
            ["--verbose"],
            is_flag=True,
            expose_value=False,
            help="Show the log of TensorFlow and Beam.",
        ),
    ]


class Command(click.Command):
    """A command with `--debug` and `--verbose`, which `tfmtl.cli.main` reads.

    They are accepted before and after the command's name, so they belong to every
    command as much as to the group. An unknown option is answered with the legal ones.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _shared_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the arguments, or says which options there are.

        Raises:
            click.UsageError: An option is unknown, or a value is not legal.
        """
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _unknown_option(error, ctx) from error


class Group(click.Group):
    """A group of such commands; an unknown name is answered with the legal ones."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _shared_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses the group's own arguments, or says which options there are.

        Raises:
            click.UsageError: An option is unknown, or no command is given.
        """
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _unknown_option(error, ctx) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command, or says which there are.

        Raises:
            click.UsageError: There is none of this name.
        """
        if args[0] not in self.commands and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], self.commands, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(
                f"unknown command {args[0]!r}.{hint} Commands: "
                f"{', '.join(self.list_commands(ctx))}",
                ctx,
            )
        return super().resolve_command(ctx, args)


Group.group_class = Group


def _unknown_option(error: click.NoSuchOption, ctx: click.Context) -> click.UsageError:
    options = [
        name
        for parameter in ctx.command.get_params(ctx)
        if isinstance(parameter, click.Option)
        for name in parameter.opts
        if name.startswith("--")
    ]
    close = difflib.get_close_matches(error.option_name, options, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return click.UsageError(
        f"unknown option {error.option_name}.{hint} Options: {', '.join(options)}", ctx
    )


def example(*lines: str) -> str:
    """The example at the end of a command's help."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def set_option(function: _Function) -> _Function:
    """Adds `--set dotted.path=value`, repeatable, as `overrides`."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="PATH=VALUE",
        help="Override a value of the experiment by dotted path; list items by "
        "position or name. Repeatable.",
    )(function)


def json_option(function: _Function) -> _Function:
    """Adds `--json`, a flag, as `as_json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON for programs."
    )(function)


def snapshot_option(function: _Function) -> _Function:
    """Adds `--snapshot TASK`."""
    return click.option(
        "--snapshot",
        metavar="TASK",
        help="Use the model of this task's own best step, which "
        "`training.task_snapshots: true` keeps.",
    )(function)


def fusion_option(function: _Function) -> _Function:
    """Adds `--fusion found|configured|none`, as `fusion`."""
    return click.option(
        "--fusion",
        type=click.Choice(["found", "configured", "none"]),
        default="found",
        show_default=True,
        help="Weights of the fused score: those that `tfmtl fuse` found (the "
        "experiment's where it was not asked), the experiment's, or no score.",
    )(function)


def overwrite_option(function: _Function) -> _Function:
    """Adds `--overwrite`, a flag."""
    return click.option(
        "--overwrite", is_flag=True, help="Replace an output folder that holds files."
    )(function)


def print_json(value: object) -> None:
    """Writes JSON to standard output; NaN, which JSON lacks, must not get so far."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
