"""Exit codes, messages without tracebacks, and what Ctrl-C leaves behind."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import signal
import subprocess
import sys

import click
import pytest

import tfmtl as package
import tfmtl.adapters.simulate
from tfmtl.cli import console, errors
from tfmtl.errors import ConfigError, DataError, ServingError, TfmtlError, TrainingError

ROOT = pathlib.Path(package.__file__).parents[1]


@pytest.fixture
def broken(monkeypatch):
    """Makes `tfmtl data simulate` raise what it is given."""

    def install(error: BaseException) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(tfmtl.adapters.simulate, "simulate", fail)

    return install


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("told"), 2),
        (click.UsageError("told"), 2),
        (click.BadParameter("told"), 2),
        (DataError("told"), 3),
        (TrainingError("told"), 3),
        (ServingError("told"), 3),
        (TfmtlError("told"), 3),
        (click.ClickException("told"), 3),
        (ValueError("told"), 3),
        (OSError(28, "told", "file"), 3),
        (MemoryError("told"), 3),
        (RecursionError("told"), 3),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
    ],
    ids=lambda e: type(e).__name__ if isinstance(e, BaseException) else str(e),
)
def test_exit_codes_without_traceback(tfmtl, broken, tmp_path, error, code):
    broken(error)
    result = tfmtl("data", "simulate", "--out", tmp_path / "out")
    assert result.code == code
    assert ("interrupted" if code == 130 else "told") in result.err
    assert "Traceback" not in result.err + result.out


@pytest.mark.parametrize("place", ["before", "after", "environment"])
def test_debug_shows_the_traceback(tfmtl, broken, monkeypatch, tmp_path, place):
    broken(ValueError("told"))
    command = ["data", "simulate", "--out", str(tmp_path / "out")]
    if place == "before":
        command = ["--debug", *command]
    elif place == "after":
        command = [*command, "--debug"]
    else:
        monkeypatch.setenv("TFMTL_DEBUG", "1")
    result = tfmtl(*command)
    assert result.code == 3
    assert "Traceback (most recent call last)" in result.err
    assert "in fail" in result.err


def test_without_debug_the_way_to_it_is_told(tfmtl, broken, tmp_path):
    broken(ValueError("told"))
    result = tfmtl("data", "simulate", "--out", tmp_path / "out")
    assert "Error: ValueError: told\n--debug shows where it came from." in result.err


def test_a_package_that_is_missing_is_named(tfmtl, broken, tmp_path):
    broken(
        ModuleNotFoundError("No module named 'apache_beam.io'", name="apache_beam.io")
    )
    result = tfmtl("data", "simulate", "--out", tmp_path / "out")
    assert result.code == 3
    assert "needs the Python package 'apache_beam'" in result.err
    assert "pip install 'tfmtl[pipeline]'" in result.err


def test_a_file_error_names_the_file():
    error = FileNotFoundError(2, "No such file or directory", "gone.csv")

    def fail() -> None:
        raise error

    assert errors.run(fail, debug=False) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tran"], r"unknown command 'tran'. Did you mean 'train'? Commands: data,"),
        (["data", "simulat"], "Did you mean 'simulate'? Commands: describe, download"),
        (["config", "shema"], "Did you mean 'schema'?"),
        (["xyz"], "unknown command 'xyz'. Commands: data, preprocess, train"),
        (["--dbug", "doctor"], "unknown option --dbug. Did you mean --debug?"),
        (["data", "simulate", "--row", "5"], "Did you mean --rows? Options: --out"),
        (
            ["train", "--dataste", "x"],
            "unknown option --dataste. Did you mean --dataset",
        ),
        (["data", "simulate", "--rows", "many"], "'many' is not a valid integer"),
        (["data", "simulate"], "Missing option '--out'"),
        (["evaluate", "nowhere"], "'nowhere' does not exist"),
        (["evaluate", ".", "--split", "tset"], "'tset' is not one of"),
        (["serve", ".", "--rest-port", "99999"], "99999 is not in the range"),
        (["score", ".", "--input", "a", "--output", "b.csv"], "must end in .parquet"),
        (["predict", "localhost", "--rows", os.devnull], "http://host:8501"),
    ],
)
def test_usage_errors_name_the_nearest_and_the_legal(tfmtl, arguments, message):
    result = tfmtl(*arguments)
    assert message in result.err
    assert result.code == 2
    assert result.out == ""
    assert "Traceback" not in result.err


def test_resume_and_overwrite_contradict(tfmtl, experiment_file, tmp_path):
    result = tfmtl(
        "train",
        experiment_file,
        "--dataset",
        tmp_path,
        "--run",
        tmp_path / "run",
        "--resume",
        "--overwrite",
    )
    assert result.code == 2
    assert "--resume continues the run and --overwrite throws it away" in result.err


def test_a_forgotten_dash_dash_or_quote(tfmtl, experiment_file, tmp_path):
    result = tfmtl(
        "preprocess",
        experiment_file,
        "--input",
        "a.csv",
        "b.csv",
        "--output",
        tmp_path / "out",
    )
    assert result.code == 2
    assert "unexpected argument 'b.csv'" in result.err
    assert "(quoted)" in result.err


def test_preprocess_refuses_a_full_folder_before_any_work(tfmtl, experiment_file):
    folder = experiment_file.parent
    result = tfmtl(
        "preprocess", experiment_file, "--input", "*.csv", "--output", folder
    )
    assert result.code == 2
    assert "must be a new or an empty folder" in result.err
    assert "--overwrite" in result.err


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "stopped after")],
)
def test_a_signal_leaves_nothing_half_written(tmp_path, number, code, told):
    out = tmp_path / "out"
    command = ["data", "simulate", "--rows", "4000000", "--out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tfmtl", *command, str(out)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # What a shell starts in the background would ignore Ctrl-C, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("simulate")
    process.send_signal(number)
    rest = process.stderr.read()
    # CPython ends itself by SIGINT (130 to a shell) if it met the exception in an exec.
    assert process.wait(60) in (code, -signal.SIGINT)
    assert told in rest and "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "lost"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)],
)
def test_a_lost_signal_ends_the_command_at_the_next_step(number, lost):
    def command():
        with console.progress(io.StringIO()) as listener:
            listener.stage("work", 2)
            # What the import of an extension module does to any exception.
            with contextlib.suppress(lost):
                signal.raise_signal(number)
            listener.advance()
            return 0

    # Tests in the background of a shell have Ctrl-C ignored, which is then left so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with errors.orderly_signals():
            try:
                code = errors.run(command, debug=False)
            except SystemExit as stop:
                code = stop.code
        assert code == 128 + number
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with errors.orderly_signals():
            errors.check_signals()  # The next command begins anew.
    finally:
        signal.signal(signal.SIGINT, before)
