"""Where raw outputs start: what a model that knows no feature would answer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from tfmtl.schema.loss import JRC, ZILN, Ordinal, WeightedLogistic
from tfmtl.schema.manifest import LabelStats
from tfmtl.schema.task import TaskSpec

_SIGMA = math.log(2)  # softplus(0)


def start_of_value(task: TaskSpec, mean: float) -> float:
    """Where the one output of a regression starts, from the mean label."""
    if isinstance(task.fitted, WeightedLogistic):
        return math.log(max(mean, 1e-6))
    # E[log1p y] <= log1p(E[y]): near enough to start from.
    return math.log1p(max(mean, 0)) if task.transform == "log1p" else mean


def wide_start(
    task: TaskSpec, stats: LabelStats | None, logit: float
) -> tuple[float, ...]:
    """Where the outputs of a task with several start.

    Classes start at the log of their rates, where the counts are known; ordered ones at
    thresholds with these rates between them. JRC's two logits start the task's log-odds
    apart. A zero-inflated value starts with its mean, at even odds of being 0.

    Args:
        task: Has `width` > 1.
        stats: Of the training split; zeros where None.
        logit: A binary task's log-odds.

    Returns:
        `width` numbers.
    """
    loss, zeros = task.fitted, (0.0,) * task.width
    if isinstance(loss, JRC):
        return (-logit / 2, logit / 2)
    if isinstance(loss, ZILN):
        mean = stats.mean if stats else None
        if mean is None or mean <= 0:
            return zeros
        return (0.0, math.log(2 * mean) - _SIGMA**2 / 2, 0.0)
    counts = stats.classes if stats else None
    if not counts or len(counts) != task.classes:
        return zeros
    # A class without a row has a chance left.
    total = sum(counts) + 0.5 * len(counts)
    rates = [(count + 0.5) / total for count in counts]
    return (
        _thresholds(rates)
        if isinstance(loss, Ordinal)
        else tuple(math.log(rate) for rate in rates)
    )


def _thresholds(rates: Sequence[float]) -> tuple[float, ...]:
    """Outputs whose cumulative logits leave these rates between them."""
    above = [sum(rates[k + 1 :]) for k in range(len(rates) - 1)]
    logits = [math.log(p / (1 - p)) for p in above]
    gaps = [a - b for a, b in itertools.pairwise(logits)]
    # The inverse of softplus, without e^g where g is large.
    return (logits[0], *(g + math.log(-math.expm1(-g)) for g in gaps))
