"""What was trained once more with other seeds: the best trials, and the controls."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from scipy import stats

from tfmtl.tuning.goals import Goal, Objective

Split = Literal["validation", "test"]
Kind = Literal["tuned", "control", "rival"]


@dataclasses.dataclass(frozen=True)
class SeedRun:
    """One training.

    Attributes:
        seed: Of the experiment.
        validation: Metrics of the validation split.
        test: Of the test split; empty where it has none.
        seconds: Of training.
    """

    seed: int
    validation: Mapping[str, float]
    test: Mapping[str, float]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Retrained:
    """An experiment that was trained with several seeds.

    Attributes:
        label: Such as `trial 0007`, `Equal`.
        kind: A trial of the search, a control, or a trial of the rival's search.
        trial: Of the search; None of the others.
        runs: Of each seed that ended well.
        failed: Seed to what failed.
        trials: Trials that were spent to find it; None: all of the search's where
            `tuned`, none where it is a control.
        spent: Seconds of training of these trials.
    """

    label: str
    kind: Kind
    trial: str | None
    runs: Sequence[SeedRun]
    failed: Mapping[int, str] = dataclasses.field(default_factory=dict)
    trials: int | None = None
    spent: float | None = None

    def by_seed(self, metric: str, split: Split = "validation") -> dict[int, float]:
        """Seed to the metric; seeds that do not define it are left out."""
        found = {run.seed: getattr(run, split).get(metric) for run in self.runs}
        return {s: v for s, v in found.items() if v is not None and math.isfinite(v)}

    def means(self, split: Split = "validation") -> dict[str, float]:
        """The mean over seeds of every metric that all of them define."""
        names = {n: None for run in self.runs for n in getattr(run, split)}
        found = {name: self.by_seed(name, split) for name in names}
        return {
            name: float(np.mean(list(values.values())))
            for name, values in found.items()
            if len(values) == len(self.runs)
        }


@dataclasses.dataclass(frozen=True)
class Gain:
    """How much better one is than another, in the mean over seeds of the difference.

    Attributes:
        mean: Above 0: better, also of metrics that are to be small.
        low: Of the 95 % interval of Student's t over seeds; None with one seed.
        high: Likewise.
        seeds: That both were trained with.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int


def deviation(values: Sequence[float]) -> float | None:
    """Standard deviation over seeds, of a sample; None of fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def paired_gain(
    one: Retrained, other: Retrained, metric: str, split: Split = "validation"
) -> Gain | None:
    """Compares seed by seed, which takes out what a seed does to both.

    Returns:
        None where no seed has both.
    """
    first, second = one.by_seed(metric, split), other.by_seed(metric, split)
    gain = Objective(metric).gain
    paired = [gain(first[s]) - gain(second[s]) for s in first if s in second]
    if not paired:
        return None
    mean, sd = float(np.mean(paired)), deviation(paired)
    if sd is None:
        return Gain(mean, None, None, 1)
    half = stats.t.ppf(0.975, len(paired) - 1) * sd / math.sqrt(len(paired))
    return Gain(mean, mean - float(half), mean + float(half), len(paired))


def winner(
    retrained: Sequence[Retrained], goal: Goal, kind: Kind = "tuned"
) -> Retrained | None:
    """The one of a kind with the best score, which is that of its means over seeds.

    One seed lies: the trial that was best in the search is often the luckiest. Bounds
    count on the means too. One of which a seed failed comes after all that had none.

    Args:
        retrained: Of any kinds.
        goal: Its bounds are numbers.
        kind: Others are passed over.

    Returns:
        The first of equal ones; None where none has all metrics of the goal.
    """
    scored = []
    for one in retrained:
        means = one.means()
        if one.kind == kind and set(goal.metrics) <= set(means):
            scored.append((not one.failed, goal.score(means), one))
    if not scored:
        return None
    return max(scored, key=lambda entry: entry[:2])[2]
