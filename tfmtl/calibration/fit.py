"""Calibrators of one set of rows: bias, Platt scaling, isotonic regression.

All three end with a bias, so that predicted and observed positives of the rows agree.
Logits are those of a model, 32-bit floats: the least slope keeps two that differ apart
in the 64 bits in which a calibrator is evaluated, hence the AUC as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression

from tfmtl.metrics.arrays import Floats, binary_labels, vector, weight_vector
from tfmtl.metrics.calibration import fit_bias
from tfmtl.schema.calibration import Calibrator

LEAST_SLOPE = 1e-3
_STEPS = 100
_PRIOR = 1.0  # weight of "the slope is 1", in rows of the mean weight
_MOST_KNOTS = 50


def apply(calibrator: Calibrator, logits: npt.ArrayLike) -> Floats:
    """f(s) of each logit, in 64 bits: [N] -> [N]."""
    s = np.asarray(logits, np.float64)
    x, y = np.array(calibrator.x), np.array(calibrator.y)
    piece = np.searchsorted(x, s, side="right")  # 0 .. K
    knot = np.maximum(piece - 1, 0)
    return np.asarray(y[knot] + np.array(calibrator.slopes)[piece] * (s - x[knot]))


def _rows(
    labels: npt.ArrayLike, logits: npt.ArrayLike, weights: npt.ArrayLike | None
) -> tuple[Floats, Floats, Floats]:
    """Checked labels, logits and weights, [N] each; weights are 1 where None."""
    y = binary_labels(labels).astype(np.float64)
    s = vector("logits", logits, len(y))
    checked = weight_vector(weights, len(y))
    return y, s, np.ones(len(y)) if checked is None else checked


def bias(
    labels: npt.ArrayLike, logits: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Calibrator:
    """s + b with sum_i w_i sigmoid(s_i + b) = sum_i w_i y_i.

    Args:
        labels: [N] of 0 and 1, both there.
        logits: [N].
        weights: [N] >= 0.
    """
    return _centred(Calibrator(), labels, logits, weights)


def platt(
    labels: npt.ArrayLike, logits: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Calibrator:
    """a s + b of greatest likelihood, a > 0, by damped Newton steps.

        min  sum_i w_i (softplus(a s_i + b) - y_i (a s_i + b)) + m (a - 1)^2 / 2

    with m the mean of the weights above 0, so that weights mean the same at any scale.
    The prior keeps a finite where a threshold separates the classes. Where the logits
    rank no better than chance the best slope is not above 0: it becomes the least one,
    which is the constrained optimum since the objective is convex.

    Source: J. Platt, "Probabilistic Outputs for Support Vector Machines", 1999.

    Args:
        labels: [N] of 0 and 1, both there.
        logits: [N].
        weights: [N] >= 0.
    """
    y, s, w = _rows(labels, logits, weights)
    w = w / w[w > 0].mean()  # then m is 1
    centre = float(w @ s / w.sum())
    inputs = np.stack([s - centre, np.ones(len(s))])  # [2, N]

    def objective(theta: Floats) -> float:
        z = theta @ inputs
        penalty = _PRIOR * (theta[0] - 1) ** 2 / 2
        return float(w @ (np.logaddexp(0.0, z) - y * z) + penalty)

    theta = np.array([1.0, centre])
    value = objective(theta)
    for _ in range(_STEPS):
        p = 0.5 * (1.0 + np.tanh(0.5 * (theta @ inputs)))
        gradient = inputs @ (w * (p - y)) + [_PRIOR * (theta[0] - 1), 0.0]
        curvature = (inputs * (w * p * (1 - p))) @ inputs.T
        # The second term keeps the matrix regular where all p are 0 or 1.
        curvature += np.diag([_PRIOR, 1e-9 * w.sum()])
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while objective(theta - size * step) > value and size > 1e-10:
            size /= 2
        theta = theta - size * step
        before, value = value, objective(theta)
        if abs(before - value) <= 1e-14 * (1.0 + abs(value)):
            break
    slope = max(float(theta[0]), LEAST_SLOPE)
    start = Calibrator(low_slope=slope, high_slope=slope)
    return _centred(start, labels, logits, weights)


def isotonic(
    labels: npt.ArrayLike, logits: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Calibrator:
    """Isotonic regression, joined up so that it rises strictly.

    Isotonic regression is a staircase: rows of one step would tie, and the AUC move. So
    each of at most 50 blocks of equal weight becomes one knot (mean logit, logit of its
    rate), between which the function is linear; a rise of less than `LEAST_SLOPE` is
    raised to that, and beyond the outer knots the slope is 1. A block's rate includes
    one more row of the mean rate, so that a block of one class has a finite logit.

    Args:
        labels: [N] of 0 and 1, both there.
        logits: [N].
        weights: [N] >= 0.
    """
    y, s, w = _rows(labels, logits, weights)
    used = w > 0
    y, s, w = y[used], s[used], w[used]
    steps = IsotonicRegression().fit_transform(s, y, sample_weight=w)
    _, block = np.unique(steps, return_inverse=True)
    weight = np.bincount(block, weights=w)
    middle = np.cumsum(weight) - weight / 2
    wide = np.floor(middle / weight.sum() * _MOST_KNOTS).astype(np.int64)
    block = np.unique(wide, return_inverse=True)[1][block]
    weight = np.bincount(block, weights=w)
    x = np.bincount(block, weights=w * s) / weight
    row = w.mean()
    rate = (np.bincount(block, weights=w * y) + row * (w @ y) / w.sum()) / (
        weight + row
    )
    height = np.log(rate) - np.log1p(-rate)
    for k in range(1, len(x)):
        least = height[k - 1] + LEAST_SLOPE * (x[k] - x[k - 1])
        height[k] = max(height[k], least)
    start = Calibrator(x=tuple(x.tolist()), y=tuple(height.tolist()))
    return _centred(start, labels, logits, weights)


def _centred(
    start: Calibrator,
    labels: npt.ArrayLike,
    logits: npt.ArrayLike,
    weights: npt.ArrayLike | None,
) -> Calibrator:
    """The calibrator, moved until predicted and observed positives agree."""
    more = fit_bias(labels, apply(start, logits), weights)
    return start.model_copy(update={"y": tuple(v + more for v in start.y)})


FITS: dict[str, Callable[..., Calibrator]] = {
    "bias": bias,
    "platt": platt,
    "isotonic": isotonic,
}
"""Method to what fits it."""
