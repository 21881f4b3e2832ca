"""The hypervolume of a front: the share of space that it leaves nothing better in.

Exact for any number of objectives: WFG's exclusive volumes down to two objectives,
where a sweep does it. An own function of a few lines rather than a library (moocore has
one, in C): it is asked for once a trial, of fronts of some dozens of points, where it
takes milliseconds, and no compiled package has to be installed for it. The tests hold
it against moocore's figures.

Source: L. While, L. Bradstreet, L. Barone, "A Fast Way of Calculating Exact
Hypervolumes", IEEE Trans. Evolutionary Computation 2012 (algorithm WFG).
"""

from __future__ import annotations

import numpy as np

from tfmtl.errors import ConfigError
from tfmtl.metrics.arrays import Floats
from tfmtl.metrics.front import front


def hypervolume(values: Floats, reference: Floats) -> float:
    """Volume of what the points are at least as good as and the reference is not above.

    Args:
        values: [E, C] points whose every value is to be great.
        reference: [C]; a point that is not above it in everything adds nothing.

    Returns:
        0 where no point adds anything.

    Raises:
        ConfigError: The shapes do not fit, or a number is not finite.
    """
    above = _above(values, reference)
    return _volume(above[front(above)]) if len(above) else 0.0


def exclusive_volume(point: Floats, values: Floats, reference: Floats) -> float:
    """By how much a point [C] adds to the hypervolume of points [E, C]."""
    above = _above(np.vstack([point[None], values]), reference)
    if not len(above) or not (point > reference).all():
        return 0.0
    return _exclusive(above[0], above[1:])


def _above(values: Floats, reference: Floats) -> Floats:
    """Points less the reference, those alone that are above it in everything."""
    values = np.asarray(values, dtype=np.float64)
    reference = np.asarray(reference, dtype=np.float64)
    if values.ndim != 2 or reference.shape != values.shape[1:] or not reference.size:
        raise ConfigError(
            "`values` must have shape [E, C] and `reference` [C], C >= 1. Received: "
            f"{values.shape} and {reference.shape}"
        )
    if not (np.isfinite(values).all() and np.isfinite(reference).all()):
        raise ConfigError(
            "`values` and `reference` must be finite. Received: NaN or infinity"
        )
    shifted: Floats = values - reference
    return shifted[(shifted > 0.0).all(axis=1)]


def _volume(points: Floats) -> float:
    """Volume below points [E, C] > 0 of which none is at least as good as another."""
    if points.shape[1] <= 2 or len(points) == 1:
        return _sweep(points)
    # The worst in the last objective first: the points after it are then better in
    # that one, and what is left of them below it has few distinct points.
    points = points[np.argsort(points[:, -1])]
    return float(
        sum(_exclusive(point, points[i + 1 :]) for i, point in enumerate(points))
    )


def _exclusive(point: Floats, others: Floats) -> float:
    """Volume below a point [C] and below none of the others [E, C]."""
    whole = float(np.prod(point))
    if not len(others):
        return whole
    limited = np.minimum(others, point)
    return max(0.0, whole - _volume(limited[front(limited)]))


def _sweep(points: Floats) -> float:
    """Volume of a front of one or two objectives, or of one point."""
    if len(points) == 1 or points.shape[1] == 1:
        return float(points.prod(axis=1).max())
    x, y = points[np.argsort(-points[:, 0])].T
    return float(x @ np.diff(y, prepend=0.0))
