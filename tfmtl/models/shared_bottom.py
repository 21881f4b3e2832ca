"""Shared-Bottom: one trunk for all tasks, one tower each.

R. Caruana, "Multitask Learning", Machine Learning 28, 1997.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tfmtl.layers.embedding import Embedded
from tfmtl.layers.stacked import StackedMLP
from tfmtl.models.base import ModelConfig, MultiTaskModel


class SharedBottomConfig(ModelConfig):
    """Settings of Shared-Bottom."""

    bottom_units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of the trunk."""


class SharedBottom(MultiTaskModel):
    """Hard parameter sharing.

    r   = f(x)            one ReLU network for all tasks
    s_t = h_t(r)          one tower a task
    """

    Config = SharedBottomConfig
    citation = "R. Caruana, Multitask Learning, Machine Learning 28, 1997"
    config: SharedBottomConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bottom = StackedMLP(
            1,
            self.config.bottom_units,
            seed=self.seed_for("bottom"),
            dropout=self.config.dropout,
            name="bottom",
        )
        self.towers = self.make_towers()

    def represent(self, x: Embedded, training: bool) -> Any:
        shared = self.bottom(x.flat, training=training)[:, 0, :]  # [B, H]
        self.keep_for_cut(shared)
        return shared
