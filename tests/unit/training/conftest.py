"""A tiny data set and a tiny experiment for runs that take a second."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from tfmtl.schema.experiment import Experiment
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.testing.tiny import tiny_dataset, tiny_spec

Dataset = tuple[pathlib.Path, DatasetManifest]
MakeExperiment = Callable[..., Experiment]


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("tiny")
    return folder, tiny_dataset(folder, {"train": 200, "validation": 80, "test": 80})


@pytest.fixture(scope="session")
def experiment() -> MakeExperiment:
    """Two epochs of 7 batches, with dropout, a schedule and both kinds of Adam."""

    def make(**training: Any) -> Experiment:
        defaults: dict[str, Any] = {
            "batch_size": 32,
            "epochs": 2,
            "evaluate_every": 5,
            "checkpoint_every": 3,
            "log_every": 2,
            "patience": None,
            "deterministic": True,
            "shuffle_blocks": 3,
        }
        rate = training.pop("learning_rate", 0.02)
        schedule = {"kind": "cosine", "warmup_steps": 2}
        return Experiment.model_validate(
            {
                "name": "tiny",
                "seed": 5,
                "dataset": tiny_spec().model_dump(),
                "model": {
                    "class": "SharedBottom",
                    "config": {"bottom_units": [6], "tower_units": [], "dropout": 0.2},
                },
                "optimizers": {
                    "default": {"learning_rate": rate, "schedule": schedule},
                    "embedding": {"class": "LazyAdam", "learning_rate": rate},
                },
                "regularization": {"embedding_l2": 1e-3, "feature_dropout": 0.1},
                "training": {**defaults, **training},
            }
        )

    return make
