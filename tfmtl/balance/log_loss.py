"""The sum of the logarithms of the losses: scale-free without settings or state."""

from __future__ import annotations

from typing import Any

from tfmtl.balance.base import LossWeighting, TaskStats
from tfmtl.balance.logs import inverse


class LogLoss(LossWeighting):
    """Minimises sum_t ln L_t: each task's relative decrease counts the same.

        w_t = d/dL_t sum_s ln L_s = 1 / L_t

    Losses must be positive; a task whose loss is not weighs 0 in that step.
    """

    citation = "control: sum of log-losses; the loss part of DB-MTL, arXiv 2308.12029"

    def weigh(self, stats: TaskStats) -> Any:
        return inverse(stats.losses, stats.present)
