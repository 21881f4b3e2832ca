"""MoE: experts of which k answer a row, under one gate for all tasks.

N. Shazeer, A. Mirhoseini, K. Maziarz, A. Davis, Q. Le, G. Hinton, J. Dean,
"Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer",
ICLR 2017, arXiv 1701.06538.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from tfmtl._keras import tf
from tfmtl.layers.embedding import Embedded
from tfmtl.layers.sparse_gate import NoisyTopKGate, SparseGate, squared_variation
from tfmtl.layers.stacked import StackedMLP
from tfmtl.models.base import ModelConfig, MultiTaskModel


class MoEConfig(ModelConfig):
    """Settings of MoE."""

    num_experts: int = Field(default=8, ge=1)
    """Experts that all tasks share."""
    active_experts: int = Field(default=2, ge=1)
    """k, the experts that answer a row. With 1, tasks cannot teach the gate: its weight
    is 1, and only the load loss moves it."""
    expert_units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of each expert's layers."""
    noisy: bool = True
    """Whether the gate's logits get noise in training."""
    importance_weight: float = Field(default=0.01, ge=0)
    """Of the loss that keeps the experts' summed weights alike."""
    load_weight: float = Field(default=0.01, ge=0)
    """Of the loss that keeps the numbers of rows alike; there is none without noise, or
    where all experts are active."""

    @model_validator(mode="after")
    def _not_more_than_all(self) -> MoEConfig:
        if self.active_experts > self.num_experts:
            raise ValueError(
                "`active_experts` must be at most `num_experts`. Received: "
                f"{self.active_experts}, {self.num_experts}"
            )
        return self


class MoE(MultiTaskModel):
    """Sparsely-gated mixture of experts, one noisy top-k gate for all tasks.

    H(x)_e  = (x W_g)_e + n_e softplus((x W_noise)_e),  n_e ~ N(0, 1)    equation 4
    G(x)    = softmax(KeepTopK(H(x), k))                                 equations 3, 5
    z       = sum_e G(x)_e f_e(x);  s_t = h_t(z)                         equation 1
    L_imp   = w_imp CV(sum_x G(x))^2                                     equations 6, 7
    P(x, e) = Phi(((x W_g)_e - kth_excluding(H(x), k, e)) / softplus((x W_noise)_e))
    L_load  = w_load CV(sum_x P(x, .))^2                                 appendix A

    Noise and both losses are of training alone. W_g and W_noise start at 0. softplus is
    kept above 0.01; the authors' code adds 0.01 instead. The experts are all computed,
    as one einsum: leaving out those of weight 0 pays from 16 experts upwards only.
    """

    Config = MoEConfig
    citation = (
        "N. Shazeer et al., Outrageously Large Neural Networks: The Sparsely-Gated "
        "Mixture-of-Experts Layer, ICLR 2017"
    )
    config: MoEConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self.experts = StackedMLP(
            config.num_experts,
            config.expert_units,
            seed=self.seed_for("experts"),
            dropout=config.dropout,
            name="experts",
        )
        self.gate = NoisyTopKGate(
            config.num_experts,
            config.active_experts,
            noisy=config.noisy,
            seed=self.seed_for("gate"),
            name="gate",
        )
        self.towers = self.make_towers()
        self._gated: SparseGate | None = None

    def represent(self, x: Embedded, training: bool) -> Any:
        experts = self.experts(x.flat, training=training)  # [B, E, H]
        gated = self.gate(x.flat, training=training)
        self._gated = gated if training else None
        weights = tf.cast(gated.weights, experts.dtype)
        mixed = tf.einsum("be,beh->bh", weights, experts)
        self.keep_for_cut(mixed)
        self.keep_for_inspection(gates=gated.weights, experts=experts)
        return mixed

    def aux_losses(self) -> dict[str, Any]:
        if self._gated is None:
            return {}
        importance = tf.reduce_sum(self._gated.weights, axis=0)  # [E]
        losses = {
            "importance": self.config.importance_weight * squared_variation(importance)
        }
        if self._gated.load is not None:
            load = tf.reduce_sum(self._gated.load, axis=0)  # [E]
            losses["load"] = self.config.load_weight * squared_variation(load)
        return losses
