"""A search over fusion weights: Sobol points, then differential evolution.

A ranking metric is a step function of the weights: flat nearly everywhere, so there is
no gradient, and a Gaussian process models the steps badly and costs more than the
thousands of evaluations it would save. Both methods here only compare values. Sobol
points cover the whole space first, which also gives the front of the trade-offs;
differential evolution starts from the best of them and contracts.

Weights are searched as log-ratios to a reference task: a common factor changes no
order. A ratio of 1 is where the two terms move rows equally far inside lists, so that
the same bounds fit probabilities and amounts; signs stay as they are configured.

Constraints: a point that keeps them beats one that does not, and of two that don't the
one that misses by less wins (Deb's rules), so nothing is to be tuned.

Sources: R. Storn and K. Price, "Differential Evolution", J. Global Optimization 1997;
K. Deb, "An efficient constraint handling method for genetic algorithms", CMAME 2000.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import differential_evolution
from scipy.stats import qmc

from tfmtl.errors import ConfigError
from tfmtl.fusion.criteria import Constraint
from tfmtl.metrics.arrays import Floats

RANGE = math.log(1000.0)
"""Log-ratios lie in [-RANGE, RANGE]: at its ends one task decides alone."""
LEAST = 16
"""Evaluations that a search needs."""


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What a search tried.

    Attributes:
        weights: [E, U] all weights tried; the first are the start.
        values: [E, C] the criteria's values.
        best: The chosen row.
        baseline: [C] what relative bounds were measured from.
    """

    weights: Floats
    values: Floats
    best: int
    baseline: Floats


class Space:
    """Log-ratios [U - 1] <-> weights [U] of fixed signs.

    Args:
        start: [U] configured weights, none 0.
        spread: [U] of each term inside lists; 0 counts as 1.
    """

    def __init__(self, start: Floats, spread: Floats) -> None:
        self._sign = np.sign(start)
        self._scale = np.where(spread > 0.0, spread, 1.0)
        self._reference = abs(float(start[0])) * self._scale[0]
        self.dimensions = len(start) - 1

    def weights(self, ratios: Floats) -> Floats:
        """Weights; the first is the configured one."""
        size = self._reference * np.exp(np.append(0.0, ratios)) / self._scale
        return np.asarray(self._sign * size, dtype=np.float64)

    def ratios(self, weights: Floats) -> Floats:
        """Log-ratios, cut to the bounds."""
        size = np.log(np.abs(weights) * self._scale)
        clipped: Floats = np.clip(size[1:] - size[0], -RANGE, RANGE)
        return clipped


def search(
    judge: Callable[[Floats], Floats],
    start: Floats,
    spread: Floats,
    constraints: Sequence[tuple[int, Constraint]] = (),
    *,
    baseline: Floats | None = None,
    evaluations: int = 2000,
    seed: int = 0,
    tell: Callable[[], None] = lambda: None,
) -> Found:
    """Maximises the first criterion.

    Args:
        judge: Weights [U] to the criteria's values [C].
        start: [U] weights, none 0; the first is the reference. They are tried first,
            so that what is chosen is never worse than they are.
        spread: [U] see `Space`.
        constraints: Position of a criterion and its bound, relative ones too.
        baseline: [C] values that relative bounds are measured from, where these are not
            the start's: weights of another form, which are no point of this search.
        evaluations: How often `judge` is asked, at most; >= `LEAST`.
        seed: Of the search: equal seeds find equal weights.
        tell: Called after each evaluation.

    Returns:
        What was tried; the chosen point keeps the constraints if any point tried does.
        Of points that are equally good it is the one closest to the start.

    Raises:
        ConfigError: Fewer than two weights, or too few evaluations.
    """
    if len(start) < 2:
        raise ConfigError(
            "a search needs two outputs with a weight that is not 0: the order by one "
            f"output does not depend on its weight. Received: {len(start)}"
        )
    if evaluations < LEAST:
        raise ConfigError(f"`evaluations` must be >= {LEAST}. Received: {evaluations}")
    space = Space(start, spread)
    tried: list[Floats] = []
    values: list[Floats] = []

    def ask(weights: Floats) -> Floats:
        tried.append(weights)
        values.append(judge(weights))
        tell()
        return values[-1]

    first = ask(start)
    baseline = first if baseline is None else baseline
    bounds = [(place, c.resolved(baseline[place])) for place, c in constraints]

    def fitness(value: Floats) -> float:
        """Smaller is better; metrics lie in [0, 1], so 1 is worse than any."""
        missing = sum(c.violation(value[place]) for place, c in bounds)
        return float(1.0 + missing) if missing > 0.0 else -float(value[0])

    points = np.array(
        [space.ratios(start), *_sobol(space.dimensions, evaluations, seed)]
    )
    costs = [fitness(first)]
    costs += [fitness(ask(space.weights(p))) for p in points[1:]]
    members = int(np.clip(8 * space.dimensions, 12, 48))
    generations = (evaluations - len(tried)) // members - 1
    if generations >= 1 and len(points) >= members:
        differential_evolution(
            lambda ratios: fitness(ask(space.weights(ratios))),
            [(-RANGE, RANGE)] * space.dimensions,
            init=points[np.argsort(costs, kind="stable")[:members]],
            maxiter=generations,
            tol=0.0,
            polish=False,
            rng=np.random.default_rng(seed),
        )
    all_costs = np.array([fitness(v) for v in values])
    equal = np.flatnonzero(all_costs <= all_costs.min())
    away = [
        float(np.abs(space.ratios(tried[i]) - points[0]).sum()) if i else -1.0
        for i in equal
    ]
    best = int(equal[int(np.argmin(away))])
    return Found(np.array(tried), np.array(values), best, baseline)


def _sobol(dimensions: int, evaluations: int, seed: int) -> Floats:
    """A power of two of points, about a third of the evaluations."""
    exponent = max(3, int(math.log2(0.4 * evaluations)))
    sobol = qmc.Sobol(dimensions, rng=np.random.default_rng(seed))
    points: Floats = sobol.random_base2(exponent)
    return (2.0 * points - 1.0) * RANGE
