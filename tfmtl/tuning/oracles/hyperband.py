"""Hyperband with trials that fail.

L. Li, K. Jamieson, G. DeSalvo, A. Rostamizadeh, A. Talwalkar, "Hyperband: A Novel
Bandit-Based Approach to Hyperparameter Optimization", JMLR 18 (2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import TrialStatus

from tfmtl.tuning.goals import Goal
from tfmtl.tuning.oracles.durable import DurableOracle
from tfmtl.tuning.records import TrialRecord

Bracket = dict[str, Any]


class HyperbandOracle(DurableOracle, keras_tuner.oracles.HyperbandOracle):
    """keras-tuner's brackets and sizes, with another rule of who goes on.

    A trial has, beside its values, `tuner/epochs` to end at, `tuner/initial_epoch` to
    start from and, after the first round, `tuner/trial_id` whose state it goes on from.

    keras-tuner promotes only where enough trials of the round before are COMPLETED: if
    one of three fails, none of the others goes on. Here a trial that failed is one
    that is thrown out; a round is closed when no more can come into it, and a round
    after a closed one takes the best of however many there are. A space that is
    exhausted closes first rounds too. So every search ends.
    """

    def __init__(
        self,
        hyperparameters: keras_tuner.HyperParameters,
        goal: Goal,
        *,
        max_trials: int | None,
        seed: int,
        epochs: int,
        factor: int = 3,
        iterations: int = 1,
    ) -> None:
        super().__init__(
            hyperparameters,
            goal,
            max_trials=max_trials,
            seed=seed,
            max_epochs=epochs,
            factor=factor,
            hyperband_iterations=iterations,
        )
        self._exhausted = False

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next trial of the first bracket that has one, or of a new bracket."""
        while True:
            for bracket in self._brackets:
                values = self._first(bracket, trial_id) or self._next(bracket, trial_id)
                if values:
                    return {"status": TrialStatus.RUNNING, "values": values}
            last = self._current_iteration + 1 == self.hyperband_iterations
            if self._exhausted or (self._current_bracket == 0 and last):
                break
            self._increment_bracket_num()
            self._start_new_bracket()
        waiting = bool(self.ongoing_trials or self._retry_queue)
        status = TrialStatus.IDLE if waiting else TrialStatus.STOPPED
        return {"status": status, "values": None}

    def start(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Ends trials of its own that are over; others have no place in a bracket.

        With the same seed it proposes what an earlier search did, so that the runs of
        that one can be used again by their experiments' hashes.
        """
        return super().start([r for r in records if r.trial in self.trials])

    def get_state(self) -> dict[str, Any]:
        """With whether the space is exhausted."""
        return {**super().get_state(), "exhausted": self._exhausted}

    def set_state(self, state: dict[str, Any]) -> None:
        """As written by `get_state`."""
        super().set_state(state)
        self._exhausted = state["exhausted"]

    def _first(self, bracket: Bracket, trial_id: str) -> dict[str, Any] | None:
        """A random trial of a bracket's first round."""
        if self._closed(bracket, 0):
            return None
        drawn = self._random_values()
        if drawn is None:
            self._exhausted = True
            return None
        bracket["rounds"][0].append({"past_id": None, "id": trial_id})
        return {**drawn, **self._place(bracket, 0)}

    def _next(self, bracket: Bracket, trial_id: str) -> dict[str, Any] | None:
        """A trial that goes on into a later round."""
        for number, entries in enumerate(bracket["rounds"]):
            size = self._get_size(bracket["bracket_num"], number)
            if number == 0 or len(entries) >= size:
                continue
            ready = self._ready(bracket, number)
            usable = [name for name in ready if self._usable(name)]
            # Of those that are ready, more than will be thrown out: the best is in.
            if usable and len(ready) > self._expected(bracket, number - 1) - size:
                best = max(usable, key=lambda name: self.trials[name].score)
                entries.append({"past_id": best, "id": trial_id})
                values = {**self.trials[best].hyperparameters.values}
                values |= self._place(bracket, number)
                return {**values, "tuner/trial_id": best}
        return None

    def _place(self, bracket: Bracket, number: int) -> dict[str, Any]:
        which = bracket["bracket_num"]
        return {
            "tuner/epochs": self._get_epochs(which, number),
            "tuner/initial_epoch": self._get_epochs(which, number - 1) if number else 0,
            "tuner/bracket": which,
            "tuner/round": number,
        }

    def _usable(self, name: str) -> bool:
        return bool(self.trials[name].status == TrialStatus.COMPLETED)

    def _ready(self, bracket: Bracket, number: int) -> list[str]:
        """Trials of the round before that are over and did not go on."""
        gone = {entry["past_id"] for entry in bracket["rounds"][number]}
        past = [entry["id"] for entry in bracket["rounds"][number - 1]]
        return [name for name in past if name in self.end_order and name not in gone]

    def _expected(self, bracket: Bracket, number: int) -> int:
        """How many trials a round has in the end."""
        if self._closed(bracket, number):
            return len(bracket["rounds"][number])
        return int(self._get_size(bracket["bracket_num"], number))

    def _closed(self, bracket: Bracket, number: int) -> bool:
        """Whether no more trials can come into a round."""
        entries = bracket["rounds"][number]
        if len(entries) >= self._get_size(bracket["bracket_num"], number):
            return True
        if number == 0:
            return self._exhausted
        past = bracket["rounds"][number - 1]
        return (
            self._closed(bracket, number - 1)
            and all(entry["id"] in self.end_order for entry in past)
            and not any(map(self._usable, self._ready(bracket, number)))
        )
