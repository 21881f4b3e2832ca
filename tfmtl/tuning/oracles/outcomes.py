"""What a trial reported, kept in keras-tuner's `Trial`, and its score."""

from __future__ import annotations

import math
from collections.abc import Mapping

from keras_tuner.engine.trial import Trial, TrialStatus

from tfmtl.tuning.goals import Goal

SCORE = "score"


def report(trial: Trial, goal: Goal, metrics: Mapping[str, float], step: int) -> None:
    """Takes validation metrics at a step, and their score where it is not among them.

    Metrics are registered as ones to be maximised, so that keras-tuner does not guess
    by their names; nothing here reads the direction. What is not finite is not taken.
    """
    reported = {name: v for name, v in metrics.items() if math.isfinite(v)}
    if SCORE not in reported and _complete(goal, reported):
        reported[SCORE] = goal.score(reported)
    for name, value in reported.items():
        if not trial.metrics.exists(name):
            trial.metrics.register(name, direction="max")
        trial.metrics.update(name, value, step=step)


def reports(trial: Trial) -> dict[int, dict[str, float]]:
    """Of each step, rising, what was reported."""
    found: dict[int, dict[str, float]] = {}
    for name in trial.metrics.metrics:
        for seen in trial.metrics.get_history(name):
            found.setdefault(int(seen.step), {})[name] = float(seen.mean())
    return dict(sorted(found.items()))


def outcome(trial: Trial) -> dict[str, float]:
    """What was reported at the step that is scored."""
    return reports(trial)[trial.best_step]


def score(trial: Trial, goal: Goal) -> None:
    """Scores a trial by its best step; one without every metric of the goal failed."""
    steps = {s: m for s, m in reports(trial).items() if _complete(goal, m)}
    if not steps:
        trial.status = TrialStatus.FAILED
        trial.message = (
            f"no step has a finite value of every one of {list(goal.metrics)}"
        )
        return
    # By the goal and not as reported: the search decides what its scores mean.
    scores = {step: goal.score(metrics) for step, metrics in steps.items()}
    trial.best_step = max(scores, key=lambda step: scores[step])
    trial.score = scores[trial.best_step]


def forget(trial: Trial) -> None:
    """A trial as it was before it ran."""
    trial.metrics = type(trial.metrics)()
    trial.score = None
    trial.best_step = 0
    trial.message = None
    trial.status = TrialStatus.RUNNING


def _complete(goal: Goal, metrics: Mapping[str, float]) -> bool:
    return all(math.isfinite(metrics.get(name, math.nan)) for name in goal.metrics)
