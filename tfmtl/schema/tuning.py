"""What `tfmtl tune` searches: which settings, for what, and how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tfmtl.errors import ConfigError
from tfmtl.schema.base import Misplaced, Spec
from tfmtl.schema.bounds import Bound, check_possible, parse_bound
from tfmtl.schema.conditions import check_when, conditions, hint
from tfmtl.schema.dataset import DatasetSpec, model_only
from tfmtl.schema.dimension import Dimension
from tfmtl.schema.dimension_base import DimensionSpec
from tfmtl.schema.evaluation import RankingSpec
from tfmtl.schema.monitor import check_metric, ranking_metric
from tfmtl.schema.ranges import FloatDimension, RangeDimension
from tfmtl.schema.tuning_parts import (
    HyperbandSpec,
    PruningSpec,
    RivalSpec,
    check_once,
)

WEIGHTS = "balancer.config.weights."
"""Before a task's name: the path of its loss weight."""

_FIXED = {
    "name": "it only names the experiment",
    "version": "it is that of the file format",
    "tuning": "it is the search itself",
    "seed": "the best seed says nothing about the next; see `tuning.seeds`",
    "evaluation": "it says what is measured",
    "fusion": "it comes after training; see `tfmtl fuse`",
    "calibration": "it comes after training",
    "export": "it comes after training",
    "training.monitor": "it chooses each trial's step, and must be the same for all",
}
"""Part of an experiment to why it is not searched."""


_TRIALS = 30


class TuningSpec(Spec):
    """The search of `tfmtl tune`; every other command passes over it."""

    space: dict[str, Dimension] = Field(min_length=1)
    """Dotted path, as in `--set`, to the values that are tried. The weights of at most
    all tasks but one (`balancer.config.weights.<task>`): the others are the reference.
    A search over `model.class` or `balancer.class` gives the `config` of the file to
    the file's own class alone; others have what the space sets, with `when`."""
    oracle: Literal["random", "grid", "bayesian", "hyperband"] = "bayesian"
    """What chooses the next trial."""
    objective: str | tuple[str, ...] = "mean/auc"
    """A metric, named as `training.monitor` is; or several: then their front is
    sought. A metric of lists only alone, and where it is the monitor."""
    constraints: tuple[str, ...] = ()
    """Bounds that the trials must keep: `like/auc >= 0.75`, or `like/auc >= baseline -
    0.001`, the baseline being the experiment as it is written."""
    max_trials: int | None = Field(default=None, ge=1)
    """Stop after so many trials; where absent after 30, but `grid` after all
    combinations and `hyperband` after all brackets."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the search; each trial trains with the experiment's own."""
    pruning: PruningSpec = PruningSpec()
    """When a trial is stopped before its end."""
    initial_points: int | None = Field(default=None, ge=1)
    """Random trials before `bayesian` begins to choose; its own rule where absent."""
    hyperband: HyperbandSpec = HyperbandSpec()
    """Settings of `oracle: hyperband`."""
    top: int = Field(default=3, ge=1)
    """So many of the best trials are trained again on other seeds, before the winner
    is named."""
    seeds: int = Field(default=3, ge=0)
    """On so many seeds, and the controls too; with 0 nothing is trained again, and the
    winner is the best of the search, by one seed."""
    controls: tuple[str, ...] = ("Equal",)
    """Balancers that the winner is set beside, each with its own defaults and the
    file's other settings."""
    rival: RivalSpec = RivalSpec()
    """The best gradient balancer, tuned with the same budget, that the winner is set
    beside. None where the space itself chooses a balancer, and without `seeds`."""

    @field_validator("space", mode="before")
    @classmethod
    def _weights_are_ratios(cls, space: Any) -> Any:
        if not isinstance(space, Mapping):
            return space
        return {
            path: {"scale": "log", **given}
            if str(path).startswith(WEIGHTS)
            and isinstance(given, Mapping)
            and given.get("type") == "float"
            else given
            for path, given in space.items()
        }

    @field_validator("objective")
    @classmethod
    def _distinct(cls, objective: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not isinstance(objective, str) and (
            not objective or len(set(objective)) < len(objective)
        ):
            raise ValueError(
                "`objective` must be a metric, or several distinct ones. Received: "
                f"{list(objective)}"
            )
        return objective

    @field_validator("controls")
    @classmethod
    def _controls_once(cls, controls: tuple[str, ...]) -> tuple[str, ...]:
        return check_once(controls, "controls")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for path in self.space:
            _check_path(path, self.space)
            self._check_dimension(path, self.space[path])
            check_when(self.space, path)
        for path in self.space:
            self.conditions(path)
        if self.oracle == "hyperband" and len(self.objectives) > 1:
            raise Misplaced(
                "`oracle: hyperband` compares trials by one number. Received: "
                f"objective={list(self.objectives)}",
                "oracle",
            )
        if self.oracle == "hyperband" and self.pruning.rule != "none":
            raise Misplaced(
                "`oracle: hyperband` stops trials itself. Received: pruning.rule="
                f"{self.pruning.rule!r}",
                "pruning",
                "rule",
            )
        return self

    def _check_dimension(self, path: str, dimension: DimensionSpec) -> None:
        stepless = isinstance(dimension, RangeDimension) and dimension.count is None
        if self.oracle == "grid" and stepless:
            raise Misplaced(
                f"`oracle: grid` tries every value, and {path!r} has no `step`. Give "
                "it one, or use another oracle",
                "space",
                path,
            )
        if path.startswith(WEIGHTS) and not (
            isinstance(dimension, FloatDimension) and dimension.scale == "log"
        ):
            raise Misplaced(
                f"{path!r}: loss weights are searched as log-ratios to the tasks that "
                "are not: `{type: float, min: 0.1, max: 10}`, and `scale: log`, which "
                "is their default",
                "space",
                path,
            )

    def conditions(self, path: str) -> dict[str, tuple[Any, ...]]:
        """What must hold for a dimension to be active, its parents' conditions too.

        Args:
            path: Of the dimension.

        Returns:
            Dimension to those of its values that are meant, outermost first.

        Raises:
            Misplaced: Dimensions depend on each other, or it can never hold.
        """
        return conditions(self.space, path)

    @property
    def budget(self) -> int | None:
        """The most trials; None: until the oracle has no more."""
        if self.max_trials is None and self.oracle in ("random", "bayesian"):
            return _TRIALS
        return self.max_trials

    def rivals(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """The gradient balancers to tune with the same budget; empty for none.

        Args:
            tasks: Of the experiment; where there is one, there is nothing to balance.
        """
        chosen = "balancer.class" in self.space
        none = self.rival.trials == 0 or not self.seeds or chosen or len(tasks) < 2
        return () if none else self.rival.balancers

    @property
    def record_paths(self) -> tuple[str, ...]:
        """The dimensions that change the records, hence the data set."""
        return tuple(
            path
            for path in self.space
            if path.startswith("dataset.") and not model_only(path)
        )

    @property
    def objectives(self) -> tuple[str, ...]:
        """The metrics that are sought, one or several."""
        return (self.objective,) if isinstance(self.objective, str) else self.objective

    def check(
        self, dataset: DatasetSpec, monitor: str, ranking: RankingSpec | None
    ) -> None:
        """Refuses what does not fit the rest of the experiment.

        Args:
            dataset: The tasks, and what the records depend on.
            monitor: `training.monitor`.
            ranking: What a list is.

        Raises:
            Misplaced: A metric, a bound or a path; the message says which.
        """
        for name in self.objectives:
            _check_name(name, "objective", dataset, ranking)
            ranked = ranking_metric(name) is not None
            if ranked and (len(self.objectives) > 1 or name != monitor):
                raise Misplaced(
                    f"`tuning.objective`: {name!r} costs a pass of its own, which a "
                    "validation makes for `training.monitor` alone. It must be the "
                    "only objective, and the monitor. Received: objective="
                    f"{list(self.objectives)}, monitor={monitor!r}",
                    "objective",
                )
        self._check_bounds(dataset, ranking)
        for path in self.record_paths:
            dimension = self.space[path]
            if isinstance(dimension, RangeDimension) and dimension.count is None:
                raise Misplaced(
                    f"{path!r} changes the records: each value is a data set of its "
                    "own. Name the values, `{type: choice, values: [...]}`, or give a "
                    "`step`; preprocess each, and pass all of them with --dataset",
                    "space",
                    path,
                )
        self._check_weights(dataset.task_names)

    def _check_bounds(self, dataset: DatasetSpec, ranking: RankingSpec | None) -> None:
        bounds: list[Bound] = []
        for number, text in enumerate(self.constraints):
            place = ("constraints", number)
            try:
                bounds.append(parse_bound(text, "tuning.constraints"))
                check_possible(bounds, "tuning.constraints")
            except ConfigError as error:
                raise Misplaced(str(error), *place) from None
            metric = bounds[-1].metric
            _check_name(metric, "constraints", dataset, ranking, number)
            if ranking_metric(metric) is not None:
                raise Misplaced(
                    "`tuning.constraints`: metrics of the order inside lists are not "
                    f"measured beside others. Received: {text!r}",
                    *place,
                )

    def _check_weights(self, tasks: tuple[str, ...]) -> None:
        weighed = [p.removeprefix(WEIGHTS) for p in self.space if p.startswith(WEIGHTS)]
        for task in weighed:
            if task not in tasks:
                raise Misplaced(
                    f"{WEIGHTS + task!r} names {task!r}, which is no task"
                    f"{hint(task, tasks)}; tasks: {list(tasks)}",
                    "space",
                    WEIGHTS + task,
                )
        if set(weighed) == set(tasks):
            raise Misplaced(
                "the weights of all tasks are in the space. A common factor changes "
                "nothing: leave one out, it is the reference. Received: "
                f"{[WEIGHTS + task for task in weighed]}",
                "space",
                WEIGHTS + weighed[-1],
            )


def _check_name(
    name: str,
    setting: str,
    dataset: DatasetSpec,
    ranking: RankingSpec | None,
    *place: int,
) -> None:
    try:
        check_metric(name, f"tuning.{setting}", dataset, ranking)
    except ValueError as error:
        raise Misplaced(str(error), setting, *place) from None


def _check_path(path: str, space: Mapping[str, object]) -> None:
    place = ("space", path)
    parts = path.split(".")
    if not all(parts):
        raise Misplaced(f"a path must be dotted, a.b.c. Received: {path!r}", *place)
    for depth in range(1, len(parts) + 1):
        start = ".".join(parts[:depth])
        if start in _FIXED:
            raise Misplaced(f"{start!r} is not searched: {_FIXED[start]}", *place)
        if start != path and start in space:
            raise Misplaced(
                f"{path!r} is a part of {start!r}, and both are in the space", *place
            )
