"""A Gaussian process over the unit cube, fitted by scikit-learn.

C. Rasmussen, C. Williams, "Gaussian Processes for Machine Learning", MIT Press 2006,
algorithm 2.1; J. Snoek, H. Larochelle, R. Adams, "Practical Bayesian Optimization of
Machine Learning Algorithms", NeurIPS 2012 (ARD Matérn-5/2).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from tfmtl.metrics.arrays import Floats

# In the unit cube and of standardised values. A length below a twentieth of the range
# is noise to thirty points; one above ten is a line, and longer ones look the same.
LENGTHS = (0.05, 10.0)
AMPLITUDES = (0.05, 20.0)
NOISES = (1e-6, 1.0)
RESTARTS = 5
STEPS = 12
"""Of each start; the best is followed for `LAST_STEPS` more."""
LAST_STEPS = 30
JITTER = 1e-10


@dataclasses.dataclass(frozen=True)
class GaussianProcess:
    """A posterior over a noise-free function, in its own units.

    Attributes:
        points: [N, X] where it was observed.
        kernel: Of the noise-free function of standardised values.
        noise: Variance of an observation, standardised.
        shift: Mean of what was observed.
        scale: Its standard deviation; 1 where all are equal.
        solved: [N]: K⁻¹ of the standardised observations.
        known: [N + P, X]: `points` and those that count as known, see `with_known`.
        factor: Lower Cholesky factor of the covariance of observations at `known`.
    """

    points: Floats
    kernel: Any
    noise: float
    shift: float
    scale: float
    solved: Floats
    known: Floats
    factor: Floats

    @classmethod
    def fit(cls, points: Floats, observed: Floats, seed: int) -> GaussianProcess:
        """By marginal likelihood, from a default and `RESTARTS` random starts.

        Args:
            points: [N, X] in the unit cube.
            observed: [N].
            seed: Of the starts.
        """
        shift = float(observed.mean())
        scale = float(observed.std()) or 1.0
        kernel = ConstantKernel(1.0, AMPLITUDES) * Matern(
            np.full(points.shape[1], 0.5), LENGTHS, nu=2.5
        ) + WhiteKernel(1e-2, NOISES)
        standard = (observed - shift) / scale
        some = _fitted(kernel, points, standard, STEPS, RESTARTS, seed)
        fitted = _fitted(some, points, standard, LAST_STEPS, 0, seed)
        return cls.of(
            points, observed, fitted.k1, float(fitted.k2.noise_level), shift, scale
        )

    @classmethod
    def of(
        cls,
        points: Floats,
        observed: Floats,
        kernel: Any,
        noise: float,
        shift: float = 0.0,
        scale: float = 1.0,
    ) -> GaussianProcess:
        """With a kernel and noise that are known."""
        factor = _factor(kernel, points, noise)
        solved = cho_solve((factor, True), (observed - shift) / scale)
        return cls(points, kernel, noise, shift, scale, solved, points, factor)

    def with_known(self, points: Floats) -> GaussianProcess:
        """As if the mean had been observed at `points` too ("kriging believer").

        That leaves the mean as it is everywhere and takes variance away.
        """
        known = np.concatenate([self.known, points])
        factor = _factor(self.kernel, known, self.noise)
        return dataclasses.replace(self, known=known, factor=factor)

    def mean(self, points: Floats) -> Floats:
        """[M, X] -> [M]."""
        mean = self.kernel(points, self.points) @ self.solved
        return np.asarray(mean * self.scale + self.shift)

    def deviation(self, points: Floats) -> Floats:
        """Standard deviation of the noise-free function. [M, X] -> [M]."""
        across = self.kernel(points, self.known)
        whitened = solve_triangular(self.factor, across.T, lower=True)
        variance = self.kernel.diag(points) - (whitened**2).sum(axis=0)
        return np.asarray(np.sqrt(variance.clip(min=0.0)) * self.scale)


def _factor(kernel: Any, points: Floats, noise: float) -> Floats:
    covariance = kernel(points) + (noise + JITTER) * np.eye(len(points))
    return np.asarray(cholesky(covariance, lower=True))


def _fitted(
    kernel: Any, points: Floats, observed: Floats, steps: int, restarts: int, seed: int
) -> Any:
    """The kernel with the hyper-parameters of greatest marginal likelihood."""

    def ascend(
        objective: Callable[..., Any], start: Floats, bounds: Floats
    ) -> tuple[Floats, float]:
        found = minimize(
            objective,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": steps},
        )
        return found.x, float(found.fun)

    regressor = GaussianProcessRegressor(
        kernel,
        alpha=JITTER,
        optimizer=ascend,
        n_restarts_optimizer=restarts,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # A bound that is met says that an axis does not matter.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return regressor.fit(points, observed).kernel_
