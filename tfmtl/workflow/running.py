"""Runs the trials of a search: here, or as the chief of workers, or as one of them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from tfmtl.tuning.goals import Goal
from tfmtl.tuning.records import TRIALS, TrialRecord, read_record
from tfmtl.workflow.presence import Presence, announced
from tfmtl.workflow.search_setup import Search
from tfmtl.workflow.tuner import described, name_of
from tfmtl.workflow.workers import IP, LOGS, NAME, PORT, Chief, LocalWorkers

_POLL_SECONDS = 0.5


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
    if who.part != "chief" and who.workers == 1:
        tuner.search()
        return
    address = "127.0.0.1:0"
    if who.part == "chief":
        address = f"{os.environ[IP]}:{os.environ[PORT]}"
    chief = Chief(tuner.oracle, address)
    search.listener.note(f"the chief listens at port {chief.port}")
    seen = _Seen(search, goal, tuner.oracle)
    presence = Presence(search.path / LOGS, tuner.oracle, search.listener)

    def tend() -> None:
        seen.tell()
        presence.release_absent()

    if who.part == "chief":
        chief.serve(tend)
        return
    assert who.command is not None
    processes = LocalWorkers(
        who.command(search.path),
        who.workers,
        chief.port,
        search.path,
        search.listener,
        lambda: len(tuner.oracle.end_order),
    )

    def tend_processes() -> None:
        processes.tend()
        tend()

    try:
        chief.serve(tend_processes)
    finally:
        processes.stop()


def work(search: Search) -> None:
    """A worker: asks the chief for trials until there are no more.

    Raises:
        ConfigError: The chief searches something else.
    """
    name = os.environ[NAME]
    search.listener.stage(f"{name} of the search")
    while not search.directory.ready:
        time.sleep(_POLL_SECONDS)
    search.directory.check_same(search.identity())
    goal = search.goal.resolved(search.directory.asked().get("baseline") or {})
    with announced(search.path / LOGS, name):
        search.tuner(goal, []).search()


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
