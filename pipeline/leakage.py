"""Warns where one feature alone (nearly) determines a label.

Such a feature is usually an outcome of the row, known only afterwards. A figure over
0.98 hardly ever comes from an honest input.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline import plan
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.task import TaskSpec

LIMIT = 0.98
SAMPLE_ROWS = 50_000
_MIN_ROWS = 100
_MIN_POSITIVES = 10


def sample_columns(dataset: DatasetSpec) -> list[str]:
    """Columns of canonical batches that the check reads."""
    scalars = [
        i.name
        for i in plan.raw_inputs(dataset)
        if i.kind in ("string", "float", "time") and i.name != "scenario"
    ]
    return scalars + [f"label/{t}" for t in dataset.task_names]


def find(dataset: DatasetSpec, sample: pa.Table) -> list[str]:
    """Looks at each feature and task of a sample of training rows.

    A numeric feature is scored by the AUC (regression: the rank correlation) of its
    value and of its being missing; a categorical one by means per value, learnt on half
    of the sample and scored on the other half.

    Args:
        dataset: The data specification.
        sample: Canonical rows, in random order, with `sample_columns`.

    Returns:
        One warning for each pair over the limit, with the figure.
    """
    warnings: list[str] = []
    features = [c for c in sample_columns(dataset) if not c.startswith("label/")]
    kinds = {i.name: i.kind for i in plan.raw_inputs(dataset)}
    for task in dataset.tasks:
        label = sample[f"label/{task.name}"].to_numpy()
        known = np.flatnonzero(~np.isnan(label))
        if len(known) < _MIN_ROWS:
            continue
        for name in features:
            column = sample[name].to_numpy()[known]
            figure = _figure(task, column, label[known], kinds[name])
            if figure is not None and figure[0] > LIMIT:
                warnings.append(
                    f"feature {name!r} alone nearly determines the label of task "
                    f"{task.name!r}: {figure[1]} {figure[0]:.4f} on a sample of the "
                    "training rows. Is it known before the outcome?"
                )
    return warnings


def auc(score: np.ndarray, label: np.ndarray) -> float | None:
    """Area under the ROC curve with mid-ranks; None for a single class.

    Args:
        score: [rows].
        label: bool [rows].
    """
    positives = int(label.sum())
    negatives = len(label) - positives
    if min(positives, negatives) < _MIN_POSITIVES:
        return None
    ranks = pd.Series(score).rank().to_numpy()
    above = ranks[label].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def _figure(
    task: TaskSpec, column: np.ndarray, label: np.ndarray, kind: str
) -> tuple[float, str] | None:
    """How well a feature tells a label, between 0 and 1, and what the figure is."""
    half = len(label) // 2
    targets: list[np.ndarray] = [label]
    if task.type == "multiclass":
        targets = [(label == c) for c in range(task.classes or 0)]
    elif task.type == "binary":
        targets = [label == 1]
    best: tuple[float, str] | None = None
    for target in targets:
        if kind == "string":
            score = _means(column[:half], target[:half], column[half:])
            scores, seen = [score], target[half:]
        else:
            numbers = column.astype(np.float64)
            missing = np.isnan(numbers) | (column == plan.MISSING_TIME)
            scores, seen = [np.where(missing, -np.inf, numbers), missing], target
        for score in scores:
            if task.type == "regression":
                value, what = _correlation(score, seen), "rank correlation"
            else:
                area = auc(score, seen)
                value = None if area is None else max(area, 1 - area)
                what = "AUC"
            if value is not None and (best is None or value > best[0]):
                best = (value, what)
    return best


def _means(seen: np.ndarray, target: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Mean target of each value of one half, looked up for the other half."""
    means = pd.Series(target.astype(np.float64)).groupby(pd.Series(seen)).mean()
    scores = pd.Series(unseen).map(means).fillna(float(target.mean()))
    return np.asarray(scores.to_numpy(np.float64))


def _correlation(score: np.ndarray, target: np.ndarray) -> float | None:
    ranks = pd.Series(score).rank().to_numpy(), pd.Series(target).rank().to_numpy()
    if ranks[0].std() == 0 or ranks[1].std() == 0:
        return None
    return float(abs(np.corrcoef(*ranks)[0, 1]))
