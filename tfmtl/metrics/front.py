"""The points none of which is at least as good in everything as another."""

from __future__ import annotations

import numpy as np

from tfmtl.metrics.arrays import Floats, Ints


def front(values: Floats) -> Ints:
    """The Pareto front of points whose every value is to be great.

    Args:
        values: [E, C].

    Returns:
        Rows on the front, by falling first value; of equal points the first alone.
    """
    rows = np.arange(len(values))
    left = values
    place = 0
    while place < len(rows):
        # What the point at `place` is as good in everything as falls out; itself stays.
        stays = (left > left[place]).any(axis=1)
        stays[place] = True
        # Equal points before it would have removed it, so only later ones fall.
        rows, left = rows[stays], left[stays]
        place = int(stays[:place].sum()) + 1
    return rows[np.lexsort((rows, -values[rows, 0]))]


def thinned(rows: Ints, count: int) -> Ints:
    """At most `count` of a front's points, evenly along it, both ends among them."""
    if len(rows) <= count:
        return rows
    kept: Ints = rows[
        np.unique(np.linspace(0, len(rows) - 1, count).round()).astype(int)
    ]
    return kept
