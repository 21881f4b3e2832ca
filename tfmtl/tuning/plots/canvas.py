"""What the pictures share."""

from __future__ import annotations

import importlib.util
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

MISSING = "plots need matplotlib: pip install 'tfmtl[plot]'"
"""What to say where `available` is false."""
TRIED, BROKEN, FAILED, BEST = "C0", "0.6", "C3", "C1"
"""Colours: of trials that keep all bounds, that break one, that failed; of the best."""
_FAR = 4.0  # spreads (to the best, to the lower quartile) below the median


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def new_figure(width: float, height: float) -> Any:
    """A matplotlib Figure of so many inches."""
    # Not pyplot: it keeps figures and picks a display.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def png(figure: Any) -> bytes:
    """The figure as a file."""
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=130)
    return target.getvalue()


def limits(gains: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis on which great is good, with a margin.

    A few very bad values, of trials that learned nothing, would press all others into
    a line: what is far below the median lies outside.
    """
    low, high = min(gains), max(gains)
    if len(gains) >= 4:
        # The higher of two neighbours, so that one bad value of four does not count.
        quarter = float(np.percentile(gains, 25, method="higher"))
        half = float(np.median(gains))
        least = half - _FAR * max(high - half, half - quarter)
        low = min(gain for gain in gains if gain >= least)
    margin = 0.06 * (high - low) or 0.01 * abs(high) or 0.01
    return low - margin, high + margin


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Dotted paths to their last parts, as many as tell them apart, on two lines."""
    found = {}
    for path in paths:
        parts = path.split(".")
        others = [p.split(".") for p in paths if p != path]
        keep = 1
        while keep < len(parts) and any(o[-keep:] == parts[-keep:] for o in others):
            keep += 1
        kept = parts[-max(keep, min(2, len(parts))) :]
        found[path] = "\n".join([".".join(kept[:-1]), kept[-1]]).strip()
    return found


def ticks(low: float, high: float, log: bool) -> list[float]:
    """Both ends of an axis, and round numbers between them that keep clear of them."""
    if log:
        spread = math.log10(high / low)
        steps = (1, 2, 5) if spread < 1.2 else (1,)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        inner = [step * 10.0**power for power in powers for step in steps]
        return [low, *_clear(inner, low, high, log), high]
    size = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(size))
    step = next(s * unit for s in (1, 2, 5, 10) if s * unit >= size)
    first = math.ceil(low / step)
    inner = [k * step for k in range(first, math.floor(high / step) + 1)]
    return [low, *_clear(inner, low, high, log), high]


def _clear(values: Sequence[float], low: float, high: float, log: bool) -> list[float]:
    """Those that lie a tenth of the axis or more from both ends and one another."""
    kept: list[float] = []
    place = 0.0
    for value in values:
        if not low < value < high:
            continue
        if log:
            share = math.log(value / low) / math.log(high / low)
        else:
            share = (value - low) / (high - low)
        if place + 0.1 <= share <= 0.9:
            kept.append(value)
            place = share
    return kept
