"""The exceptions of the package; the command line maps them to exit codes."""

from __future__ import annotations

from collections.abc import Sequence

Place = tuple[str | int, ...]
"""A key of an experiment file, from the top: `("training", "epochs")`."""


class TfmtlError(Exception):
    """Base of every error the package raises on purpose; `exit_code` is the CLI's."""

    exit_code = 3
    ag_pass_through = True
    """To AutoGraph: leave it as it is. Else what is raised while a graph is traced
    comes out as a StagingError, with a traceback for a message."""


class ConfigError(TfmtlError):
    """An experiment file, a command-line argument or a combination of them is wrong.

    Args:
        message: What is wrong.
        places: Keys of the experiment file that are at fault, one for each of the last
            lines of the message; `tfmtl.schema.lines` adds the numbers of their lines.
    """

    exit_code = 2

    def __init__(self, message: str, places: Sequence[Place] = ()) -> None:
        super().__init__(message)
        self.places = tuple(places)


class DataError(TfmtlError):
    """A file or directory (raw data, dataset, run, export) is missing or damaged."""


class TrainingError(TfmtlError):
    """Training cannot go on: a loss is not finite, or a checkpoint does not fit."""


class ServingError(TfmtlError):
    """A server refused or failed a request; the message carries its answer."""
