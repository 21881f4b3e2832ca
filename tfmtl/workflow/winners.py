"""The end of a search: its best trials on other seeds, and everything written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl.errors import TrainingError
from tfmtl.schema.load import parse_experiment
from tfmtl.tuning import plots
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.pareto import best_records, measured
from tfmtl.tuning.records import TrialRecord, read_records
from tfmtl.tuning.retrained import Retrained
from tfmtl.workflow.again import (
    CONFIGURED,
    CONTROLS,
    SEEDS,
    Candidate,
    train_again,
    with_balancer,
)
from tfmtl.workflow.again_workers import train_by_workers
from tfmtl.workflow.results import write_results
from tfmtl.workflow.rival import find_rivals
from tfmtl.workflow.search_setup import Search


def finish(search: Search, goal: Goal) -> dict[str, Any]:
    """Names the winner, by means over seeds, beside the controls and the rival.

    Args:
        search: Its trials are over.
        goal: Its bounds are numbers.

    Returns:
        What `report.json` holds.

    Raises:
        TrainingError: Every trial failed.
    """
    records = read_records(search.path)
    if not measured(records, goal):
        reasons = sorted({r.reason for r in records if not r.usable})
        reasons = reasons or [f"none has all of {list(goal.metrics)}"]
        raise TrainingError(f"every trial failed: {'; '.join(reasons)[:1000]}")
    # Before anything else can go wrong.
    report = _write(search, goal, records, [])
    if search.spec.seeds:
        candidates = _candidates(search, goal, records)
        budget = search.spec.budget or len(records)
        candidates += find_rivals(search, goal, min(budget, len(records)))
        first = search.experiment.seed + 1
        seeds = range(first, first + search.spec.seeds)
        if search.processes.workers > 1:
            train_by_workers(search, candidates, seeds)
        again = train_again(
            candidates,
            seeds,
            search.datasets,
            search.session,
            search.listener,
        )
        fair = _over_seeds(search, goal, again)
        report = _write(search, goal, records, again, fair)
    if not plots.available():
        search.listener.note(plots.MISSING)
    if not report["winner"]["keeps_bounds"]:
        which = "trained again " if search.spec.seeds else ""
        search.listener.note(
            f"no trial {which}keeps all bounds; best.yaml is the nearest"
        )
    search.directory.write(finished=True)
    return report


def _write(
    search: Search,
    goal: Goal,
    records: Sequence[TrialRecord],
    again: Sequence[Retrained],
    over_seeds: Goal | None = None,
) -> dict[str, Any]:
    asked = search.directory.asked()
    told = {
        "experiment": search.experiment.name,
        "dataset": ", ".join(asked["dataset"]),
        "max_trials": search.spec.budget,
        **asked["oracle"],
    }
    return write_results(
        search.path, search.space, goal, records, again, told, over_seeds
    )


def _over_seeds(search: Search, goal: Goal, again: Sequence[Retrained]) -> Goal:
    """The goal for means over seeds: baselines are means over the same seeds."""
    names = [CONFIGURED] + [
        name
        for name in search.spec.controls
        if with_balancer(search.experiment, name) == search.written
    ]
    baselines = [one.means() for one in again if one.label in names and one.runs]
    return search.goal.resolved(baselines[0]) if baselines else goal


def _candidates(
    search: Search, goal: Goal, records: Sequence[TrialRecord]
) -> list[Candidate]:
    """The best trials, or points along the front, and the controls."""
    found = [
        Candidate(
            label=f"trial {record.trial}",
            kind="tuned",
            trial=record.trial,
            experiment=parse_experiment(search.space.apply(record.values)),
            folder=search.path / SEEDS / record.trial,
        )
        for record in best_records(records, goal, search.spec.top)
    ]
    experiments = {n: with_balancer(search.experiment, n) for n in search.spec.controls}
    if search.written not in experiments.values():
        experiments = {CONFIGURED: search.written, **experiments}
    for name, experiment in experiments.items():
        folder = search.path / CONTROLS / name.replace(":", "-")
        found.append(Candidate(name, "control", None, experiment, folder, 0, 0.0))
    return found
