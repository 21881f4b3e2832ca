"""Fixtures shared by all tests."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Callable, Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], pathlib.Path]:
    """Finds a publisher's data set, or skips the test that asks for it."""
    root = pathlib.Path(os.environ.get("TFMTL_DATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> pathlib.Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"no {name} data at {root}; set TFMTL_DATA to its folder")
        return path

    return find


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def unchanged_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts back what the command line configures for its process."""
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
def tfmtl(
    capfd: pytest.CaptureFixture[str], unchanged_logging: None
) -> Callable[..., Result]:
    """`tfmtl("data", "list")` runs the command in this process."""
    from tfmtl.cli.main import main

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        code = main([str(a) for a in arguments])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run
