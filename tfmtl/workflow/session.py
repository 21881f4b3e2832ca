"""Model, trainer and readers of a run, kept for the next run where they can be.

Tracing a training step takes longer than a short run. Trials of a search that differ
in loss weights and learning rates alone train in one graph: the variables go back to
where they began, and the numbers that differ are assigned.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import pathlib
import signal
import tempfile
from typing import Any

from tfmtl import build
from tfmtl._keras import keras, tf
from tfmtl.balance import BALANCERS
from tfmtl.balance.fixed import Fixed
from tfmtl.data.read import Reader
from tfmtl.models import MultiTaskModel
from tfmtl.optim.groups import has_free_rate
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.training.diagnostics import Diagnostics
from tfmtl.training.evaluation import SplitEvaluator
from tfmtl.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What training needs, in the state in which training begins.

    Attributes:
        model: Has its variables.
        trainer: Of the model.
        reader: Of the training rows.
        evaluator: Of the validation rows.
        diagnostics: Of the trainer.
        reused: Whether an earlier run trained in these graphs.
    """

    model: MultiTaskModel
    trainer: Trainer
    reader: Reader
    evaluator: SplitEvaluator
    diagnostics: Diagnostics
    reused: bool = False


class Session:
    """Prepares runs, one after the other.

    Args:
        keep: Keep what a run was prepared with, for a next one that it fits.

    Attributes:
        prepared: What is kept; None before the first run, and without `keep`.
        signal: That came when a run was over, for who has more of them to run.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self._key = ""
        self.signal: int | None = None
        self.prepared: Prepared | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def check_signal(self) -> None:
        """Raises a signal that came when a run had nothing left to stop.

        It was not for that run alone, but for all that were to come.
        """
        if self.signal is not None:
            signal.raise_signal(self.signal)

    def prepare(
        self, experiment: Experiment, manifest: DatasetManifest, directory: pathlib.Path
    ) -> Prepared:
        """The parts of a run, their variables as they are before the first step.

        Args:
            experiment: What is asked.
            manifest: Of the data set, with the experiment's own specification in it.
            directory: The dataset directory.
        """
        key = json.dumps([str(directory.absolute()), _graph_of(experiment)])
        if self.prepared is not None and key == self._key:
            return self._again(experiment, self.prepared)
        if self.prepared is not None:
            self._forget()
        prepared = _prepare(experiment, manifest, directory)
        if self._keep:
            self._folder = tempfile.TemporaryDirectory(prefix="tfmtl-session-")
            self._state(prepared).write(self._file)
            self._key, self.prepared = key, prepared
        return prepared

    def _again(self, experiment: Experiment, prepared: Prepared) -> Prepared:
        """What is kept, as it was before its first step, with other numbers."""
        keras.utils.set_random_seed(experiment.seed)
        self._state(prepared).read(self._file).assert_consumed()
        prepared.trainer.optimizers.change(experiment.optimizers)
        balancer = prepared.trainer.balancer
        if type(balancer) is Fixed:
            balancer.change(Fixed.Config.model_validate(experiment.balancer.config))
        self.prepared = dataclasses.replace(prepared, reused=True)
        return self.prepared

    def _forget(self) -> None:
        assert self._folder is not None
        self._folder.cleanup()
        self.prepared, self._folder, self._key = None, None, ""
        keras.backend.clear_session()
        gc.collect()

    @property
    def _file(self) -> str:
        assert self._folder is not None
        return str(pathlib.Path(self._folder.name) / "state")

    @staticmethod
    def _state(prepared: Prepared) -> Any:
        return tf.train.Checkpoint(
            model=prepared.model,
            balancer=prepared.trainer.balancer,
            optimizers=prepared.trainer.optimizers.composite,
        )


def make_model(
    experiment: Experiment, manifest: DatasetManifest, directory: pathlib.Path
) -> MultiTaskModel:
    """The model with the initial variables of the experiment's seed."""
    keras.utils.set_random_seed(experiment.seed)
    if experiment.training.deterministic:
        tf.config.experimental.enable_op_determinism()
    return build.make_model(experiment, manifest, directory)


def _prepare(
    experiment: Experiment, manifest: DatasetManifest, directory: pathlib.Path
) -> Prepared:
    model = make_model(experiment, manifest, directory)
    reader = build.make_reader(experiment, manifest, directory, "train", train=True)
    per_epoch = reader.batches_per_epoch
    spec = experiment.training
    planned = spec.steps or spec.epochs * per_epoch
    trainer = build.make_trainer(experiment, model, planned, per_epoch)
    trainer.balancer.check_plan(planned)
    evaluator = build.make_evaluator(experiment, model, manifest, directory)
    return Prepared(model, trainer, reader, evaluator, Diagnostics(trainer))


def _graph_of(experiment: Experiment) -> dict[str, Any]:
    """The experiment without the numbers that graphs read from variables."""
    document = experiment.model_dump(mode="json", by_alias=True)
    for pattern, spec in experiment.optimizers.items():
        if has_free_rate(spec):
            document["optimizers"][pattern]["learning_rate"] = None
    if BALANCERS.get(experiment.balancer.class_name) is Fixed:
        document["balancer"]["config"] = None
    return document
