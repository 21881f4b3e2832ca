"""Stored predictions: what `tfmtl evaluate --predictions` wrote, as arrays."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tfmtl.errors import ConfigError, DataError
from tfmtl.metrics.arrays import Floats, Ints, group_codes
from tfmtl.schema.evaluation import RankingSpec
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.task import outputs_of


@dataclasses.dataclass(frozen=True, eq=False)
class PredictionTable:
    """N rows of a split.

    Attributes:
        predictions: Output to [N], in the unit of its label.
        labels: Output to [N], NaN where the row is not of its population.
        lists: [N] number of each row's list.
        scenario: [N] names; None where there are no scenarios.
    """

    predictions: dict[str, Floats]
    labels: dict[str, Floats]
    lists: Ints
    scenario: npt.NDArray[Any] | None

    @property
    def rows(self) -> int:
        """N."""
        return len(self.lists)


def read_table(path: pathlib.Path, experiment: Experiment) -> PredictionTable:
    """Reads the outputs of one number each, their labels and the lists.

    Args:
        path: A Parquet file of `tfmtl evaluate --predictions`.
        experiment: Of the run that predicted.

    Raises:
        ConfigError: The experiment has no lists.
        DataError: The file is damaged, lacks a column or has no rows.
    """
    ranking = experiment.evaluation.ranking or RankingSpec()
    key = ranking.key(experiment.dataset)
    if key is None:
        raise ConfigError(
            "the order inside lists can be measured where the experiment says which "
            "rows are a list: `dataset.keys: {group: column}` (or `user`)"
        )
    names = [
        name
        for name, task in outputs_of(experiment.dataset.tasks).items()
        if task.type != "multiclass"
    ]
    wanted = [key, *(f"{part}/{n}" for n in names for part in ("prediction", "label"))]
    if experiment.dataset.scenario is not None:
        wanted.append("scenario")
    try:
        known = pq.read_schema(path).names
        missing = sorted(set(wanted) - set(known))
        if missing:
            raise DataError(
                f"the predictions {str(path)!r} lack the columns {missing}: they must "
                "be what `tfmtl evaluate RUN --predictions` wrote for this run"
            )
        table = pq.read_table(path, columns=wanted)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{str(path)!r} is no Parquet file: {error}") from error
    if not table.num_rows:
        raise DataError(f"the predictions {str(path)!r} have no rows")

    def numbers(name: str) -> Floats:
        found: Floats = table[name].to_numpy(zero_copy_only=False).astype(np.float64)
        return found

    keys = table[key].to_numpy(zero_copy_only=False)
    return PredictionTable(
        predictions={name: numbers(f"prediction/{name}") for name in names},
        labels={name: numbers(f"label/{name}") for name in names},
        lists=group_codes(keys)[0],
        scenario=None
        if experiment.dataset.scenario is None
        else table["scenario"].to_numpy(zero_copy_only=False),
    )
