"""Runs the trials of a search: here, or as the chief of workers, or as one of them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import grpc
from keras_tuner.engine.trial import TrialStatus

from tfmtl.errors import TrainingError
from tfmtl.files import atomic_write
from tfmtl.training.loop import Interrupted
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.records import TRIALS, TrialRecord, read_record
from tfmtl.workflow.presence import Presence, announced
from tfmtl.workflow.search_directory import SearchDirectory
from tfmtl.workflow.search_setup import Search
from tfmtl.workflow.tuner import described, name_of
from tfmtl.workflow.workers import (
    CHIEF,
    IP,
    LOGS,
    NAME,
    PORT,
    Chief,
    LocalWorkers,
    end_with_parent,
)

MISTAKE = ".mistake"
"""Of a file that says what a worker ended by."""
_POLL_SECONDS = 0.5
_OVER_SECONDS = 120.0
"""So long does a worker wait for the chief of a next search where one is over."""


def run_trials(search: Search, goal: Goal) -> None:
    """Runs trials until the oracle has no more.

    Args:
        search: Its directory has begun.
        goal: Bounds are numbers.

    Raises:
        TrainingError: A worker ended by a mistake, or dies again and again.
    """
    who = search.processes
    tuner = search.tuner(goal, search.directory.known())
    if over := len(tuner.oracle.end_order):
        search.listener.note(f"{over} trials of this space are over: taken over")
    if who.part != "chief" and who.workers == 1:
        search.directory.write(ready=True)
        tuner.search()
    elif not _nothing_left(tuner.oracle):
        _serve(search, goal, tuner.oracle)
    # Workers that come late read it, and leave.
    search.directory.write(ready=False, over=True)
    search.directory.keep_only({name_of(trial) for trial in tuner.oracle.trials})


def _nothing_left(oracle: Any) -> bool:
    """Whether an oracle has no trial to give; nobody may come to be told so."""
    if oracle.create_trial(CHIEF).status == TrialStatus.STOPPED:
        return True
    # What it may have given is the next one's.
    oracle.release(CHIEF)
    return False


def _serve(search: Search, goal: Goal, oracle: Any) -> None:
    """Answers workers until the oracle has no more."""
    who, logs = search.processes, search.path / LOGS
    logs.mkdir(exist_ok=True)
    for old in logs.glob(f"*{MISTAKE}"):
        old.unlink()
    address = "127.0.0.1:0"
    if who.part == "chief":
        address = f"{os.environ[IP]}:{os.environ[PORT]}"
    search.directory.write(ready=True)
    chief = Chief(oracle, address)
    search.listener.note(f"the chief listens at port {chief.port}")
    seen = _Seen(search, goal, oracle)
    presence = Presence(logs, oracle, search.listener)

    def tend() -> None:
        seen.tell()
        presence.release_absent()
        told = next(logs.glob(f"*{MISTAKE}"), None)
        if told is not None:
            raise TrainingError(f"{told.stem} ended: {told.read_text().strip()}")

    if who.part == "chief":
        chief.serve(tend)
        seen.tell()
        return
    assert who.command is not None
    processes = LocalWorkers(
        who.command(search.path),
        who.workers,
        chief.port,
        search.path,
        search.listener,
        lambda: len(oracle.end_order),
    )

    def tend_processes() -> None:
        processes.tend()
        tend()

    try:
        chief.serve(tend_processes)
        seen.tell()
    finally:
        processes.stop()


def work(search: Search) -> None:
    """A worker: asks the chief for trials until there are no more.

    Raises:
        ConfigError: The chief searches something else.
        TrainingError: The chief is away for too long.
    """
    end_with_parent()
    name = os.environ[NAME]
    search.listener.stage(f"{name} of the search")
    if not _chief_there(search.directory):
        search.listener.note("the search is over")
        return
    search.directory.check_same(search.identity())
    goal = search.goal.resolved(search.directory.asked().get("baseline") or {})
    logs = search.path / LOGS
    with announced(logs, name):
        try:
            search.tuner(goal, []).search()
        except Interrupted:
            raise
        except Exception as error:
            # The chief ends the search: others would only meet the same mistake.
            text = f"{type(error).__name__}: {error}"
            atomic_write(logs / (name + MISTAKE), text[:2000] + "\n")
            raise


def _chief_there(directory: SearchDirectory) -> bool:
    """Waits for the chief; False where it has gone, the search being over.

    What an earlier search left in the directory says nothing until the chief of this
    one answers: it does when the directory is its own.
    """
    address = f"{os.environ[IP]}:{os.environ[PORT]}"
    alone_since = time.monotonic()
    while True:
        with grpc.insecure_channel(address) as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=_POLL_SECONDS)
                if directory.ready:
                    return True
            except grpc.FutureTimeoutError:
                pass
        if not directory.over:
            alone_since = time.monotonic()
        if time.monotonic() - alone_since > _OVER_SECONDS:
            return False
        time.sleep(_POLL_SECONDS)


class _Seen:
    """Tells the chief's listener about trials that workers ended."""

    def __init__(self, search: Search, goal: Goal, oracle: Any) -> None:
        self._search, self._goal, self._oracle = search, goal, oracle
        self._told = len(oracle.end_order)

    def tell(self) -> None:
        ended: Sequence[str] = list(self._oracle.end_order)[self._told :]
        for trial in ended:
            record: TrialRecord | None = read_record(
                self._search.path / TRIALS / name_of(trial)
            )
            if record is not None:
                self._search.listener.note(described(record, self._goal))
            self._search.listener.advance()
            self._told += 1
