"""Raw logs to a dataset directory: `python -m pipeline.preprocess`, or `run`.

Example:
    python -m pipeline.preprocess experiment.yaml --input 'logs/*.parquet' \
        --output dataset -- --direct_num_workers=2 \
        --direct_running_mode=multi_processing
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import pathlib
import re
import sys
import warnings
from collections.abc import Iterator, Sequence

from tfmtl import files
from tfmtl.errors import ConfigError, TfmtlError
from tfmtl.progress import Listener, Silent
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.load import load_experiment
from tfmtl.schema.manifest import DatasetManifest

_NOISY = ("apache_beam", "absl", "tensorflow", "tensorflow_transform", "root")


def run(
    experiment: Experiment | str | os.PathLike[str],
    inputs: Sequence[str] | str,
    output: str | os.PathLike[str],
    *,
    layout: str = "blocks",
    compression: str = "none",
    block_rows: int = 4096,
    shards: int | None = None,
    overwrite: bool = False,
    beam_args: Sequence[str] = (),
    listener: Listener | None = None,
    verbose: bool = False,
) -> DatasetManifest:
    """Reads raw logs and writes a dataset directory, or nothing.

    Args:
        experiment: The experiment, or its file.
        inputs: Files or globs: Parquet, CSV (.gz) or Avro; local, or any file system
            that Beam knows.
        output: The dataset directory, on a file system that this process and all
            workers share; no object store.
        layout: `blocks` of rows column by column, or `rows`, one Example each.
        compression: `none` or `gzip`.
        block_rows: Rows of a block.
        shards: Files of a split; by size where absent.
        overwrite: Replace a directory that holds files.
        beam_args: Options of Beam, such as `--runner=FlinkRunner`.
        listener: Receives the progress; None is silent.
        verbose: Let Beam and TensorFlow log.

    Returns:
        The manifest, also in `output/dataset.json`.

    Raises:
        ConfigError: An argument or the experiment is wrong.
        DataError: The data are damaged, a split is empty, or rows are lost.
    """
    if isinstance(experiment, str | os.PathLike):
        experiment = load_experiment(pathlib.Path(experiment))
    patterns = [inputs] if isinstance(inputs, str) else list(inputs)
    _check(layout, compression, block_rows, shards)
    _check_output(str(output))
    if layout == "rows" and experiment.training.shuffle == "groups":
        raise ConfigError(
            "`training.shuffle: groups` needs `layout: blocks`, which keeps the rows "
            "of a group in one record. Received: layout 'rows'"
        )
    target = pathlib.Path(output).absolute()
    files.check_target(target, overwrite=overwrite)
    with _quiet(verbose):
        # Beam and TensorFlow cost seconds to import: after the arguments are checked.
        from pipeline import job, workspace

        settings = job.Settings(
            layout, compression, block_rows, shards, tuple(beam_args)
        )
        workspace.remove_leftovers(target)
        with (
            contextlib.ExitStack() as until_renamed,
            files.atomic_directory(
                target, overwrite=overwrite, name="preprocess"
            ) as partial,
        ):
            until_renamed.enter_context(workspace.held(partial))
            with workspace.scratch(partial) as work:
                return job.Job(
                    experiment.dataset, settings, partial, work, listener or Silent()
                ).run(patterns)


def _check(layout: str, compression: str, block_rows: int, shards: int | None) -> None:
    for name, value, legal in (
        ("layout", layout, ("blocks", "rows")),
        ("compression", compression, ("none", "gzip")),
    ):
        if value not in legal:
            raise ConfigError(f"`{name}` must be one of {legal}. Received: {value!r}")
    for name, number in (("block_rows", block_rows), ("shards", shards)):
        if number is not None and number < 1:
            raise ConfigError(f"`{name}` must be at least 1. Received: {number}")


def _check_output(output: str) -> None:
    # pathlib makes one slash of two: `gs:/bucket` is what is left of a URL.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", output):
        raise ConfigError(
            "`output` must be a folder of a file system that this process and all "
            f"workers share, no URL of an object store. Received: {output!r}. Write "
            "to a shared folder and copy the finished directory"
        )


@contextlib.contextmanager
def _quiet(verbose: bool) -> Iterator[None]:
    """Silences the libraries' logs and warnings while the job runs."""
    if verbose:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    loggers = [logging.getLogger(None if n == "root" else n) for n in _NOISY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; everything after `--` goes to Beam.

    Args:
        arguments: `sys.argv[1:]` where absent.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    beam_args: list[str] = []
    if "--" in given:
        cut = given.index("--")
        given, beam_args = given[:cut], given[cut + 1 :]
    parsed = _parser().parse_args(given)
    try:
        manifest = run(
            parsed.experiment,
            parsed.input,
            parsed.output,
            layout=parsed.layout,
            compression=parsed.compression,
            block_rows=parsed.block_rows,
            shards=parsed.shards,
            overwrite=parsed.overwrite,
            beam_args=beam_args,
            verbose=parsed.verbose,
        )
    except TfmtlError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    sys.stdout.write(manifest.counts.model_dump_json() + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.preprocess",
        description="Raw logs to a dataset directory. Options of Beam follow `--`.",
    )
    parser.add_argument("experiment", help="experiment file (YAML, TOML, JSON)")
    parser.add_argument("--input", required=True, nargs="+", help="files or globs")
    parser.add_argument(
        "--output",
        required=True,
        help="a new or an empty folder, shared with all workers",
    )
    parser.add_argument("--layout", choices=("blocks", "rows"), default="blocks")
    parser.add_argument("--compression", choices=("none", "gzip"), default="none")
    parser.add_argument("--block-rows", type=int, default=4096)
    parser.add_argument("--shards", type=int)
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="let Beam log")
    return parser


if __name__ == "__main__":
    sys.exit(main())
