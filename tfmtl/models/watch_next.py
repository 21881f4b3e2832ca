"""WatchNext: MMoE on a shared hidden layer, and a shallow tower for position bias.

Z. Zhao, L. Hong, L. Wei, J. Chen, A. Nath, S. Andrews, A. Kumthekar, M. Sathiamoorthy,
X. Yi, E. Chi, "Recommending What Video to Watch Next: A Multitask Ranking System",
RecSys 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.layers.bias_table import BiasTable
from tfmtl.layers.dropout import step_seed
from tfmtl.layers.embedding import Embedded
from tfmtl.layers.gate import Gates
from tfmtl.layers.ids import rows_of
from tfmtl.layers.stacked import StackedMLP
from tfmtl.models.base import ModelConfig, MultiTaskModel


class WatchNextConfig(ModelConfig):
    """Settings of WatchNext."""

    position: str = "position"
    """The categorical feature that holds the position an item was shown at; the main
    network does not read it."""
    bias_features: tuple[str, ...] = ()
    """Categorical features that the position is crossed with, such as the device."""
    biased_tasks: tuple[str, ...] | None = None
    """Tasks whose labels depend on the position (engagement); all where absent."""
    missing_rate: float = Field(default=0.1, ge=0, le=1)
    """Share of training rows whose position is taken for missing."""
    shared_units: tuple[int, ...] = Field(default=(128,), min_length=1)
    """Widths of the hidden layers below experts and gates."""
    num_experts: int = Field(default=8, ge=1)
    """Experts that all tasks share."""
    expert_units: tuple[int, ...] = Field(default=(64,), min_length=1)
    """Widths of each expert's layers."""
    gate_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of experts a gate loses in training: against one expert taking all."""


class _Input(NamedTuple):
    """What the two towers read.

    Attributes:
        embedded: Of all features but the position.
        position: [B] int32, 0 where missing.
        context: [B] int32, the combination of the bias features.
    """

    embedded: Embedded
    position: Any
    context: Any


class WatchNext(MultiTaskModel):
    """MMoE with a shallow tower for position bias.

    r    = ReLU(W x + b),  x without the position
    z_t  = sum_e softmax(W_{g,t} r)_e f_e(r)
    s_t  = h_t(z_t) + bias_t(position, context)     in training
    s_t  = h_t(z_t) + bias_t(missing, context)      served, whatever position is sent

    In training a share of the rows loses its position, which is how bias_t(missing, .)
    is learnt: it is a level of its own, not a position. It is kept apart from the table
    of the real positions, so that only that small part is exported.

    The fused score of section 5.3 is a matter of the export, not of this model.
    """

    Config = WatchNextConfig
    citation = (
        "Z. Zhao et al., Recommending What Video to Watch Next: A Multitask Ranking "
        "System, RecSys 2019"
    )
    config: WatchNextConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self._rows = {n: self._ids_of(n) for n in (config.position, *self._context())}
        self.biased = self._biased()
        self.embedding = self.make_embedding("embedding", exclude=[config.position])
        self.bottom = StackedMLP(
            1,
            config.shared_units,
            seed=self.seed_for("bottom"),
            dropout=config.dropout,
            name="bottom",
        )
        self.experts = StackedMLP(
            config.num_experts,
            config.expert_units,
            seed=self.seed_for("experts"),
            dropout=config.dropout,
            name="experts",
        )
        self.gates = Gates(
            [f"gate/{t.name}" for t in self.tasks],
            config.num_experts,
            seed=self.seed_for("gates"),
            dropout=config.gate_dropout,
            name="gates",
        )
        self.towers = self.make_towers()
        owners = [f"task/{name}" for name in self.biased]
        contexts = 1
        for name in self._context():
            contexts *= self._rows[name]
        self.missing_bias = BiasTable(owners, contexts, name="missing_bias")
        self.position_tower = BiasTable(
            owners, contexts * self._rows[config.position], name="position_tower"
        )

    def _context(self) -> tuple[str, ...]:
        return self.config.bias_features

    def _ids_of(self, name: str) -> int:
        """Rows of a feature's ids."""
        features = {f.name: f for f in self.manifest.dataset.features}
        single = ("categorical", "cross")
        if name not in features or features[name].kind not in single:
            legal = sorted(n for n, f in features.items() if f.kind in single)
            raise ConfigError(
                "`model.config.position` and `bias_features` must name categorical "
                f"features. Received: {name!r}; categorical: {legal}"
            )
        rows = self.manifest.column(name).rows
        assert rows is not None
        return rows

    def _biased(self) -> tuple[str, ...]:
        names = [t.name for t in self.tasks if t.width == 1]
        chosen = self.config.biased_tasks
        wrong = sorted(set(chosen or ()) - set(names))
        if wrong:
            raise ConfigError(
                f"`model.config.biased_tasks` names {wrong}; tasks with one output: "
                f"{names}"
            )
        return tuple(n for n in names if chosen is None or n in chosen)

    def embed(self, features: Mapping[str, Any], training: bool) -> _Input:
        x: Embedded = self.embedding(features, training=training)
        self.keep_for_inspection(**x.inspect)
        position = self._known(features, self.config.position)
        if training:
            seed = step_seed(self.seed_for("position"))
            chance = tf.random.stateless_uniform(tf.shape(position), seed)
            position = tf.where(chance < self.config.missing_rate, 0, position)
        context = tf.zeros_like(position)
        for name in self._context():
            context = context * self._rows[name] + self._known(features, name)
        return _Input(x, position, context)

    def _known(self, features: Mapping[str, Any], name: str) -> Any:
        """Ids of a feature, 0 for what lies outside its table."""
        return rows_of(features[name], self._rows[name])

    def represent(self, x: Any, training: bool) -> Any:
        shared = self.bottom(x.embedded.flat, training=training)[:, 0]  # [B, H]
        experts = self.experts(shared, training=training)  # [B, E, H]
        mixed, gates = self.gates(shared, experts, training=training)  # [B, T, H]
        self.keep_for_cut(experts, shared)
        self.keep_for_inspection(gates=gates, experts=experts)
        return mixed

    def logits(self, x: _Input, training: bool) -> dict[str, Any]:
        outputs = super().logits(x, training)
        return self._add(outputs, self.missing_bias(x.context))

    def training_outputs(self, x: _Input, outputs: Mapping[str, Any]) -> dict[str, Any]:
        rows = self._rows[self.config.position]
        bias = self.position_tower(x.context * rows + x.position)  # [B, T']
        shown = bias - self.missing_bias(x.context)
        return self._add(outputs, tf.where(x.position[:, None] > 0, shown, 0.0))

    def _add(self, outputs: Mapping[str, Any], bias: Any) -> dict[str, Any]:
        """The outputs with the biased tasks' columns [B, T'] added."""
        names = {t.name: t.conditional for t in self.tasks}
        added = {
            names[task]: outputs[names[task]] + bias[:, i]
            for i, task in enumerate(self.biased)
        }
        return {**outputs, **added}
