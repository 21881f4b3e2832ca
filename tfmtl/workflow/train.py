"""Dataset directory + experiment -> run directory."""

from __future__ import annotations

import dataclasses
import pathlib
import platform
import shutil
from typing import Any, NamedTuple

from tfmtl import build
from tfmtl._keras import tf
from tfmtl.errors import ConfigError, DataError
from tfmtl.files import check_target
from tfmtl.progress import Listener, Silent
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.manifest import DatasetManifest, read_dataset
from tfmtl.training.checkpoint import restore_smearing
from tfmtl.training.loop import Loop, Outcome, Watcher
from tfmtl.training.monitor import check_monitor
from tfmtl.training.rundir import RunDirectory
from tfmtl.versions import versions
from tfmtl.workflow.calibrators import (
    check_calibration,
    check_sampling,
    fit_calibrators,
    sampling_note,
)
from tfmtl.workflow.session import Session, make_model

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
        tasks: Task to its own `metric` on validation, the best `value`, its `step`,
            and the step at which it `stopped` for want of a better one, or None.
        snapshots: Whether the models of those steps were kept.
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
    tasks: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    snapshots: bool = False


def train(
    experiment: Experiment,
    dataset: str | pathlib.Path,
    run: str | pathlib.Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    refit: bool = False,
    session: Session | None = None,
    watcher: Watcher | None = None,
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
        session: Holds what an earlier run of this process was prepared with, for runs
            that differ in numbers alone; none is kept where None.
        watcher: Told about each evaluation, and may end training there. A run that it
            ended goes on where it is resumed once `result.json` is gone.
        listener: Told about the progress.

    Returns:
        The chosen step and its metrics.

    Raises:
        ConfigError: Experiment and data set do not fit, the monitored metric is
            undefined on the validation split, sampling cannot be corrected as asked, or
            `run` holds something.
        DataError: The data set is damaged or a split is empty.
        TrainingError: A loss is not finite.
        Exception: Whatever the calibration raises after training. The run is finished
            then, without calibrators and without a refit.
    """
    build.check(experiment)
    directory = pathlib.Path(dataset)
    manifest = fit_manifest(experiment, read_dataset(directory))
    check_monitor(experiment, manifest)
    joint = build.trains_joint(experiment)
    check_sampling(manifest, refit=refit, joint=joint)
    check_calibration(experiment)
    listener = listener or Silent()
    if note := sampling_note(manifest):
        listener.note(note)
    target = RunDirectory(run)
    over = resume and target.finished
    # Before an old run goes: what only the data set can tell is refused here.
    prepared = None
    if not over:
        session = session or Session()
        prepared = session.prepare(experiment, manifest, directory)
    _prepare(target, experiment, manifest, directory, resume, overwrite)
    if prepared is None:
        result = TrainResult(**{**target.result(), "run": str(run)})
        if result.refit or not refit:
            listener.note("the run is finished already")
            return result
    else:
        loop = Loop(
            prepared.trainer,
            prepared.reader,
            prepared.evaluator,
            target,
            experiment.training,
            listener,
            diagnostics=prepared.diagnostics,
            watcher=watcher,
        )
        outcome = _fit(loop, resume)
        if session is not None:
            session.signal = loop.signal
        result = TrainResult(
            run=str(run),
            step=outcome.step,
            monitor=experiment.training.monitor,
            value=outcome.value,
            steps=outcome.steps,
            reason=outcome.reason,
            parameters=sum(int(tf.size(v)) for v in prepared.model.trainable_variables),
            metrics=target.metrics_at(outcome.step),
            tasks=outcome.tasks,
            snapshots=experiment.training.task_snapshots,
        )
        if experiment.calibration.method != "none":
            # Before the refit, which trains on the rows that calibrators are fitted on.
            try:
                fit_calibrators(experiment, manifest, directory, target, result.step)
            except Exception:
                # The model is whole without: `tfmtl calibrate` may fit them later.
                target.finish(dataclasses.asdict(result))
                listener.note(
                    "the calibrators could not be fitted; the run is finished without "
                    f"them. Fit them with `tfmtl calibrate {run}`"
                )
                raise
    if refit:
        again = RunDirectory(target.path / REFIT)
        if not (resume and again.exists):
            again.begin(experiment, target.facts())
        planned = with_stops(experiment, result.tasks)
        of_run = Chosen(result.step, target.checkpoints)
        _fit(_refit(planned, manifest, directory, again, listener, of_run), resume)
        result = dataclasses.replace(result, refit=True)
    target.finish(dataclasses.asdict(result))
    return result


def with_stops(experiment: Experiment, tasks: dict[str, dict[str, Any]]) -> Experiment:
    """The experiment in which tasks stop where a run stopped them.

    A refit has no validation split to lose patience on.

    Args:
        experiment: Of the run.
        tasks: As in its `TrainResult`.
    """
    specs = dict(experiment.training.tasks)
    for name, found in tasks.items():
        if found["stopped"] is not None:
            specs[name] = specs[name].model_copy(update={"stop": found["stopped"]})
    training = experiment.training.model_copy(update={"tasks": specs})
    return experiment.model_copy(update={"training": training})


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


def _refit(
    experiment: Experiment,
    manifest: DatasetManifest,
    directory: pathlib.Path,
    run: RunDirectory,
    listener: Listener,
    chosen: Chosen,
) -> Loop:
    """The loop on train + validation, as long as the chosen model was trained."""
    model = make_model(experiment, manifest, directory)
    # A refit repeats the chosen run's learning rates: planned on its training rows.
    first = build.make_reader(experiment, manifest, directory, "train", train=True)
    per_epoch = first.batches_per_epoch
    spec = experiment.training
    planned = spec.steps or spec.epochs * per_epoch
    trainer = build.make_trainer(experiment, model, planned, per_epoch)
    # No rows are left to estimate it on: the chosen model's own holds best.
    restore_smearing(model, chosen.checkpoints, chosen.step)
    splits = ("train", "validation")
    reader = build.make_reader(experiment, manifest, directory, *splits, train=True)
    return Loop(trainer, reader, None, run, spec, listener, chosen.step)


def _fit(loop: Loop, resume: bool) -> Outcome:
    for line in loop.trainer.model.notes():
        loop.listener.note(line)
    return loop.fit(resume=resume)
