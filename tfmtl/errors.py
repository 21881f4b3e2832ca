"""The exceptions of the package; the command line maps them to exit codes."""

from __future__ import annotations


class TfmtlError(Exception):
    """Base of every error the package raises on purpose; `exit_code` is the CLI's."""

    exit_code = 3


class ConfigError(TfmtlError):
    """An experiment file, a command-line argument or a combination of them is wrong."""

    exit_code = 2


class DataError(TfmtlError):
    """A file or directory (raw data, dataset, run, export) is missing or damaged."""


class TrainingError(TfmtlError):
    """Training cannot go on: a loss is not finite, or a checkpoint does not fit."""


class ServingError(TfmtlError):
    """A server refused or failed a request; the message carries its answer."""
