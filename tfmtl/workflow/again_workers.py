"""The trainings on other seeds, by several processes of this machine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence

from tfmtl.files import atomic_write, locked
from tfmtl.schema.load import parse_experiment
from tfmtl.training.loop import Interrupted
from tfmtl.workflow.again import SEED, Candidate, train_one
from tfmtl.workflow.search_setup import Search
from tfmtl.workflow.trials import FAILURES
from tfmtl.workflow.workers import LocalWorkers, end_with_parent

AGAIN = "TFMTL_AGAIN"
"""Set for a worker that is to take trainings of `JOBS`, and no trials of a chief."""
JOBS = "again.json"
_POLL_SECONDS = 0.5


def train_by_workers(
    search: Search, candidates: Sequence[Candidate], seeds: Sequence[int]
) -> None:
    """Trains every candidate on every seed; what fails is left to `train_again`.

    Args:
        search: Has the workers.
        candidates: What is trained.
        seeds: Of the experiments.

    Raises:
        TrainingError: A worker ended by a mistake, or dies again and again.
    """
    who = search.processes
    assert who.command is not None
    runs = [(c, c.run(seed), seed) for seed in seeds for c in candidates]
    jobs = [
        {
            "run": str(run.relative_to(search.path)),
            "seed": seed,
            "experiment": c.experiment.model_dump(mode="json", by_alias=True),
        }
        for c, run, seed in runs
    ]
    atomic_write(search.path / JOBS, json.dumps(jobs) + "\n")
    search.listener.stage(f"train on other seeds, {who.workers} at a time", len(jobs))

    def done() -> int:
        return sum((run / SEED).exists() for _, run, _ in runs)

    told = 0
    workers = LocalWorkers(
        who.command(search.path),
        who.workers,
        0,
        search.path,
        search.listener,
        done,
        {AGAIN: "1"},
    )
    try:
        while workers.running:
            workers.tend()
            search.listener.advance(done() - told)
            told = done()
            time.sleep(_POLL_SECONDS)
    finally:
        workers.stop()


def work_again(search: Search) -> None:
    """A worker: takes trainings that no other one has, until there are no more."""
    end_with_parent()
    for job in json.loads((search.path / JOBS).read_text()):
        run = search.path / job["run"]
        run.parent.mkdir(parents=True, exist_ok=True)
        experiment = parse_experiment(job["experiment"])
        try:
            with locked(run.with_suffix(".lock"), wait=False):
                train_one(experiment, job["seed"], search.datasets, run, search.session)
        except BlockingIOError:
            continue
        except Interrupted:
            raise
        except FAILURES as error:
            search.listener.note(f"{job['run']}: {error}")


def asked_again() -> bool:
    """Whether this process is such a worker."""
    return bool(os.environ.get(AGAIN))
