"""Random search, and the grid."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import TrialStatus

from tfmtl.tuning.oracles.durable import DurableOracle
from tfmtl.tuning.oracles.values import Values, combinations, defaults


class RandomOracle(DurableOracle, keras_tuner.oracles.RandomSearchOracle):
    """Every hyper-parameter uniform in its range, on its scale; keras-tuner's.

    The n-th draw depends on the seed and n alone. A space of which a thousand draws in
    a row were tried counts as exhausted.
    """


class GridOracle(DurableOracle):
    """Every combination once, the defaults first; the last hyper-parameter is fastest.

    keras-tuner's own does not save where it is, so it stops when it is reloaded. Here a
    position in a fixed order is the whole state; combinations that were tried otherwise
    are passed over. Of a range without a step ten values are tried.
    """

    _position = 0
    _walk: Iterator[Values] | None = None

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next combination that was not tried."""
        first = defaults(self.hyperparameters)
        if not self._duplicate(first):
            return {"status": TrialStatus.RUNNING, "values": first}
        if self._walk is None:
            whole = combinations(self.hyperparameters)
            self._walk = itertools.islice(whole, self._position, None)
        for values in self._walk:
            self._position += 1
            if not self._duplicate(values):
                return {"status": TrialStatus.RUNNING, "values": values}
        return {"status": TrialStatus.STOPPED, "values": None}

    def get_state(self) -> dict[str, Any]:
        """With the position."""
        return {**super().get_state(), "position": self._position}

    def set_state(self, state: dict[str, Any]) -> None:
        """As written by `get_state`."""
        super().set_state(state)
        self._position = state["position"]
        self._walk = None
