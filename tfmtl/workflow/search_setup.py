"""What all parts of a search read, and what they are made of."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from tfmtl.progress import Listener
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.tuning import TuningSpec
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.oracles.make import make_oracle
from tfmtl.tuning.oracles.pruning import MedianRule
from tfmtl.tuning.records import TrialRecord
from tfmtl.tuning.space import Space
from tfmtl.workflow.datasets import Datasets
from tfmtl.workflow.search_directory import SearchDirectory
from tfmtl.workflow.session import Session
from tfmtl.workflow.trials import Trials
from tfmtl.workflow.tuner import Tuner
from tfmtl.workflow.workers import NAME, Role

_ORACLE_PARTS = (
    "oracle",
    "objective",
    "constraints",
    "seed",
    "initial_points",
    "hyperband",
)
"""Of `tuning`, what an oracle's own state depends on beside the space."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """Who runs the trials.

    Attributes:
        part: Of this process.
        workers: Processes on this machine; 1: this one alone.
        command: Search directory to the command of one worker.
    """

    part: Role = "alone"
    workers: int = 1
    command: Callable[[pathlib.Path], Sequence[str]] | None = None


@dataclasses.dataclass(frozen=True)
class Search:
    """A search: what is asked, of which data, where, and by whom.

    Attributes:
        experiment: Has a `tuning` section.
        datasets: That trials take theirs of.
        directory: Of the search.
        session: Shared by all runs of this process.
        listener: Told about the progress.
        processes: Who runs the trials.
    """

    experiment: Experiment
    datasets: Datasets
    directory: SearchDirectory
    session: Session
    listener: Listener
    processes: Processes = Processes()
    spec: TuningSpec = dataclasses.field(init=False)
    space: Space = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        spec = self.experiment.tuning
        assert spec is not None
        document = self.experiment.model_dump(mode="json", by_alias=True)
        object.__setattr__(self, "spec", spec)
        object.__setattr__(self, "space", Space(spec, document))

    @property
    def path(self) -> pathlib.Path:
        """Of the directory."""
        return self.directory.path

    @property
    def written(self) -> Experiment:
        """The experiment as it is written, without the search."""
        return self.experiment.model_copy(update={"tuning": None})

    @property
    def goal(self) -> Goal:
        """As it is written: bounds may be relative to a baseline."""
        return Goal.parse(self.spec.objectives, self.spec.constraints)

    def identity(self) -> dict[str, Any]:
        """What makes the search the one that it is, and its oracle."""
        document = self.spec.model_dump(mode="json")
        return {
            "space": self.space.fingerprint(),
            **self.datasets.identity(),
            "seed": self.experiment.seed,
            "oracle": {key: document[key] for key in _ORACLE_PARTS},
        }

    def tuner(self, goal: Goal, records: Sequence[TrialRecord]) -> Tuner:
        """The oracle, and what runs its trials.

        Args:
            goal: Bounds are numbers.
            records: Trials to tell an oracle that begins anew.
        """
        spec = self.spec
        oracle = make_oracle(
            spec.oracle,
            self.space.hyperparameters(),
            goal,
            max_trials=spec.budget,
            seed=spec.seed,
            initial_points=spec.initial_points,
            epochs=self.experiment.training.epochs,
            factor=spec.hyperband.factor,
            iterations=spec.hyperband.iterations,
        )
        tuner = Tuner(
            oracle,
            self._trials(goal),
            self.space.values,
            goal,
            self.directory,
            self.listener,
        )
        if records:
            encode = self.space.encode
            oracle.start(
                [dataclasses.replace(r, values=encode(r.values)) for r in records]
            )
        return tuner

    def _trials(self, goal: Goal) -> Trials:
        pruning = self.spec.pruning
        rule = None
        if pruning.rule == "median":
            rule = MedianRule(pruning.warmup_evaluations, pruning.least_trials)
        return Trials(
            self.space.apply,
            goal,
            self.datasets.path,
            self.path,
            rule=rule,
            worker=os.environ.get(NAME, "tuner0"),
            session=self.session,
        )
