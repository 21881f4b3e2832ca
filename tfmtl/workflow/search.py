"""Experiment with a `tuning` section + dataset directory -> search directory."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from tfmtl import build
from tfmtl.errors import ConfigError
from tfmtl.files import atomic_write, locked
from tfmtl.optim.groups import match_groups
from tfmtl.progress import Listener, Silent
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.load import dump_experiment, load_experiment, parse_experiment
from tfmtl.training.monitor import check_defined, check_monitor
from tfmtl.training.rundir import EXPERIMENT
from tfmtl.tuning.choose import choose as choose_record
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.records import TrialRecord, read_records
from tfmtl.tuning.space import Space
from tfmtl.workflow.again import CONFIGURED, CONTROLS
from tfmtl.workflow.again_workers import asked_again, work_again
from tfmtl.workflow.datasets import Datasets
from tfmtl.workflow.running import run_trials, work
from tfmtl.workflow.search_directory import LOCK, SearchDirectory
from tfmtl.workflow.search_setup import Processes, Search
from tfmtl.workflow.session import Session, make_model
from tfmtl.workflow.train import train
from tfmtl.workflow.winners import finish
from tfmtl.workflow.workers import role

CHOSEN = "chosen.yaml"

Path = str | pathlib.Path


def tune(
    experiment: Experiment,
    dataset: Path | Sequence[Path],
    directory: Path,
    *,
    workers: int = 1,
    worker_command: Callable[[pathlib.Path], Sequence[str]] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> dict[str, Any] | None:
    """Searches the space of an experiment's `tuning` section.

    Args:
        experiment: Has the section.
        dataset: A dataset directory, shared by all trials; or several, one for each
            value of what the space changes in the records.
        directory: Of the search; each trial is a run directory in it.
        workers: Processes that run trials at the same time.
        worker_command: A search directory to the command of a process that calls `tune`
            with it, its `experiment.yaml` and the same data; what `workers` > 1 starts.
        resume: Continue a search that was interrupted. Finished trials are not run
            again. A finished search needs no `resume`: the trials that its space has in
            common with the one that is asked for are taken over.
        overwrite: Replace what the folder holds.
        listener: Told about the progress.

    Returns:
        What `report.json` holds; None to a worker of keras-tuner's protocol.

    Raises:
        ConfigError: The space does not fit the experiment or the data set, the folder
            holds another search, or no trial kept the bounds.
        DataError: The data set or the search directory is damaged.
        TrainingError: Every trial failed, or a worker ended by a mistake.
    """
    if experiment.tuning is None:
        raise ConfigError(
            "the experiment has no `tuning` section: it says what to search, such as "
            "`tuning: {space: {optimizers.default.learning_rate: {type: float, min: "
            "1.0e-4, max: 1.0e-2, scale: log}}}`"
        )
    processes = Processes(role(), workers, worker_command)
    _check_processes(processes)
    given = [dataset] if isinstance(dataset, Path) else dataset
    search = Search(
        experiment,
        Datasets([pathlib.Path(one) for one in given]),
        SearchDirectory(pathlib.Path(directory)),
        Session(keep=True),
        listener or Silent(),
        processes,
    )
    if workers > 1 or processes.part != "alone":
        # Processes that share a GPU take of its memory what they need, not all.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if processes.part == "worker":
        work_again(search) if asked_again() else work(search)
        return None
    _check(search)
    try:
        search.directory.check_free()
        search.directory.begin(
            experiment,
            search.identity(),
            resume=resume,
            overwrite=overwrite,
        )
        with locked(search.path / LOCK, wait=False):
            goal = _resolved(search)
            for bound in goal.bounds:
                search.listener.note(f"bound: {bound}")
            search.listener.stage("search", search.spec.budget)
            run_trials(search, goal)
            return finish(search, goal)
    except BlockingIOError:
        raise ConfigError(
            f"`directory` {str(search.path)!r}: another process is searching there"
        ) from None


def choose(directory: Path, text: str) -> tuple[TrialRecord, str]:
    """Picks a trial of a search, and writes its experiment file.

    Args:
        directory: Of a search.
        text: Such as `like/auc >= 0.75, max click/auc`.

    Returns:
        The trial's record, and the path of the file, `chosen.yaml` in the directory.

    Raises:
        ConfigError: No trial keeps the bounds, or a metric is unknown.
        DataError: The folder is no search.
    """
    path = pathlib.Path(directory)
    asked = SearchDirectory(path).asked()
    experiment = load_experiment(path / EXPERIMENT)
    assert experiment.tuning is not None
    space = Space(experiment.tuning, experiment.model_dump(mode="json", by_alias=True))
    record = choose_record(read_records(path), text, asked.get("baseline") or {})
    chosen = parse_experiment(space.apply(record.values))
    atomic_write(path / CHOSEN, dump_experiment(chosen))
    return record, str(path / CHOSEN)


def _check_processes(processes: Processes) -> None:
    if processes.workers == 1:
        return
    if processes.part != "alone":
        raise ConfigError(
            "`workers` starts processes on this machine. Received: "
            f"workers={processes.workers}, in a process that is the search's "
            f"{processes.part}"
        )
    if processes.command is None:
        raise ConfigError("`workers` > 1 needs `worker_command`")


def _check(search: Search) -> None:
    """Refuses a space that does not fit, before anything is trained."""
    manifest = search.datasets.of(search.experiment)[1]
    check_monitor(search.experiment, manifest)
    for name in search.goal.metrics:
        check_defined(name, "tuning", search.experiment, manifest)
    training = search.experiment.training
    if search.spec.oracle == "hyperband" and (
        training.steps is not None or training.evaluate_every is not None
    ):
        raise ConfigError(
            "`tuning.oracle: hyperband` trains whole epochs and evaluates after each: "
            "`training.steps` and `training.evaluate_every` must be left out. "
            f"Received: steps={training.steps}, "
            f"evaluate_every={training.evaluate_every}",
            [("tuning", "oracle")],
        )
    groups: dict[str, list[str]] = {}

    def probe(experiment: Experiment) -> None:
        path, manifest = search.datasets.of(experiment)
        asked = experiment.model_dump(mode="json", by_alias=True)
        model = json.dumps([asked["model"], asked["dataset"], asked["regularization"]])
        if model not in groups:
            made = make_model(experiment, manifest, path)
            groups[model] = list(made.variable_groups())
        match_groups(groups[model], list(experiment.optimizers))

    build.check_tuning(search.experiment, probe)


def _resolved(search: Search) -> Goal:
    """The goal with its bounds as numbers; what the file reaches is measured for it."""
    goal = search.goal
    if not any(bound.relative for bound in goal.bounds):
        return goal
    baseline = search.directory.asked().get("baseline")
    if not baseline:
        seed = search.experiment.seed
        search.listener.note("the experiment as it is written: the baseline of bounds")
        result = train(
            search.written,
            search.datasets.path(search.experiment),
            search.path / CONTROLS / CONFIGURED / f"seed-{seed}",
            resume=True,
            session=search.session,
            listener=search.listener,
        )
        search.session.check_signal()
        baseline = result.metrics
        search.directory.write(baseline=baseline)
    return goal.resolved(baseline)
