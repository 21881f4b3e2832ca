"""The trade-off between objectives, as trials and as means over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl.tuning.goals import Goal, Objective
from tfmtl.tuning.pareto import keeping, measured, pareto_front
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
from tfmtl.tuning.retrained import Retrained, deviation

_CONTROLS = ("s", "D", "^", "P", "v", "<", ">", "h")


def draw_front(
    records: Sequence[TrialRecord],
    goal: Goal,
    retrained: Sequence[Retrained] = (),
    winner: str | None = None,
) -> bytes:
    """A panel for each objective against the first one.

    Points are trials, of one seed each; what was trained with several seeds is its mean
    with a bar of one standard deviation in both objectives. Controls have a marker and
    a name each, the winner a star.

    Args:
        records: Of a search.
        goal: Two objectives or more; its bounds are numbers.
        retrained: The best trials and the controls.
        winner: Label of the winner among them.

    Returns:
        A PNG file.
    """
    first, *others = goal.objectives
    figure = new_figure(5.2 * len(others) + 0.6, 5.4)
    panes = figure.subplots(1, len(others), squeeze=False)[0]
    for pane, other in zip(panes, others):
        _panel(pane, records, goal, retrained, winner, (first, other))
    figure.legend(
        *panes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2 if len(others) == 1 else 4,
        fontsize="small",
        frameon=False,
    )
    return png(figure)


def _panel(
    pane: Any,
    records: Sequence[TrialRecord],
    goal: Goal,
    retrained: Sequence[Retrained],
    winner: str | None,
    pair: tuple[Objective, Objective],
) -> None:
    names = [objective.metric for objective in pair]

    counted = measured(records, goal)
    kept = {record.trial for record in keeping(records, goal)}
    broken = [r for r in counted if r.trial not in kept]
    good = [r for r in counted if r.trial in kept]
    # Between two points nothing was reached: what the front dominates is a staircase.
    stairs = "-" if len(goal.objectives) == 2 else ""
    _scatter(pane, broken, names, "breaks a bound", {"marker": "x", "color": BROKEN})
    _scatter(pane, good, names, "trial", {"marker": "o", "color": TRIED, "alpha": 0.35})
    _scatter(
        pane,
        pareto_front(records, goal),
        names,
        "front (one seed)",
        {"marker": "o", "color": TRIED, "linestyle": stairs, "linewidth": 0.8},
    )
    _seeds(pane, retrained, winner, names)
    for axis, objective in zip("xy", pair):
        values = [r.metrics[objective.metric] for r in counted]
        values += [v for one in retrained for v in _ends(one, objective.metric)]
        if values:
            ends = [
                objective.gain(e) for e in limits([objective.gain(v) for v in values])
            ]
            getattr(pane, f"set_{axis}lim")(min(ends), max(ends))
    pane.set_xlabel(names[0])
    pane.set_ylabel(names[1])
    pane.grid(alpha=0.3)


def _scatter(
    pane: Any,
    records: Sequence[TrialRecord],
    names: Sequence[str],
    label: str,
    look: Mapping[str, Any],
) -> None:
    """Points of trials, in the order given."""
    if records:
        x, y = ([r.metrics[name] for r in records] for name in names)
        look = {"linestyle": "", "markersize": 5, **look}
        pane.plot(x, y, label=label, drawstyle="steps-post", **look)


def _seeds(
    pane: Any, retrained: Sequence[Retrained], winner: str | None, names: Sequence[str]
) -> None:
    """Means over seeds with their bars."""
    markers = iter(_CONTROLS * len(retrained))
    said = False
    for one in retrained:
        points = [list(one.by_seed(name).values()) for name in names]
        if not all(points):
            continue
        seeds = len(points[0])
        if one.label == winner:
            style = {"fmt": "*", "color": BEST, "markersize": 13, "zorder": 6}
            label = f"{one.label}, the winner ({seeds} seeds)"
        elif one.kind == "control":
            style = {
                "fmt": next(markers),
                "color": FAILED,
                "markersize": 7,
                "zorder": 5,
                "markerfacecolor": "white",
            }
            label = f"{one.label} ({seeds} seeds)"
        else:
            style = {"fmt": "o", "color": BEST, "markersize": 5, "zorder": 4}
            label = "_" if said else "retrained (mean, s.d. over seeds)"
            said = True
        pane.errorbar(
            np.mean(points[0]),
            np.mean(points[1]),
            xerr=deviation(points[0]),
            yerr=deviation(points[1]),
            capsize=2,
            linewidth=1,
            label=label,
            **style,
        )


def _ends(one: Retrained, metric: str) -> list[float]:
    """Both ends of the bar; nothing where the metric is undefined."""
    values = list(one.by_seed(metric).values())
    if not values:
        return []
    mean, half = float(np.mean(values)), deviation(values) or 0.0
    return [mean - half, mean + half]
