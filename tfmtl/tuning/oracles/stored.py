"""The files of an oracle, and what they say after a kill.

State is in `trial_0007/trial.json` of each trial and in `oracle.json`; each is written
whole or not at all, a trial's always before the oracle's. So after a kill a trial's
file is the one ahead, and `reload` believes it: of a trial that the oracle's file does
not know nobody was told, it is drawn again; one that is over there is over.
"""

from __future__ import annotations

import json
import os
import pathlib
import threading
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from tfmtl.errors import DataError
from tfmtl.files import atomic_write
from tfmtl.tuning.oracles import outcomes

OVER = (TrialStatus.COMPLETED, TrialStatus.FAILED)


class StoredOracle(keras_tuner.Oracle):
    """State that survives a kill; beside one of keras-tuner's as a first base.

    Args:
        settings: keras-tuner's.
    """

    # keras-tuner's: tuner -> trial.
    ongoing_trials: dict[str, Trial]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # Trial -> the tuner that had it when the chief was killed.
        self._owners: dict[str, str] = {}
        self._lock = threading.RLock()

    def attach(self, directory: str | os.PathLike[str]) -> None:
        """Keeps its state in a folder, and goes on from what is there."""
        folder = pathlib.Path(directory).absolute()
        self._set_project_dir(str(folder.parent), folder.name)
        self.reload()

    def get_state(self) -> dict[str, Any]:
        """keras-tuner's; a trial that is over is not going on."""
        state: dict[str, Any] = super().get_state()
        going = state["ongoing_trials"].items()
        state["ongoing_trials"] = {
            tuner: trial for tuner, trial in going if trial not in self.end_order
        }
        state["tried_so_far"] = sorted(self._tried_so_far)
        state["owners"] = self._owners
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """As written by `get_state`."""
        super().set_state(state)
        self._owners = dict(state["owners"])

    def save(self) -> None:
        """Writes `oracle.json`."""
        atomic_write(self._get_oracle_fname(), json.dumps(self.get_state()))

    def reload(self) -> None:
        """Goes on from the files; without `oracle.json` from nothing. Writes nothing.

        Raises:
            DataError: A file is missing or damaged.
        """
        with self._lock:
            path = pathlib.Path(self._get_oracle_fname())
            if not path.exists():
                return
            try:
                state = json.loads(path.read_text())
                self.trials = {name: self._read(name) for name in state["start_order"]}
                self.set_state(state)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"the state of the search in {str(path.parent)!r} cannot be read: "
                    f"{error!r}. Trials that are over have records of their own; "
                    "without this folder the search starts from those."
                ) from error
            self._reconcile()

    def _reconcile(self) -> None:
        """Ends what is over by its own file, and queues the rest to run again."""
        self._owners.update(
            {trial.trial_id: who for who, trial in self.ongoing_trials.items()}
        )
        self.ongoing_trials = {}
        for name in self.start_order:
            if name in self.end_order:
                continue
            trial = self.trials[name]
            if trial.status in OVER:
                self._close(trial)
                continue
            outcomes.forget(trial)
            if name not in self._retry_queue:
                self._retry_queue.append(name)

    def _close(self, trial: Trial) -> None:
        """Counts a trial whose file says that it is over among those that are."""
        self.end_order.append(trial.trial_id)
        self._run_times[trial.trial_id] += 1
        self._owners.pop(trial.trial_id, None)
        if trial.trial_id in self._retry_queue:
            self._retry_queue.remove(trial.trial_id)

    def _read(self, name: str) -> Trial:
        path = pathlib.Path(self._get_trial_dir(name)) / "trial.json"
        return Trial.from_state(json.loads(path.read_text()))

    def _save_trial(self, trial: Trial) -> None:
        folder = pathlib.Path(self._get_trial_dir(trial.trial_id))
        atomic_write(folder / "trial.json", json.dumps(trial.get_state()))
