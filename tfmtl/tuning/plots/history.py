"""What each trial reached, and how the front grew."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl.metrics.arrays import Floats
from tfmtl.tuning.goals import Goal, Objective
from tfmtl.tuning.pareto import hypervolume_over_time, keeping, measured
from tfmtl.tuning.plots.canvas import (
    BEST,
    BROKEN,
    FAILED,
    TRIED,
    limits,
    new_figure,
    png,
)
from tfmtl.tuning.records import TrialRecord


def draw_history(
    records: Sequence[TrialRecord], goal: Goal, reference: Floats | None = None
) -> bytes:
    """A panel for each objective; with several one more, of the hypervolume.

    Trials that break a bound are grey crosses where their metric lies, and do not raise
    the best so far. Trials that failed, or are far worse than the others, are marked on
    the edge.

    Args:
        records: In the order the trials began.
        goal: Its bounds are numbers.
        reference: Of the hypervolume, see `hypervolume_over_time`.

    Returns:
        A PNG file.
    """
    several = len(goal.objectives) > 1
    panels = len(goal.objectives) + several
    figure = new_figure(7.5, 2.9 * panels + 0.6)
    panes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    for place, pane in enumerate(panes[: len(goal.objectives)]):
        _trials(pane, records, goal, place)
    if several:
        volumes = hypervolume_over_time(records, goal, reference)
        pane = panes[-1]
        pane.step(range(1, len(records) + 1), volumes, where="post", color=BEST)
        pane.set_ylabel("hypervolume of the front")
        pane.grid(alpha=0.3)
    panes[-1].set_xlabel("trial, in the order they began")
    panes[-1].xaxis.get_major_locator().set_params(integer=True)
    panes[-1].set_xlim(0.5, max(len(records), 1) + 0.5)
    handles = {
        label: handle
        for pane in panes[: len(goal.objectives)]
        for handle, label in zip(*pane.get_legend_handles_labels())
    }
    if handles:
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside upper center",
            ncols=len(handles),
            fontsize="small",
            frameon=False,
        )
    return png(figure)


def _trials(pane: Any, records: Sequence[TrialRecord], goal: Goal, place: int) -> None:
    """One objective's value of each trial, and the best so far."""
    objective = goal.objectives[place]
    gains = {
        record.trial: objective.gain(record.metrics[objective.metric])
        for record in measured(records, goal)
    }
    kept = {record.trial for record in keeping(records, goal)}
    pane.set_ylabel(objective.metric)
    pane.grid(alpha=0.3)
    worst = 0.0
    if gains:
        worst, best = limits(list(gains.values()))
        ends = sorted((objective.gain(worst), objective.gain(best)))
        pane.set_ylim(*ends)
    else:
        pane.set_yticks([])
    looks: dict[str, dict[str, Any]] = {
        "breaks a bound": {"marker": "x", "color": BROKEN},
        "pruned": {"marker": "o", "color": TRIED, "fillstyle": "none"},
        "finished": {"marker": "o", "color": TRIED},
        "far worse": {"marker": "v" if objective.maximize else "^", "color": BROKEN},
        "failed": {"marker": "X", "color": FAILED},
    }
    points: dict[str, list[tuple[int, float]]] = {label: [] for label in looks}
    for number, record in enumerate(records, start=1):
        gain = gains.get(record.trial)
        if gain is None:
            points["failed"].append((number, 0.0))
        elif gain < worst:
            points["far worse"].append((number, 0.0))
        elif record.trial not in kept:
            points["breaks a bound"].append((number, objective.gain(gain)))
        else:
            label = "pruned" if record.status == "pruned" else "finished"
            points[label].append((number, objective.gain(gain)))
    for label, some in points.items():
        if some and label in ("far worse", "failed"):
            _on_edge(pane, [n for n, _ in some], label, looks[label], objective)
        elif some:
            pane.plot(
                *zip(*some), linestyle="", label=label, markersize=5, **looks[label]
            )
    x = [n for n, record in enumerate(records, start=1) if record.trial in kept]
    best_so_far = itertools.accumulate((gains[records[n - 1].trial] for n in x), max)
    y = [objective.gain(gain) for gain in best_so_far]
    if y:
        x, y = [*x, len(records) + 1], [*y, y[-1]]
        pane.step(x, y, where="post", color=BEST, label="best so far")


def _on_edge(
    pane: Any,
    x: Sequence[int],
    label: str,
    look: Mapping[str, Any],
    objective: Objective,
) -> None:
    """Marks on the edge where the bad values lie."""
    pane.plot(
        x,
        [0.0 if objective.maximize else 1.0] * len(x),
        linestyle="",
        label=label,
        markersize=7,
        transform=pane.get_xaxis_transform(),
        clip_on=False,
        zorder=5,
        **look,
    )
