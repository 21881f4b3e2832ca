"""Runs of a model that has items drawn beside each row: they resume exactly, too."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.unit.training.test_loop import StopAt, assert_same_run, events
from tfmtl.schema.experiment import ComponentSpec, Experiment
from tfmtl.testing.tiny import TIMED_KEYS, tiny_dataset, tiny_spec
from tfmtl.training.loop import Interrupted
from tfmtl.workflow.train import train

MODEL = {
    "units": [6],
    "matching_units": [4],
    "correlation_units": [4],
    "alpha": 0.0,
    "beta": 1.0,
    "negatives": 2,
    "dropout": 0.2,
}


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("timed")
    spec = tiny_spec(keys=TIMED_KEYS)
    tiny_dataset(folder, {"train": 200, "validation": 80, "test": 80}, spec=spec)
    return folder


def _changed(experiment: Experiment) -> Experiment:
    model = {"class": "DeepMCP", "config": MODEL}
    return experiment.model_copy(
        update={
            "dataset": tiny_spec(keys=TIMED_KEYS),
            "model": ComponentSpec.model_validate(model),
        }
    )


def test_a_resumed_run_equals_a_whole_one(
    timed: pathlib.Path, experiment: Any, tmp_path: pathlib.Path
) -> None:
    asked = _changed(experiment())
    train(asked, timed, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(asked, timed, tmp_path / "run", listener=StopAt(10))
    train(asked, timed, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    penalties = [e["penalty"] for e in events(tmp_path / "run") if e["kind"] == "train"]
    # 1 + Q terms of about ln 2 in each step: something was drawn.
    assert min(penalties) > 1
