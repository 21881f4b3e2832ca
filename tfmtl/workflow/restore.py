"""Run directory -> the model it chose."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from tfmtl import build
from tfmtl.calibration import Finish
from tfmtl.errors import ConfigError, DataError
from tfmtl.models.base import MultiTaskModel
from tfmtl.schema.calibration import Calibration, read_calibration
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.manifest import DatasetManifest, read_dataset
from tfmtl.training.checkpoint import restore_model
from tfmtl.training.rundir import RunDirectory
from tfmtl.workflow.train import REFIT, fit_manifest


@dataclasses.dataclass(frozen=True)
class Restored:
    """A finished run.

    Attributes:
        model: With the chosen step's variables, or the refitted ones.
        experiment: Of the run.
        manifest: Of its data set.
        dataset: The dataset directory.
        result: `result.json`.
        step: The steps that the model was trained for.
        refit: Whether it is the refitted one.
        calibration: `calibration.json` of the run, if it has one.
        finish: Corrects the model's logits: sampling, then the calibrators.
        same_dataset: Whether `dataset` is what the run was trained on, by its content
            id; None where one of the two has none.
    """

    model: MultiTaskModel
    experiment: Experiment
    manifest: DatasetManifest
    dataset: pathlib.Path
    result: dict[str, Any]
    step: int
    refit: bool
    calibration: Calibration | None
    finish: Finish
    same_dataset: bool | None


def restore(
    run: str | pathlib.Path,
    dataset: str | pathlib.Path | None = None,
    *,
    same_dataset: bool = False,
    refit: bool = True,
    snapshot: str | None = None,
) -> Restored:
    """Loads the model of a finished run.

    Args:
        run: The run directory.
        dataset: Where its data set lies now, if it was moved. Another one of the same
            schema has ids from vocabularies of its own: see `Restored.same_dataset`.
        same_dataset: Refuse such a data set.
        refit: Take the refitted model where there is one; else the one before it, which
            has not seen the validation split.
        snapshot: Load the model of this task's own best evaluation instead of the
            chosen or refitted one.

    Raises:
        ConfigError: The run has no such snapshot.
        DataError: The run is not finished, or its data set is gone, of another schema
            or, where that matters, another one.
        TrainingError: The variables do not fit.
    """
    source = RunDirectory(run)
    experiment = source.experiment()
    result = source.result()
    directory = pathlib.Path(dataset or source.facts()["dataset"])
    manifest = read_dataset(directory)
    if manifest.schema_hash != source.facts()["schema_hash"]:
        raise DataError(
            f"the data set {str(directory)!r} is not the one that the run "
            f"{str(run)!r} was trained on (its schema hash differs)"
        )
    same = source.same_content(manifest.content_id)
    if same_dataset and same is False:
        raise DataError(
            f"the data set {str(directory)!r} is not the one that the run "
            f"{str(run)!r} was trained on (its content id differs): its vocabularies "
            "and scales are others"
        )
    manifest = fit_manifest(experiment, manifest)
    model = build.make_model(experiment, manifest, directory)
    refit = refit and result["refit"] and snapshot is None
    folder = source.path / REFIT / "checkpoints" if refit else source.checkpoints
    step = result["step"] if snapshot is None else _snapshot_step(result, snapshot)
    restore_model(model, folder, step)
    # Calibrators are of the chosen model, not of another step's.
    calibration = read_calibration(source.path) if snapshot is None else None
    return Restored(
        model=model,
        experiment=experiment,
        manifest=manifest,
        dataset=directory,
        result=result,
        step=step,
        refit=refit,
        calibration=calibration,
        finish=Finish(manifest, calibration),
        same_dataset=same,
    )


def _snapshot_step(result: dict[str, Any], task: str) -> int:
    tasks = result.get("tasks", {})
    if not result.get("snapshots"):
        raise ConfigError(
            f"`snapshot` = {task!r} needs a run with `training.task_snapshots: true`; "
            "this one kept the chosen model alone"
        )
    if task not in tasks:
        raise ConfigError(
            f"`snapshot` must be one of {sorted(tasks)}, the tasks with a metric of "
            "their own (a regression with a pure ranking loss has none: choose the "
            "run's step by `training.monitor: task/ndcg@10`). Received: "
            f"{task!r}"
        )
    return int(tasks[task]["step"])
