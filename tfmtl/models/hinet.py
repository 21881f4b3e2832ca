"""HiNet: extract by scenario first, then by task.

J. Zhou, X. Cao, W. Li, L. Bo, K. Zhang, C. Luo, Q. Yu, "HiNet: Novel Multi-Scenario &
Multi-Task Learning with Hierarchical Information Extraction", ICDE 2023, arXiv
2303.06095.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.layers.embedding import Embedded
from tfmtl.layers.grouped import from_tiles, tile_rows, to_tiles
from tfmtl.layers.pairs import Paired, pair_rows
from tfmtl.layers.scenario_dense import ScenarioDense, ScenarioMLP, ScenarioTowers
from tfmtl.layers.stacked import StackedDense, StackedMLP
from tfmtl.layers.sub_experts import SubExpertIntegration
from tfmtl.models.base import ModelConfig, MultiTaskModel


class HiNetConfig(ModelConfig):
    """Settings of HiNet."""

    sub_experts: int = Field(default=5, ge=1)
    """Sub-experts of each scenario's expert."""
    shared_sub_experts: int = Field(default=5, ge=1)
    """Sub-experts of the expert that all scenarios share."""
    sub_expert_units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of each sub-expert's layers."""
    attention_units: tuple[int, ...] = ()
    """Widths of the hidden layers between a scenario's embedding and its attention."""
    task_experts: int = Field(default=2, ge=1)
    """Experts of each task's own, in every scenario."""
    shared_experts: int = Field(default=2, ge=0)
    """Experts that the tasks of one scenario share."""
    expert_units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of these experts' layers."""


class HiNet(MultiTaskModel):
    """Hierarchical information extraction network.

    Scenario extraction, for a row x of scenario i; SEI mixes sub-experts by a softmax.
    G   = SEI_shared(x)
    S_m = SEI_m(x)                                        m = 1..M, of every scenario
    A_i = sum_{m != i} a_m S_m,   a = softmax(W e_i)      over the others; e_i embeds i
    C_i = [G; S_i; A_i]

    Task extraction, of scenario i's own: CGC with the tasks j.
    z^j = softmax(W_i^j C_i) [own experts E_i^j(C_i); shared ones E_i(C_i)]
    s^j = h_i^j(z^j)

    Every row needs all S_m, since A_i reads the others'; the task layer costs as much
    as that of one scenario. That A_i's weights sum to one over the others is read from
    the figure. The released code takes the softmax over all scenarios and then drops i,
    has a ReLU before every softmax, takes that of CGC over an axis of size one, so that
    all its gates are 1, and shares E_i among the scenarios.

    A row of an unknown scenario gets the mean logit of all S scenarios, read as one of
    their own, and trains none.
    """

    Config = HiNetConfig
    citation = (
        "J. Zhou et al., HiNet: Novel Multi-Scenario & Multi-Task Learning with "
        "Hierarchical Information Extraction, ICDE 2023"
    )
    config: HiNetConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self.scenarios = self.scenarios_of_cells(several=True)
        count, names = len(self.scenarios), [t.name for t in self.tasks]
        self.shared_expert = SubExpertIntegration(
            1,
            config.shared_sub_experts,
            config.sub_expert_units,
            seed=self.seed_for("shared_expert"),
            dropout=config.dropout,
            name="shared_expert",
        )
        self.scenario_experts = SubExpertIntegration(
            count,
            config.sub_experts,
            config.sub_expert_units,
            seed=self.seed_for("scenario_experts"),
            dropout=config.dropout,
            name="scenario_experts",
        )
        self.attention_hidden = StackedMLP(
            1,
            config.attention_units,
            seed=self.seed_for("attention_hidden"),
            name="attention_hidden",
        )
        self.attention = StackedDense(
            1, count, seed=self.seed_for("attention"), name="attention"
        )
        self.experts = ScenarioMLP(
            self.scenarios,
            names,
            config.expert_units,
            seed=self.seed_for("experts"),
            dropout=config.dropout,
            per_task=config.task_experts,
            per_scenario=config.shared_experts,
            name="experts",
        )
        self.gates = ScenarioDense(
            self.scenarios,
            names,
            config.task_experts + config.shared_experts,
            seed=self.seed_for("gates"),
            use_bias=False,
            name="gates",
        )
        self.towers = ScenarioTowers(
            self.scenarios,
            names,
            config.tower_units,
            seed=self.seed_for("towers"),
            initial_bias=self.initial_cell_bias(),
            dropout=config.dropout,
            name="towers",
        )

    def embed(self, features: Mapping[str, Any], training: bool) -> Any:
        pairs = pair_rows(features["scenario"], len(self.scenarios))
        embedded = self.embedding(pairs.features(features), training=training)
        return Paired(embedded, pairs)

    def logits(self, x: Any, training: bool) -> dict[str, Any]:
        extracted = self._extract(x.inputs, training)  # [N, 3H]
        self.keep_for_cut(extracted)
        tiles = tile_rows(x.pairs.scenario, len(self.scenarios))
        tiled = to_tiles(extracted, tiles)  # [K, R, 3H]
        mixed, gates = self._mix(tiled, tiles.scenario, training)
        self.keep_for_inspection(gates=from_tiles(gates, tiles))
        logits = self.towers(mixed, tiles.scenario, training=training)
        pairs = tf.cast(from_tiles(logits, tiles), tf.float32)  # [N, T]
        rows = x.pairs.answers(pairs)
        return {t.conditional: rows[:, j] for j, t in enumerate(self.tasks)}

    def _extract(self, x: Embedded, training: bool) -> Any:
        """C_i, [N, 3H]."""
        shared, shared_gates = self.shared_expert(x.flat, training=training)
        experts, gates = self.scenario_experts(x.flat, training=training)  # [N, S, H]
        own = tf.gather(experts, x.scenario, axis=1, batch_dims=1)
        hidden = self.attention_hidden(x.scenario_vector, training=training)
        logits = tf.cast(self.attention(hidden)[:, 0], tf.float32)  # [N, S]
        count = len(self.scenarios)
        logits += tf.one_hot(x.scenario, count, -math.inf, 0.0)
        attention = tf.nn.softmax(logits, axis=-1)
        others = tf.einsum("bs,bsh->bh", tf.cast(attention, experts.dtype), experts)
        self.keep_for_inspection(
            shared_expert_gates=shared_gates,
            scenario_expert_gates=gates,
            scenario_experts=experts,
            attention_gates=attention,
        )
        return tf.concat([shared[:, 0], own, others], axis=1)

    def _mix(self, tiled: Any, scenario: Any, training: bool) -> tuple[Any, Any]:
        """CGC of each tile's scenario: mixtures [K, R, T, H], gates [K, R, T, E]."""
        config, count = self.config, len(self.tasks)
        experts = self.experts(tiled, scenario, training=training)
        logits = tf.cast(self.gates(tiled, scenario), tf.float32)
        gates = tf.nn.softmax(logits, axis=-1)
        weights = tf.cast(gates, experts.dtype)
        split = count * config.task_experts
        own, shared = experts[:, :, :split], experts[:, :, split:]
        shape = [-1, tf.shape(own)[1], count, config.task_experts, own.shape[-1]]
        own = tf.reshape(own, shape)
        mixed = tf.einsum("krte,krteh->krth", weights[..., : config.task_experts], own)
        if config.shared_experts:
            rest = weights[..., config.task_experts :]
            mixed += tf.einsum("krte,kreh->krth", rest, shared)
        return mixed, gates
