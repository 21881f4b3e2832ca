"""Run directory -> what is wrong with it, in words."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from tfmtl import build
from tfmtl.errors import DataError
from tfmtl.progress import Listener, Silent
from tfmtl.report import Finding
from tfmtl.report.experts import (
    dead_experts,
    identical_experts,
    stuck_gates,
    unused_experts,
)
from tfmtl.report.fit import miscalibrated, overfitting
from tfmtl.report.tasks import conflicting_tasks, dominant_tasks, worsening_tasks
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.funnel import steps_of
from tfmtl.schema.task import TaskSpec, outputs_of
from tfmtl.training.diagnostics import Diagnostics
from tfmtl.training.rundir import RunDirectory, plain
from tfmtl.training.watch import own_metric
from tfmtl.workflow.evaluate import evaluate
from tfmtl.workflow.restore import restore

_LOSSES = {"binary": "logloss", "regression": "rmse", "multiclass": "logloss"}


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        findings: What is wrong.
        notes: What could not be looked at, and why.
        looked_at: How much was read: `diagnostics`, `evaluations`, `rows`.
    """

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    looked_at: dict[str, int]


def diagnose(
    run: str | pathlib.Path,
    *,
    dataset: str | pathlib.Path | None = None,
    listener: Listener | None = None,
) -> Diagnosis:
    """Says what is wrong with a run, finished or not.

    Gradients come from the `diagnostics` lines of its log; where there are none, and
    for gates and experts, the chosen model is measured on a batch of the validation
    split. Calibration is that of the chosen model on that split, which a refitted model
    would have seen; calibrators have seen it, too, and a note says so.

    Args:
        run: The run directory.
        dataset: Where its data set lies now, if it was moved.
        listener: Told about the progress.

    Raises:
        DataError: The folder is no run directory, or a damaged one.
    """
    listener = listener or Silent()
    source = RunDirectory(run)
    experiment = source.experiment()
    events = source.events()
    looks = [e for e in events if e["kind"] == "diagnostics"]
    notes, report, now = [], None, None
    if source.finished:
        try:
            now = _look(run, dataset, listener)
            report = evaluate(
                run,
                "validation",
                dataset=dataset,
                refit=False,
                resamples=0,
                listener=listener,
            )
        except DataError as error:
            notes.append(f"the model was not looked at: {error}")
        if report is not None and report["calibration"] not in (None, "none"):
            notes.append(
                "the calibrators were fitted on the validation split, and calibration "
                "was looked at on it: what they say of other rows, `tfmtl evaluate RUN "
                "--split test` tells"
            )
    else:
        notes.append(
            "the run is not finished: calibration was not looked at, and gates and "
            "experts as its log has them"
        )
    if not looks and now is None:
        notes.append(
            "no gradients, gates and experts to look at: the log has no `diagnostics` "
            "lines yet (`training.diagnose_every`)"
        )
    chosen = source.result()["step"] if source.finished else None
    findings = [
        *_of_experts(now or (looks[-1] if looks else None)),
        *_of_gradients(looks or ([now] if now else [])),
        *_of_history(experiment, events, chosen),
        *_of_report(experiment, report),
    ]
    validated = sum(e["kind"] == "validation" for e in events)
    rows = report["rows"] if report else 0
    looked_at = {
        "diagnostics": len(looks) + (now is not None),
        "evaluations": validated,
        "rows": rows,
    }
    return Diagnosis(tuple(findings), tuple(notes), looked_at)


def _look(
    run: str | pathlib.Path, dataset: str | pathlib.Path | None, listener: Listener
) -> dict[str, Any]:
    """The diagnostics of the chosen model, on validation rows."""
    listener.stage("look at the model")
    restored = restore(run, dataset, refit=False)
    experiment, manifest = restored.experiment, restored.manifest
    trainer = build.make_trainer(experiment, restored.model, restored.step)
    reader = build.make_reader(
        experiment, manifest, restored.dataset, "validation", train=True
    )
    weights = None
    for event in RunDirectory(run).events():
        if event["kind"] == "train" and event["step"] <= restored.step:
            weights = [event["weights"][t.name] for t in restored.model.tasks]
    found: dict[str, Any] = plain(Diagnostics(trainer)(iter(reader.epoch()), weights))
    return found


def _of_experts(look: dict[str, Any] | None) -> Iterator[Finding]:
    if look is not None:
        yield from stuck_gates(look["gates"])
        yield from unused_experts(look["gates"])
        yield from dead_experts(look["experts"])
        yield from identical_experts(look["experts"])


def _of_gradients(looks: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    yield from dominant_tasks(looks)
    yield from conflicting_tasks(looks)


def _of_history(
    experiment: Experiment, events: Sequence[dict[str, Any]], chosen: int | None
) -> Iterator[Finding]:
    tasks = experiment.dataset.tasks
    history = [
        (e["step"], e["metrics"])
        for e in events
        if e["kind"] == "validation" and (chosen is None or e["step"] <= chosen)
    ]
    own = [own_metric(t) for t in tasks]
    yield from worsening_tasks(history, [m for m in own if m is not None])
    for task in tasks:
        if not task.fitted.fits:
            continue  # Its training loss is of an order: no loss of levels is alike.
        metric, losses = validation_losses(task, events)
        yield from overfitting(task.name, losses, metric)


def validation_losses(
    task: TaskSpec, events: Sequence[dict[str, Any]]
) -> tuple[str, list[tuple[float | None, float]]]:
    """A task's training loss since the last evaluation, and its validation loss.

    Args:
        task: The task; of one with `given` the output over the rows where that holds.
        events: Lines of `metrics.jsonl`.

    Returns:
        The name of the validation loss; one pair for each evaluation.
    """
    metric = f"{task.conditional}/{_LOSSES[task.type]}"
    total, steps, found = 0.0, 0, []
    for event in events:
        if event["kind"] == "train" and event["loss"].get(task.name) is not None:
            total += event["loss"][task.name] * event["steps"]
            steps += event["steps"]
        if event["kind"] == "validation":
            if metric in event["metrics"]:
                mean = total / steps if steps else None
                found.append((mean, event["metrics"][metric]))
            total, steps = 0.0, 0
    return metric, found


def _of_report(
    experiment: Experiment, report: dict[str, Any] | None
) -> Iterator[Finding]:
    tasks = experiment.dataset.tasks
    outputs = outputs_of(tasks)
    for name, facts in (report or {"tasks": {}})["tasks"].items():
        task = outputs[name]
        steps = (task,) if name == task.conditional else steps_of(tasks, name)
        # Of a pure ranking loss, probabilities have no level, nor have their products.
        if facts["kind"] == "binary" and all(t.fitted.fits for t in steps):
            yield from miscalibrated(name, facts)
