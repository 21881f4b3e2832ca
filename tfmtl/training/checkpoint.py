"""Checkpoints: folders that are whole or absent, with the position in the data."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from typing import Any

from tfmtl._keras import tf
from tfmtl.errors import TrainingError
from tfmtl.failpoints import failpoint
from tfmtl.files import atomic_directory

# TensorFlow's reader says IndexError for a file that ends too early, RuntimeError for
# other damage, and the rest where names or shapes do not fit.
_UNREADABLE = (AssertionError, ValueError, IndexError, RuntimeError, tf.errors.OpError)


@dataclasses.dataclass
class Progress:
    """Where a run is: everything a resumed run needs beside the variables.

    Attributes:
        step: Updates done.
        epoch: Current epoch.
        batch: Batches of it that are done.
        best_value: Best value of the monitored metric.
        best_step: Its step; its variables are in `best-<step>`.
        stale: Evaluations since then.
        tasks: Task to its own best and its patience, see `watch.TaskWatch`.
        metrics_bytes: Length of `metrics.jsonl`; a resumed run cuts it to this.
        finished: Whether training is over.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_value: float | None = None
    best_step: int | None = None
    stale: int = 0
    tasks: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    metrics_bytes: int = 0
    finished: bool = False


class Checkpoints:
    """The checkpoints of one run.

    `step-<n>` holds all state and the progress; `best-<n>` the model alone. Each is
    written beside and renamed. An older one goes when a newer one stands.

    Args:
        directory: Folder of the checkpoints.
        trainer: Holds model, balancer and optimizers.
        task_snapshots: Keep the models of the tasks' own best steps, too.
    """

    def __init__(
        self, directory: pathlib.Path, trainer: Any, task_snapshots: bool = False
    ) -> None:
        self.directory = directory
        self.task_snapshots = task_snapshots
        self._all = tf.train.Checkpoint(
            model=trainer.model,
            balancer=trainer.balancer,
            optimizers=trainer.optimizers.composite,
        )
        self._model = tf.train.Checkpoint(model=trainer.model)

    def save(self, progress: Progress) -> None:
        """Saves everything, then drops what it makes superfluous."""
        name = f"step-{progress.step:010d}"
        with atomic_directory(
            self.directory / name, overwrite=True, name="checkpoint"
        ) as folder:
            self._all.write(str(folder / "state"))
            failpoint("checkpoint/inside")
            text = json.dumps(dataclasses.asdict(progress), indent=1)
            (folder / "progress.json").write_text(text)
        steps = {progress.best_step}
        if self.task_snapshots:
            steps |= {mine["step"] for mine in progress.tasks.values()}
        kept = {name, *(f"best-{step or 0:010d}" for step in steps)}
        for folder in self.directory.iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder)

    def save_best(self, step: int) -> None:
        """Saves the model's variables as the best so far."""
        with atomic_directory(
            self.directory / f"best-{step:010d}", overwrite=True, name="best"
        ) as folder:
            self._model.write(str(folder / "model"))

    def latest(self) -> pathlib.Path | None:
        """The newest whole checkpoint."""
        found = sorted(self.directory.glob("step-*/progress.json"))
        return found[-1].parent if found else None

    def restore(self) -> Progress | None:
        """Restores the newest checkpoint; None where there is none.

        Raises:
            TrainingError: Its variables are not this model's.
        """
        folder = self.latest()
        if folder is None:
            return None
        try:
            self._all.read(str(folder / "state")).assert_consumed()
        except _UNREADABLE as error:
            raise TrainingError(
                f"the checkpoint {folder.name!r} does not fit this experiment's model "
                f"({type(error).__name__}): was it changed since the run began?"
            ) from error
        return Progress(**json.loads((folder / "progress.json").read_text()))


def restore_model(model: Any, directory: pathlib.Path, step: int) -> None:
    """Restores the variables of `best-<step>`.

    Raises:
        TrainingError: It is missing or does not fit the model.
    """
    _restore(tf.train.Checkpoint(model=model), directory, step)


def restore_smearing(model: Any, directory: pathlib.Path, step: int) -> None:
    """Restores the smearing factors of `best-<step>` alone.

    Raises:
        TrainingError: It is missing or has none.
    """
    if model.smearing:
        part = tf.train.Checkpoint(smearing=model.smearing)
        _restore(tf.train.Checkpoint(model=part), directory, step)


def _restore(wanted: Any, directory: pathlib.Path, step: int) -> None:
    path = directory / f"best-{step:010d}" / "model"
    try:
        status = wanted.read(str(path))
        status.assert_existing_objects_matched().expect_partial()
    except _UNREADABLE as error:
        raise TrainingError(
            f"the model of step {step} in {str(directory)!r} is missing, damaged or "
            f"does not fit this experiment ({type(error).__name__}: {str(error)[:200]})"
        ) from error
