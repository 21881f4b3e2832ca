"""What a run's figures say, in words."""

from __future__ import annotations

from tfmtl.report.finding import Finding

__all__ = ["Finding"]
