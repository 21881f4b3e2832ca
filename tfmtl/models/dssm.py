"""DSSM: a tower for who asks, a tower for what is shown, and the angle between them.

P.-S. Huang, X. He, J. Gao, L. Deng, A. Acero, L. Heck, "Learning Deep Structured
Semantic Models for Web Search using Clickthrough Data", CIKM 2013.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tfmtl.errors import ConfigError
from tfmtl.layers.cosine import CosineScores
from tfmtl.layers.embedding import Embedded
from tfmtl.layers.stacked import StackedMLP
from tfmtl.models.base import ModelConfig, MultiTaskModel
from tfmtl.models.behaviour import side_by_side
from tfmtl.models.sides import (
    features_by_side,
    mixed_crosses,
    pooled_without_items,
)


class DSSMConfig(ModelConfig):
    """Settings of DSSM."""

    interaction: Literal["none"] = "none"
    """Not for this model: a product of a user's and an item's field is in no tower."""
    shared_units: tuple[int, ...] = (1024, 512)
    """Widths of the layers that all tasks share, in each tower."""
    tower_units: tuple[int, ...] = Field(default=(128,), min_length=1)
    """Widths of each task's own layers above them; the last is the space of the
    cosine."""
    activation: Literal["tanh", "relu"] = "tanh"
    """After every layer, the last one too; with `relu` no cosine is negative."""
    initial_scale: float = Field(default=10.0, gt=0)
    """Where the scale of the cosine starts."""


class DSSM(MultiTaskModel):
    """Deep structured semantic model: cosine of two towers.

    u_t = f_t(user, context, scenario),   v_t = g_t(item)       tanh networks
    s_t = gamma_t cos(u_t, v_t) + b_t,    gamma_t > 0 learnt

    Deviations: the paper trains softmax(gamma cos) over a clicked and four random
    documents; here each row has its own label, and the scale and bias that a cosine
    needs to be a logit. Several tasks share the lower layers. Crosses of a user's and
    an item's feature are left out, and no sequence is pooled by attention to the item:
    each tower must do without the other.
    """

    Config = DSSMConfig
    citation = (
        "P.-S. Huang et al., Learning Deep Structured Semantic Models for Web Search "
        "using Clickthrough Data, CIKM 2013"
    )
    config: DSSMConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._check_tasks()
        dataset = self.manifest.dataset
        mixed = mixed_crosses(dataset)
        sides = features_by_side(dataset, without=mixed)
        self.reads = {
            "user": (*sides["user"], *sides["context"]),
            "item": sides["item"],
        }
        self.embedding = self.make_embedding(
            "embedding", exclude=mixed, replace=pooled_without_items(dataset)
        )
        owners = [f"task/{t.name}" for t in self.tasks]
        self.trunks = {
            side: self._network(side, "trunk", 1, self.config.shared_units)
            for side in self.reads
        }
        self.towers = {
            side: self._network(
                side, "tower", len(owners), self.config.tower_units, owners
            )
            for side in self.reads
        }
        self.scores = CosineScores(
            owners,
            scale=self.config.initial_scale,
            initial_bias=[self.initial_bias(t) for t in self.tasks],
            name="scores",
        )

    def logits(self, x: Embedded, training: bool) -> dict[str, Any]:
        ends = []
        for side, names in self.reads.items():
            read = side_by_side(x, names, scenario=side == "user")
            if read is None:
                raise ConfigError(
                    "DSSM needs features of side `item`, and of `user` or `context`, "
                    f"that have a vector. Received: {side}: {list(names)}"
                )
            shared = self.trunks[side](read, training=training)[:, 0]  # [B, H]
            ends.append(self.towers[side](shared, training=training))  # [B, T, h]
            self.keep_for_cut(shared)
        user, item = ends
        logits, cosines = self.scores(user, item)  # [B, T]
        self.keep_for_inspection(user=user, item=item, cosines=cosines)
        return {t.conditional: logits[:, i] for i, t in enumerate(self.tasks)}

    def _network(
        self,
        side: str,
        part: str,
        count: int,
        units: tuple[int, ...],
        owners: list[str] | None = None,
    ) -> StackedMLP:
        return StackedMLP(
            count,
            units,
            self.config.activation,
            seed=self.seed_for(side, part),
            dropout=self.config.dropout,
            owners=owners,
            name=f"{side}_{part}",
        )

    def _check_tasks(self) -> None:
        for task in self.tasks:
            if task.width > 1:
                raise ConfigError(
                    "DSSM has one cosine a task, so that none may be multiclass or "
                    "have a loss of several outputs. Received: "
                    f"{task.name!r} with {task.width} outputs"
                )
