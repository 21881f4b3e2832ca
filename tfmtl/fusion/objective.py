"""Weights -> ranking metrics, thousands of times a minute."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence

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
        criteria: Criteria.
        beside: Those of them that are left out where the predictions do not define
            them; any other is an error then.

    Attributes:
        criteria: The C that are measured.
        left_out: Those that are not.

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
        beside: Collection[Criterion] = (),
    ) -> None:
        self.fusion = fusion
        self._spec = experiment.evaluation.ranking or RankingSpec()
        self._empty: Empty = self._spec.empty
        self._experiment = experiment
        self._terms = terms(table.predictions, fusion, table.lists)
        self._scores = np.full(table.rows + 1, -np.inf, dtype=np.float32)
        places = sorted({(c.output, c.scenario) for c in criteria}, key=str)
        lists = {place: self._lists(table, *place) for place in places}
        undefined = [
            c for c in criteria if not _defined(c, lists[c.output, c.scenario])
        ]
        for criterion in undefined:
            if criterion not in beside:
                raise ConfigError(
                    f"{str(criterion)!r} is undefined on these predictions: no list of "
                    "two rows or more has a positive, or labels are below 0"
                )
        self.criteria = tuple(c for c in criteria if c not in undefined)
        self.left_out = tuple(undefined)
        measured = {(c.output, c.scenario) for c in self.criteria}
        self._parts = [
            self._part(table, place, found)
            for place, found in lists.items()
            if found is not None and place in measured
        ]
        self.spread = _spread(self._terms, table)

    def _lists(
        self, table: PredictionTable, output: str, scenario: str | None
    ) -> Lists | None:
        """The lists of an output in a scenario; None where its labels have no gain."""
        label = table.labels[output]
        used = ~np.isnan(label)
        if scenario is not None and table.scenario is not None:
            used &= table.scenario == scenario
        rows = np.flatnonzero(used)
        if len(rows) and label[rows].min() < 0.0:
            return None
        task = outputs_of(self._experiment.dataset.tasks)[output]
        value = None if self._spec.value is None else table.labels[self._spec.value]
        lists = make_lists(
            gains(label[rows], self._spec.gain.get(task.name, "linear")),
            table.lists[rows],
            None if value is None else value[rows],
        )
        # From here on rows are those of the whole table.
        return dataclasses.replace(lists, rows=rows[lists.rows])

    def _part(
        self, table: PredictionTable, place: tuple[str, str | None], lists: Lists
    ) -> _Part:
        mine = [
            (number, criterion, best_of(lists, criterion.metric, criterion.at))
            for number, criterion in enumerate(self.criteria)
            if (criterion.output, criterion.scenario) == place
        ]
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


def _defined(criterion: Criterion, lists: Lists | None) -> bool:
    """Whether some list has what the criterion counts."""
    if lists is None or not lists.count:
        return False
    counted = lists.value if criterion.metric in VALUED else lists.gain
    return counted is not None and bool((counted > 0).any())


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
