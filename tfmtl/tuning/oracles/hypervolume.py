"""Expected hypervolume improvement for any number of objectives.

R. Zhang, D. Golovin, "Random Hypervolume Scalarizations for Provable Multi-Objective
Black Box Optimization", ICML 2020 (lemma 5): with λ uniform on the positive part of the
unit sphere in k dimensions and a reference point r,

    HV(Y) = c_k E_λ[max_{y ∈ Y} s_λ(y)],   s_λ(y) = min_i (max(0, (y_i - r_i) / λ_i))^k,
    c_k = π^{k/2} / (2^k Γ(k/2 + 1)),

so what a point y adds to a front is c_k E_λ[max(0, s_λ(y) - max_{p ∈ front} s_λ(p))].
"""

from __future__ import annotations

import math

import numpy as np

from tfmtl.metrics.arrays import Floats
from tfmtl.metrics.front import front

CHUNK = 128


def directions(count: int, objectives: int, rng: np.random.Generator) -> Floats:
    """Uniform on the positive part of the unit sphere. [count, objectives]."""
    normal = np.abs(rng.standard_normal((count, objectives))).clip(min=1e-12)
    return np.asarray(normal / np.linalg.norm(normal, axis=1, keepdims=True))


def scalarised(above: Floats, weights: Floats) -> Floats:
    """s_λ of points given as what they are above the reference.

    Args:
        above: [..., k].
        weights: [L, k].

    Returns:
        [..., L].
    """
    positive = above.clip(min=0.0)
    least = positive[..., None, 0] / weights[:, 0]
    for one in range(1, weights.shape[1]):
        np.minimum(least, positive[..., None, one] / weights[:, one], out=least)
    return np.asarray(least ** weights.shape[1])


def constant(objectives: int) -> float:
    """c_k."""
    half = objectives / 2
    return float(math.pi**half / (2**objectives * math.gamma(half + 1)))


def reference(values: Floats) -> Floats:
    """Worst of the front in each objective, less a tenth of the range of all points.

    A tenth of the front's own range would shut the search in where the front is two
    points beside each other: what is below the reference anywhere adds nothing. For the
    same reason points that break a bound belong to `values`. Where the front has no
    range in an objective, its worst is that of all points.

    Args:
        values: [N, k] of all that was tried, great is good.

    Returns:
        [k].
    """
    best = values[front(values)]
    worst, whole = values.min(axis=0), np.ptp(values, axis=0)
    worst = np.where(np.ptp(best, axis=0) > 0.0, best.min(axis=0), worst)
    return np.asarray(worst - 0.1 * np.where(whole > 0.0, whole, 1.0))


class HypervolumeImprovement:
    """What points add to a front on average, by Monte Carlo with common numbers.

    Args:
        known: [N, k] points, great is good; those on their front count.
        corner: [k], see `reference`.
        weights: [L, k], see `directions`.
        noise: [S, k] standard normal numbers, the same for every point.
    """

    def __init__(
        self, known: Floats, corner: Floats, weights: Floats, noise: Floats
    ) -> None:
        self.reference = corner
        self.weights = weights
        self.noise = noise
        above = known[front(known)] - self.reference
        self._reached = scalarised(above, weights).max(axis=0)  # [L]

    def __call__(self, mean: Floats, deviation: Floats) -> Floats:
        """Of independent normal objectives. [M, k], [M, k] -> [M]."""
        parts = []
        for start in range(0, len(mean), CHUNK):
            part = slice(start, start + CHUNK)
            drawn = mean[part, None] + deviation[part, None] * self.noise  # [m, S, k]
            gain = scalarised(drawn - self.reference, self.weights) - self._reached
            parts.append(gain.clip(min=0.0).mean(axis=(1, 2)))
        return constant(mean.shape[1]) * np.concatenate(parts)
