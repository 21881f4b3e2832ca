"""What Gaussian processes believe of objectives and bounds, and what to try next."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tfmtl.metrics.arrays import Floats
from tfmtl.metrics.front import front
from tfmtl.tuning.goals import Bound, Goal
from tfmtl.tuning.oracles.acquisition import XI, expected_improvement, log_kept
from tfmtl.tuning.oracles.coordinates import Coordinates
from tfmtl.tuning.oracles.gaussian import GaussianProcess
from tfmtl.tuning.oracles.hypervolume import (
    HypervolumeImprovement,
    directions,
    reference,
)

WEIGHTS = 64
SAMPLES = 32


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a search knows.

    Attributes:
        places: [N, D] of usable trials, in the order they ended.
        metrics: Of each.
        failed: [F, D].
        running: [P, D].
    """

    places: Floats
    metrics: Sequence[Mapping[str, float]]
    failed: Floats
    running: Floats


class Beliefs:
    """One process for each objective and each bound, and the acquisition of points.

    Args:
        coordinates: Of the space.
        goal: Bounds are numbers.
        seen: At least one usable trial.
        seed: Of the fits and of Monte Carlo.
    """

    def __init__(
        self, coordinates: Coordinates, goal: Goal, seen: Seen, seed: int
    ) -> None:
        self._coordinates = coordinates
        self._seen = seen
        self._seed = seed
        self._tried = coordinates.features(seen.places)
        self._running = coordinates.features(seen.running)
        gains = np.array([goal.gains(metrics) for metrics in seen.metrics])  # [N, k]
        missing = np.array([goal.violation(metrics) for metrics in seen.metrics])
        self._feasible = missing == 0.0
        self._missing = missing
        self._objectives = [self._fit(self._tried, column) for column in gains.T]
        self._means = self._columns(GaussianProcess.mean, self._tried)  # [N, k]
        self._bounds = self._fit_bounds(goal, seen)
        self._gain = self._improvement()

    def acquisition(self, places: Floats) -> Floats:
        """How much a point is worth a trial; comparable within one object. [M]."""
        points = self._coordinates.features(places)
        kept = np.zeros(len(points))
        for process in self._bounds:
            kept += log_kept(process.mean(points), process.deviation(points))
        return kept if self._gain is None else self._gain(points) * np.exp(kept)

    def best(self, count: int) -> Floats:
        """Places of the best tried points, by the means. [<= count, D]."""
        if self._gain is None:
            order = np.argsort(self._missing, kind="stable")
        elif len(self._objectives) == 1:
            worth = np.where(self._feasible, self._means[:, 0], -np.inf)
            order = np.argsort(-worth, kind="stable")
        else:
            rows = np.flatnonzero(self._feasible)
            order = rows[front(self._means[rows])]
        return self._seen.places[order[:count]]

    def _improvement(self) -> Callable[[Floats], Floats] | None:
        """What a point gains if all bounds are kept; None while none ever was."""
        if not self._feasible.any():
            return None
        known = self._means[self._feasible]
        if len(self._running) and not self._bounds:
            believed = self._columns(GaussianProcess.mean, self._running)
            known = np.concatenate([known, believed])
        if len(self._objectives) == 1:
            process = self._objectives[0]
            best = float(known.max()) + XI * process.scale
            return lambda points: expected_improvement(
                process.mean(points), process.deviation(points), best
            )
        rng = np.random.default_rng([self._seed, 1])
        count = len(self._objectives)
        scales = np.array([process.scale for process in self._objectives])
        gained = HypervolumeImprovement(
            known / scales,
            reference(self._means / scales),
            directions(WEIGHTS, count, rng),
            rng.standard_normal((SAMPLES, count)),
        )
        return lambda points: gained(
            self._columns(GaussianProcess.mean, points) / scales,
            self._columns(GaussianProcess.deviation, points) / scales,
        )

    def _fit_bounds(self, goal: Goal, seen: Seen) -> list[GaussianProcess]:
        """Processes that are at least 0 where a bound is kept."""
        processes = [
            self._fit(self._tried, np.array([_margin(b, m) for m in seen.metrics]))
            for b in goal.bounds
        ]
        if len(seen.failed):
            points = np.concatenate(
                [self._tried, self._coordinates.features(seen.failed)]
            )
            works = np.repeat([0.5, -0.5], [len(self._tried), len(seen.failed)])
            processes.append(self._fit(points, works))
        return processes

    def _fit(self, points: Floats, observed: Floats) -> GaussianProcess:
        process = GaussianProcess.fit(points, observed, self._seed)
        return process.with_known(self._running) if len(self._running) else process

    def _columns(
        self, of: Callable[[GaussianProcess, Floats], Floats], points: Floats
    ) -> Floats:
        """[M, X] -> [M, k]."""
        return np.stack([of(process, points) for process in self._objectives], axis=1)


def _margin(bound: Bound, metrics: Mapping[str, float]) -> float:
    """What a bound is kept by; below 0 where it is not."""
    value = metrics[bound.metric]
    return value - bound.value if bound.sense == ">=" else bound.value - value
