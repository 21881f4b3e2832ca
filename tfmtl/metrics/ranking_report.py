"""The part of an evaluation's document that is about the order inside lists."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tfmtl.metrics.arrays import Floats, Ints
from tfmtl.metrics.bootstrap import mean_intervals
from tfmtl.metrics.lists import Gain, find_places, gains, make_lists
from tfmtl.metrics.ranking import Empty, mean_over_lists, per_list
from tfmtl.schema.evaluation import GRADED, VALUED, WITH_K


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """Which rows are one list, and what is measured.

    Attributes:
      groups: [N] number of the list of each row.
      by: what a list is: "group" or "user".
      at: the K.
      empty: what lists without a positive count: "skip" or "zero".
      value: [N] >= 0 multiplies the gains of G-NDCG and G-MAP; NaN counts as 0. None
        for none of these two.
    """

    groups: Ints
    by: Literal["group", "user"]
    at: tuple[int, ...] = (1, 5, 10)
    empty: Empty = "skip"
    value: Floats | None = None

    def take(self, rows: npt.NDArray[Any]) -> Ranking:
        """Keeps the rows of a mask or of an index array."""
        value = None if self.value is None else self.value[rows]
        return dataclasses.replace(self, groups=self.groups[rows], value=value)

    def names(self, *, graded: bool) -> list[tuple[str, str, int | None]]:
        """Names of the metrics, `ndcg@10`, with their parts.

        Args:
          graded: labels are grades or amounts: NDCG alone is defined.
        """
        chosen: list[tuple[str, str, int | None]] = [
            (f"{metric}@{at}", metric, at)
            for metric in WITH_K
            for at in self.at
            if (metric in GRADED or not graded)
            and (metric not in VALUED or self.value is not None)
        ]
        return chosen if graded else [*chosen, ("mrr", "mrr", None)]


def ranking_document(
    labels: Floats,
    scores: npt.NDArray[Any],
    ranking: Ranking,
    *,
    users: Ints | None = None,
    gain: Gain = "linear",
    graded: bool = False,
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures the order of some rows inside their lists.

    Sample weights don't enter: a list is ordered as a whole, and each counts once.

    Args:
      labels: [N], none missing.
      scores: [N].
      ranking: of the N rows.
      users: [N] who are resampled for the intervals; lists are where None.
      gain: of a label in NDCG.
      graded: labels are grades or amounts, not 0 and 1.
      resamples: of the 95 % intervals; 0 leaves them out.
      seed: of the resampling.

    Returns:
      `{"by", "lists" (of two rows or more), "lists_without_positives", "lists_of_one",
      metric: value ..., "ci": {metric: [low, high]}}`; None where undefined: no list
      counts, or labels below 0, which have no gain.
    """
    names = ranking.names(graded=graded)
    signed = bool(len(labels)) and bool(labels.min() < 0.0)
    lists = make_lists(
        gains(np.zeros_like(labels) if signed else labels, gain),
        ranking.groups,
        ranking.value,
    )
    places = find_places(lists, scores)
    table = np.stack([per_list(lists, places, m, at) for _, m, at in names], axis=1)
    document: dict[str, Any] = {
        "by": ranking.by,
        "lists": lists.count,
        "lists_without_positives": int((lists.positives == 0).sum()),
        "lists_of_one": lists.singles,
    }
    for (name, _, _), values in zip(names, table.T):
        mean = math.nan if signed else mean_over_lists(values, ranking.empty)
        document[name] = mean if math.isfinite(mean) else None
    document["ci"] = {name: None for name, _, _ in names}
    if resamples and not signed:
        counted = np.nan_to_num(table) if ranking.empty == "zero" else table
        clusters = None if users is None else users[lists.first_row]
        found = mean_intervals(counted, clusters, resamples=resamples, seed=seed)
        for (name, _, _), interval in zip(names, found):
            if math.isfinite(interval.low):
                document["ci"][name] = [interval.low, interval.high]
    return document
