"""An old run goes only for a new one that can begin."""

from __future__ import annotations

import pathlib

import pytest

from tfmtl.errors import ConfigError
from tfmtl.schema.experiment import Experiment
from tfmtl.testing.tiny import tiny_dataset, tiny_spec
from tfmtl.workflow.train import train


def test_what_only_the_data_set_can_tell_is_told_before_the_old_run_goes(
    tmp_path: pathlib.Path,
) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    tiny_dataset(folder, {"train": 20, "validation": 20, "test": 20})
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("kept")
    spec = tiny_spec().model_dump()
    wrong = Experiment.model_validate(
        {
            "name": "tiny",
            "dataset": {**spec, "scenario": None},
            "model": {"class": "STAR"},
        }
    )
    with pytest.raises(ConfigError):
        train(wrong, folder, run, overwrite=True)
    assert (run / "metrics.jsonl").read_text() == "kept"
    wrong = Experiment.model_validate(
        {
            "name": "tiny",
            "dataset": spec,
            "model": {"class": "WatchNext", "config": {"position": "nowhere"}},
        }
    )
    with pytest.raises(ConfigError, match="nowhere"):
        train(wrong, folder, run, overwrite=True)
    assert (run / "metrics.jsonl").read_text() == "kept"
