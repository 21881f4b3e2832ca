"""Experiment with a `tuning` section + dataset directory -> search directory."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl import build
from tfmtl.errors import ConfigError, DataError, TrainingError
from tfmtl.files import atomic_write, check_target, locked
from tfmtl.metrics.front import thinned
from tfmtl.optim.groups import match_groups
from tfmtl.progress import Listener, Silent
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.load import dump_experiment, load_experiment, parse_experiment
from tfmtl.schema.manifest import DatasetManifest, read_dataset
from tfmtl.schema.tuning import TuningSpec
from tfmtl.training.monitor import check_monitor
from tfmtl.training.rundir import EXPERIMENT
from tfmtl.tuning import plots
from tfmtl.tuning.choose import choose as choose_record
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.oracles.make import make_oracle
from tfmtl.tuning.oracles.pruning import MedianRule
from tfmtl.tuning.pareto import pareto_front
from tfmtl.tuning.records import TRIALS, TrialRecord, read_record, read_records
from tfmtl.tuning.retrained import Retrained
from tfmtl.tuning.space import Space
from tfmtl.workflow.again import (
    CONFIGURED,
    CONTROLS,
    SEEDS,
    Candidate,
    train_again,
    with_balancer,
)
from tfmtl.workflow.results import BEST, write_results
from tfmtl.workflow.session import Session, make_model
from tfmtl.workflow.train import fit_manifest, train
from tfmtl.workflow.trials import RUNG, Trials
from tfmtl.workflow.tuner import ORACLE, Tuner, described, name_of
from tfmtl.workflow.workers import CHIEF, IP, NAME, PORT, Chief, LocalWorkers, role

SEARCH = "search.json"
CHOSEN = "chosen.yaml"
LOCK = "lock"


@dataclasses.dataclass(frozen=True)
class _Search:
    """What all parts of a search read."""

    experiment: Experiment
    spec: TuningSpec
    space: Space
    dataset: pathlib.Path
    directory: pathlib.Path
    session: Session
    listener: Listener


def tune(
    experiment: Experiment,
    dataset: str | pathlib.Path,
    directory: str | pathlib.Path,
    *,
    workers: int = 1,
    worker_command: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> dict[str, Any] | None:
    """Searches the space of an experiment's `tuning` section.

    Args:
        experiment: Has the section.
        dataset: A dataset directory, shared by all trials.
        directory: Of the search; each trial is a run directory in it.
        workers: Processes that run trials at the same time.
        worker_command: Of a process that calls `tune` with the same arguments; what
            `workers` > 1 starts.
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
    part = role()
    if workers > 1 and (part != "alone" or not worker_command):
        raise ConfigError(
            "`workers` starts processes on this machine. Received: "
            f"workers={workers}, in a process that is the search's {part}"
            if part != "alone"
            else "`workers` > 1 needs `worker_command`"
        )
    document = experiment.model_dump(mode="json", by_alias=True)
    search = _Search(
        experiment,
        experiment.tuning,
        Space(experiment.tuning, document),
        pathlib.Path(dataset),
        pathlib.Path(directory),
        Session(keep=True),
        listener or Silent(),
    )
    if workers > 1 or part != "alone":
        # Processes that share a GPU take of its memory what they need, not all.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if part == "worker":
        _work(search)
        return None
    manifest = _check(search)
    _begin(search, manifest, resume, overwrite)
    try:
        with locked(search.directory / LOCK, wait=False):
            return _run(search, workers, worker_command, part)
    except BlockingIOError:
        raise ConfigError(
            f"`directory` {str(search.directory)!r}: another process is searching there"
        ) from None


def _run(
    search: _Search, workers: int, worker_command: Sequence[str], part: str
) -> dict[str, Any]:
    records = _known(search)
    goal = _resolved(search)
    for bound in goal.bounds:
        search.listener.note(f"bound: {bound}")
    _write_asked(search.directory, {**_asked(search.directory), "ready": True})
    _search(search, goal, records, workers, worker_command, part)
    return _finish(search, goal)


def choose(directory: str | pathlib.Path, text: str) -> tuple[TrialRecord, str]:
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
    asked = _asked(path)
    experiment = load_experiment(path / EXPERIMENT)
    assert experiment.tuning is not None
    space = Space(experiment.tuning, experiment.model_dump(mode="json", by_alias=True))
    record = choose_record(read_records(path), text, asked.get("baseline") or {})
    chosen = parse_experiment(space.apply(record.values))
    atomic_write(path / CHOSEN, dump_experiment(chosen))
    return record, str(path / CHOSEN)


def _check(search: _Search) -> DatasetManifest:
    """Refuses a space that does not fit, before anything is trained."""
    build.check_tuning(search.experiment)
    manifest = fit_manifest(search.experiment, read_dataset(search.dataset))
    check_monitor(search.experiment, manifest)
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

    def probe(document: dict[str, Any]) -> None:
        experiment = parse_experiment(document)
        fitted = fit_manifest(experiment, manifest)
        asked = experiment.model_dump(mode="json", by_alias=True)
        model = json.dumps([asked["model"], asked["dataset"], asked["regularization"]])
        if model not in groups:
            made = make_model(experiment, fitted, search.dataset)
            groups[model] = list(made.variable_groups())
        match_groups(groups[model], list(experiment.optimizers))

    search.space.check(probe)
    return manifest


def _begin(
    search: _Search, manifest: DatasetManifest, resume: bool, overwrite: bool
) -> None:
    """Makes the directory, or finds the search that is in it."""
    path = search.directory
    asked = _of(search, manifest)
    if overwrite or not (path / SEARCH).exists():
        check_target(path, overwrite=overwrite)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        # First: a kill from here on leaves a search that can be resumed.
        _write_asked(path, asked)
        atomic_write(path / EXPERIMENT, dump_experiment(search.experiment))
        return
    before = _asked(path)
    _check_same(path, before, asked)
    finished = before.get("finished", False)
    if not (resume or finished):
        raise ConfigError(
            f"`directory` {str(path)!r} holds a search that is not finished: pass "
            "--resume to continue it, or --overwrite"
        )
    search.listener.note(
        f"{len(read_records(path))} trials of this space are over, and are taken over"
    )
    if before["oracle"] != asked["oracle"]:
        # Another oracle, goal or seed: it begins anew, and is told what is known.
        shutil.rmtree(path / ORACLE, ignore_errors=True)
    _write_asked(path, {**before, **asked, "finished": False, "ready": False})
    atomic_write(path / EXPERIMENT, dump_experiment(search.experiment))


def _of(search: _Search, manifest: DatasetManifest) -> dict[str, Any]:
    """What makes a search the one that it is."""
    return {
        "space": search.space.fingerprint(),
        "schema_hash": manifest.schema_hash,
        "content_id": manifest.content_id,
        "dataset": str(search.dataset.absolute()),
        "seed": search.experiment.seed,
        "oracle": _oracle_of(search.spec),
    }


def _check_same(
    path: pathlib.Path, before: Mapping[str, Any], asked: Mapping[str, Any]
) -> None:
    for key, what in (
        ("space", "the space, or the experiment around it,"),
        ("schema_hash", "the data set's schema"),
        ("content_id", "the data set"),
        ("seed", "the experiment's `seed`"),
    ):
        if before[key] != asked[key]:
            raise ConfigError(
                f"`directory` {str(path)!r} holds a search, and {what} is not the one "
                "of that search. Choose another folder, or pass --overwrite"
            )


def _known(search: _Search) -> list[TrialRecord]:
    """The trials to tell an oracle that begins anew; none where it has a state."""
    folder = search.directory / ORACLE
    if (folder / "oracle.json").exists():
        return []
    # A kill may have left half of a state.
    shutil.rmtree(folder, ignore_errors=True)
    return [r for r in read_records(search.directory) if r.reason != RUNG]


def _oracle_of(spec: TuningSpec) -> dict[str, Any]:
    """What an oracle's own state depends on beside the space."""
    kept = (
        "oracle",
        "objective",
        "constraints",
        "seed",
        "initial_points",
        "hyperband",
    )
    document = spec.model_dump(mode="json")
    return {key: document[key] for key in kept}


def _resolved(search: _Search) -> Goal:
    """The goal with its bounds as numbers; what the file reaches is measured for it."""
    goal = Goal.parse(search.spec.objectives, search.spec.constraints)
    if not any(bound.relative for bound in goal.bounds):
        return goal
    asked = _asked(search.directory)
    if not asked.get("baseline"):
        run = (
            search.directory / CONTROLS / CONFIGURED / f"seed-{search.experiment.seed}"
        )
        search.listener.note("the experiment as it is written: the baseline of bounds")
        result = train(
            _plain(search.experiment),
            search.dataset,
            run,
            resume=True,
            session=search.session,
            listener=search.listener,
        )
        asked["baseline"] = result.metrics
        _write_asked(search.directory, asked)
    return goal.resolved(asked["baseline"])


def _plain(experiment: Experiment) -> Experiment:
    return experiment.model_copy(update={"tuning": None})


def _trials(search: _Search, goal: Goal, worker: str) -> Trials:
    pruning = search.spec.pruning
    rule = None
    if pruning.rule == "median":
        rule = MedianRule(pruning.warmup_evaluations, pruning.least_trials)
    return Trials(
        search.space.apply,
        goal,
        search.dataset,
        search.directory,
        rule=rule,
        worker=worker,
        session=search.session,
    )


def _tuner(search: _Search, goal: Goal, records: Sequence[TrialRecord]) -> Tuner:
    spec = search.spec
    oracle = make_oracle(
        spec.oracle,
        search.space.hyperparameters(),
        goal,
        max_trials=spec.max_trials,
        seed=spec.seed,
        initial_points=spec.initial_points,
        epochs=search.experiment.training.epochs,
        factor=spec.hyperband.factor,
        iterations=spec.hyperband.iterations,
    )
    trials = _trials(search, goal, os.environ.get(NAME, "tuner0"))
    tuner = Tuner(
        oracle, trials, search.space.values, goal, search.directory, search.listener
    )
    if records:
        encode = search.space.encode
        oracle.start([dataclasses.replace(r, values=encode(r.values)) for r in records])
    return tuner


def _search(
    search: _Search,
    goal: Goal,
    records: Sequence[TrialRecord],
    workers: int,
    command: Sequence[str],
    part: str,
) -> None:
    search.listener.stage("search", search.spec.max_trials)
    if part == "alone" and workers == 1:
        _tuner(search, goal, records).search()
        return
    address = "127.0.0.1:0"
    if part == "chief":
        address = f"{os.environ[IP]}:{os.environ[PORT]}"
    tuner = _tuner(search, goal, records)
    chief = Chief(tuner.oracle, address)
    search.listener.note(f"the chief listens at port {chief.port}")
    seen = _Seen(search, goal, tuner.oracle)
    if part == "chief":
        chief.serve(seen.tell)
        return
    processes = LocalWorkers(
        command,
        workers,
        chief.port,
        search.directory,
        search.listener,
        lambda: len(tuner.oracle.end_order),
    )

    def tend() -> None:
        processes.tend()
        seen.tell()

    try:
        chief.serve(tend)
    finally:
        processes.stop()


class _Seen:
    """Tells the chief's listener about trials that workers ended."""

    def __init__(self, search: _Search, goal: Goal, oracle: Any) -> None:
        self._search, self._goal, self._oracle = search, goal, oracle
        self._told = len(oracle.end_order)

    def tell(self) -> None:
        for trial in list(self._oracle.end_order)[self._told :]:
            record = read_record(self._search.directory / TRIALS / name_of(trial))
            if record is not None:
                self._search.listener.note(described(record, self._goal))
            self._search.listener.advance()
            self._told += 1


def _work(search: _Search) -> None:
    """A worker: asks the chief for trials until there are no more."""
    search.listener.stage(f"{os.environ[NAME]} of the search")
    while not ((search.directory / SEARCH).exists() and _ready(search.directory)):
        time.sleep(0.5)
    manifest = fit_manifest(search.experiment, read_dataset(search.dataset))
    _check_same(search.directory, _asked(search.directory), _of(search, manifest))
    goal = Goal.parse(search.spec.objectives, search.spec.constraints)
    goal = goal.resolved(_asked(search.directory).get("baseline") or {})
    _tuner(search, goal, []).search()


def _ready(path: pathlib.Path) -> bool:
    """Whether the chief knows what the bounds are."""
    return bool(_asked(path).get("ready"))


def _finish(search: _Search, goal: Goal) -> dict[str, Any]:
    """The best trials and the controls on other seeds, and everything written."""
    records = read_records(search.directory)
    usable = [r for r in records if r.usable]
    if not usable:
        reasons = sorted({r.reason for r in records}) or ["there were none"]
        raise TrainingError(f"every trial failed: {'; '.join(reasons)[:1000]}")
    # Before anything else can go wrong.
    report = _write(search, goal, records, [])
    if search.spec.seeds:
        again = train_again(
            _candidates(search, goal, usable),
            range(
                search.experiment.seed + 1,
                search.experiment.seed + 1 + search.spec.seeds,
            ),
            search.dataset,
            search.session,
            search.listener,
        )
        fair = _over_seeds(search, goal, again)
        report = _write(search, goal, records, again, fair)
    if not plots.available():
        search.listener.note(plots.MISSING)
    if not report["winner"]["keeps_bounds"]:
        search.listener.note("no trial keeps all bounds; best.yaml is the nearest")
    asked = _asked(search.directory)
    _write_asked(search.directory, {**asked, "finished": True})
    return report


def _write(
    search: _Search,
    goal: Goal,
    records: Sequence[TrialRecord],
    again: Sequence[Retrained],
    over_seeds: Goal | None = None,
) -> dict[str, Any]:
    asked = _asked(search.directory)
    told = {
        "experiment": search.experiment.name,
        "dataset": asked["dataset"],
        "max_trials": search.spec.max_trials,
        **asked["oracle"],
    }
    return write_results(
        search.directory, search.space, goal, records, again, told, over_seeds
    )


def _over_seeds(search: _Search, goal: Goal, again: Sequence[Retrained]) -> Goal:
    """The goal for means over seeds: baselines are means over the same seeds."""
    written = _plain(search.experiment)
    names = [CONFIGURED] + [
        name
        for name in search.spec.controls
        if with_balancer(search.experiment, name) == written
    ]
    baselines = [one.means() for one in again if one.label in names and one.runs]
    asked = Goal.parse(search.spec.objectives, search.spec.constraints)
    return asked.resolved(baselines[0]) if baselines else goal


def _candidates(
    search: _Search, goal: Goal, usable: Sequence[TrialRecord]
) -> list[Candidate]:
    """The best trials, or points along the front, and the controls."""
    # Of trials of one experiment, which Hyperband has, the one that went furthest.
    furthest = {r.experiment: r for r in sorted(usable, key=lambda r: r.steps)}
    own = list(furthest.values())
    ranked = sorted(own, key=lambda r: goal.score(r.metrics), reverse=True)
    if len(goal.objectives) > 1:
        front = pareto_front(own, goal) or ranked
        ranked = [front[i] for i in thinned(np.arange(len(front)), search.spec.top)]
    found = [
        Candidate(
            label=f"trial {record.trial}",
            kind="tuned",
            trial=record.trial,
            experiment=parse_experiment(search.space.apply(record.values)),
            folder=search.directory / SEEDS / record.trial,
        )
        for record in ranked[: search.spec.top]
    ]
    experiments = {n: with_balancer(search.experiment, n) for n in search.spec.controls}
    written = _plain(search.experiment)
    if written not in experiments.values():
        experiments = {CONFIGURED: written, **experiments}
    for name, experiment in experiments.items():
        folder = search.directory / CONTROLS / name.replace(":", "-")
        found.append(Candidate(name, "control", None, experiment, folder))
    return found


def _asked(path: pathlib.Path) -> dict[str, Any]:
    file = path / SEARCH
    try:
        document: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise DataError(f"{str(path)!r} is no search: it has no {SEARCH}") from error
    except ValueError as error:
        raise DataError(f"{str(file)!r} is damaged: {error}") from error
    return document


def _write_asked(path: pathlib.Path, asked: dict[str, Any]) -> None:
    atomic_write(path / SEARCH, json.dumps(asked, indent=1) + "\n")


__all__ = ["BEST", "CHIEF", "choose", "name_of", "tune"]
