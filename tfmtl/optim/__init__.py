"""Optimizers by variable group."""

from __future__ import annotations

from tfmtl.optim.groups import OptimizerGroups, clip_by_norm, match_groups
from tfmtl.optim.lazy_adam import LazyAdam
from tfmtl.optim.schedule import Schedule

__all__ = ["LazyAdam", "OptimizerGroups", "Schedule", "clip_by_norm", "match_groups"]
