"""One chain from simulated logs to an exported model, shared by all tests here."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator

import pytest
import yaml

from tests.integration.small import EXPERIMENT, ROWS, Chain
from tfmtl.cli.main import main


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Logs, data set, finished run and export of the small experiment."""
    from pipeline.preprocess import run as preprocess
    from tfmtl import workflow
    from tfmtl.adapters.simulate import simulate
    from tfmtl.schema.load import load_experiment

    root = tmp_path_factory.mktemp("chain") / "shared"
    made = Chain(
        root=root,
        experiment=root / "experiment.yaml",
        logs=str(root / "raw" / "logs" / "*.parquet"),
        dataset=root / "dataset",
        run=root / "run",
        models=root / "models" / "small",
    )
    root.mkdir()
    made.experiment.write_text(yaml.safe_dump(EXPERIMENT, sort_keys=False))
    simulate(root / "raw", rows=ROWS, seed=11, users=150, items=200)
    experiment = load_experiment(made.experiment)
    preprocess(experiment, made.logs, made.dataset, block_rows=128)
    workflow.train(experiment, made.dataset, made.run)
    workflow.export(made.run, made.models)
    return made


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def tfmtl(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Result]]:
    """`tfmtl("data", "list")` runs the command in this process.

    What the command line configures for its process is put back afterwards.
    """
    loggers = [logging.getLogger(n) for n in (None, "tfmtl", "pipeline", "serving")]
    levels = [logger.level for logger in loggers]
    handlers = list(logging.getLogger().handlers)
    for name in ("TF_CPP_MIN_LOG_LEVEL", "GRPC_VERBOSITY"):
        monkeypatch.setenv(name, os.environ.get(name, "2"))
    monkeypatch.delenv("TFMTL_DEBUG", raising=False)

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        code = main([str(a) for a in arguments])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    yield run
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    logging.getLogger().handlers[:] = handlers
