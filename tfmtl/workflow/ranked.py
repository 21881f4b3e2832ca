"""What an evaluation says about order: lists, their metrics, and the fused score's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl.fusion.scores import fuse
from tfmtl.metrics.arrays import Ints, group_codes
from tfmtl.metrics.ranking_report import Ranking
from tfmtl.metrics.report import TaskPredictions, evaluate_predictions
from tfmtl.schema.evaluation import RankingSpec
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.fusion import FusionSpec
from tfmtl.schema.task import outputs_of

Arrays = Mapping[str, npt.NDArray[Any]]


def list_codes(experiment: Experiment, keys: Arrays) -> Ints | None:
    """Number of each row's list [N], by `evaluation.ranking.by`; None without lists."""
    spec = experiment.evaluation.ranking or RankingSpec()
    key = spec.key(experiment.dataset)
    return None if key is None else group_codes(keys[key])[0]


def ranking_of(
    experiment: Experiment, keys: Arrays, labels: Mapping[str, npt.NDArray[Any]]
) -> Ranking | None:
    """What of the order is measured.

    Args:
        experiment: Of the run.
        keys: Key to [N].
        labels: Output to [N], NaN where there is none.

    Returns:
        None where there are no lists, or `evaluation.ranking` is null.
    """
    spec = experiment.evaluation.ranking
    key = None if spec is None else spec.key(experiment.dataset)
    codes = list_codes(experiment, keys)
    if spec is None or key is None or codes is None:
        return None
    value = None if spec.value is None else labels[spec.value].astype(np.float64)
    return Ranking(codes, key, spec.at, spec.empty, value)


def fused_scores(
    experiment: Experiment, fusion: FusionSpec, predicted: Arrays, keys: Arrays
) -> npt.NDArray[np.float32]:
    """The fused score of each row [N], as it is served.

    `form: rank` ranks inside the lists, where a served model takes a request for one.
    """
    groups = list_codes(experiment, keys) if fusion.form == "rank" else None
    return fuse(predicted, fusion, groups).astype(np.float32)


def fused_report(
    split: str,
    experiment: Experiment,
    fusion: FusionSpec,
    score: npt.NDArray[Any],
    labels: Mapping[str, npt.NDArray[Any]],
    **shared: Any,
) -> dict[str, Any]:
    """How well the order by one score serves each task.

    Args:
        split: Name of the split.
        experiment: Of the run.
        fusion: Which made the score.
        score: [N].
        labels: Output to [N], NaN where there is none.
        **shared: Of `evaluate_predictions`: scenarios, users, ranking.

    Returns:
        `{"form", "weights", ..., "outputs": {output: {"auc", "gauc", "ranking",
        "scenarios": {value: {same}}}}}`; of a regression `ranking` alone.
    """
    tasks = [
        TaskPredictions(
            name=name,
            kind="order" if task.type == "binary" else "graded_order",
            labels=labels[name].astype(np.float64),
            predictions=score.astype(np.float64),
            gain=gain_of(experiment, name),
        )
        for name, task in outputs_of(experiment.dataset.tasks).items()
        if task.type != "multiclass"
    ]
    measured = evaluate_predictions(split, tasks, **shared)["tasks"]
    return {**fusion.model_dump(mode="json"), "outputs": measured}


def gain_of(experiment: Experiment, output: str) -> Any:
    """The gain of an output's labels in NDCG."""
    spec = experiment.evaluation.ranking
    task = outputs_of(experiment.dataset.tasks)[output].name
    return "linear" if spec is None else spec.gain.get(task, "linear")
