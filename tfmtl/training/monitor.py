"""What a validation split can define, known from the counts of its manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tfmtl.errors import ConfigError
from tfmtl.metrics.names import metric_key
from tfmtl.schema.evaluation import RankingMetric
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.manifest import DatasetManifest, LabelStats, SplitStats
from tfmtl.schema.task import TaskSpec

# A mean over two types would add up what has no common scale: the log-loss of a yes or
# no and that of twenty classes.
_MEANS = {
    "auc": "binary",
    "logloss": "binary",
    "rmse": "regression",
    "mae": "regression",
    "accuracy": "multiclass",
}
_METRICS = {
    "regression": ("rmse", "mae"),
    "multiclass": ("accuracy", "logloss"),
}


def mean_members(
    tasks: Iterable[TaskSpec], scenarios: Sequence[str]
) -> dict[str, list[str]]:
    """The metrics that each mean is over.

    `mean/auc` and `mean/logloss` are over the binary main tasks, `mean/rmse` and
    `mean/mae` over the regressions, `mean/accuracy` over the multiclass tasks;
    `mean_cell/...` are over the same tasks in each declared scenario. Without
    scenarios a task is one cell.

    Args:
        tasks: Of the model; auxiliary ones are left out.
        scenarios: The declared values.
    """
    found = {}
    main = [t for t in tasks if t.role == "main"]
    for metric, kind in _MEANS.items():
        names = [t.name for t in main if t.type == kind]
        whole = [metric_key(n, metric) for n in names]
        cells = [metric_key(n, metric, s) for n in names for s in scenarios]
        found[metric_key("mean", metric)] = whole
        found[metric_key("mean_cell", metric)] = cells if scenarios else whole
    return found


def check_monitor(experiment: Experiment, manifest: DatasetManifest) -> None:
    """Refuses a `training.monitor` that the validation split leaves undefined.

    Raises:
        ConfigError: see `check_defined`.
    """
    check_defined(experiment.training.monitor, "training.monitor", experiment, manifest)


def check_defined(
    name: str, setting: str, experiment: Experiment, manifest: DatasetManifest
) -> None:
    """Refuses a metric that the validation split leaves undefined.

    The counts of a manifest don't tell every case: how many rows with a click have no
    buy is not among them. What they don't tell counts as defined.

    Args:
        name: Of the metric.
        setting: Where it stands, for errors.
        experiment: Has tasks and scenarios.
        manifest: Has the counts.

    Raises:
        ConfigError: The metric cannot be defined: no rows, or one class only.
    """
    stats = manifest.splits.get("validation")
    tasks = experiment.dataset.tasks
    scenarios = experiment.dataset.scenario_values
    if stats is None or not stats.tasks or (scenarios and not stats.cells):
        return
    defined = _defined(tasks, scenarios, stats)
    defined |= {
        mean
        for mean, members in mean_members(tasks, scenarios).items()
        if not defined.isdisjoint(members)
    }
    subject, _, metric = name.rpartition("/")
    if RankingMetric.parse(metric) is not None:
        # Lists are not among the counts: that there are rows is all they tell.
        defined |= {name for m in ("logloss", "rmse") if f"{subject}/{m}" in defined}
    if name not in defined:
        raise ConfigError(
            f"`{setting}` = {name!r} is undefined on the validation split: "
            "there is no such row, AUC lacks one of the two classes, or there is no "
            f"such mean. Defined: {sorted(defined)}"
        )


def _defined(
    tasks: Sequence[TaskSpec], scenarios: Sequence[str], stats: SplitStats
) -> set[str]:
    """Names of the metrics that the counts allow, means aside."""
    found = set()
    for scenario in (None, *scenarios):
        counts = stats.tasks
        if scenario is not None:
            counts = {task: stats.cells[task][scenario] for task in stats.cells}
        cell = _Cell({t.name: t for t in tasks}, counts)
        for task in tasks:
            for output in {task.conditional, task.name}:
                for metric in cell.metrics(task, output):
                    found.add(metric_key(output, metric, scenario))
    return found


class _Cell:
    """What one scenario, or all rows, can define."""

    def __init__(
        self, tasks: Mapping[str, TaskSpec], counts: Mapping[str, LabelStats]
    ) -> None:
        self._tasks = tasks
        self._counts = counts

    def metrics(self, task: TaskSpec, output: str) -> tuple[str, ...]:
        """Metrics of an output of a task."""
        if task.type == "binary":
            classes = self._classes(task, joint=output != task.conditional)
            if len(classes) == 2:
                return ("auc", "logloss")
            return ("logloss",) if classes else ()
        reached = task.given is None or 1 in self._classes(self._tasks[task.given])
        return _METRICS[task.type] if reached and self._counts[task.name].rows else ()

    def _classes(self, task: TaskSpec, joint: bool = True) -> set[int]:
        """Labels that rows of a binary task may have.

        `joint`: over all rows, also those where `given` is 0.
        """
        counts = self._counts[task.name]
        own = {0} if counts.total < counts.rows else set()
        own |= {1} if counts.total > 0 else set()
        if task.given is None:
            return own
        above = self._classes(self._tasks[task.given])
        reached = own if 1 in above else set()
        return reached | ({0} & above if joint else set())
