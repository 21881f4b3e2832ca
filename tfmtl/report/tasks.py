"""Tasks that dominate, oppose each other, or pay for the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl.report.finding import Finding

DOMINANT = 0.8
"""Share of one task in the sum of the norms from which it dominates."""
OPPOSED = -0.1
"""Mean cosine below which two tasks conflict."""
WORSE = 0.005
"""Loss of AUC or accuracy, or relative rise of an error, that counts."""
_GROUPS = {"shared": "the shared part", "embedding": "the embeddings"}
_ERRORS = ("rmse", "mae", "logloss")


def dominant_tasks(events: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Tasks whose weighted gradient is most of all tasks', in the mean over steps.

    Args:
        events: `diagnostics` events.
    """
    for group, where in _GROUPS.items():
        shares: dict[str, list[float]] = {}
        for event in events:
            found = event["groups"].get(group, {}).get("norm_share", {})
            for task, share in found.items() if len(found) > 1 else ():
                shares.setdefault(task, []).append(share)
        for task, values in shares.items():
            mean = float(np.mean(values))
            if mean > DOMINANT:
                yield Finding(
                    "dominant_task",
                    f"{task} on {group}",
                    mean,
                    DOMINANT,
                    f"{task} dominates {where}: {mean:.0%} of the tasks' weighted "
                    f"gradient norms are its (more than {DOMINANT:.0%}; mean over "
                    f"{len(values)} looks)",
                    f"lower its weight (`balancer: Fixed`), give "
                    f"`training.tasks.{task}.clip_norm`, or use a balancer that makes "
                    "gradients alike (`tfmtl balancers`)",
                )


def conflicting_tasks(events: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Pairs of tasks whose gradients point apart, in the mean and most of the time.

    Args:
        events: `diagnostics` events.
    """
    for group, where in _GROUPS.items():
        cosines: dict[tuple[str, str], list[float]] = {}
        for event in events:
            for task, others in (
                event["groups"].get(group, {}).get("cosine", {}).items()
            ):
                for other, value in others.items():
                    cosines.setdefault((task, other), []).append(value)
        for (task, other), values in cosines.items():
            mean = float(np.mean(values))
            negative = float(np.mean(np.array(values) < 0))
            if mean < OPPOSED and negative > 0.5:
                yield Finding(
                    "conflicting_tasks",
                    f"{task} and {other} on {group}",
                    mean,
                    OPPOSED,
                    f"{task} and {other} conflict on {where}: the mean cosine of their "
                    f"gradients is {mean:.2f} (below {OPPOSED}), negative in "
                    f"{negative:.0%} of {len(values)} looks",
                    "give the tasks more of their own (MMoE, PLE, STEM), or use a "
                    "balancer that resolves conflicts (`tfmtl balancers`)",
                )


def worsening_tasks(
    history: Sequence[tuple[int, Mapping[str, float]]], metrics: Sequence[str]
) -> Iterator[Finding]:
    """Tasks that are worse in the last evaluation than in their best one, while another
    task became better since.

    Args:
        history: (step, validation metrics), up to the step that was chosen.
        metrics: One of each task, such as `like/auc`.
    """
    if len(history) < 2:
        return
    step, last = history[-1]
    for metric in metrics:
        past = [(s, m[metric]) for s, m in history if metric in m]
        if len(past) < 2 or metric not in last:
            continue
        best_step, best = max(past, key=lambda p: _gain(metric, past[0][1], p[1]))
        lost = -_gain(metric, best, last[metric])
        then = dict(history)[best_step]
        better = [
            other.rpartition("/")[0]
            for other in metrics
            if other != metric
            and other in then
            and other in last
            and _gain(other, then[other], last[other]) > WORSE
        ]
        if lost > WORSE and better:
            task, _, kind = metric.rpartition("/")
            yield Finding(
                "worsening_task",
                task,
                lost,
                WORSE,
                f"{task} got worse while {', '.join(better)} improved: {kind} "
                f"{best:.4f} at step {best_step}, {last[metric]:.4f} at step {step}"
                f" (more than {WORSE} lost)",
                f"keep its own best model (`training.task_snapshots: true`, "
                f"`--snapshot {task}`), stop it early (`training.tasks.{task}."
                "patience`), or raise its weight",
            )


def _gain(metric: str, before: float, after: float) -> float:
    """How much better a value is: absolute, or relative to an error."""
    if metric.rpartition("/")[2] in _ERRORS:
        return (before - after) / before if before else 0.0
    return after - before
