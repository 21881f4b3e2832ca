"""Weights -> ranking metrics, thousands of times a minute."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from tfmtl.errors import ConfigError, DataError
from tfmtl.fusion.counting import PlaceCounter
from tfmtl.fusion.criteria import Criterion
from tfmtl.fusion.scores import terms, weigh
from tfmtl.fusion.table import PredictionTable
from tfmtl.metrics.arrays import Floats
from tfmtl.metrics.lists import Lists, gains, make_lists
from tfmtl.metrics.ranking import Empty, best_of, mean_over_lists, per_list
from tfmtl.schema.evaluation import GRADED, VALUED, RankingSpec
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.fusion import FusionSpec
from tfmtl.schema.task import outputs_of


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """Criteria of one output in one scenario: they share lists and places.

    Attributes:
        lists: Their lists.
        counter: Of the places in them.
        criteria: Position among all criteria, the criterion, and its `best_of`.
    """

    lists: Lists
    counter: PlaceCounter
    criteria: tuple[tuple[int, Criterion, Floats], ...]


class Judge:
    """The values of some criteria under any weights.

    What does not depend on the weights is computed once: the terms of the score, the
    lists, the best order of each.

    Args:
        table: The predictions.
        experiment: Says what a list is, and how labels become gains.
        fusion: The form; its weights say which outputs take part.
        criteria: C criteria.

    Raises:
        ConfigError: A criterion has no list to be measured on.
        DataError: Predictions or labels are damaged.
    """

    def __init__(
        self,
        table: PredictionTable,
        experiment: Experiment,
        fusion: FusionSpec,
        criteria: Sequence[Criterion],
    ) -> None:
        self.criteria = tuple(criteria)
        self.fusion = fusion
        self._spec = experiment.evaluation.ranking or RankingSpec()
        self._empty: Empty = self._spec.empty
        self._experiment = experiment
        self._terms = terms(table.predictions, fusion, table.lists)
        self._scores = np.full(table.rows + 1, -np.inf, dtype=np.float32)
        places = {(c.output, c.scenario) for c in self.criteria}
        self._parts = [
            self._part(table, output, scenario)
            for output, scenario in sorted(places, key=str)
        ]
        self.spread = _spread(self._terms, table)

    def _part(self, table: PredictionTable, output: str, scenario: str | None) -> _Part:
        label = table.labels[output]
        used = ~np.isnan(label)
        if scenario is not None and table.scenario is not None:
            used &= table.scenario == scenario
        rows = np.flatnonzero(used)
        task = outputs_of(self._experiment.dataset.tasks)[output]
        value = None if self._spec.value is None else table.labels[self._spec.value]
        lists = make_lists(
            gains(label[rows], self._spec.gain.get(task.name, "linear")),
            table.lists[rows],
            None if value is None else value[rows],
        )
        # From here on rows are those of the whole table.
        lists = dataclasses.replace(lists, rows=rows[lists.rows])
        mine = [
            (number, criterion, best_of(lists, criterion.metric, criterion.at))
            for number, criterion in enumerate(self.criteria)
            if (criterion.output, criterion.scenario) == (output, scenario)
        ]
        for _, criterion, _ in mine:
            counted = lists.value if criterion.metric in VALUED else lists.gain
            if not lists.count or counted is None or not (counted > 0).any():
                raise ConfigError(
                    f"{str(criterion)!r} is undefined on these predictions: no list of "
                    "two rows or more has a positive"
                )
        hits = any(c.metric not in GRADED for _, c, _ in mine)
        return _Part(lists, PlaceCounter(lists, table.rows, hits=hits), tuple(mine))

    def __call__(self, weights: Floats) -> Floats:
        """The criteria's values [C] under weights [U] of `fusion.used`.

        Rows tie as they do in the served score, which has 32 bits.
        """
        self._scores[:-1] = weigh(self._terms, weights)
        if not np.isfinite(self._scores[:-1]).all():
            raise DataError(
                f"the fused score is not finite under the weights {weights.tolist()}"
            )
        values = np.full(len(self.criteria), math.nan)
        for part in self._parts:
            places = part.counter(self._scores)
            for number, criterion, best in part.criteria:
                found = per_list(
                    part.lists, places, criterion.metric, criterion.at, best
                )
                values[number] = mean_over_lists(found, self._empty)
        return values


def _spread(values: Floats, table: PredictionTable) -> Floats:
    """How much each term differs inside lists: its standard deviation there, [U].

    What is the same for all rows of a list cannot change its order.
    """
    count = np.bincount(table.lists)
    found = []
    for column in values:
        mean = np.bincount(table.lists, column) / np.maximum(count, 1)
        found.append(float(np.sqrt(np.mean((column - mean[table.lists]) ** 2))))
    return np.array(found)
