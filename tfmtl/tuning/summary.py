"""`report.json`: what a search was asked, what it found, and what that is worth.

The winner is chosen by means over seeds. Beside it stand the controls, trained with the
same seeds; gains over one of them, Equal, are compared seed by seed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl.files import atomic_write
from tfmtl.metrics.arrays import Floats
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.importance import Importances
from tfmtl.tuning.markdown import markdown
from tfmtl.tuning.pareto import (
    best_record,
    front_hypervolume,
    hypervolume_over_time,
    keeping,
    measured,
    pareto_front,
    reference_point,
)
from tfmtl.tuning.records import TrialRecord
from tfmtl.tuning.retrained import (
    Retrained,
    Split,
    deviation,
    paired_gain,
    winner,
)

REPORT = "report.json"
PAGE = "report.md"
EQUAL = "Equal"
_SPLITS: tuple[Split, ...] = ("validation", "test")
_TOP = 10


def summarize(
    records: Sequence[TrialRecord],
    goal: Goal,
    retrained: Sequence[Retrained] = (),
    *,
    asked: Mapping[str, Any] | None = None,
    importance: Importances | None = None,
    metrics: Sequence[str] = (),
    reference: Floats | None = None,
    control: str = EQUAL,
    over_seeds: Goal | None = None,
) -> dict[str, Any]:
    """The whole result of a search, as JSON has it.

    Args:
        records: In the order the trials began.
        goal: Its bounds are numbers.
        retrained: The best trials and the controls, in the order of the report's rows.
        asked: Of the search: oracle, budget, seed, data set; it is passed on.
        importance: Of the hyper-parameters.
        metrics: What to report of each of the retrained beside the goal's own metrics;
            where empty, the kinds of the goal's metrics of every task.
        reference: Of the hypervolume, see `pareto`.
        control: Label of what gains are taken over.
        over_seeds: The goal of means over seeds; the goal itself where None.

    Returns:
        `{"asked", "objectives", "bounds", "metrics", "trials": counts and seconds,
        "winner", "top": the best trials by score, "retrained": rows with mean, sd and
        values over seeds, "rival": the best of the rivals and what the winner has over
        it, "gains_over", "front", "importance", "failed", "reused",
        "records": all trials}`.
        Undefined numbers are None.
    """
    shown = _shown(goal, records, retrained, metrics)
    fair = over_seeds or goal
    document = {
        "asked": dict(asked or {}),
        "objectives": [
            {"metric": o.metric, "maximize": o.maximize} for o in goal.objectives
        ],
        "bounds": [str(bound) for bound in goal.bounds],
        "metrics": shown,
        "trials": _counts(records, goal),
        "winner": _winner(records, goal, retrained, fair),
        "top": _top(records, goal),
        "retrained": [
            _row(one, records, fair, retrained, shown, control) for one in retrained
        ],
        "rival": _rival(retrained, fair, shown),
        "gains_over": control if _control(retrained, control) is not None else None,
        "front": _front(records, goal, reference),
        "importance": _importance(importance),
        "failed": [
            {"trial": r.trial, "reason": r.reason} for r in records if not r.usable
        ],
        "reused": [
            {"trial": r.trial, "of": r.reused} for r in records if r.reused is not None
        ],
        "records": [dataclasses.asdict(record) for record in records],
    }
    found: dict[str, Any] = _plain(document)
    return found


def write_summary(directory: pathlib.Path, document: Mapping[str, Any]) -> None:
    """Writes `report.json` and `report.md` from what `summarize` returned."""
    text = json.dumps(document, indent=1, allow_nan=False)
    atomic_write(directory / REPORT, text + "\n")
    atomic_write(directory / PAGE, markdown(document))


def _shown(
    goal: Goal,
    records: Sequence[TrialRecord],
    retrained: Sequence[Retrained],
    metrics: Sequence[str],
) -> list[str]:
    """The metrics of the report's rows, the goal's first."""
    if not metrics:
        kinds = {name.rpartition("/")[2] for name in goal.metrics}
        known = [n for r in records for n in r.metrics]
        known += [n for one in retrained for run in one.runs for n in run.validation]
        metrics = [
            name
            for name in dict.fromkeys(known)
            # Not of each scenario: these are many, and in trials.parquet.
            if name.rpartition("/")[2] in kinds and "@" not in name
        ]
    return list(dict.fromkeys([*goal.metrics, *metrics]))


def _counts(records: Sequence[TrialRecord], goal: Goal) -> dict[str, Any]:
    """How many trials came to which end, and what they cost.

    A trial that has another one's run cost nothing.
    """
    own = [record.seconds for record in records if record.reused is None]
    return {
        "total": len(records),
        **{
            status: sum(record.status == status for record in records)
            for status in ("finished", "pruned", "failed")
        },
        "reused": len(records) - len(own),
        "keep_bounds": len(keeping(records, goal)),
        "seconds": sum(own),
    }


def _winner(
    records: Sequence[TrialRecord],
    goal: Goal,
    retrained: Sequence[Retrained],
    over_seeds: Goal,
) -> dict[str, Any] | None:
    """Of the retrained by means over seeds; where there are none, of the trials."""
    one = winner(retrained, over_seeds)
    if one is not None:
        goal = over_seeds
        label, trial, metrics, seeds = one.label, one.trial, one.means(), len(one.runs)
    else:
        best = best_record(records, goal)
        if best is None:
            return None
        label, trial, metrics, seeds = best.trial, best.trial, best.metrics, 1
    values = next((r.values for r in records if r.trial == trial), {})
    return {
        "label": label,
        "trial": trial,
        "values": values,
        "seeds": seeds,
        "keeps_bounds": goal.violation(metrics) == 0.0,
        "metrics": {name: metrics[name] for name in goal.metrics},
    }


def _rival(
    retrained: Sequence[Retrained], goal: Goal, shown: Sequence[str]
) -> dict[str, Any] | None:
    """The best of the rivals, chosen as the winner is, and the winner's gain over it.

    None where one of the two is missing.
    """
    best, one = winner(retrained, goal, "rival"), winner(retrained, goal)
    if best is None or one is None:
        return None
    gains = _gains(one, best, shown)
    return {"label": best.label, "trials": best.trials, "gain": gains}


def _gains(
    one: Retrained, other: Retrained | None, shown: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Split to metric to what one has over another; empty where there is no other."""
    gains: dict[str, dict[str, Any]] = {split: {} for split in _SPLITS}
    if other is None or other is one:
        return gains
    for split in _SPLITS:
        for name in shown:
            gain = paired_gain(one, other, name, split)
            if gain is not None:
                gains[split][name] = dataclasses.asdict(gain)
    return gains


def _top(records: Sequence[TrialRecord], goal: Goal) -> list[dict[str, Any]]:
    """The best trials by score."""
    best = sorted(measured(records, goal), key=lambda r: -goal.score(r.metrics))
    return [
        {
            "trial": record.trial,
            "status": record.status,
            "keeps_bounds": goal.violation(record.metrics) == 0.0,
            "metrics": {name: record.metrics[name] for name in goal.metrics},
            "values": record.values,
            "seconds": record.seconds,
        }
        for record in best[:_TOP]
    ]


def _control(retrained: Sequence[Retrained], label: str) -> Retrained | None:
    """What gains are taken over."""
    return next(
        (r for r in retrained if r.kind == "control" and r.label == label), None
    )


def _row(
    one: Retrained,
    records: Sequence[TrialRecord],
    goal: Goal,
    retrained: Sequence[Retrained],
    shown: Sequence[str],
    control: str,
) -> dict[str, Any]:
    """One of the retrained: metrics over seeds, gains, cost."""
    over = _control(retrained, control)
    found: dict[str, dict[str, Any]] = {split: {} for split in _SPLITS}
    for split in _SPLITS:
        for name in shown:
            values = one.by_seed(name, split)
            if not values:
                continue
            found[split][name] = {
                "mean": float(np.mean(list(values.values()))),
                "sd": deviation(list(values.values())),
                "by_seed": {str(seed): value for seed, value in values.items()},
            }
    means = one.means()
    known = set(goal.metrics) <= set(means)
    tuned = one.kind == "tuned"
    counts = _counts(records, goal)
    return {
        "label": one.label,
        "kind": one.kind,
        "trial": one.trial,
        "winner": one is winner(retrained, goal),
        "seeds": [run.seed for run in one.runs],
        "failed": {str(seed): reason for seed, reason in one.failed.items()},
        "keeps_bounds": goal.violation(means) == 0.0 if known else None,
        "score": goal.score(means) if known else None,
        "validation": found["validation"],
        "test": found["test"],
        "gain": _gains(one, over, shown),
        "trials": (counts["total"] if tuned else 0)
        if one.trials is None
        else one.trials,
        "spent": (counts["seconds"] if tuned else 0.0)
        if one.spent is None
        else one.spent,
        "seconds": sum(run.seconds for run in one.runs),
    }


def _front(
    records: Sequence[TrialRecord], goal: Goal, reference: Floats | None
) -> dict[str, Any] | None:
    """The front and its hypervolume; None of one objective."""
    if len(goal.objectives) < 2:
        return None
    if reference is None:
        reference = reference_point(records, goal)
    pairs = zip(goal.objectives, np.asarray(reference).tolist())
    return {
        "reference": {o.metric: o.gain(gain) for o, gain in pairs},
        "hypervolume": front_hypervolume(records, goal, reference),
        "over_time": hypervolume_over_time(records, goal, reference),
        "points": [
            {
                "trial": record.trial,
                "metrics": {name: record.metrics[name] for name in goal.metrics},
                "values": record.values,
            }
            for record in pareto_front(records, goal)
        ],
    }


def _importance(importance: Importances | None) -> dict[str, Any] | None:
    """None where it was not asked for."""
    return None if importance is None else dataclasses.asdict(importance)


def _plain(value: Any) -> Any:
    """As JSON has it: lists for tuples, None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
