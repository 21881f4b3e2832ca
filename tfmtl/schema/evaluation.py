"""What an evaluation measures beside the metrics that every task has."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, field_validator

from tfmtl.schema.base import Spec
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.task import TaskSpec

WITH_K = ("ndcg", "map", "hr", "gndcg", "gmap")
"""Metrics of the first K places of a list; their names are such as `ndcg@10`."""
METRICS = (*WITH_K, "mrr")
VALUED = ("gndcg", "gmap")
"""Metrics that need `evaluation.ranking.value`."""
GRADED = ("ndcg", "gndcg")
"""Metrics of labels that are no mere yes or no."""


class RankingMetric(NamedTuple):
    """A metric of the order inside lists.

    Attributes:
        name: One of `METRICS`.
        at: K; None for `mrr`.
    """

    name: str
    at: int | None = None

    def __str__(self) -> str:
        """`ndcg@10`, `mrr`."""
        return self.name if self.at is None else f"{self.name}@{self.at}"

    @classmethod
    def parse(cls, text: str) -> RankingMetric | None:
        """What `str` wrote; None for any other text."""
        name, marked, number = text.partition("@")
        if name not in METRICS or bool(marked) != (name in WITH_K):
            return None
        if not marked:
            return cls(name)
        if not (number.isascii() and number.isdigit() and number[0] != "0"):
            return None
        return cls(name, int(number))


METRIC_NAMES = tuple(f"{name}@K" if name in WITH_K else name for name in METRICS)
"""For messages."""


class RankingSpec(Spec):
    """Metrics of the order inside lists: NDCG, MAP, HR at K, and MRR."""

    by: Literal["group", "user"] | None = None
    """The key whose rows are one list; where absent `keys.group`, else `keys.user`,
    and no ranking metrics where there is neither."""
    at: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 5, 10))
    """The K of NDCG, MAP and HR."""
    gain: dict[str, Literal["linear", "exponential"]] = {}
    """Task to NDCG's gain of a label y: y (`linear`, the default) or 2^y - 1. A binary
    task has the same gains either way."""
    value: str | None = None
    """A regression task, such as an auxiliary one whose label is the price: its label
    multiplies the gains of G-NDCG and G-MAP."""
    empty: Literal["skip", "zero"] = "skip"
    """Lists without a positive are left out of the means, or count as 0."""

    @field_validator("at")
    @classmethod
    def _distinct(cls, at: tuple[int, ...]) -> tuple[int, ...]:
        if not at or len(set(at)) != len(at):
            raise ValueError(f"`at` must hold distinct numbers. Received: {list(at)}")
        return tuple(sorted(at))

    def key(self, dataset: DatasetSpec) -> Literal["group", "user"] | None:
        """The key whose rows are one list; None where the data have none."""
        if self.by is not None:
            return self.by
        if dataset.keys.group is not None:
            return "group"
        return "user" if dataset.keys.user is not None else None

    def refusal(self, metric: RankingMetric, task: TaskSpec) -> str:
        """Why a task has no such metric; empty where it has."""
        if task.type == "multiclass":
            return "a multiclass task has no one number to order by"
        if task.type == "regression" and metric.name not in GRADED:
            return (
                f"{metric.name} is of labels of 0 and 1; the metric of a regression is "
                "ndcg@K"
            )
        if metric.name in VALUED and self.value is None:
            return (
                f"{metric.name} needs `evaluation.ranking.value`, the task whose label "
                "is a row's value"
            )
        return ""

    def check(self, dataset: DatasetSpec) -> None:
        """Refuses names that these data do not have.

        Raises:
            ValueError: A key or a task; the message says which.
        """
        if self.by is not None and getattr(dataset.keys, self.by) is None:
            raise ValueError(
                f"`evaluation.ranking.by: {self.by}` needs "
                f"`keys: {{{self.by}: column}}`"
            )
        tasks = {t.name: t for t in dataset.tasks}
        unknown = sorted(set(self.gain) - set(tasks))
        if unknown:
            raise ValueError(
                f"`evaluation.ranking.gain` names {unknown}; tasks: {sorted(tasks)}"
            )
        if self.value is not None and (
            self.value not in tasks or tasks[self.value].type != "regression"
        ):
            regressions = sorted(
                t.name for t in dataset.tasks if t.type == "regression"
            )
            raise ValueError(
                "`evaluation.ranking.value` must be a regression task. Received: "
                f"{self.value!r}; those are: {regressions}"
            )


class EvaluationSpec(Spec):
    """What `tfmtl evaluate` measures."""

    ranking: RankingSpec | None = RankingSpec()
    """The order inside lists; null: not at all."""
