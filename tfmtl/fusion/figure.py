"""The front of a search as a picture; needs matplotlib, the extra `plot`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from tfmtl.metrics.arrays import Floats, Ints


def draw_front(
    names: Sequence[str], values: Floats, front: Ints, configured: Floats, found: int
) -> bytes:
    """A panel for each metric against the first one.

    Args:
        names: Of the C metrics, two or more.
        values: [E, C] all points tried.
        front: Rows of those on the front.
        configured: [C] values of the configured weights.
        found: Row of the weights found.

    Returns:
        A PNG file.
    """
    # Not pyplot: it keeps figures and picks a display.
    from matplotlib.figure import Figure

    panels = len(names) - 1
    figure = Figure(figsize=(4.2 * panels + 0.4, 4.0), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for place, axis in enumerate(axes, start=1):
        _panel(axis, values[:, 0], values[:, place], front, found)
        axis.plot(configured[0], configured[place], "s", color="C1", label="configured")
        axis.set_xlabel(names[0])
        axis.set_ylabel(names[place])
    axes[0].legend(loc="best", fontsize="small")
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=130)
    return target.getvalue()


def _panel(axis: Any, x: Floats, y: Floats, front: Ints, found: int) -> None:
    axis.plot(x, y, ".", color="0.8", markersize=3, label="tried")
    axis.plot(x[front], y[front], "o", color="C0", markersize=3, label="front")
    axis.plot(x[found], y[found], "*", color="C3", markersize=12, label="found")
    axis.grid(alpha=0.3)
