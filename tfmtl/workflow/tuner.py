"""keras-tuner's loop: an oracle proposes, a trial runs, the oracle is told."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from typing import Any

import keras_tuner
from keras_tuner.src.engine.base_tuner import BaseTuner
from keras_tuner.src.engine.trial import TrialStatus

from tfmtl.progress import Listener
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.oracles.outcomes import SCORE
from tfmtl.tuning.records import TrialRecord
from tfmtl.workflow.chief_client import ChiefClient
from tfmtl.workflow.search_directory import ORACLE, SearchDirectory
from tfmtl.workflow.trials import Trials

_IDLE_SECONDS = 0.2


class Tuner(BaseTuner):
    """Runs what an oracle proposes, in this process.

    The oracle is asked directly, or through keras-tuner's chief where its environment
    variables name one. A trial that is over already is told again and not run again.

    Args:
        oracle: Proposes.
        trials: Runs.
        values: Hyper-parameters of keras-tuner to values by dotted path.
        goal: Bounds are numbers.
        directory: Of the search; says whether it is over.
        listener: Told about the trials.
    """

    def __init__(
        self,
        oracle: Any,
        trials: Trials,
        values: Callable[[Any], dict[str, Any]],
        goal: Goal,
        directory: SearchDirectory,
        listener: Listener,
    ) -> None:
        # It prints that it reloads.
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(oracle, directory=str(directory.path), project_name=ORACLE)
        if self._is_worker():
            self.oracle = ChiefClient(oracle, lambda: directory.over)
        self._trials = trials
        self._values = values
        self._goal = goal
        self._listener = listener

    def search(self) -> None:
        """Runs trials until the oracle has no more.

        Not the base class's loop, which takes every exception for a failed trial: what
        is neither a failure of the trial's own nor foreseen ends the search.
        """
        while True:
            trial = self.oracle.create_trial(self.tuner_id)
            if trial.status == TrialStatus.STOPPED:
                return
            if trial.status == TrialStatus.IDLE:
                # Others' trials decide what comes next.
                time.sleep(_IDLE_SECONDS)
                continue
            try:
                metrics = self.run_trial(trial)
                self.oracle.update_trial(trial.trial_id, metrics)
                trial.status = TrialStatus.COMPLETED
            except keras_tuner.errors.FailedTrialError as error:
                trial.status, trial.message = TrialStatus.FAILED, str(error)
            self.oracle.end_trial(trial)

    def run_trial(self, trial: Any) -> dict[str, float]:
        """The validation metrics of a trial's chosen step, and its score.

        Raises:
            FailedTrialError: It has none; the search goes on.
        """
        hyperparameters = trial.hyperparameters
        extra = hyperparameters.values
        parent = extra.get("tuner/trial_id")
        record = self._trials.run(
            name_of(trial.trial_id),
            self._values(hyperparameters),
            epochs=extra.get("tuner/epochs"),
            parent=None if parent is None else name_of(parent),
        )
        self._listener.note(described(record, self._goal))
        self._listener.advance()
        if not record.usable:
            raise keras_tuner.errors.FailedTrialError(record.reason)
        return {**record.metrics, SCORE: self._goal.score(record.metrics)}

    def save(self) -> None:
        """Leaves the state to the oracle, which saves itself."""

    def reload(self) -> None:
        """Reads the oracle's state, where the oracle is in this process."""
        if not self._is_worker():
            self.oracle.reload()

    def _get_tuner_fname(self) -> str:
        # The base class reloads where this file is.
        return str(self.oracle._get_oracle_fname())


def name_of(trial_id: str) -> str:
    """keras-tuner's id as the name of a trial: `7` is `0007`."""
    return f"{int(trial_id):04d}"


def described(record: TrialRecord, goal: Goal) -> str:
    """A line about a trial."""
    values = ", ".join(f"{k}={_short(v)}" for k, v in record.values.items())
    if not record.usable:
        return f"trial {record.trial} failed: {record.reason} ({values})"
    found = ", ".join(f"{m} {record.metrics[m]:.4f}" for m in goal.metrics)
    kept = "" if goal.violation(record.metrics) == 0 else ", breaks a bound"
    how = f", as trial {record.reused}" if record.reused else ""
    how += ", pruned" if record.status == "pruned" else ""
    return f"trial {record.trial}: {found}{kept}{how} ({values})"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
