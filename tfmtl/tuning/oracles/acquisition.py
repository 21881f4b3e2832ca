"""Expected improvement and the probability that bounds are kept.

J. Snoek, H. Larochelle, R. Adams, NeurIPS 2012; J. Gardner, M. Kusner, Z. Xu,
K. Weinberger, J. Cunningham, "Bayesian Optimization with Inequality Constraints",
ICML 2014 (the product).
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from tfmtl.metrics.arrays import Floats

XI = 0.01
"""By how much more than nothing a point should improve, in standard deviations of what
was observed of the objective."""


def expected_improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """E[max(0, f - best)] of f ~ N(mean, deviation²); 0 where nothing is uncertain.

    (μ - best) Φ(Z) + s φ(Z) with Z = (μ - best) / s. For C19's ξ pass best + ξ.

    Args:
        mean: [M].
        deviation: [M].
        best: Of what is known.
    """
    certain = deviation <= 0.0
    spread = np.where(certain, 1.0, deviation)
    z = (mean - best) / spread
    gain = (mean - best) * norm.cdf(z) + spread * norm.pdf(z)
    # Below by rounding where Z is far from 0.
    return np.asarray(np.where(certain, 0.0, gain.clip(min=0.0)))


def log_kept(margin: Floats, deviation: Floats) -> Floats:
    """ln P(margin + deviation · ε >= 0), ε ~ N(0, 1). [M] -> [M].

    The logarithm, because far from the feasible region the probability itself is 0 in
    double precision everywhere and says nothing of the way.
    """
    spread = np.maximum(deviation, 1e-12 * np.maximum(1.0, np.abs(margin)))
    return np.asarray(norm.logcdf(margin / spread))
