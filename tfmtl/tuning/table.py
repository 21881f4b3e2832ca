"""`trials.parquet`: one row a trial, for pandas, DuckDB and whatever reads Parquet.

`parameter/PATH` are the values tried, `metric/NAME` the validation metrics:
`parameter/balancer.config.weights.like`, `metric/click/auc`, as in the files of
`tfmtl evaluate --predictions`.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tfmtl.files import atomic_file
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.pareto import measured, pareto_front
from tfmtl.tuning.records import TrialRecord

TABLE = "trials.parquet"
PARAMETER = "parameter/"
METRIC = "metric/"


def trials_table(records: Sequence[TrialRecord], goal: Goal) -> pa.Table:
    """The trials as a table.

    Args:
        records: In the order the trials began.
        goal: Its bounds are numbers.

    Returns:
        Columns `trial`, `status`, `reason`; `score` (the first objective with the sign
        under which great is good; null where a bound is broken), `violation` (by how
        much bounds are missed in all), `feasible` and `on_front`, null or false where
        the trial failed or lacks a metric of the goal; `step`, `steps`, `seconds`,
        `seed`, `worker`, `reused` (the trial whose run it has, or null), `experiment`;
        `parameter/PATH` of one type each (lists, and values of several types, as JSON;
        null where not active) and `metric/NAME` (null where undefined).
    """
    counted = {record.trial for record in measured(records, goal)}
    on_front = {record.trial for record in pareto_front(records, goal)}
    missing = [
        goal.violation(r.metrics) if r.trial in counted else None for r in records
    ]
    score = [
        goal.score(r.metrics) if m == 0.0 else None for r, m in zip(records, missing)
    ]
    columns = {
        "trial": pa.array([r.trial for r in records], pa.string()),
        "status": pa.array([r.status for r in records], pa.string()),
        "reason": pa.array([r.reason for r in records], pa.string()),
        "score": pa.array(score, pa.float64()),
        "violation": pa.array(missing, pa.float64()),
        "feasible": pa.array([m == 0.0 for m in missing], pa.bool_()),
        "on_front": pa.array([r.trial in on_front for r in records], pa.bool_()),
        "step": pa.array([r.step for r in records], pa.int64()),
        "steps": pa.array([r.steps for r in records], pa.int64()),
        "seconds": pa.array([r.seconds for r in records], pa.float64()),
        "seed": pa.array([r.seed for r in records], pa.int64()),
        "worker": pa.array([r.worker for r in records], pa.string()),
        "reused": pa.array([r.reused for r in records], pa.string()),
        "experiment": pa.array([r.experiment for r in records], pa.string()),
    }
    for path in dict.fromkeys(path for r in records for path in r.values):
        values = [r.values.get(path) for r in records]
        columns[PARAMETER + path] = _typed(values)
    for name in dict.fromkeys(name for r in records for name in r.metrics):
        metric = [r.metrics.get(name) for r in records]
        columns[METRIC + name] = pa.array(metric, pa.float64(), from_pandas=True)
    return pa.table(columns)


def write_trials(
    path: pathlib.Path, records: Sequence[TrialRecord], goal: Goal
) -> None:
    """Writes `trials_table` as a Parquet file that is whole or absent."""
    with atomic_file(path) as temporary:
        pq.write_table(trials_table(records, goal), temporary)


def _typed(values: Sequence[Any]) -> pa.Array:
    """A column of the narrowest type that holds all values."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int}:
        return pa.array(values, pa.int64())
    if kinds and kinds <= {int, float}:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    if kinds <= {str}:
        return pa.array(values, pa.string())
    written = [None if v is None else json.dumps(v) for v in values]
    return pa.array(written, pa.string())
