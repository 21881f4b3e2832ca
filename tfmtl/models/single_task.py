"""SingleTask: one whole network per task, the control of every multi-task claim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.layers.stacked import StackedMLP
from tfmtl.models.base import ModelConfig, MultiTaskModel


class SingleTaskConfig(ModelConfig):
    """Settings of SingleTask."""

    units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of each network below its tower."""


class SingleTask(MultiTaskModel):
    """T networks that share nothing, embeddings included.

    s_t = h_t(f_t(x_t)),   x_t embedded by task t's own tables

    Trained together for speed; each task's loss moves its own variables alone.
    """

    Config = SingleTaskConfig
    citation = "control: independent networks, one per task"
    config: SingleTaskConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.embedding = None
        self.embeddings = [
            self.make_embedding(f"embedding_{t.name}") for t in self.tasks
        ]
        self.trunks = StackedMLP(
            len(self.tasks),
            self.config.units,
            seed=self.seed_for("trunks"),
            dropout=self.config.dropout,
            owners=[f"task/{t.name}" for t in self.tasks],
            name="trunks",
        )
        self.towers = self.make_towers()

    def embed(self, features: Mapping[str, Any], training: bool) -> Any:
        return [e(features, training=training) for e in self.embeddings]

    def represent(self, x: Any, training: bool) -> Any:
        flat = tf.stack([e.flat for e in x], axis=1)  # [B, T, D]
        return self.trunks(flat, training=training)
