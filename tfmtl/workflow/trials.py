"""One trial of a search: values in, a run directory and a record out."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from tfmtl._keras import tf
from tfmtl.errors import ConfigError, DataError, TrainingError
from tfmtl.files import locked
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.load import parse_experiment
from tfmtl.training.loop import Interrupted
from tfmtl.training.rundir import RESULT, RunDirectory
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.oracles.pruning import MedianRule
from tfmtl.tuning.records import (
    EARLIER,
    TRIALS,
    Status,
    TrialRecord,
    hash_of,
    read_record,
    read_records,
    set_aside,
)
from tfmtl.workflow.attempts import MOST_ATTEMPTS, Attempts
from tfmtl.workflow.session import Session
from tfmtl.workflow.train import train

RUN = "run"
PRUNED = "median"
"""Why a trial ended that the median rule stopped."""
RUNG = "rung"
"""Why a trial ended that a search may go on with."""
LOCK = "lock"
FAILURES = (
    TrainingError,
    ConfigError,
    MemoryError,
    tf.errors.ResourceExhaustedError,
)
"""What a trial may fail of while the search goes on: it diverged, its values do not go
together, or memory ran out. Anything else is a mistake in a program."""


class Trials:
    """Runs the trials of a search.

    Args:
        apply: Values by dotted path to the document of the trial's experiment.
        goal: Bounds are numbers.
        dataset: Of an experiment, its dataset directory.
        directory: Of the search.
        rule: Prunes; None runs every trial to its end.
        worker: Who runs them.
        session: Shared by the trials.
    """

    def __init__(
        self,
        apply: Callable[[Mapping[str, Any]], dict[str, Any]],
        goal: Goal,
        dataset: Callable[[Experiment], pathlib.Path],
        directory: pathlib.Path,
        *,
        rule: MedianRule | None = None,
        worker: str = "tuner0",
        session: Session | None = None,
    ) -> None:
        self._apply = apply
        self._goal = goal
        self._dataset = dataset
        self._directory = directory
        self._rule = rule
        self._worker = worker
        self._session = session or Session(keep=True)

    def folder(self, trial: str) -> pathlib.Path:
        """Where a trial's files are."""
        return self._directory / TRIALS / trial

    def run(
        self,
        trial: str,
        values: Mapping[str, Any],
        *,
        epochs: int | None = None,
        parent: str | None = None,
    ) -> TrialRecord:
        """Trains, unless the trial, or one that is its equal, is over already.

        Args:
            trial: Its name.
            values: By dotted path.
            epochs: Train until so many are done in all, where the experiment has more
                (its schedules are planned for those); None is to the end.
            parent: Trial to go on from, of the same values, that did fewer epochs.

        Returns:
            The record, which is written.

        Raises:
            Interrupted: A signal came; the trial goes on when it is run again.
        """
        folder, written = self.folder(trial), dict(values)
        try:
            experiment = parse_experiment(self._apply(values), f"trial {trial}")
        except ConfigError as error:
            return self._known(folder, written, None) or self._written(
                self._failed(trial, written, str(error), 0, "")
            )
        if epochs is not None and epochs >= experiment.training.epochs:
            epochs = None
        if record := self._known(folder, written, epochs):
            return record
        identity = hash_of(experiment)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / LOCK):
            # Whoever had the trial before may have ended it meanwhile.
            record = read_record(folder)
            if record is None and epochs is None:
                record = self._equal(trial, written, identity)
            if record is None:
                record = self._train(
                    trial, written, experiment, identity, epochs, parent
                )
                record = dataclasses.replace(record, epochs=epochs)
            self._written(record)
        self._session.check_signal()
        return record

    def _known(
        self, folder: pathlib.Path, values: dict[str, Any], epochs: int | None
    ) -> TrialRecord | None:
        """The record of a trial that is over; another trial's is moved away."""
        record = read_record(folder)
        if record is None:
            return None
        same = json.dumps(record.values) == json.dumps(values)
        if same and (record.epochs == epochs or not record.usable):
            return record
        set_aside(self._directory, folder.name)
        return None

    def _written(self, record: TrialRecord) -> TrialRecord:
        record.write(self.folder(record.trial))
        return record

    def _train(
        self,
        trial: str,
        values: dict[str, Any],
        experiment: Experiment,
        identity: str,
        epochs: int | None,
        parent: str | None,
    ) -> TrialRecord:
        run = self.folder(trial) / RUN
        seed = experiment.seed
        if run.exists() and not is_of(run, identity):
            shutil.rmtree(run)
            Attempts.forget(self.folder(trial))
        attempts = Attempts(self.folder(trial))
        if attempts.hopeless and not RunDirectory(run).finished:
            reason = (
                f"its process was killed {MOST_ATTEMPTS} times between two "
                "checkpoints; for memory, most likely"
            )
            return self._failed(trial, values, reason, seed, identity)
        attempts.begin()
        if parent is not None and not run.exists():
            self._inherit(parent, run)

        def watcher(epochs_done: float, metrics: dict[str, float]) -> str:
            if epochs is not None and epochs_done >= epochs:
                return RUNG
            return self._pruned(trial)

        try:
            result = train(
                experiment,
                self._dataset(experiment),
                run,
                resume=True,
                session=self._session,
                watcher=watcher,
            )
        except Interrupted:
            raise
        except FAILURES as error:
            reason = f"{type(error).__name__}: {str(error)[:500]}"
            return self._failed(trial, values, reason, seed, identity)
        finally:
            # Only a process that is killed does not come here.
            attempts.end()
        missing = [m for m in self._goal.metrics if m not in result.metrics]
        if missing:
            reason = f"undefined on the validation split: {missing}"
            return self._failed(trial, values, reason, seed, identity)
        status: Status = "pruned" if result.reason == PRUNED else "finished"
        return TrialRecord(
            trial=trial,
            values=values,
            status=status,
            reason=result.reason,
            metrics=result.metrics,
            step=result.step,
            steps=result.steps,
            seconds=attempts.seconds,
            seed=seed,
            experiment=identity,
            worker=self._worker,
        )

    def _equal(
        self, trial: str, values: dict[str, Any], identity: str
    ) -> TrialRecord | None:
        """The record of a finished trial of the same experiment, under this name."""
        known = {r.trial: r for r in read_records(self._directory) if r.trial != trial}
        # An earlier trial may have had any name, this one's too.
        for folder in sorted((self._directory / EARLIER).glob("*/")):
            if record := read_record(folder):
                known[f"{EARLIER}/{folder.name}"] = record
        for origin, other in known.items():
            whole = other.status == "finished" and other.reason != RUNG
            if whole and other.experiment == identity:
                return dataclasses.replace(
                    other,
                    trial=trial,
                    values=values,
                    seconds=0.0,
                    reused=other.reused or origin,
                    worker=self._worker,
                    epochs=None,
                )
        return None

    def _failed(
        self, trial: str, values: dict[str, Any], reason: str, seed: int, identity: str
    ) -> TrialRecord:
        return TrialRecord(
            trial=trial,
            values=values,
            status="failed",
            reason=reason,
            metrics={},
            step=0,
            steps=0,
            seconds=0.0,
            seed=seed,
            experiment=identity,
            worker=self._worker,
        )

    def _inherit(self, parent: str, run: pathlib.Path) -> None:
        """Copies a run to go on with it: from now on it is not finished."""
        record = read_record(self.folder(parent))
        origin = self.folder((record and record.reused) or parent) / RUN
        temporary = run.with_name(".inherited")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(origin, temporary, ignore=shutil.ignore_patterns(RESULT))
        temporary.rename(run)

    def _pruned(self, trial: str) -> str:
        """The reason to stop a trial at the evaluation that it just wrote down."""
        if self._rule is None:
            return ""
        own = self._history(trial)
        over = read_records(self._directory)
        others = [self._history(r.trial) for r in over if r.usable and not r.reused]
        return PRUNED if self._rule.stops(own, others) else ""

    def _history(self, trial: str) -> list[float]:
        """A trial's scores, evaluation by evaluation."""
        events = RunDirectory(self.folder(trial) / RUN).events()
        found = [e["metrics"] for e in events if e["kind"] == "validation"]
        known = [m for m in found if set(self._goal.metrics) <= set(m)]
        return [self._goal.score(metrics) for metrics in known]


def is_of(run: pathlib.Path, identity: str) -> bool:
    """Whether a run directory is of an experiment."""
    try:
        return hash_of(RunDirectory(run).experiment()) == identity
    except DataError:
        return False
