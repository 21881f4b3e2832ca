"""A model of a run + the validation split -> `calibration.json`."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from tfmtl import build
from tfmtl.calibration import Finish
from tfmtl.calibration.cells import OutputLogits, calibrate_outputs
from tfmtl.errors import ConfigError
from tfmtl.models.base import MultiTaskModel
from tfmtl.schema.calibration import Calibration, CalibrationSpec, write_calibration
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.loss import BCE, LossSpec
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.schema.sampling import effects, without_correction
from tfmtl.schema.task import TaskSpec, outputs_of
from tfmtl.training.checkpoint import restore_model
from tfmtl.training.evaluation import predictions
from tfmtl.training.rundir import RunDirectory


def check_sampling(
    manifest: DatasetManifest, *, refit: bool, joint: bool = False
) -> None:
    """Refuses a correction of sampling that would be wrong.

    Args:
        manifest: With the experiment's data specification in it.
        refit: Whether train + validation are to be trained on.
        joint: Whether the loss of a task with `given` is on its joint output.

    Raises:
        ConfigError: An output has no exact offset under `export` or `training`, or is
            fitted by a loss that estimates no log-odds; or a refit would mix sampled
            training rows with whole validation rows.
    """
    spec = manifest.dataset.sampling
    if spec is None:
        return
    if spec.correction in ("export", "training"):
        exposed = manifest.sampling.exposed if manifest.sampling else {}
        found = effects(manifest.dataset.tasks, spec, exposed)
        if wrong := without_correction(found, spec):
            raise ConfigError(wrong)
        # A product of fitted steps is moved by these; one that is fitted, by itself.
        moved = {"shift", "product"} if joint else {"shift"}
        fitted = {n: t for n, t in _fitted(manifest, joint) if found[n] in moved}
        other = {n: _without_log_odds(t.fitted) for n, t in fitted.items()}
        other = {n: loss for n, loss in other.items() if loss}
        if other:
            raise ConfigError(
                f"`dataset.sampling.correction: {spec.correction}` moves log-odds, "
                "which only `loss: bce` with `smoothing: 0` estimates. Received for "
                f"outputs that it moves: {other}; use that loss, or `correction: "
                "weights` (`none`, if only the ranking counts)"
            )
    if refit and min(spec.rates(manifest.dataset.scenario_values)) < 1:
        raise ConfigError(
            "`refit` trains on train + validation, but `dataset.sampling` thins the "
            "training split alone: the mixture has no rate to correct. Train without "
            "--refit, or preprocess without `sampling`"
        )


def check_calibration(experiment: Experiment) -> None:
    """Refuses calibrators of an experiment without a probability, before it trains.

    Raises:
        ConfigError: There is no binary task.
    """
    if experiment.calibration.method != "none":
        _binary_outputs(experiment.dataset.tasks)


def _binary_outputs(tasks: Sequence[TaskSpec]) -> dict[str, TaskSpec]:
    found = {n: t for n, t in outputs_of(tasks).items() if t.type == "binary"}
    if not found:
        raise ConfigError(
            "`calibration` is for binary tasks, of which there is none; tasks: "
            f"{[t.name for t in tasks]}"
        )
    return found


def _fitted(manifest: DatasetManifest, joint: bool) -> list[tuple[str, TaskSpec]]:
    """The outputs that losses read, and their tasks."""
    tasks = manifest.dataset.tasks
    return [(t.name if joint else t.conditional, t) for t in tasks]


def _without_log_odds(loss: LossSpec) -> str:
    """Which loss it is, if its outputs are no log-odds of the label; else empty."""
    if not isinstance(loss, BCE):
        return loss.name
    # Fitted to labels of eps/2 and 1 - eps/2, which no ratio of counts has.
    return f"bce, smoothing: {loss.smoothing}" if loss.smoothing else ""


def sampling_note(manifest: DatasetManifest) -> str:
    """What a user should know of a sampled training split; empty without sampling."""
    spec, stats = manifest.dataset.sampling, manifest.sampling
    if spec is None or stats is None:
        return ""
    meaning = {
        "export": "predictions are corrected where they are read",
        "training": "the losses correct for it, so that logits are those of all rows",
        "weights": "sampled rows weigh 1/rate in the losses",
        "none": "probabilities are the sampled rows', too high for real traffic",
    }
    return (
        f"{stats.kept:,} of {stats.rows:,} training rows were kept; "
        f"{meaning[spec.correction]}"
    )


def fit_calibrators(
    experiment: Experiment,
    manifest: DatasetManifest,
    directory: pathlib.Path,
    run: RunDirectory,
    step: int,
) -> Calibration:
    """Fits the calibrators of a run's chosen model, and writes them.

    Args:
        experiment: Of the run.
        manifest: Of its data set.
        directory: The dataset directory.
        run: Where the model's checkpoints lie, and the calibrators will.
        step: The chosen step.
    """
    model = build.make_model(experiment, manifest, directory)
    restore_model(model, run.checkpoints, step)
    spec = experiment.calibration
    found = fit_on_validation(experiment, manifest, directory, model, spec, step)
    write_calibration(found, run.path)
    return found


def fit_on_validation(
    experiment: Experiment,
    manifest: DatasetManifest,
    directory: pathlib.Path,
    model: MultiTaskModel,
    spec: CalibrationSpec,
    step: int,
) -> Calibration:
    """Calibrators of a model, fitted on the validation split.

    Args:
        experiment: Of the model.
        manifest: Of its data set.
        directory: The dataset directory.
        model: Has not seen the validation split.
        spec: Which method, by what, from how many rows; not `none`.
        step: Of the model.

    Raises:
        ConfigError: The model has no binary task, or there is no validation row.
    """
    tasks = _binary_outputs(model.tasks)
    if not manifest.splits["validation"].rows:
        raise ConfigError("`calibration` needs rows in the validation split: no rows")
    reader = build.make_reader(experiment, manifest, directory, "validation")
    logits, labels, scenario, _ = predictions(
        model, reader, Finish(manifest), logits=True
    )
    outputs = {
        name: OutputLogits(
            logits[name].astype(np.float64),
            labels[name]["labels"].astype(np.float64),
            labels[name]["weights"].astype(np.float64) if task.weight else None,
        )
        for name, task in tasks.items()
    }
    scenarios = manifest.dataset.scenario_values
    return calibrate_outputs(spec, model.tasks, outputs, scenario, scenarios, step)
