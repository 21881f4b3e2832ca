"""Runs commands in this process and puts back what the command line configures."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Callable, Iterator

import pytest

from tfmtl.cli.main import main


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _unchanged_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    loggers = [logging.getLogger(n) for n in (None, "tfmtl", "pipeline", "serving")]
    levels = [logger.level for logger in loggers]
    handlers = list(logging.getLogger().handlers)
    # setenv remembers the old value, whatever the command line sets meanwhile.
    for name in ("TF_CPP_MIN_LOG_LEVEL", "GRPC_VERBOSITY"):
        monkeypatch.setenv(name, os.environ.get(name, "2"))
    monkeypatch.delenv("TFMTL_DEBUG", raising=False)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    logging.getLogger().handlers[:] = handlers


@pytest.fixture
def tfmtl(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`tfmtl("data", "list")` runs the command and answers with a `Result`."""

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        code = main([str(a) for a in arguments])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run


EXPERIMENT = """\
name: tiny
dataset:
  features:
    - {name: user_id, kind: categorical, dim: 4, side: user}
    - {name: price, kind: numeric}
  scenario: {column: page, values: [home, search]}
  tasks:
    - {name: click, label: clicked}
    - {name: buy, label: bought, given: click}
  keys: {user: user_id, timestamp: time}
  split: {by: time}
model: {class: SharedBottom}
"""


@pytest.fixture
def experiment_file(tmp_path: pathlib.Path) -> pathlib.Path:
    """A small experiment file."""
    path = tmp_path / "experiment.yaml"
    path.write_text(EXPERIMENT)
    return path
