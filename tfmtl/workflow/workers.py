"""Several processes on one search, by keras-tuner's chief and worker protocol.

The chief holds the oracle and answers over gRPC; a worker asks it for trials, runs them
and tells the metrics. keras-tuner's environment variables say who is who:

    KERASTUNER_ORACLE_IP, KERASTUNER_ORACLE_PORT   the chief's address
    KERASTUNER_TUNER_ID                            `chief`, or a worker's own name

A worker that dies holds its trial until one of the same name asks again, which then
gets that trial back, or until `presence` finds it gone: then another gets it. On one
machine the chief starts dead workers again itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any, Literal

import grpc
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer

from tfmtl.errors import ConfigError, TrainingError
from tfmtl.progress import Listener

IP, PORT, NAME = (
    "KERASTUNER_ORACLE_IP",
    "KERASTUNER_ORACLE_PORT",
    "KERASTUNER_TUNER_ID",
)
PARENT = "TFMTL_PARENT"
"""Process of the chief that started a worker on its own machine."""
CHIEF = "chief"
Role = Literal["alone", "chief", "worker"]
LOGS = "workers"
_POLL_SECONDS = 0.2
_MOST_DEATHS = 8
"""So often is a worker started again while no trial of the search ends."""


def role() -> Role:
    """`alone`, `chief` or `worker`, by keras-tuner's environment variables.

    Raises:
        ConfigError: Some of the variables are set and others are not.
    """
    given = [name for name in (IP, PORT, NAME) if os.environ.get(name)]
    if not given:
        return "alone"
    if len(given) < 3:
        raise ConfigError(
            f"a search of several machines needs {IP}, {PORT} and {NAME}. Received: "
            f"only {given}"
        )
    return "chief" if CHIEF in os.environ[NAME] else "worker"


class Chief:
    """Answers workers until the oracle has no more trials and none is running.

    Args:
        oracle: The only one of the search.
        address: `host:port`; port 0 takes a free one.

    Attributes:
        port: That it listens at.

    Raises:
        ConfigError: The address cannot be had.
    """

    def __init__(self, oracle: Any, address: str) -> None:
        self._oracle = oracle
        # One thread: an oracle is asked one thing at a time.
        self._server = grpc.server(
            futures.ThreadPoolExecutor(max_workers=1),
            options=[("grpc.so_reuseport", 0)],
        )
        self._servicer = OracleServicer(oracle)
        protos.get_service_grpc().add_OracleServicer_to_server(
            self._servicer, self._server
        )
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ConfigError(f"cannot listen at {address!r}: {error}") from error
        self._server.start()

    def serve(self, tend: Callable[[], None] = lambda: None) -> None:
        """Blocks until the search is over.

        Args:
            tend: Called again and again meanwhile; what it raises ends the search.
        """
        try:
            # keras-tuner prints the conditions of a space that it sends.
            with contextlib.redirect_stdout(io.StringIO()):
                while not self._over():
                    tend()
                    time.sleep(_POLL_SECONDS)
        finally:
            self._server.stop(grace=1.0).wait()

    def _over(self) -> bool:
        oracle = self._oracle
        told = self._servicer.stop_triggered
        return bool(told and not oracle.ongoing_trials and not oracle.tuner_ids)


class LocalWorkers:
    """Worker processes on this machine; those that die are started again.

    Args:
        command: Of one worker.
        count: How many.
        port: The chief's, at the loopback address.
        directory: Of the search; each worker writes a log there.
        listener: Told about deaths.
        ended: Trials that are over by now.
        environment: More variables of theirs.
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        port: int,
        directory: pathlib.Path,
        listener: Listener,
        ended: Callable[[], int],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._ended = ended
        self._environment = dict(environment or {})
        self._seen = 0
        self._command = list(command)
        self._port = port
        self._logs = directory / LOGS
        self._logs.mkdir(parents=True, exist_ok=True)
        self._listener = listener
        self._threads = max(1, (os.cpu_count() or 1) // count)
        self._deaths = dict.fromkeys((f"worker{i}" for i in range(count)), 0)
        self._processes = {name: self._start(name) for name in self._deaths}

    @property
    def running(self) -> bool:
        """Whether one has not come to its end."""
        return any(process.poll() != 0 for process in self._processes.values())

    def tend(self) -> None:
        """Starts dead workers again.

        Raises:
            TrainingError: A worker ended by a mistake, or dies again and again.
        """
        if self._ended() > self._seen:
            self._seen = self._ended()
            self._deaths = dict.fromkeys(self._deaths, 0)
        for name, process in self._processes.items():
            code = process.poll()
            if code is None or code == 0:
                continue
            if code > 0 and code != 128 + signal.SIGTERM:
                raise TrainingError(f"{name} ended: {self._last_line(name)}")
            self._deaths[name] += 1
            if self._deaths[name] > _MOST_DEATHS:
                raise TrainingError(
                    f"{name} was killed {self._deaths[name]} times; see "
                    f"{str(self._log(name))!r}. Fewer --workers need less memory"
                )
            self._listener.note(f"{name} was killed (exit code {code}); started again")
            self._processes[name] = self._start(name)

    def stop(self) -> None:
        """Ends those that still run; their trials are saved."""
        running = [p for p in self._processes.values() if p.poll() is None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            IP: "127.0.0.1",
            PORT: str(self._port),
            NAME: name,
            PARENT: str(os.getpid()),
            "OMP_NUM_THREADS": str(self._threads),
            "TF_NUM_INTRAOP_THREADS": str(self._threads),
            "TF_NUM_INTEROP_THREADS": str(self._threads),
            **self._environment,
        }
        with self._log(name).open("ab") as log:
            return subprocess.Popen(
                self._command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C reaches the chief alone, which ends its workers.
                start_new_session=True,
            )

    def _log(self, name: str) -> pathlib.Path:
        return self._logs / f"{name}.log"

    def _last_line(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").split("\n")
        told = [line for line in lines if line.strip()]
        wrong = [line for line in told if line.startswith("Error")]
        return (wrong or told or ["no output"])[-1][:500]


def end_with_parent() -> None:
    """Lets a worker that a chief on this machine started end with it.

    Asks Linux for SIGTERM when the parent dies, of SIGKILL too. Not between fork and
    exec: there gRPC's handlers for a fork run in the child, and may abort it.

    Raises:
        TrainingError: The parent is dead already.
    """
    parent = os.environ.get(PARENT)
    if parent is None or sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != int(parent):
        raise TrainingError("the chief that started this worker is gone")
