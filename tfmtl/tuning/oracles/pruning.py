"""The median rule: stop a trial that is worse than half of the others were by then.

D. Golovin, B. Solnik, S. Moitra, G. Kochanski, J. Karro, D. Sculley, "Google Vizier: A
Service for Black-Box Optimization", KDD 2017, section 3.2.2.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

from tfmtl.errors import ConfigError
from tfmtl.tuning.goals import INFEASIBLE


@dataclasses.dataclass(frozen=True)
class MedianRule:
    """Stops a trial at its e-th evaluation if max(own[:e]) < median of the others.

    Of each other trial with at least e evaluations the running average of its first e
    counts: mean(other[:e]). Scores are great where good, see `Goal.score`.

    A score of an infeasible point says how far a bound is missed, which no average with
    other scores makes sense of: averages are over the feasible ones of the first e, and
    a trial that has none by then counts as worse than every feasible one. A trial with
    no feasible score yet is stopped by the same rule: where at least half of the others
    are not feasible either, the median is not above it, and it goes on.

    Attributes:
        warmup_evaluations: Of a trial that are left alone.
        least_trials: Other trials with e evaluations that it takes.
    """

    warmup_evaluations: int = 1
    least_trials: int = 3

    def __post_init__(self) -> None:
        if self.warmup_evaluations < 0 or self.least_trials < 1:
            raise ConfigError(
                "the median rule needs `warmup_evaluations` >= 0 and `least_trials` >= "
                f"1. Received: {self.warmup_evaluations} and {self.least_trials}"
            )

    def stops(self, own: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
        """Whether a trial should end now.

        Args:
            own: Its score at each evaluation until now.
            others: The same of finished trials; the shorter ones are left out.
        """
        now = len(own)
        seen = [other[:now] for other in others if len(other) >= now]
        if now == 0 or now <= self.warmup_evaluations or len(seen) < self.least_trials:
            return False
        best = max(own)
        averages = [_average(scores) for scores in seen]
        # Half of an infeasible and half of a feasible one would be neither.
        middle = statistics.median_low(averages)
        if middle > INFEASIBLE:
            middle = statistics.median(averages)
        return max(best, INFEASIBLE) < middle


def _average(scores: Sequence[float]) -> float:
    feasible = [score for score in scores if score > INFEASIBLE]
    return statistics.fmean(feasible) if feasible else INFEASIBLE
