"""Parallel coordinates: a line for each trial through its values to what it reached."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl.tuning.axes import Axis
from tfmtl.tuning.goals import Goal, Objective
from tfmtl.tuning.pareto import best_record, keeping, measured
from tfmtl.tuning.plots.canvas import (
    BROKEN,
    FAILED,
    limits,
    new_figure,
    png,
    short_names,
    ticks,
)
from tfmtl.tuning.records import TrialRecord

_OFF = -0.12  # where lines of a parameter that is not active pass
_SPREAD = 0.05  # width over which the lines of one choice spread
_LONGEST = 14  # letters of a tick's label
_BACK = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}


def draw_parallel(
    records: Sequence[TrialRecord],
    axes: Sequence[Axis],
    goal: Goal,
    winner: str | None = None,
) -> bytes:
    """A vertical axis for each hyper-parameter, and one for the first objective.

    Lines are coloured by the objective; trials that break a bound are grey, those that
    failed red and end before it, the winner is black. Lines through one choice are
    spread a little; where a hyper-parameter is not active they pass below its axis.

    Args:
        records: Of a search.
        axes: Its dimensions, in the order to draw them.
        goal: Its bounds are numbers.
        winner: The trial to stand out; the best of the search where None.

    Returns:
        A PNG file.
    """
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    if winner is None and (best := best_record(records, goal)) is not None:
        winner = best.trial
    counted = measured(records, goal)
    kept = {record.trial for record in keeping(records, goal)}
    objective = goal.objectives[0]
    ends = _ends(counted, kept, objective)
    colours = Normalize(*ends)
    figure = new_figure(1.45 * (len(axes) + 1) + 1.2, 5.2)
    pane = figure.subplots()
    heights = _heights(records, axes)
    numbered = {record.trial for record in counted}

    def line(record: TrialRecord, look: Mapping[str, Any]) -> None:
        y = heights[record.trial]
        if record.trial in numbered:
            y = [*y, _height(objective.gain(record.metrics[objective.metric]), ends)]
        pane.plot(range(len(y)), y, **look)

    for record in records:
        if record.trial not in numbered:
            line(record, {"color": FAILED, "linewidth": 0.7, "alpha": 0.5})
        elif record.trial not in kept:
            line(record, {"color": BROKEN, "linewidth": 0.7, "alpha": 0.5})
    colour = colormaps["viridis"]
    good = [r for r in counted if r.trial in kept]
    for record in sorted(good, key=lambda r: goal.score(r.metrics)):
        gain = objective.gain(record.metrics[objective.metric])
        look = {"color": colour(colours(gain)), "linewidth": 1.1, "alpha": 0.8}
        line(record, look)
    for record in records:
        if record.trial == winner:
            line(record, {"color": "black", "linewidth": 2.2, "marker": "o"})
    _scales(pane, records, axes, objective, ends)
    _legend(pane, records, numbered, kept, winner)
    return png(figure)


def _ends(
    counted: Sequence[TrialRecord], kept: set[str], objective: Objective
) -> tuple[float, float]:
    """Gains at the ends of the objective's axis."""
    some = [r for r in counted if r.trial in kept] or list(counted)
    if not some:
        return 0.0, 1.0
    return limits([objective.gain(r.metrics[objective.metric]) for r in some])


def _height(gain: float, ends: tuple[float, float]) -> float:
    """Where a gain lies on its axis; what is below it goes to its foot."""
    return min(1.0, max(0.0, (gain - ends[0]) / (ends[1] - ends[0])))


def _heights(
    records: Sequence[TrialRecord], axes: Sequence[Axis]
) -> dict[str, list[float]]:
    """Trial to where its line passes each axis."""
    shifts = np.linspace(-0.5, 0.5, max(2, len(records))) * _SPREAD
    found = {}
    for record, shift in zip(records, shifts.tolist()):
        found[record.trial] = [
            _OFF + shift / 2
            if axis.name not in record.values
            else axis.unit(record.values[axis.name]) + (shift if axis.choices else 0.0)
            for axis in axes
        ]
    return found


def _scales(
    pane: Any,
    records: Sequence[TrialRecord],
    axes: Sequence[Axis],
    objective: Objective,
    ends: tuple[float, float],
) -> None:
    """The vertical axes with their ticks and names."""
    names = short_names([axis.name for axis in axes])

    def tick(x: int, y: float, text: str) -> None:
        pane.plot([x - 0.03, x + 0.03], [y, y], color="0.2", linewidth=0.8, zorder=4)
        pane.text(x + 0.05, y, text, va="center", fontsize=7, bbox=_BACK, zorder=5)

    for x, axis in enumerate(axes):
        pane.plot([x, x], [0, 1], color="0.2", linewidth=0.8, zorder=4)
        if axis.choices:
            for choice in axis.choices:
                tick(x, axis.unit(choice), _short(choice))
        else:
            for value in ticks(axis.low, axis.high, axis.log):
                tick(x, axis.unit(value), f"{value:.4g}")
        if any(axis.name not in record.values for record in records):
            tick(x, _OFF, "not active")
    last = len(axes)
    pane.plot([last, last], [0, 1], color="0.2", linewidth=0.8, zorder=4)
    low, high = ends
    for share in np.linspace(0.0, 1.0, 6):
        value = objective.gain(low + share * (high - low))
        tick(last, float(share), f"{value:.4f}")
    labels = [names[axis.name] for axis in axes] + [objective.metric]
    pane.set_xticks(range(last + 1), labels, fontsize=8)
    pane.xaxis.set_ticks_position("top")
    pane.tick_params(length=0)
    pane.set_yticks([])
    pane.set_xlim(-0.25, last + 0.6)
    pane.set_ylim(-0.2, 1.06)
    for side in pane.spines.values():
        side.set_visible(False)


def _short(choice: Any) -> str:
    """A choice's label, as it stands in the experiment file, cut where it is long."""
    text = choice if isinstance(choice, str) else json.dumps(choice)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _legend(
    pane: Any,
    records: Sequence[TrialRecord],
    numbered: set[str],
    kept: set[str],
    winner: str | None,
) -> None:
    """What the lines' colours mean, those alone that there are."""
    entries = [("black", f"winner: trial {winner}")] if winner is not None else []
    if numbered - kept:
        entries.append((BROKEN, "breaks a bound"))
    if len(numbered) < len(records):
        entries.append((FAILED, "failed"))
    for colour, label in entries:
        pane.plot([], [], color=colour, label=label)
    if entries:
        pane.legend(
            loc="lower center",
            ncols=3,
            fontsize=8,
            frameon=False,
            bbox_to_anchor=(0.5, -0.09),
        )
