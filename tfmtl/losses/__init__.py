"""Per-task losses from logits, with masks for missing labels and populations."""

from __future__ import annotations

from tfmtl.losses.groups import Context
from tfmtl.losses.targets import Target, targets
from tfmtl.losses.task import TaskLosses

__all__ = ["Context", "Target", "TaskLosses", "targets"]
