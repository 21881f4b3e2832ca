"""What a search is after: `click/auc`, several metrics, and bounds on others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from tfmtl.metrics.names import lower_is_better
from tfmtl.schema.bounds import Bound, parse_bound

__all__ = ["INFEASIBLE", "Bound", "Goal", "Objective", "parse_bound"]

INFEASIBLE = -1.0e6
"""Scores of points that break a bound begin here: below every metric."""


@dataclasses.dataclass(frozen=True)
class Objective:
    """A metric to be made as good as it can be.

    Attributes:
        metric: Of the validation split: `click/auc`, `mean/auc`, `click@feed/logloss`.
    """

    metric: str

    @property
    def maximize(self) -> bool:
        """Whether great values are good."""
        return not lower_is_better(self.metric)

    def gain(self, value: float) -> float:
        """The value with the sign under which great is good."""
        return value if self.maximize else -value


@dataclasses.dataclass(frozen=True)
class Goal:
    """Objectives, and bounds.

    Attributes:
        objectives: One, or several: then a front is sought.
        bounds: Of any metrics.
    """

    objectives: tuple[Objective, ...]
    bounds: tuple[Bound, ...] = ()

    @classmethod
    def parse(cls, objectives: Sequence[str], constraints: Sequence[str]) -> Goal:
        """From an experiment file's `tuning`.

        Raises:
            ConfigError: A constraint is none.
        """
        return cls(
            tuple(Objective(o) for o in objectives),
            tuple(parse_bound(c, "tuning.constraints") for c in constraints),
        )

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric it reads, objectives first, each once."""
        named = [o.metric for o in self.objectives] + [b.metric for b in self.bounds]
        return tuple(dict.fromkeys(named))

    def resolved(self, baseline: Mapping[str, float]) -> Goal:
        """With every bound as a number."""
        bounds = tuple(b.resolved(baseline) for b in self.bounds)
        return dataclasses.replace(self, bounds=bounds)

    def violation(self, metrics: Mapping[str, float]) -> float:
        """The sum of what all bounds, which are numbers, are missed by."""
        return sum(b.violation(metrics[b.metric]) for b in self.bounds)

    def score(self, metrics: Mapping[str, float]) -> float:
        """One number, great is good: the first objective where all bounds are kept.

        A point that misses a bound scores below every one that keeps them, and the less
        the further it misses (Deb's rules), so nothing is to be tuned.
        """
        missing = self.violation(metrics)
        if missing > 0.0:
            return INFEASIBLE - missing
        first = self.objectives[0]
        return first.gain(metrics[first.metric])

    def gains(self, metrics: Mapping[str, float]) -> list[float]:
        """Every objective with the sign under which great is good."""
        return [o.gain(metrics[o.metric]) for o in self.objectives]
