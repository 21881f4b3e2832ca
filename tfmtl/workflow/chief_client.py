"""A worker's line to the chief: patient while the chief is away, not for ever.

keras-tuner's own client waits an hour for each answer, and then raises what gRPC gives.
Here a worker looks meanwhile whether the search is over, so that one that comes late,
or whose trial another has ended, leaves in peace.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_client import OracleClient
from keras_tuner.src.engine.trial import Trial, TrialStatus

from tfmtl.errors import TrainingError

CALL_SECONDS = 20.0
PATIENCE_SECONDS = 3600.0
"""So long may a chief be away, to be started again with `--resume`."""
_AWAY = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)


class ChiefClient(OracleClient):
    """Asks the chief that keras-tuner's environment variables name.

    Asking twice is safe: a tuner that has a trial gets the same again, and a trial that
    is over stays as it is.

    Args:
        oracle: Of the worker; only its settings are read.
        over: Whether the search has no more trials to give.
        call_seconds: Of one call, after which `over` is asked.
        patience_seconds: In all.
    """

    def __init__(
        self,
        oracle: Any,
        over: Callable[[], bool],
        *,
        call_seconds: float = CALL_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        super().__init__(oracle)
        self._over = over
        self._call_seconds = call_seconds
        self._patience_seconds = patience_seconds

    def create_trial(self, tuner_id: str) -> Trial:
        """The next trial; one that says STOPPED where the search is over."""
        request = protos.get_service().CreateTrialRequest(tuner_id=tuner_id)
        response = self._ask(self.stub.CreateTrial, request)
        if response is None:
            return Trial(self._oracle.hyperparameters, status=TrialStatus.STOPPED)
        return Trial.from_proto(response.trial)

    def update_trial(
        self, trial_id: str, metrics: Mapping[str, float], step: int = 0
    ) -> None:
        """Tells a trial's metrics; nobody where the search is over."""
        request = protos.get_service().UpdateTrialRequest(
            trial_id=trial_id, metrics=metrics, step=step
        )
        self._ask(self.stub.UpdateTrial, request)

    def end_trial(self, trial: Trial) -> None:
        """Ends a trial; another ended it where the search is over."""
        request = protos.get_service().EndTrialRequest(trial=trial.to_proto())
        self._ask(self.stub.EndTrial, request)

    def _ask(self, call: Callable[..., Any], request: Any) -> Any:
        """The chief's answer; None where the search is over.

        Raises:
            TrainingError: The chief was away for too long.
        """
        began = time.monotonic()
        while True:
            try:
                return call(request, wait_for_ready=True, timeout=self._call_seconds)
            except grpc.RpcError as error:
                if error.code() not in _AWAY:
                    raise
            if self._over():
                return None
            if time.monotonic() - began > self._patience_seconds:
                raise TrainingError(
                    "the chief of the search did not answer for "
                    f"{self._patience_seconds:.0f} s: start it again with --resume, "
                    "and the workers too"
                )
