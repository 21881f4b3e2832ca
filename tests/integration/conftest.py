"""One chain from simulated logs to an exported model, shared by all tests here."""

from __future__ import annotations

import pytest
import yaml

from tests.integration.small import EXPERIMENT, ROWS, Chain


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
