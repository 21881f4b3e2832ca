"""Names of validation metrics, checked against the data that shall define them."""

from __future__ import annotations

from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.evaluation import RankingMetric, RankingSpec
from tfmtl.schema.task import outputs_of

METRICS = {
    "binary": ("auc", "logloss"),
    "regression": ("rmse", "mae"),
    "multiclass": ("accuracy", "logloss"),
}
"""Type of task to the metrics that every validation measures."""


def ranking_metric(name: str) -> RankingMetric | None:
    """The metric of the order inside lists that a name ends in, if it is one."""
    return RankingMetric.parse(name.rpartition("/")[2])


def check_metric(
    name: str, setting: str, dataset: DatasetSpec, ranking: RankingSpec | None
) -> None:
    """Refuses a metric that a validation of these data does not have.

    Args:
        name: `task/metric`, `task@scenario/metric` or `mean/metric`.
        setting: Where it stands, for errors: `training.monitor`.
        dataset: Has the tasks and the scenarios.
        ranking: What a list is.

    Raises:
        ValueError: It is none; the message says which there are.
    """
    subject, slash, metric = name.rpartition("/")
    task, _, scenario = subject.partition("@")
    names = [*dataset.task_names, "mean", "mean_cell"]
    metrics = list(dict.fromkeys(m for kind in METRICS.values() for m in kind))
    conditionals = [t.conditional for t in dataset.tasks]
    ranked = ranking_metric(name) if task in names + conditionals else None
    if ranked is not None:
        _check_ranked(name, setting, task, ranked, dataset, ranking or RankingSpec())
        metric, metrics = "", [""]
    if not slash or task not in names + conditionals or metric not in metrics:
        raise ValueError(
            f"`{setting}` must be task/metric, task@scenario/metric or mean/metric. "
            f"Received: {name!r}; tasks: {names}, metrics: {metrics}"
        )
    for spec in dataset.tasks:
        mine = ranked is None and task in (spec.name, spec.conditional)
        if mine and metric not in METRICS[spec.type]:
            raise ValueError(
                f"`{setting}`: a {spec.type} task has the metrics "
                f"{list(METRICS[spec.type])}. Received: {name!r}"
            )
    if scenario and scenario not in dataset.scenario_values:
        raise ValueError(
            f"`{setting}` names scenario {scenario!r}; scenarios: "
            f"{list(dataset.scenario_values)}"
        )


def _check_ranked(
    name: str,
    setting: str,
    output: str,
    metric: RankingMetric,
    dataset: DatasetSpec,
    ranking: RankingSpec,
) -> None:
    """Refuses a metric of an order that these data do not define."""
    task = outputs_of(dataset.tasks).get(output)
    if task is None:
        raise ValueError(
            f"`{setting}`: metrics of the order inside lists are of one task, not of "
            f"a mean. Received: {name!r}"
        )
    if ranking.key(dataset) is None:
        raise ValueError(
            f"`{setting}` is a metric of lists; say which rows are one: `keys: "
            f"{{group: column}}` (or `user`). Received: {name!r}"
        )
    if why := ranking.refusal(metric, task):
        raise ValueError(f"`{setting}`: {why}. Received: {name!r}")
