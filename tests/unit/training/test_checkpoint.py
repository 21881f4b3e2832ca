"""Checkpoints are whole, pruned, and refuse another model."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from tfmtl import build
from tfmtl._keras import tf
from tfmtl.errors import TrainingError
from tfmtl.training.checkpoint import Checkpoints, Progress, restore_model


def _trainer(experiment: Any, dataset: Any, seed: int = 5, units: int = 6) -> Any:
    asked = experiment()
    config = {**asked.model.config, "bottom_units": [units]}
    component = asked.model.model_copy(update={"config": config})
    asked = asked.model_copy(update={"seed": seed, "model": component})
    model = build.make_model(asked, dataset[1], dataset[0])
    return build.make_trainer(asked, model, 10)


def test_everything_comes_back(
    experiment: Any, dataset: Any, tmp_path: pathlib.Path
) -> None:
    first, other = (_trainer(experiment, dataset, s) for s in (5, 6))
    saved = Checkpoints(tmp_path, first)
    assert saved.restore() is None
    progress = Progress(3, 1, 2, 0.7, 2, 1, 99)
    saved.save_best(2)
    saved.save(progress)
    assert Checkpoints(tmp_path, other).restore() == progress
    for a, b in zip(first.model.variables, other.model.variables):
        np.testing.assert_array_equal(a, b)


def test_older_ones_go_when_a_newer_one_stands(
    experiment: Any, dataset: Any, tmp_path: pathlib.Path
) -> None:
    saved = Checkpoints(tmp_path, _trainer(experiment, dataset))
    for step in (1, 2, 12):
        saved.save_best(step)
        saved.save(Progress(step, best_step=min(step, 2)))
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["best-0000000002", "step-0000000012"]
    assert saved.latest() == tmp_path / "step-0000000012"


def test_a_folder_without_progress_is_none(
    experiment: Any, dataset: Any, tmp_path: pathlib.Path
) -> None:
    saved = Checkpoints(tmp_path, _trainer(experiment, dataset))
    saved.save(Progress(4))
    (tmp_path / "step-0000000009").mkdir()
    assert saved.latest() == tmp_path / "step-0000000004"


def test_another_model_is_refused(
    experiment: Any, dataset: Any, tmp_path: pathlib.Path
) -> None:
    saved = Checkpoints(tmp_path, _trainer(experiment, dataset))
    saved.save(Progress(4))
    saved.save_best(4)
    wider = _trainer(experiment, dataset, units=9)
    with pytest.raises(TrainingError, match="'step-0000000004' does not fit"):
        Checkpoints(tmp_path, wider).restore()
    with pytest.raises(TrainingError, match=r"step 4 .*does not fit"):
        restore_model(wider.model, tmp_path, 4)
    with pytest.raises(TrainingError, match=r"step 5 .*is missing"):
        restore_model(wider.model, tmp_path, 5)


def test_best_holds_the_model_alone(
    experiment: Any, dataset: Any, tmp_path: pathlib.Path
) -> None:
    first, other = (_trainer(experiment, dataset, s) for s in (5, 6))
    Checkpoints(tmp_path, first).save_best(7)
    restore_model(other.model, tmp_path, 7)
    for a, b in zip(first.model.variables, other.model.variables):
        np.testing.assert_array_equal(a, b)
    names = tf.train.load_checkpoint(
        str(tmp_path / "best-0000000007" / "model")
    ).get_variable_to_shape_map()
    assert not [n for n in names if "OPTIMIZER_SLOT" in n]
