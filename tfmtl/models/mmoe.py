"""MMoE: shared experts, one softmax gate per task.

J. Ma, Z. Zhao, X. Yi, J. Chen, L. Hong, E. Chi, "Modeling Task Relationships in
Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tfmtl.layers.embedding import Embedded
from tfmtl.layers.gate import Gates
from tfmtl.layers.stacked import StackedMLP
from tfmtl.models.base import ModelConfig, MultiTaskModel


class MMoEConfig(ModelConfig):
    """Settings of MMoE."""

    num_experts: int = Field(default=8, ge=1)
    """Experts that all tasks share."""
    expert_units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of each expert's layers."""
    gate_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of experts a gate loses in training."""


class MMoE(MultiTaskModel):
    """Multi-gate mixture of experts.

    f_e(x) ReLU network, e = 1..E
    g^t(x) = softmax(W_{g,t} x)             linear, no bias; equation 7
    z_t    = sum_e g^t(x)_e f_e(x)          equation 6
    s_t    = h_t(z_t)                       equation 5

    With one expert it is Shared-Bottom; with equal gates for all tasks it is OMoE.
    """

    Config = MMoEConfig
    citation = (
        "J. Ma et al., Modeling Task Relationships in Multi-task Learning with "
        "Multi-gate Mixture-of-Experts, KDD 2018"
    )
    config: MMoEConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.experts = StackedMLP(
            self.config.num_experts,
            self.config.expert_units,
            seed=self.seed_for("experts"),
            dropout=self.config.dropout,
            name="experts",
        )
        self.gates = Gates(
            [f"gate/{t.name}" for t in self.tasks],
            self.config.num_experts,
            seed=self.seed_for("gates"),
            dropout=self.config.gate_dropout,
            name="gates",
        )
        self.towers = self.make_towers()

    def represent(self, x: Embedded, training: bool) -> Any:
        experts = self.experts(x.flat, training=training)  # [B, E, H]
        mixed, gates = self.gates(x.flat, experts, training=training)  # [B, T, H]
        self.keep_for_cut(experts, x.flat)
        self.keep_for_inspection(gates=gates, experts=experts)
        return mixed
