"""STEM: embeddings of each task's own beside shared ones, gates that only read.

L. Su, J. Pan, X. Wang, X. Xiao, S. Quan, X. Chen, J. Jiang, "STEM: Unleashing the Power
of Embeddings for Multi-Task Recommendation", AAAI 2024, arXiv 2308.13537.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from tfmtl._keras import tf
from tfmtl.layers.stacked import StackedDense, StackedMLP
from tfmtl.models.base import ModelConfig, MultiTaskModel


class STEMConfig(ModelConfig):
    """Settings of STEM."""

    task_experts: int = Field(default=1, ge=1)
    """Experts of each task's own."""
    shared_experts: int = Field(default=2, ge=1)
    """Experts that all tasks share."""
    expert_units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of each expert's layers."""
    gate_units: tuple[int, ...] = (64,)
    """Widths of each gate's hidden layers; may be empty."""


class STEM(MultiTaskModel):
    """STEM-Net: shared and task-specific embeddings under gates that read all experts.

    x^t, x^s = the features by task t's tables, by the shared ones
    H        = [E_{1,1}(x^1) ...; E_{T,m}(x^T); E_{s,1}(x^s) ...]     ReLU networks
    g^t      = softmax(G^t(x^t + x^s))                                over all experts
    z^t      = sum_e g^t_e H_e           e shared or task t's own
             + sum_e g^t_e sg(H_e)       e another task's
    s_t      = h_t(z^t)

    All forward, task-specific backward: a task reads what the others have learnt and
    cannot change it, nor their tables; sg is no gradient. G^t is a small network. The
    text of the paper was not at hand: this is the authors' code, of which the levels
    above the first are left out, since there the gate of the shared stream passes
    every task's gradient into every task's experts and tables.
    """

    Config = STEMConfig
    citation = (
        "L. Su et al., STEM: Unleashing the Power of Embeddings for Multi-Task "
        "Recommendation, AAAI 2024"
    )
    config: STEMConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config, names = self.config, [t.name for t in self.tasks]
        count = config.task_experts
        self.task_embeddings = [self.make_embedding(f"embedding_of_{n}") for n in names]
        # Experts lie by the names of their tasks: the columns of the gates do not
        # depend on the order in which tasks are declared.
        laid = [n for n in sorted(names) for _ in range(count)]
        self._task_of_expert = [names.index(n) for n in laid]
        self.task_experts = StackedMLP(
            len(laid),
            config.expert_units,
            seed=self.seed_for("task_experts"),
            dropout=config.dropout,
            owners=[f"task/{n}" for n in laid],
            name="task_experts",
        )
        self.shared_experts = StackedMLP(
            config.shared_experts,
            config.expert_units,
            seed=self.seed_for("shared_experts"),
            dropout=config.dropout,
            name="shared_experts",
        )
        owners = [f"gate/{n}" for n in names]
        self.gate_hidden = StackedMLP(
            len(names),
            config.gate_units,
            seed=self.seed_for("gate_hidden"),
            dropout=config.dropout,
            owners=owners,
            name="gate_hidden",
        )
        self.gates = StackedDense(
            len(names),
            len(laid) + config.shared_experts,
            seed=self.seed_for("gates"),
            owners=owners,
            name="gates",
        )
        # [T, E]: which experts a task's loss may change.
        own = [[n == m for m in laid] + [True] * config.shared_experts for n in names]
        self._own = np.array(own, np.float32)
        self.towers = self.make_towers()

    def embed(self, features: Mapping[str, Any], training: bool) -> Any:
        layers = (*self.task_embeddings, self.embedding)
        return [layer(features, training=training) for layer in layers]

    def represent(self, x: Any, training: bool) -> Any:
        own = tf.stack([e.flat for e in x[:-1]], axis=1)  # [B, T, D]
        shared = x[-1].flat
        by_task = self.task_experts(
            tf.gather(own, self._task_of_expert, axis=1), training=training
        )
        by_all = self.shared_experts(shared, training=training)
        experts = tf.concat([by_task, by_all], axis=1)  # [B, E, H]

        read = own + shared[:, None]
        logits = self.gates(self.gate_hidden(read, training=training))
        weights = tf.nn.softmax(tf.cast(logits, tf.float32), axis=-1)  # [B, T, E]
        self.keep_for_cut(own, by_all, read)
        self.keep_for_inspection(gates=weights, experts=experts)
        changed, read_only = (
            tf.cast(weights * m, experts.dtype) for m in (self._own, 1 - self._own)
        )
        return tf.einsum("bte,beh->bth", changed, experts) + tf.einsum(
            "bte,beh->bth", read_only, tf.stop_gradient(experts)
        )
