"""keras-tuner's oracles, made to survive a kill at any moment.

keras-tuner's own classes write JSON files in place, forget what a grid has done, run a
finished trial again where the kill came before the oracle's file was written, leave a
lock held where a method raises, and take seed 0 for none. `DurableOracle` replaces the
three calls of a tuner (create, update, end) and keeps the rest; `stored` has its files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from tfmtl.errors import ConfigError
from tfmtl.schema.ranges import round_digits
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.oracles import outcomes
from tfmtl.tuning.oracles.stored import OVER, StoredOracle
from tfmtl.tuning.oracles.values import Values, legal
from tfmtl.tuning.parameters import DIGITS
from tfmtl.tuning.records import TrialRecord


class DurableOracle(StoredOracle):
    """The part that all oracles share; beside one of keras-tuner's as a first base.

    What keras-tuner takes for the objective is `Goal.score`, reported as `score`.

    Args:
        hyperparameters: The space.
        goal: What `score` is computed by; bounds are numbers.
        max_trials: Trials in all; None: as many as there are.
        seed: From 0. keras-tuner's n-th draw is `Random(seed + n)`, so neighbouring
            seeds would give one sequence, shifted; they are set far apart here, and 0
            is a seed too.
        settings: What keras-tuner's own class takes beside.

    Raises:
        ConfigError: A bound is still relative to a baseline.
    """

    def __init__(
        self,
        hyperparameters: keras_tuner.HyperParameters,
        goal: Goal,
        *,
        max_trials: int | None,
        seed: int,
        **settings: Any,
    ) -> None:
        super().__init__(
            objective=keras_tuner.Objective(outcomes.SCORE, "max"),
            hyperparameters=hyperparameters,
            allow_new_entries=False,
            **settings,
        )
        relative = [str(bound) for bound in goal.bounds if bound.relative]
        if relative:
            raise ConfigError(
                "an oracle needs bounds that are numbers, see Goal.resolved. "
                f"Received: {relative}"
            )
        self.goal = goal
        # No argument above, since keras-tuner's Hyperband takes none.
        self.max_trials = max_trials
        self.seed = seed
        self._seed_state = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._max_collisions = 1000
        self.verbose = 0

    # What a tuner calls

    def create_trial(self, tuner_id: str) -> Trial:
        """The next trial of a tuner, or an empty one that says IDLE or STOPPED.

        A tuner that has one running, or had when the chief was killed, gets that; else
        one that was released. What other tuners had running when the chief was killed
        is for them to come back to: it is given away when nothing new is left.
        """
        with self._lock:
            running = self.ongoing_trials.get(tuner_id)
            if running is not None:
                outcomes.forget(running)
                return running
            self.tuner_ids.add(tuner_id)
            waiting = [
                t
                for t in self._retry_queue
                if self._owners.get(t, tuner_id) == tuner_id
            ]
            if waiting:
                return self._again(waiting[0], tuner_id)
            trial = self._new()
            if trial.status != TrialStatus.RUNNING and self._retry_queue:
                return self._again(self._retry_queue[0], tuner_id)
            if trial.status == TrialStatus.RUNNING:
                self._save_trial(trial)
                self._enter(trial)
                self.ongoing_trials[tuner_id] = trial
                self.save()
            if trial.status == TrialStatus.STOPPED and self.ongoing_trials:
                # Others': one may be gone for good, and its trial left for this tuner.
                trial.status = TrialStatus.IDLE
            if trial.status == TrialStatus.STOPPED:
                self.tuner_ids.discard(tuner_id)
            return trial

    def update_trial(
        self, trial_id: str, metrics: Mapping[str, float], step: int = 0
    ) -> Trial:
        """Takes a trial's validation metrics at a step."""
        with self._lock:
            trial = self.trials[trial_id]
            if trial_id not in self.end_order:
                outcomes.report(trial, self.goal, metrics, step)
                self._save_trial(trial)
            return trial

    def end_trial(self, trial: Trial) -> None:
        """Ends a trial: `COMPLETED`, `FAILED` or `INVALID`, which here is the same.

        A trial that is over already stays as it is. Values are the oracle's own, not
        those that came back over the wire. Any number of trials may fail.

        Raises:
            ValueError: Another status.
        """
        if trial.status not in (*OVER, TrialStatus.INVALID):
            raise ValueError(
                f"a trial ends COMPLETED, FAILED or INVALID. Received: {trial.status}"
            )
        with self._lock:
            own = self.trials[trial.trial_id]
            if own.trial_id not in self.end_order:
                own.message = trial.message
                self._end(own, trial.status == TrialStatus.COMPLETED)
                self.save()
            # Last, for the chief ends when nothing is going on.
            self._drop(own.trial_id)

    # What else the search does with it

    def start(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Tells it of trials that are over, before it proposes others.

        They are trials like its own from then on, under their names: counted in
        `max_trials`, never proposed again, data of the Gaussian process. A trial that
        it knows to be running ends. What it knows to be over and what does not fit the
        space is passed over.

        Returns:
            The records that were taken.
        """
        with self._lock:
            taken = [record for record in records if self._take(record)]
            if taken:
                self.save()
            return taken

    def release(self, tuner_id: str) -> None:
        """A tuner will not come back: others may have its trial, as the next."""
        with self._lock:
            trial = self.ongoing_trials.pop(tuner_id, None)
            self.tuner_ids.discard(tuner_id)
            for owned in [t for t, who in self._owners.items() if who == tuner_id]:
                del self._owners[owned]
            if trial is not None and trial.trial_id not in self.end_order:
                self._retry_queue.append(trial.trial_id)
                self.save()

    # Steps

    def _new(self) -> Trial:
        """A trial with values, or an empty one; draws count only for the former."""
        numbers = [int(name) for name in self.trials if name.isdecimal()]
        name = f"{max(numbers, default=-1) + 1:04d}"
        values, status = None, TrialStatus.STOPPED
        if self.max_trials is None or len(self.trials) < self.max_trials:
            before = self._seed_state
            response = self.populate_space(name)
            values, status = response.get("values"), response["status"]
            if status != TrialStatus.RUNNING:
                self._seed_state = before
        return Trial(self._with(values or {}), trial_id=name, status=status)

    def _again(self, name: str, tuner_id: str) -> Trial:
        """Hands out a trial that was interrupted."""
        trial = self.trials[name]
        self._retry_queue.remove(name)
        self._owners.pop(name, None)
        outcomes.forget(trial)
        self.ongoing_trials[tuner_id] = trial
        self.save()
        return trial

    def _enter(self, trial: Trial) -> None:
        self._record_values(trial)
        self.trials[trial.trial_id] = trial
        self.start_order.append(trial.trial_id)

    def _end(self, trial: Trial, usable: bool) -> None:
        """Scores a trial and writes it; then it is over, whatever follows."""
        trial.status = TrialStatus.COMPLETED if usable else TrialStatus.FAILED
        if usable:
            outcomes.score(trial, self.goal)
        self._save_trial(trial)
        if trial.trial_id not in self.trials:
            self._enter(trial)
        self._close(trial)

    def _compute_values_hash(self, values: Mapping[str, Any]) -> Any:
        # Records have floats of fewer digits, and are the same point.
        short = {
            k: round_digits(v, DIGITS) if isinstance(v, float) else v
            for k, v in values.items()
        }
        return super()._compute_values_hash(short)

    def _drop(self, name: str) -> None:
        going = self.ongoing_trials.items()
        self.ongoing_trials = {t: trial for t, trial in going if trial.trial_id != name}

    def _take(self, record: TrialRecord) -> bool:
        values = legal(self.hyperparameters, _plain(record.values))
        if values is None or record.trial in self.end_order:
            return False
        trial = self.trials.get(record.trial)
        if trial is None:
            trial = Trial(self._with(values), trial_id=record.trial)
        elif _plain(trial.hyperparameters.values) != values:
            return False
        outcomes.forget(trial)
        if record.usable:
            outcomes.report(trial, self.goal, record.metrics, record.step)
        else:
            trial.message = record.reason
        self._end(trial, record.usable)
        self._drop(record.trial)
        return True

    def _with(self, values: Values) -> keras_tuner.HyperParameters:
        space = self.hyperparameters.copy()
        space.values = dict(values)
        return space


def _plain(values: Mapping[str, Any]) -> Values:
    """Without what Hyperband says beside the values."""
    return {k: v for k, v in values.items() if not k.startswith("tuner/")}
