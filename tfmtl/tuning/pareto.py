"""Which trials are on the front, and how much of the space they dominate.

The reference point is, in each objective, the worst that a usable trial of the search
reached, whether or not it kept the bounds: one rule for every search, and nothing is to
be chosen. So the hypervolume of one search says how its front grew; two searches
compare where both are given one reference point, `reference_point` of all their trials.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tfmtl.metrics.arrays import Floats
from tfmtl.metrics.front import front, thinned
from tfmtl.metrics.hypervolume import exclusive_volume, hypervolume
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.records import TrialRecord


def measured(records: Sequence[TrialRecord], goal: Goal) -> list[TrialRecord]:
    """The trials that did not fail and define every metric of the goal."""
    return [
        record
        for record in records
        if record.usable
        and all(math.isfinite(record.metrics.get(m, math.nan)) for m in goal.metrics)
    ]


def keeping(records: Sequence[TrialRecord], goal: Goal) -> list[TrialRecord]:
    """The trials of `measured` that keep all bounds, which are numbers."""
    return [r for r in measured(records, goal) if goal.violation(r.metrics) == 0.0]


def best_record(records: Sequence[TrialRecord], goal: Goal) -> TrialRecord | None:
    """The trial of the best score, the first of equal ones; None where none counts.

    Where no trial keeps all bounds, the one that misses them by the least.
    """
    return max(
        measured(records, goal), key=lambda r: goal.score(r.metrics), default=None
    )


def pareto_front(records: Sequence[TrialRecord], goal: Goal) -> list[TrialRecord]:
    """The trials none of which is at least as good in all objectives as another.

    Args:
        records: Of a search; what failed or breaks a bound is left out.
        goal: Its bounds are numbers.

    Returns:
        From the best to the worst in the first objective; of equal ones the first.
    """
    kept = keeping(records, goal)
    if not kept:
        return []
    return [kept[row] for row in front(_gains(kept, goal))]


def best_records(
    records: Sequence[TrialRecord], goal: Goal, count: int
) -> list[TrialRecord]:
    """The trials that are worth other seeds.

    Of trials of one experiment, which Hyperband has, the one that went furthest.

    Args:
        records: Of a search; what failed is left out.
        goal: Its bounds are numbers.
        count: The most.

    Returns:
        The best by score; of several objectives, points along the front.
    """
    rising = sorted(measured(records, goal), key=lambda r: r.steps)
    own = list({record.experiment: record for record in rising}.values())
    if len(goal.objectives) > 1 and (along := pareto_front(own, goal)):
        return [along[i] for i in thinned(np.arange(len(along)), count)]
    return sorted(own, key=lambda r: goal.score(r.metrics), reverse=True)[:count]


def reference_point(records: Sequence[TrialRecord], goal: Goal) -> Floats:
    """The worst gain in each objective [C] that a usable trial has.

    Trials that break a bound count too. Empty [0] where no trial is usable.
    """
    gains = _gains(measured(records, goal), goal)
    return gains.min(axis=0) if len(gains) else np.empty(0)


def front_hypervolume(
    records: Sequence[TrialRecord], goal: Goal, reference: Floats | None = None
) -> float:
    """Hypervolume of the front, in the product of the objectives' units.

    Args:
        records: Of a search.
        goal: Its bounds are numbers.
        reference: Gains [C] (of a metric that is to be small, its negative);
            `reference_point(records, goal)` where None.
    """
    kept = keeping(records, goal)
    if not kept:
        return 0.0
    if reference is None:
        reference = reference_point(records, goal)
    return hypervolume(_gains(kept, goal), reference)


def hypervolume_over_time(
    records: Sequence[TrialRecord], goal: Goal, reference: Floats | None = None
) -> list[float]:
    """The front's hypervolume after each trial, against one reference point.

    Args:
        records: In the order the trials began.
        goal: Its bounds are numbers.
        reference: As in `front_hypervolume`, of all records where None.

    Returns:
        One number a record, none smaller than the one before.
    """
    if reference is None:
        reference = reference_point(records, goal)
    kept = {record.trial for record in keeping(records, goal)}
    found = np.empty((0, len(goal.objectives)))
    volume, volumes = 0.0, []
    for record in records:
        if record.trial in kept:
            gains = np.array(goal.gains(record.metrics))
            volume += exclusive_volume(gains, found, reference)
            found = np.vstack([found, gains])
            found = found[front(found)]
        volumes.append(volume)
    return volumes


def _gains(records: Sequence[TrialRecord], goal: Goal) -> Floats:
    """[E, C], great is good."""
    rows = [goal.gains(record.metrics) for record in records]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(goal.objectives))
