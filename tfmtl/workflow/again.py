"""A search's best trials and its controls, trained on other seeds: one seed lies."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl.files import atomic_write
from tfmtl.progress import Listener
from tfmtl.schema.experiment import ComponentSpec, Experiment
from tfmtl.schema.manifest import read_dataset
from tfmtl.training.loop import Interrupted
from tfmtl.tuning.records import hash_of
from tfmtl.tuning.retrained import Kind, Retrained, SeedRun
from tfmtl.workflow.datasets import Datasets
from tfmtl.workflow.evaluate import evaluate
from tfmtl.workflow.session import Session
from tfmtl.workflow.train import train
from tfmtl.workflow.trials import FAILURES, is_of

SEEDS = "seeds"
CONTROLS = "controls"
CONFIGURED = "configured"
SEED = "seed.json"
"""In a run: its seconds, and what it reached on the test split, which is read once."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What is trained on several seeds.

    Attributes:
        label: In the report: `trial 0007`, `Equal`.
        kind: As of `Retrained`.
        trial: The trial's name; None of what is no trial of this search.
        experiment: Of any seed.
        folder: For its runs, one folder a seed.
        trials: That were spent to find it; None: all of the search's.
        spent: Seconds of training of these trials.
    """

    label: str
    kind: Kind
    trial: str | None
    experiment: Experiment
    folder: pathlib.Path
    trials: int | None = None
    spent: float | None = None

    def run(self, seed: int) -> pathlib.Path:
        """The run directory of a seed."""
        return self.folder / f"seed-{seed}"


def with_balancer(experiment: Experiment, name: str) -> Experiment:
    """The experiment with another balancer, by its defaults."""
    changed = {"balancer": ComponentSpec(class_name=name), "tuning": None}
    return experiment.model_copy(update=changed)


def train_again(
    candidates: Sequence[Candidate],
    seeds: Sequence[int],
    datasets: Datasets,
    session: Session,
    listener: Listener,
) -> list[Retrained]:
    """Trains every candidate on every seed, and reads the test split once for each.

    A run that is finished is not run again. One that diverges is left out, and told.

    Args:
        candidates: What is trained.
        seeds: Of the experiments.
        datasets: That each takes its own of.
        session: Shared by the runs: all of a seed come before any of the next, so that
            those that differ in numbers alone share graphs.
        listener: Told about the progress.

    Returns:
        One for each candidate, in their order.
    """
    listener.stage("train on other seeds", len(seeds) * len(candidates))
    runs: dict[str, list[SeedRun]] = {c.label: [] for c in candidates}
    failed: dict[str, dict[int, str]] = {c.label: {} for c in candidates}
    for seed in seeds:
        for candidate in candidates:
            run = candidate.run(seed)
            try:
                found = train_one(candidate.experiment, seed, datasets, run, session)
                runs[candidate.label].append(found)
            except Interrupted:
                raise
            except FAILURES as error:
                failed[candidate.label][seed] = f"{type(error).__name__}: {error}"
                listener.note(f"{candidate.label}, seed {seed}: {error}")
            listener.advance()
    return [
        Retrained(
            label=c.label,
            kind=c.kind,
            trial=c.trial,
            runs=tuple(runs[c.label]),
            failed=failed[c.label],
            trials=c.trials,
            spent=c.spent,
        )
        for c in candidates
    ]


def train_one(
    experiment: Experiment,
    seed: int,
    datasets: Datasets,
    run: pathlib.Path,
    session: Session,
) -> SeedRun:
    """Trains one candidate on one seed, unless it is done; reads the test split once.

    Args:
        experiment: Of any seed.
        seed: To train with.
        datasets: Of the search.
        run: The run directory.
        session: Shared by the runs of this process.

    Raises:
        Interrupted: A signal came; the run goes on when it is asked for again.
    """
    dataset = datasets.path(experiment)
    began = time.monotonic()
    asked = experiment.model_copy(update={"seed": seed})
    if run.exists() and not is_of(run, hash_of(asked)):
        # Of a trial that had this name in an earlier search.
        shutil.rmtree(run)
    result = train(asked, dataset, run, resume=True, session=session)
    seconds = time.monotonic() - began
    file = run / SEED
    if not file.exists():
        split = read_dataset(dataset).splits.get("test")
        tested = {}
        if split is not None and split.rows:
            tested = flat(evaluate(run, "test", dataset=dataset))
        text = json.dumps({"seconds": seconds, "test": tested}, indent=1)
        atomic_write(file, text + "\n")
    session.check_signal()
    known = json.loads(file.read_text())
    return SeedRun(seed, result.metrics, known["test"], known["seconds"])


def flat(report: Mapping[str, Any]) -> dict[str, float]:
    """A report's numbers by `click/auc`, `click@feed/auc`, `mean/auc`."""
    found: dict[str, float] = {}
    for task, values in report["tasks"].items():
        found |= _numbers(task, values)
        for scenario, own in values.get("scenarios", {}).items():
            found |= _numbers(f"{task}@{scenario}", own)
    for subject in ("mean_task", "mean_cell"):
        value = report.get(f"{subject}_auc")
        if value is not None:
            found[f"{subject.removesuffix('_task')}/auc"] = value
    return found


def _numbers(subject: str, values: Mapping[str, Any]) -> dict[str, float]:
    return {
        f"{subject}/{name}": float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
