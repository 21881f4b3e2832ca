"""OMoE: experts under one softmax gate for all tasks.

J. Ma, Z. Zhao, X. Yi, J. Chen, L. Hong, E. Chi, "Modeling Task Relationships in
Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018; after R. Jacobs,
M. Jordan, S. Nowlan, G. Hinton, "Adaptive Mixtures of Local Experts", Neural
Computation 1991.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tfmtl.layers.embedding import Embedded
from tfmtl.layers.gate import Gates
from tfmtl.layers.stacked import StackedMLP
from tfmtl.models.base import ModelConfig, MultiTaskModel


class OMoEConfig(ModelConfig):
    """Settings of OMoE."""

    num_experts: int = Field(default=8, ge=1)
    """Experts that all tasks share."""
    expert_units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of each expert's layers."""
    gate_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of experts the gate loses in training."""


class OMoE(MultiTaskModel):
    """One-gate mixture of experts.

    f_e(x) ReLU network, e = 1..E
    g(x)   = softmax(W_g x)              linear, no bias
    z      = sum_e g(x)_e f_e(x)
    s_t    = h_t(z)                      all tasks read one mixture

    It is MMoE whose gates are equal.
    """

    Config = OMoEConfig
    citation = (
        "J. Ma et al., Modeling Task Relationships in Multi-task Learning with "
        "Multi-gate Mixture-of-Experts, KDD 2018"
    )
    config: OMoEConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.experts = StackedMLP(
            self.config.num_experts,
            self.config.expert_units,
            seed=self.seed_for("experts"),
            dropout=self.config.dropout,
            name="experts",
        )
        self.gate = Gates(
            ["shared/gate"],
            self.config.num_experts,
            seed=self.seed_for("gate"),
            dropout=self.config.gate_dropout,
            name="gate",
        )
        self.towers = self.make_towers()

    def represent(self, x: Embedded, training: bool) -> Any:
        experts = self.experts(x.flat, training=training)  # [B, E, H]
        mixed, gates = self.gate(x.flat, experts, training=training)  # [B, 1, H]
        self.keep_for_cut(mixed)
        self.keep_for_inspection(gates=gates[:, 0], experts=experts)
        return mixed[:, 0]  # [B, H]
