"""CrossStitch: a network per task, mixed linearly after each layer.

I. Misra, A. Shrivastava, A. Gupta, M. Hebert, "Cross-stitch Networks for Multi-task
Learning", CVPR 2016, arXiv 1604.03539.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tfmtl.layers.cross_stitch import CrossStitchUnit
from tfmtl.layers.dropout import Dropout
from tfmtl.layers.embedding import Embedded
from tfmtl.layers.stacked import StackedDense
from tfmtl.models.base import ModelConfig, MultiTaskModel

STITCH = "shared/stitch"
"""Group of the mixing matrices."""


class CrossStitchConfig(ModelConfig):
    """Settings of CrossStitch."""

    units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of each column's layers; a unit follows each."""
    same_task: float = Field(default=0.9, ge=0, le=1)
    """What a column keeps of itself at the start; the others share the rest equally."""
    per_channel: bool = False
    """A mixing matrix for each channel of a layer rather than one for all."""


class CrossStitch(MultiTaskModel):
    """Parallel columns whose activations are mixed after each hidden layer.

    x_t   = ReLU(W_t x~_t + b_t)       column t, x~ = the input below the first layer
    x~_t  = sum_j A_tj x_j             A_tj: from task j to task t; equation 1
    s_t   = h_t(x~_t)                  no unit in or after the tower

    A starts with alpha_S on its diagonal and alpha_D = (1 - alpha_S) / (T - 1) beside
    it, and is free in training, below 0 and above 1 too. It is a group of its own,
    `shared/stitch`, since the paper gives it a learning rate some hundred times the
    network's (the factor is unconfirmed). Units for each channel are the vision paper's
    (unconfirmed); one for all channels is the form of the MMoE paper, the default.
    Columns start at random, not from single-task networks trained first.
    """

    Config = CrossStitchConfig
    citation = (
        "I. Misra et al., Cross-stitch Networks for Multi-task Learning, CVPR 2016"
    )
    config: CrossStitchConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        names = [t.name for t in self.tasks]
        self.columns = [
            StackedDense(
                len(names),
                width,
                "relu",
                seed=self.seed_for("columns", i),
                owners=[f"shared/{name}" for name in names],
                name=f"columns_{i}",
            )
            for i, width in enumerate(config.units)
        ]
        self.dropouts = [
            Dropout(config.dropout, self.seed_for("dropout", i), name=f"dropout_{i}")
            for i in range(len(config.units))
        ]
        self.stitches = [
            CrossStitchUnit(
                names,
                same=config.same_task,
                per_channel=config.per_channel,
                owner=STITCH,
                name=f"stitch_{i}",
            )
            for i in range(len(config.units))
        ]
        self.towers = self.make_towers()

    def represent(self, x: Embedded, training: bool) -> Any:
        mixed = x.flat
        for column, dropout, stitch in zip(self.columns, self.dropouts, self.stitches):
            mixed = stitch(dropout(column(mixed), training=training))  # [B, T, h]
        self.keep_for_cut(mixed)
        return mixed

    def _group_of(self, owner: str) -> str:
        return owner if owner == STITCH else super()._group_of(owner)
