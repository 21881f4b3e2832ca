"""The JSON document of an evaluation: every metric per task, per scenario, and means.

Which metric belongs to which type of task is decided here and nowhere else. What the
rows do not define is None (JSON null), never a neutral value such as AUC 0.5.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tfmtl.errors import ConfigError, DataError
from tfmtl.metrics import bootstrap, exact, multiclass, regression
from tfmtl.metrics.arrays import Floats, Ints, group_codes
from tfmtl.metrics.grouped import PerGroup, auc_per_group, summarise_groups
from tfmtl.metrics.lists import Gain
from tfmtl.metrics.names import unknown_name
from tfmtl.metrics.ranking_report import Ranking, ranking_document

TaskKind = Literal["binary", "regression", "multiclass", "order", "graded_order"]


@dataclasses.dataclass(frozen=True, eq=False)
class TaskPredictions:
    """Labels and predictions of one task on N rows.

    Attributes:
      name: of the task.
      kind: "binary", "regression" or "multiclass"; "order" and "graded_order" where
        the predictions are a score that orders rows with labels of 0 and 1, or with
        amounts, and says nothing else.
      labels: [N]; NaN where the row has no label or is not of the task's population.
      predictions: [N] probabilities (binary) or values (regression), [N, C]
        probabilities (multiclass). Rows without a label may hold anything.
      weights: [N] sample weights >= 0, or None. They enter every metric but not the
        counts `rows` and `positives`, nor the order inside lists.
      gain: of a label in NDCG, "linear" (y) or "exponential" (2^y - 1).
    """

    name: str
    kind: TaskKind
    labels: npt.NDArray[Any]
    predictions: npt.NDArray[Any]
    weights: npt.NDArray[Any] | None = None
    gain: Gain = "linear"


@dataclasses.dataclass(frozen=True, eq=False)
class _Cell:
    """Observed rows of one task, everywhere or in one scenario."""

    labels: Floats
    predictions: npt.NDArray[Any]
    weights: npt.NDArray[Any] | None
    users: Ints | None
    ranking: Ranking | None
    gain: Gain

    def take(self, rows: npt.NDArray[Any]) -> _Cell:
        """Keeps the rows of a mask or of an index array."""
        return _Cell(
            self.labels[rows],
            self.predictions[rows],
            None if self.weights is None else self.weights[rows],
            None if self.users is None else self.users[rows],
            None if self.ranking is None else self.ranking.take(rows),
            self.gain,
        )


@dataclasses.dataclass(frozen=True)
class _Options:
    """How intervals are drawn; `resamples` 0 means not at all."""

    resamples: int
    seed: int


def _defined(value: float) -> float | None:
    """NaN and infinity become None: JSON has neither."""
    return float(value) if math.isfinite(value) else None


def _ends(interval: bootstrap.Interval) -> list[float] | None:
    """An interval as [low, high], or None where undefined."""
    if not math.isfinite(interval.low):
        return None
    return [interval.low, interval.high]


def _per_user(cell: _Cell) -> PerGroup | None:
    """AUC of each user in the cell, or None where users are not known."""
    if cell.users is None:
        return None
    codes, count = group_codes(cell.users)
    return auc_per_group(cell.labels, cell.predictions, codes, count, cell.weights)


def _binary(cell: _Cell, options: _Options) -> dict[str, Any]:
    """Metrics of a binary task; `gauc` fields are None without users."""
    y, p, w = cell.labels, cell.predictions, cell.weights
    auc = exact.auc(y, p, w)
    document: dict[str, Any] = {
        "auc": _defined(auc),
        "auc_ci": None,
        "gauc": None,
        "gauc_ci": None,
        "gauc_coverage": None,
        "gauc_users": None,
        "logloss": _defined(exact.logloss(y, p, w)),
        "ne": _defined(exact.normalized_entropy(y, p, w)),
        "pcoc": _defined(exact.pcoc(y, p, w)),
        "ece": _defined(exact.expected_calibration_error(y, p, w)),
        "bins": [
            {
                "rows": part.rows,
                "predicted": part.predicted,
                "observed": part.observed,
                "pcoc": _defined(part.pcoc),
            }
            for part in exact.pcoc_by_score(y, p, w)
        ],
        "positives": int(y.sum()),
        "rows": len(y),
    }
    sampling = {"resamples": options.resamples, "seed": options.seed}
    if options.resamples and math.isfinite(auc):
        interval = bootstrap.auc_interval(y, p, cell.users, w, **sampling)
        document["auc_ci"] = _ends(interval)
    per_user = _per_user(cell)
    if per_user is not None:
        grouped = summarise_groups(per_user)
        document["gauc"] = _defined(grouped.value)
        document["gauc_coverage"] = grouped.row_coverage
        document["gauc_users"] = grouped.groups_used
        if options.resamples:
            interval = bootstrap.resample_groups(
                per_user,
                resamples=options.resamples,
                seed=options.seed,
            )
            document["gauc_ci"] = _ends(interval)
    document["ranking"] = _order(cell, options, graded=False)
    return document


def _order(cell: _Cell, options: _Options, *, graded: bool) -> dict[str, Any] | None:
    """Metrics of the order inside lists; None where there are no lists."""
    if cell.ranking is None:
        return None
    return ranking_document(
        cell.labels,
        cell.predictions,
        cell.ranking,
        users=cell.users,
        gain=cell.gain,
        graded=graded,
        resamples=options.resamples,
        seed=options.seed,
    )


def _regression(cell: _Cell, options: _Options) -> dict[str, Any]:
    """Metrics of a regression task."""
    y, p, w = cell.labels, cell.predictions, cell.weights
    return {
        "rmse": _defined(regression.rmse(y, p, w)),
        "mae": _defined(regression.mae(y, p, w)),
        "r2": _defined(regression.r2(y, p, w)),
        "rows": len(y),
        "ranking": _order(cell, options, graded=True),
    }


def _multiclass(cell: _Cell, options: _Options) -> dict[str, Any]:
    """Metrics of a multiclass task."""
    del options
    y, p, w = cell.labels, cell.predictions, cell.weights
    return {
        "accuracy": _defined(multiclass.accuracy(y, p, w)),
        "macro_f1": _defined(multiclass.macro_f1(y, p, w)),
        "logloss": _defined(multiclass.multiclass_logloss(y, p, w)),
        "rows": len(y),
    }


def _score(cell: _Cell, options: _Options) -> dict[str, Any]:
    """Metrics of a score, whatever its unit, with labels of 0 and 1."""
    per_user = _per_user(cell)
    value = math.nan if per_user is None else summarise_groups(per_user).value
    return {
        "auc": _defined(exact.auc(cell.labels, cell.predictions)),
        "gauc": _defined(value),
        "positives": int(cell.labels.sum()),
        "rows": len(cell.labels),
        "ranking": _order(cell, options, graded=False),
    }


def _graded_score(cell: _Cell, options: _Options) -> dict[str, Any]:
    """Metrics of a score with labels that are amounts."""
    ranking = _order(cell, options, graded=True)
    return {"rows": len(cell.labels), "ranking": ranking}


_METRICS: dict[str, Callable[[_Cell, _Options], dict[str, Any]]] = {
    "binary": _binary,
    "regression": _regression,
    "multiclass": _multiclass,
    "order": _score,
    "graded_order": _graded_score,
}


def evaluate_predictions(
    split: str,
    tasks: Sequence[TaskPredictions],
    *,
    scenario: npt.ArrayLike | None = None,
    scenario_names: Sequence[str] = (),
    users: npt.ArrayLike | None = None,
    mean_over: Sequence[str] | None = None,
    ranking: Ranking | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Computes all metrics of a split.

    Args:
      split: name of the split, copied into the document.
      tasks: predictions of each task on the same N rows.
      scenario: [N] ids into `scenario_names`; every other id is an undeclared value.
        None where there are no scenarios.
      scenario_names: the S declared values.
      users: [N] integers, strings or bytes; None where not known: then `gauc` is None
        and `auc_ci` comes from resampled rows. A row with the empty text has no user:
        it is left out of `gauc` and of what `gauc_coverage` covers, and is resampled
        alone.
      mean_over: names of the tasks that the means are over; all where None.
      ranking: the lists whose order is measured, of N rows; None for no such metrics.
      resamples: of the 95 % intervals; 0 leaves them None.
      seed: of the resampling.

    Returns:
      `{"split", "rows", "tasks": {task: {"kind", "auc", "auc_ci": [low, high], "gauc",
      "gauc_ci", "gauc_coverage" (share of rows), "gauc_users", "logloss", "ne",
      "pcoc", "ece", "bins", "positives", "rows", "ranking", "scenarios": {value:
      {same}}}}, "mean_task_auc", "mean_cell_auc", "mean_cell_auc_by_rows"}`. `bins` are
      ten of equal mass by rising prediction (fewer where predictions tie), each with
      "rows", "predicted" (mean), "observed" (rate) and "pcoc". Regression tasks have
      rmse, mae, r2, ranking; multiclass tasks accuracy, macro_f1, logloss; `ranking` is
      that of `ranking_report.ranking_document`. Rows of undeclared scenarios appear
      under "unknown" where there are any, and are left out of the cell means. The means
      are over binary cells with a defined AUC; without scenarios a task is one cell.
      `mean_cell_auc_by_rows` weights cells by rows.

    Raises:
      DataError: for arrays of different length, NaN predictions on labelled rows,
        labels that do not fit the task's kind.
      ConfigError: for no task, a repeated name or an unknown kind.
    """
    rows = _check_tasks(tasks)
    codes = None if users is None else group_codes(users)[0]
    ids = None if scenario is None else np.asarray(scenario)
    lists = None if ranking is None else ranking.groups
    for name, array in (("users", codes), ("scenario", ids), ("ranking", lists)):
        if array is not None and array.shape != (rows,):
            raise DataError(
                f"`{name}` must have one value for each of {rows} rows, got shape "
                f"{array.shape}"
            )
    options = _Options(resamples, seed)
    documents = {
        task.name: _evaluate_task(
            task, ids, tuple(scenario_names), codes, ranking, options
        )
        for task in tasks
    }
    return {
        "split": split,
        "rows": rows,
        "tasks": documents,
        **_means(
            {
                name: document
                for name, document in documents.items()
                if mean_over is None or name in mean_over
            },
            tuple(scenario_names),
        ),
    }


def _check_tasks(tasks: Sequence[TaskPredictions]) -> int:
    """Checks names, kinds and shapes; returns the common number of rows."""
    names = [task.name for task in tasks]
    if not names or len(set(names)) != len(names):
        raise ConfigError(
            f"`tasks` must hold at least one task and no name twice, got {names}"
        )
    rows = len(tasks[0].labels)
    for task in tasks:
        if task.kind not in _METRICS:
            raise ConfigError(
                f"`kind` of task {task.name!r} must be one of {sorted(_METRICS)}, "
                f"got {task.kind!r}"
            )
        expected = 2 if task.kind == "multiclass" else 1
        fits = (
            np.shape(task.labels) == (rows,)
            and np.ndim(task.predictions) == expected
            and len(task.predictions) == rows
            and (task.weights is None or np.shape(task.weights) == (rows,))
        )
        if not fits:
            raise DataError(
                f"task {task.name!r} must have labels and weights [{rows}] and "
                f"predictions of {expected} axes with {rows} rows, got "
                f"{np.shape(task.labels)}, "
                f"{None if task.weights is None else np.shape(task.weights)} and "
                f"{np.shape(task.predictions)}"
            )
    return rows


def _evaluate_task(
    task: TaskPredictions,
    ids: npt.NDArray[Any] | None,
    names: tuple[str, ...],
    users: Ints | None,
    ranking: Ranking | None,
    options: _Options,
) -> dict[str, Any]:
    """Metrics of one task on all observed rows and in each scenario."""
    labels = np.asarray(task.labels, dtype=np.float64)
    everything = _Cell(
        labels, np.asarray(task.predictions), task.weights, users, ranking, task.gain
    )
    observed = ~np.isnan(labels)
    cell = everything.take(observed)
    compute = _METRICS[task.kind]
    scenarios: dict[str, Any] = {}
    try:
        document = {"kind": task.kind, **compute(cell, options)}
        if names:
            place = _scenario_places(ids, observed, len(names))
            # One sort instead of a pass over all rows for each scenario.
            order = np.argsort(place, kind="stable")
            bounds = np.searchsorted(place[order], np.arange(len(names) + 2))
            for number, name in enumerate((*names, unknown_name(names))):
                chosen = order[bounds[number] : bounds[number + 1]]
                if number < len(names) or len(chosen):
                    part = compute(cell.take(chosen), options)
                    scenarios[name] = {"kind": task.kind, **part}
    except DataError as error:
        raise DataError(f"task {task.name!r}: {error}") from error
    document["scenarios"] = scenarios
    return document


def _scenario_places(
    ids: npt.NDArray[Any] | None, observed: npt.NDArray[np.bool_], count: int
) -> Ints:
    """Scenario of each observed row in 0 .. count; count is 'not declared'."""
    if ids is None:
        return np.full(int(observed.sum()), count, dtype=np.int64)
    chosen = ids[observed]
    declared = (chosen >= 0) & (chosen < count)
    return np.where(declared, chosen, count).astype(np.int64)


def _means(
    documents: dict[str, dict[str, Any]], names: tuple[str, ...]
) -> dict[str, float | None]:
    """Means of the defined AUC over binary tasks and over declared cells."""
    binary = [d for d in documents.values() if d["kind"] == "binary"]
    cells = binary
    if names:
        cells = [document["scenarios"][name] for document in binary for name in names]
    tasks = [task for task in binary if task["auc"] is not None]
    cells = [cell for cell in cells if cell["auc"] is not None]
    if not tasks:
        return dict.fromkeys(
            ("mean_task_auc", "mean_cell_auc", "mean_cell_auc_by_rows")
        )
    values = np.asarray([cell["auc"] for cell in cells])
    sizes = np.asarray([cell["rows"] for cell in cells], dtype=np.float64)
    return {
        "mean_task_auc": float(np.mean([task["auc"] for task in tasks])),
        "mean_cell_auc": float(values.mean()) if len(cells) else None,
        "mean_cell_auc_by_rows": (
            float(values @ sizes / sizes.sum()) if len(cells) else None
        ),
    }
