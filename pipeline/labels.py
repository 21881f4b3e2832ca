"""Raw columns -> labels and weights of the tasks; NaN is "no label"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from pipeline import columns, expressions
from pipeline.faults import Faults, float32
from tfmtl.schema import expression
from tfmtl.schema.task import TaskSpec


def canonical_labels(
    tasks: Sequence[TaskSpec],
    raw: Mapping[str, pa.Array],
    rows: int,
    faults: Faults,
    untyped: bool = False,
) -> dict[str, pa.Array]:
    """Evaluates labels and weights.

    A weight is 0 where the row counts for none of the task's outputs. A row counts
    where it has a label, and for the joint output of a task with `given` also where an
    earlier step is known not to have happened: the joint label is 0 there.

    Args:
        tasks: T tasks.
        raw: Column to decoded values.
        rows: Their length.
        faults: Learns which rows have a label or weight that is none.
        untyped: Whether the columns come from a file without types.

    Returns:
        `label/<task>` and, where the task has one, `weight/<task>` and
        `teacher/<task>`, NaN where it says nothing: float32 [rows].

    Raises:
        DataError: A whole column has a type that cannot be used.
    """
    known = {t.name: t for t in tasks}
    labels = {t.name: _label(t, raw, rows, faults, untyped) for t in tasks}
    out: dict[str, pa.Array] = {}
    for task in tasks:
        where = f"task {task.name!r}"
        label = labels[task.name]
        out[f"label/{task.name}"] = pa.array(
            float32(label, f"{where}: the label is", faults)
        )
        if task.weight is not None:
            stopped = _stopped(task, known, labels)
            weight = _weight(task, raw[task.weight], ~np.isnan(label), stopped, faults)
            out[f"weight/{task.name}"] = pa.array(
                float32(weight, f"{where}: the weight is", faults)
            )
        if task.teacher is not None:
            teacher, bad = columns.numbers(raw[task.teacher])
            faults.add(bad, f"{where}: the teacher is no number")
            out[f"teacher/{task.name}"] = pa.array(
                float32(teacher, f"{where}: the teacher is", faults)
            )
    return out


def _label(
    task: TaskSpec,
    raw: Mapping[str, pa.Array],
    rows: int,
    faults: Faults,
    untyped: bool,
) -> np.ndarray:
    """float64 [rows], NaN outside the population."""
    where = f"task {task.name!r}"
    parsed = expression.parse(task.label)
    label, bad = expressions.evaluate(parsed, raw, rows, untyped)
    faults.add(bad, f"{where}: the label is no number")
    if task.observed_when is not None:
        population = expression.parse(task.observed_when)
        observed, bad = expressions.evaluate(population, raw, rows, untyped)
        faults.add(bad, f"{where}: `observed_when` is no number")
        label = np.where(expressions.holds(observed), label, np.nan)
    known = ~np.isnan(label)
    if task.type == "binary":
        bad = known & (label != 0) & (label != 1)
        faults.add(bad, f"{where}: the label is not 0 or 1")
    elif task.type == "multiclass":
        classes = task.classes or 0
        bad = known & ((label != np.floor(label)) | (label < 0) | (label >= classes))
        faults.add(bad, f"{where}: the label is no class in 0 .. {classes - 1}")
    elif task.transform == "log1p":
        faults.add(known & (label < 0), f"{where}: the label is negative")
    return label


def _stopped(
    task: TaskSpec, tasks: Mapping[str, TaskSpec], labels: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Where an earlier step is known not to have happened: bool [rows]."""
    if task.given is None or task.type != "binary":
        return np.zeros(len(labels[task.name]), bool)
    above = joint_label(tasks[task.given], tasks, labels)
    return np.asarray(above == 0)


def joint_label(
    task: TaskSpec, tasks: Mapping[str, TaskSpec], labels: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Label of the joint output, as `tfmtl.losses.targets` has it: float64 [rows]."""
    label = labels[task.name]
    if task.given is None:
        return label
    above = joint_label(tasks[task.given], tasks, labels)
    return np.asarray(np.where(above == 1, label, above))


def _weight(
    task: TaskSpec,
    array: pa.Array,
    labelled: np.ndarray,
    stopped: np.ndarray,
    faults: Faults,
) -> np.ndarray:
    """float64 [rows], 0 where the row counts for no output of the task."""
    reason = f"task {task.name!r}: the weight is missing, negative or infinite"
    weight, bad = columns.numbers(array)
    legal = (weight >= 0) & np.isfinite(weight)
    faults.add(bad | (labelled & ~legal), reason)
    faults.add(stopped & ~legal, f"{reason} where {task.given!r} did not happen")
    return np.where(labelled | stopped, weight, 0.0)
