"""M3oE: experts of all, of scenarios and of tasks, fused on two levels.

Z. Zhang, S. Liu, J. Yu, Q. Cai, X. Zhao, C. Zhang, Z. Liu, Q. Liu, H. Zhao, L. Hu,
P. Jiang, K. Gai, "M3oE: Multi-Domain Multi-Task Mixture-of-Experts Recommendation
Framework", SIGIR 2024, arXiv 2404.18465.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from tfmtl._keras import keras, tf
from tfmtl.layers.dropout import Dropout
from tfmtl.layers.grouped import from_tiles, tile_rows, to_tiles
from tfmtl.layers.normed_experts import NormedExperts
from tfmtl.layers.pairs import Paired, pair_rows
from tfmtl.layers.scenario_dense import ScenarioDense, ScenarioTowers
from tfmtl.layers.stacked import StackedDense, StackedMLP
from tfmtl.layers.star import StarDense
from tfmtl.models.base import ModelConfig, MultiTaskModel


class M3oEConfig(ModelConfig):
    """Settings of M3oE."""

    star_units: int = Field(default=128, ge=1)
    """Width of the scenarios' first layer."""
    representation_units: tuple[int, ...] = Field(default=(128,), min_length=1)
    """Widths of the network beside it that knows no scenario; the last is that of what
    the experts read."""
    shared_experts: int = Field(default=4, ge=1)
    """Experts of no scenario and no task."""
    expert_units: int = Field(default=64, ge=1)
    """Width of each expert, which has one layer."""
    alpha_scenario: float = Field(default=0.73, gt=0, lt=1)
    """Where the weight of the scenarios' experts starts."""
    alpha_task: float = Field(default=0.73, gt=0, lt=1)
    """Where the weight of the tasks' experts starts."""
    beta_scenario: float = Field(default=0.73, gt=0, lt=1)
    """Where the share of the row's own scenario among the scenarios' experts starts."""
    beta_task: float = Field(default=0.73, gt=0, lt=1)
    """Where the share of the own task among the tasks' experts starts."""
    train_fusion: bool = True
    """Whether these four learn, or stay."""


class M3oE(MultiTaskModel):
    """Multi-domain multi-task mixture of experts.

    f_DR = (W_d * W_sh) x + b_d + b_sh                           equation 1
    h    = W_c f_DR + b_c + f_DA(x)                              equation 2
    f_e  = relu(LayerNorm(W_e h + b_e))       every expert       equation 3
    S    = sum_e softmax(G_{d,t} h)_e f_e     N shared ones      equation 4
    D    = beta_d f_d + (1 - beta_d) / (D - 1) sum_{d' != d} f_d'    equation 5
    T    = beta_t f_t + (1 - beta_t) / (T - 1) sum_{t' != t} f_t'    equation 6
    r    = S + alpha_d D + alpha_t T                             equation 7
    s    = tower_{d,t}(r)                                        equation 8
    alpha, beta = sigmoid(e)                                     equation 10

    d is the row's scenario, t the task; alpha and beta are one number each, as in the
    authors' code. Equation 7 prints alpha_d before T and alpha_t before D, against the
    text and the code. They are trained with everything else in every step, where the
    paper updates them on one batch after each epoch (equation 11). f_DA is a ReLU
    network. The authors' code has a layer norm and a ReLU after W_c, in f_DA and in the
    towers, and cuts the gradient of the gates' input; W_d starts at 1 here, beside
    which two random factors would start near zero.

    Every row needs the experts of all scenarios and tasks, which D and T mix; the
    first layer, gates and towers cost as much as those of one scenario. A row of an
    unknown scenario gets the mean logit of all scenarios, read as one of their own,
    and trains none.
    """

    Config = M3oEConfig
    citation = (
        "Z. Zhang et al., M3oE: Multi-Domain Multi-Task Mixture-of-Experts "
        "Recommendation Framework, SIGIR 2024"
    )
    config: M3oEConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self.scenarios = self.scenarios_of_cells()
        names = [t.name for t in self.tasks]
        self.star = StarDense(
            self.scenarios, config.star_units, seed=self.seed_for("star"), name="star"
        )
        self.common = StackedDense(
            1,
            config.representation_units[-1],
            seed=self.seed_for("common"),
            name="common",
        )
        self.agnostic = StackedMLP(
            1,
            config.representation_units,
            seed=self.seed_for("agnostic"),
            dropout=config.dropout,
            name="agnostic",
        )
        self._sizes = [config.shared_experts, len(self.scenarios), len(names)]
        self.experts = NormedExperts(
            sum(self._sizes),
            config.expert_units,
            seed=self.seed_for("experts"),
            name="experts",
        )
        self.dropout = Dropout(config.dropout, self.seed_for("dropout"), name="dropout")
        # [T, T]: experts of tasks lie by name, whatever the order of declaration.
        self._own_task = np.array(
            [[n == m for m in sorted(names)] for n in names], np.float32
        )
        # The gate of a single expert has nothing to learn.
        self.gates: Any = None
        if config.shared_experts > 1:
            self.gates = ScenarioDense(
                self.scenarios,
                names,
                config.shared_experts,
                seed=self.seed_for("gates"),
                name="gates",
            )
        starts = {
            "alpha_scenario": config.alpha_scenario,
            "alpha_task": config.alpha_task,
        }
        # With one scenario, or task, there are no others to share with.
        if len(self.scenarios) > 1:
            starts["beta_scenario"] = config.beta_scenario
        if len(names) > 1:
            starts["beta_task"] = config.beta_task
        self.fusion = _Fusion(
            starts,
            train=config.train_fusion,
            name="fusion",
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
        flat, scenario = x.inputs.flat, x.pairs.scenario
        tiles = tile_rows(scenario, len(self.scenarios))
        starred = self.star(to_tiles(flat, tiles), scenario, tiles)
        represented = self.common(from_tiles(starred, tiles))[:, 0]
        represented += self.agnostic(flat, training=training)[:, 0]  # h, [N, H]
        experts = self.experts(represented)
        experts = self.dropout(experts, training=training)  # [N, E, H]
        shared, by_scenario, by_task = tf.split(experts, self._sizes, axis=1)
        gated = shared  # [N, 1, H]
        if self.gates is not None:
            logits = self.gates(to_tiles(represented, tiles), tiles.scenario)
            gates = tf.nn.softmax(tf.cast(from_tiles(logits, tiles), tf.float32))
            self.keep_for_inspection(gates=gates)  # [N, T, E]
            gated = tf.einsum("bte,beh->bth", tf.cast(gates, shared.dtype), shared)
        fusion = self.fusion.weights_of_now(experts.dtype)
        own = tf.one_hot(scenario, len(self.scenarios), dtype=experts.dtype)
        shares = _shares(own, fusion.get("beta_scenario"))
        mixed = tf.einsum("bs,bsh->bh", shares, by_scenario)[:, None]
        mixed = gated + fusion["alpha_scenario"] * mixed
        own = tf.cast(self._own_task, experts.dtype)
        shares = _shares(own, fusion.get("beta_task"))
        mixed += fusion["alpha_task"] * tf.einsum("ts,bsh->bth", shares, by_task)
        self.keep_for_cut(represented, mixed)
        self.keep_for_inspection(experts=experts, **fusion)
        towers = self.towers(to_tiles(mixed, tiles), tiles.scenario, training=training)
        pairs = tf.cast(from_tiles(towers, tiles), tf.float32)  # [N, T]
        rows = x.pairs.answers(pairs)
        return {t.conditional: rows[:, j] for j, t in enumerate(self.tasks)}


def _shares(own: Any, beta: Any) -> Any:
    """beta for the own member, the rest for the others alike: [..., M], sums of 1.

    Args:
        own: [..., M], 1 for the own member.
        beta: Scalar, or None where there are no others.
    """
    if beta is None:
        return own
    return beta * own + (1.0 - beta) / (int(own.shape[-1]) - 1) * (1.0 - own)


@keras.utils.register_keras_serializable("tfmtl")
class _Fusion(keras.layers.Layer):
    """Numbers in (0, 1), each the sigmoid of a variable.

    Args:
        starts: Name to where the number starts.
        train: Whether they learn.
    """

    def __init__(self, starts: Mapping[str, float], train: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._numbers = {
            name: self.add_weight(
                f"fusion/{name}",
                [],
                initializer=keras.initializers.Constant(math.log(w / (1 - w))),
                trainable=train,
            )
            for name, w in starts.items()
        }

    def weights_of_now(self, dtype: Any) -> dict[str, Any]:
        """Name to number."""
        return {k: tf.cast(tf.sigmoid(v), dtype) for k, v in self._numbers.items()}
