"""Everything a search leaves beside its trials."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl.files import atomic_write
from tfmtl.schema.load import dump_experiment, parse_experiment
from tfmtl.schema.ranges import RangeDimension
from tfmtl.tuning import plots
from tfmtl.tuning.axes import Axis
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.importance import importances
from tfmtl.tuning.pareto import best_record
from tfmtl.tuning.records import TrialRecord
from tfmtl.tuning.retrained import Retrained, winner
from tfmtl.tuning.space import Space
from tfmtl.tuning.summary import REPORT, summarize, write_summary
from tfmtl.tuning.table import TABLE, write_trials

BEST = "best.yaml"
PLOTS = "plots"


def write_results(
    directory: pathlib.Path,
    space: Space,
    goal: Goal,
    records: Sequence[TrialRecord],
    retrained: Sequence[Retrained],
    asked: Mapping[str, Any],
    over_seeds: Goal | None = None,
) -> dict[str, Any]:
    """Names the winner; writes its experiment, the table, the report and the plots.

    Args:
        directory: Of the search.
        space: That was searched.
        goal: Its bounds are numbers.
        records: Of all trials that are over, one of which is usable at least.
        retrained: The best trials and the controls, on other seeds.
        asked: Of the search, for the report.
        over_seeds: The goal of means over seeds, whose baselines are such means; the
            goal itself where None.

    Returns:
        What `report.json` holds.
    """
    chosen = winner(retrained, over_seeds or goal)
    best = best_record(records, goal)
    name = chosen.trial if chosen is not None else best.trial if best else None
    by_name = {record.trial: record for record in records}
    if name is not None:
        experiment = parse_experiment(space.apply(by_name[name].values))
        atomic_write(directory / BEST, dump_experiment(experiment))
    write_trials(directory / TABLE, records, goal)
    axes = axes_of(space)
    document = summarize(
        records,
        goal,
        retrained,
        asked=asked,
        importance=importances(records, axes, goal),
        over_seeds=over_seeds,
    )
    write_summary(directory, document)
    if plots.available():
        _draw(directory / PLOTS, axes, goal, records, retrained, name, chosen)
    read: dict[str, Any] = json.loads((directory / REPORT).read_text())
    return read


def axes_of(space: Space) -> list[Axis]:
    """The dimensions of a space, for pictures and importances."""
    found = []
    for name in space.names:
        dimension = space.spec.space[name]
        if isinstance(dimension, RangeDimension):
            low, high = dimension.range
            found.append(Axis(name, low, high, dimension.spacing[0]))
        else:
            found.append(Axis(name, choices=dimension.ends))
    return found


def _draw(
    folder: pathlib.Path,
    axes: Sequence[Axis],
    goal: Goal,
    records: Sequence[TrialRecord],
    retrained: Sequence[Retrained],
    name: str | None,
    chosen: Retrained | None,
) -> None:
    folder.mkdir(exist_ok=True)
    atomic_write(folder / "history.png", plots.draw_history(records, goal))
    parallel = plots.draw_parallel(records, axes, goal, name)
    atomic_write(folder / "parallel.png", parallel)
    if len(goal.objectives) > 1:
        label = chosen.label if chosen is not None else None
        front = plots.draw_front(records, goal, retrained, label)
        atomic_write(folder / "front.png", front)
