"""Bayesian search: one objective, several, and bounds.

After `n_0` quasi-random points a Gaussian process is fitted to every objective and to
every bounded metric, and the point is proposed that maximises

    EI(x) · Π_c P(bound c is kept at x)

with the expected improvement over the best posterior mean of what was tried, or, of
several objectives, the expected hypervolume improvement of the front of those means.
While nothing feasible is known the probability alone is maximised. Where trials
failed, "it works" is one more bounded metric, learnt from yes and no: failed trials are
in no other process. Trials that run elsewhere count as if the mean had been observed.

The proposal depends on the seed, the number of trials and what they gave, so a search
that was interrupted proposes what it would have.
"""

from __future__ import annotations

import itertools
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus
from scipy.stats import qmc
from threadpoolctl import threadpool_limits

from tfmtl.metrics.arrays import Floats
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.oracles import outcomes
from tfmtl.tuning.oracles.beliefs import Beliefs, Seen
from tfmtl.tuning.oracles.coordinates import Coordinates
from tfmtl.tuning.oracles.durable import DurableOracle
from tfmtl.tuning.oracles.values import Values, combinations, defaults

CANDIDATES = 2048
NEIGHBOURS = 64
"""Points tried around each of `KEPT` in each round of local search."""
KEPT = 6
RADII = (0.1, 0.03, 0.01, 0.003)


class BayesianOracle(DurableOracle):
    """Proposes by Gaussian processes, see the module.

    Args:
        hyperparameters: The space.
        goal: Bounds are numbers.
        max_trials: None: until the space is exhausted.
        seed: Of the quasi-random points and of the search for each maximum.
        initial_points: Quasi-random ones, the defaults the first among them; at least,
            and by default, 2 · (number of hyper-parameters + 1).
    """

    def __init__(
        self,
        hyperparameters: keras_tuner.HyperParameters,
        goal: Goal,
        *,
        max_trials: int | None,
        seed: int,
        initial_points: int | None = None,
    ) -> None:
        super().__init__(hyperparameters, goal, max_trials=max_trials, seed=seed)
        self.coordinates = Coordinates(hyperparameters)
        least = 2 * (self.coordinates.dimensions + 1)
        self.initial_points = max(2, initial_points or least)
        self._whole: Floats | None = None

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next point; STOPPED where the space is exhausted."""
        # Of matrices this small more threads make it slower, and sums depend on them.
        with threadpool_limits(1):
            values = self._initial() or self._best() or self._random_values()
        if values is None:
            return {"status": TrialStatus.STOPPED, "values": None}
        return {"status": TrialStatus.RUNNING, "values": values}

    def _initial(self) -> Values | None:
        """The defaults, then a Sobol sequence; None where it has had its share."""
        started = len(self.trials)
        if started >= self.initial_points and len(self._usable()) >= 2:
            return None
        first = defaults(self.hyperparameters)
        if not self._duplicate(first):
            return first
        return self._untried(
            self._sobol(started + CANDIDATES, self.seed)[started - 1 :]
        )

    def _best(self) -> Values | None:
        """What maximises the acquisition; None where all candidates were tried."""
        beliefs = self._beliefs()
        if beliefs is None:
            return None
        whole = self._all_points()
        if whole is not None:
            return self._untried(whole[_order(beliefs.acquisition(whole))])
        return self._untried(self._searched(beliefs))

    def _searched(self, beliefs: Beliefs) -> Floats:
        """Points by falling acquisition: Sobol, around the best known, local search."""
        rng = np.random.default_rng([self.seed, len(self.trials)])
        points = self._sobol(CANDIDATES, int(rng.integers(2**31)))
        around = self._around(beliefs.best(KEPT), RADII[0], rng)
        points = np.concatenate([points, around])
        points = points[_order(beliefs.acquisition(points))]
        for radius in RADII:
            best, others = points[:KEPT], points[KEPT:]
            near = np.concatenate([best, self._around(best, radius, rng)])
            near = near[_order(beliefs.acquisition(near))]
            points = np.concatenate([near, others])
        return points

    def _around(
        self, centres: Floats, radius: float, rng: np.random.Generator
    ) -> Floats:
        """Legal points near others; each coordinate moves in half of them."""
        shape = (len(centres), NEIGHBOURS, centres.shape[1])
        moves = rng.normal(0.0, radius, shape) * (rng.random(shape) < 0.5)
        # Levels of a choice are no neighbours: now and then one is drawn anew.
        anew = rng.random(shape) < 0.05
        points = np.where(anew, rng.random(shape), centres[:, None] + moves)
        flat = points.reshape(-1, centres.shape[1]).clip(0.0, 1.0)
        return self.coordinates.rounded(flat)

    def _beliefs(self) -> Beliefs | None:
        usable = self._usable()
        if not usable:
            return None
        ended = [t for t in self.trials.values() if t.trial_id in self.end_order]
        running = [t for t in self.trials.values() if t.trial_id not in self.end_order]
        failed = [t for t in ended if t.status == TrialStatus.FAILED]
        seen = Seen(
            self._places(usable),
            [outcomes.outcome(trial) for trial in usable],
            self._places(failed),
            self._places(running),
        )
        return Beliefs(self.coordinates, self.goal, seen, self.seed)

    def _usable(self) -> list[Trial]:
        over = [self.trials[name] for name in self.end_order]
        return [trial for trial in over if trial.status == TrialStatus.COMPLETED]

    def _places(self, trials: list[Trial]) -> Floats:
        return self.coordinates.places([t.hyperparameters.values for t in trials])

    def _sobol(self, count: int, seed: int) -> Floats:
        """The first points of a scrambled sequence, rounded. [count, D]."""
        engine = qmc.Sobol(self.coordinates.dimensions, rng=np.random.default_rng(seed))
        points = engine.random_base2(int(np.ceil(np.log2(count))))[:count]
        return self.coordinates.rounded(points)

    def _all_points(self) -> Floats | None:
        """Every point of a space that has no more than there would be candidates."""
        if self._whole is None and self.coordinates.finite:
            walk = combinations(self.hyperparameters, self.coordinates.levels())
            some = list(itertools.islice(walk, CANDIDATES + 1))
            self._whole = self.coordinates.places(some)
        if self._whole is None or len(self._whole) > CANDIDATES:
            return None
        return self._whole

    def _untried(self, points: Floats) -> Values | None:
        """The values of the first point that was not tried."""
        for point in points:
            values = self.coordinates.values(point)
            if not self._duplicate(values):
                return values
        return None


def _order(acquired: Floats) -> np.ndarray[Any, np.dtype[np.intp]]:
    """By falling acquisition; of equal ones the first."""
    return np.argsort(-acquired, kind="stable")
