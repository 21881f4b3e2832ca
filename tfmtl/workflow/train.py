"""Dataset directory + experiment -> run directory."""

from __future__ import annotations

import dataclasses
import pathlib
import platform
import shutil
from typing import Any, NamedTuple

from tfmtl import build
from tfmtl._keras import keras, tf
from tfmtl.errors import ConfigError, DataError
from tfmtl.files import check_target
from tfmtl.progress import Listener, Silent
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.manifest import DatasetManifest, read_dataset
from tfmtl.training.checkpoint import restore_smearing
from tfmtl.training.evaluation import SplitEvaluator
from tfmtl.training.loop import Loop, Outcome
from tfmtl.training.monitor import check_monitor
from tfmtl.training.rundir import RunDirectory
from tfmtl.versions import versions

REFIT = "refit"


class Chosen(NamedTuple):
    """The model that a refit repeats.

    Attributes:
        step: Its step.
        checkpoints: The folder that holds it.
    """

    step: int
    checkpoints: pathlib.Path


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a run found.

    Attributes:
        run: The run directory.
        step: The chosen step.
        monitor: Name of the monitored metric.
        value: Its value on the validation split at that step.
        steps: Steps done in all, before any refit.
        reason: Why training ended.
        parameters: Trainable numbers of the model.
        metrics: Validation metrics at the chosen step.
        refit: Whether a model was refitted on train + validation.
    """

    run: str
    step: int
    monitor: str
    value: float | None
    steps: int
    reason: str
    parameters: int
    metrics: dict[str, float]
    refit: bool = False


def train(
    experiment: Experiment,
    dataset: str | pathlib.Path,
    run: str | pathlib.Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    refit: bool = False,
    listener: Listener | None = None,
) -> TrainResult:
    """Trains, choosing the best step on the validation split.

    Args:
        experiment: What to train; its `dataset` section must be the one the data set
            was made with, as far as records depend on it.
        dataset: A dataset directory.
        run: The run directory to write.
        resume: Continue from the last checkpoint, if there is one. A run that is
            finished is left as it is, but for a refit that it lacks.
        overwrite: Replace what the folder holds.
        refit: Afterwards train a new model on train + validation for the chosen number
            of steps; evaluation and export then use that one.
        listener: Told about the progress.

    Returns:
        The chosen step and its metrics.

    Raises:
        ConfigError: Experiment and data set do not fit, the monitored metric is
            undefined on the validation split, or `run` holds something.
        DataError: The data set is damaged or a split is empty.
        TrainingError: A loss is not finite.
    """
    build.check(experiment)
    directory = pathlib.Path(dataset)
    manifest = fit_manifest(experiment, read_dataset(directory))
    check_monitor(experiment, manifest)
    listener = listener or Silent()
    target = RunDirectory(run)
    _prepare(target, experiment, manifest, directory, resume, overwrite)
    if resume and target.finished:
        result = TrainResult(**{**target.result(), "run": str(run)})
        if result.refit or not refit:
            listener.note("the run is finished already")
            return result
    else:
        outcome, parameters = _fit(
            experiment, manifest, directory, target, resume, listener
        )
        result = TrainResult(
            run=str(run),
            step=outcome.step,
            monitor=experiment.training.monitor,
            value=outcome.value,
            steps=outcome.steps,
            reason=outcome.reason,
            parameters=parameters,
            metrics=target.metrics_at(outcome.step),
        )
    if refit:
        again = RunDirectory(target.path / REFIT)
        if not (resume and again.exists):
            again.begin(experiment, target.facts())
        _fit(
            experiment,
            manifest,
            directory,
            again,
            resume,
            listener,
            Chosen(result.step, target.checkpoints),
        )
        result = dataclasses.replace(result, refit=True)
    target.finish(dataclasses.asdict(result))
    return result


def fit_manifest(experiment: Experiment, manifest: DatasetManifest) -> DatasetManifest:
    """The manifest with the experiment's own data specification in it.

    What the records do not depend on (widths, poolings, losses) comes from the
    experiment; in everything else the two must agree.

    Raises:
        ConfigError: They do not; names the first difference.
        DataError: The training split is empty.
    """
    asked = experiment.dataset.records_part()
    made = manifest.dataset.records_part()
    for key in asked:
        if asked[key] != made[key]:
            raise ConfigError(
                f"`dataset.{key}` of the experiment is not what the data set was made "
                f"with. Experiment: {_short(asked[key], made[key])}; data set: "
                f"{_short(made[key], asked[key])}. Run `tfmtl preprocess` again"
            )
    if manifest.splits["train"].rows == 0:
        raise DataError("the training split has no rows")
    return manifest.model_copy(update={"dataset": experiment.dataset})


def _short(value: Any, other: Any) -> str:
    """The part of a specification that differs, in at most 200 characters."""
    if isinstance(value, list) and isinstance(other, list):
        value = [v for v in value if v not in other]
    return str(value)[:200]


def _prepare(
    run: RunDirectory,
    experiment: Experiment,
    manifest: DatasetManifest,
    directory: pathlib.Path,
    resume: bool,
    overwrite: bool,
) -> None:
    if resume and run.exists:
        run.check_same(experiment, manifest.schema_hash, manifest.content_id)
        return
    if not resume:
        check_target(run.path, overwrite=overwrite)
        if run.path.exists():
            shutil.rmtree(run.path)
    facts = {
        "dataset": str(directory.absolute()),
        "schema_hash": manifest.schema_hash,
        "content_id": manifest.content_id,
        "versions": versions(),
        "python": platform.python_version(),
        "devices": [d.device_type for d in tf.config.list_physical_devices()],
    }
    run.begin(experiment, facts)


def _fit(
    experiment: Experiment,
    manifest: DatasetManifest,
    directory: pathlib.Path,
    run: RunDirectory,
    resume: bool,
    listener: Listener,
    chosen: Chosen | None = None,
) -> tuple[Outcome, int]:
    """Trains once: on train, or on train + validation as long as the chosen model."""
    spec = experiment.training
    keras.utils.set_random_seed(experiment.seed)
    if spec.deterministic:
        tf.config.experimental.enable_op_determinism()
    splits = ("train",) if chosen is None else ("train", "validation")
    reader = build.make_reader(experiment, manifest, directory, *splits, train=True)
    # A refit repeats the chosen run's learning rates: planned on its training rows.
    first = build.make_reader(experiment, manifest, directory, "train", train=True)
    planned = spec.steps or spec.epochs * first.batches_per_epoch
    model = build.make_model(experiment, manifest, directory)
    for line in model.notes():
        listener.note(line)
    trainer = build.make_trainer(experiment, model, planned)
    evaluator = None
    if chosen is not None:
        # No rows are left to estimate it on: the chosen model's own holds best.
        restore_smearing(model, chosen.checkpoints, chosen.step)
    else:
        evaluator = SplitEvaluator(
            model, build.make_reader(experiment, manifest, directory, "validation")
        )
    steps = chosen.step if chosen is not None else None
    loop = Loop(trainer, reader, evaluator, run, spec, listener, steps)
    parameters = sum(int(tf.size(v)) for v in model.trainable_variables)
    return loop.fit(resume=resume), parameters
