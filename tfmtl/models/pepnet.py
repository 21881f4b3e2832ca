"""PEPNet: priors of scenario, user and item scale embeddings and hidden units.

J. Chang, C. Zhang, Y. Hui, D. Leng, Y. Niu, Y. Song, K. Gai, "PEPNet: Parameter and
Embedding Personalized Network for Infusing with Personalized Prior Information",
KDD 2023, arXiv 2302.01115.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.layers.dropout import Dropout
from tfmtl.layers.embedding import Embedded
from tfmtl.layers.gate_unit import GateUnit
from tfmtl.layers.stacked import StackedDense
from tfmtl.models.base import ModelConfig, MultiTaskModel


class PEPNetConfig(ModelConfig):
    """Settings of PEPNet."""

    units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of each task's layers; the input of every one is scaled."""
    tower_units: tuple[int, ...] = ()
    """Widths of layers above them, whose inputs are not scaled; may be empty."""
    gate_units: int = Field(default=64, ge=1)
    """Width of the hidden layer of every gate unit."""
    scenario_features: tuple[str, ...] = ()
    """Features that describe the scenario, such as its counts, beside its id."""
    prior_features: tuple[str, ...] | None = None
    """Features that describe who and what meet: ids of user, item, author. Where null,
    the categorical ones of the user's and the item's side."""


class PEPNet(MultiTaskModel):
    """Parameter and embedding personalized network.

    U(x)       = 2 sigmoid(relu(x W + b) W' + b')              Gate NU
    d_domain   = U_ep([E(F_d) ; sg(E)])                        EPNet
    O_ep       = d_domain * E
    O_prior    = [E(F_u) ; E(F_i) ; E(F_a)]                    PPNet
    d_task^(l) = U_pp^(l)([O_prior ; sg(O_ep)])
    H_t^(l+1)  = relu((d_t^(l) * H_t^(l)) W_t^(l) + b_t^(l)),  H_t^(1) = O_ep
    s_t        = (d_t^(L) * H_t^(L)) w_t + b_t

    E is the flat input, F_d the scenario and what describes it, sg no gradient. A unit
    U_pp^(l) makes the factors of all T tasks from one hidden layer. The input O_ep of
    the first layer is scaled too, as equation and index say (unconfirmed by a figure),
    and the output is not. E holds F_d and the priors as well, of the same tables
    (unconfirmed); only sg(E) and sg(O_ep) are cut off. The width of a unit's hidden
    layer is not stated. Some public code scales the outputs of layers instead, feeds
    the towers with the detached gate input, or has one gate for all tasks.
    """

    Config = PEPNetConfig
    citation = (
        "J. Chang et al., PEPNet: Parameter and Embedding Personalized Network for "
        "Infusing with Personalized Prior Information, KDD 2023"
    )
    config: PEPNetConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.priors = self._prior_features()
        self.embedding_gate: Any = None
        owners = [f"task/{t.name}" for t in self.tasks]
        self.layers_of_tasks = [
            StackedDense(
                len(self.tasks),
                width,
                "relu",
                seed=self.seed_for("layer", i),
                owners=owners,
                name=f"layer_{i + 1}",
            )
            for i, width in enumerate(self.config.units)
        ]
        self.dropouts = [
            Dropout(
                self.config.dropout, self.seed_for("dropout", i), name=f"dropout_{i}"
            )
            for i in range(len(self.config.units))
        ]
        # Those of the first layer's input are as wide as the features are together.
        self.unit_gates: list[Any] = []
        self.towers = self.make_towers()

    def _prior_features(self) -> tuple[str, ...]:
        config, features = self.config, self.manifest.dataset.features
        names = [f.name for f in features]
        for key in ("scenario_features", "prior_features"):
            unknown = {*(getattr(config, key) or ())} - {*names}
            if unknown:
                raise ConfigError(
                    f"`model.config.{key}` must name features. Received: "
                    f"{sorted(unknown)}; features: {names}"
                )
        if self.manifest.dataset.scenario is None and not config.scenario_features:
            raise ConfigError(
                "PEPNet needs `dataset.scenario` or `model.config.scenario_features`. "
                "Received: neither"
            )
        priors = config.prior_features
        if priors is None:
            sides = {*self.features_of_side("user", "item")}
            priors = tuple(
                f.name for f in features if f.kind == "categorical" and f.name in sides
            )
        if not priors:
            raise ConfigError(
                "`model.config.prior_features` must name a feature where no "
                "categorical one has the side `user` or `item`. Received: "
                f"{config.prior_features}; features: {names}"
            )
        return priors

    def represent(self, x: Embedded, training: bool) -> Any:
        self._make_gates(int(x.flat.shape[-1]))
        domain = [] if x.scenario_vector is None else [x.scenario_vector]
        if self.config.scenario_features:
            domain.append(x.of(self.config.scenario_features))
        read = tf.concat([*domain, tf.stop_gradient(x.flat)], axis=1)
        factors, _ = self.embedding_gate(read)
        embedded = factors[:, 0] * x.flat  # O_ep, [B, D]
        self.keep_for_inspection(embedding_factors=factors[:, 0])
        self.keep_for_cut(embedded)

        read = tf.concat([x.of(self.priors), tf.stop_gradient(embedded)], axis=1)
        hidden = embedded[:, None]
        for i, gate in enumerate(self.unit_gates):
            if i:
                dense, dropout = self.layers_of_tasks[i - 1], self.dropouts[i - 1]
                hidden = dropout(dense(hidden), training=training)  # [B, T, H]
            factors, inside = gate(read)
            hidden = factors * hidden
            self.keep_for_inspection(**{f"factors_{i + 1}": factors})
            self.keep_for_cut(inside)
        return hidden

    def _make_gates(self, width: int) -> None:
        if self.unit_gates:
            return
        units = self.config.gate_units
        self.embedding_gate = GateUnit(
            units, width, seed=self.seed_for("embedding_gate"), name="embedding_gate"
        )
        self.unit_gates = [
            GateUnit(
                units,
                outputs,
                seed=self.seed_for("unit_gate", i),
                owners=[f"gate/{t.name}" for t in self.tasks],
                name=f"unit_gate_{i + 1}",
            )
            for i, outputs in enumerate([width, *self.config.units])
        ]
