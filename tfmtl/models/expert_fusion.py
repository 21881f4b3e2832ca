"""ExpertFusion: experts of all scenarios, fused for each task and scenario.

The project's own model, of parts that others showed to work: STAR's normalisation and
auxiliary network (Sheng et al., CIKM 2021), PEPNet's gates (Chang et al., KDD 2023),
STEM's gradients (Su et al., AAAI 2024), PLE's levels (Tang et al., RecSys 2020), over
the gates of MMoE (Ma et al., KDD 2018).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.layers.embedding import Embedded, FeatureEmbedding
from tfmtl.layers.gate_unit import GateUnit
from tfmtl.layers.partitioned_norm import PartitionedNorm
from tfmtl.layers.scenario_fusion import ScenarioFusion
from tfmtl.layers.scenario_table import ScenarioTable
from tfmtl.layers.stacked import StackedDense, StackedMLP
from tfmtl.layers.towers import Towers
from tfmtl.models.base import ModelConfig, MultiTaskModel
from tfmtl.models.clusters import cluster
from tfmtl.models.matching import Inputs, MMoESize, describe, match
from tfmtl.models.split_tables import split_tables
from tfmtl.schema.task import TaskSpec

SHRINKAGE = 10
"""Rows of a task's overall rate that each of its cells starts with."""


class ExpertFusionConfig(ModelConfig):
    """Settings of ExpertFusion; each part can be left out."""

    shared_experts: int = Field(default=4, ge=1)
    """Experts of no scenario, E_s."""
    scenario_experts: int = Field(default=1, ge=0)
    """Experts of each scenario's (or cluster's) own, m."""
    expert_units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of each expert's layers, at every level."""
    clusters: int | dict[str, tuple[str, ...]] | None = None
    """Scenarios that have their experts in common: name to scenarios, or how many
    clusters to cut them into by their rates; each scenario alone where null."""
    low_rank: int | None = Field(default=None, ge=1)
    """Rank by which scenarios' experts differ from a common centre; rows then read
    their own scenario's alone, at a cost that does not grow with the scenarios."""
    isolation: bool = True
    """A row's loss does not change the experts of other scenarios."""
    soft_tie: float = Field(default=1e-4, ge=0)
    """What the squared distances of scenarios' experts to their mean are multiplied
    by; 0 unties them."""
    field_gate: bool = True
    """Scale each field by the scenario and the input."""
    partitioned_norm: Literal["pn", "bn", "none"] = "pn"
    """Normalise by moments of each scenario's own, of all rows, or not at all."""
    norm_rho: float = Field(default=0.99, gt=0, lt=1)
    """What the moving moments keep of themselves at an average update."""
    norm_epsilon: float = Field(default=1e-3, gt=0)
    """Added to the variances of the normalisation."""
    norm_min_rows: int = Field(default=2, ge=1)
    """Rows of a scenario in a batch from which on its moments are used."""
    gate_units: int | None = Field(default=16, ge=1)
    """Width to which the gates' input is projected, k_g; not at all where null."""
    gate_prior: bool = True
    """Learn what each cell of scenario and task adds to the gates' logits."""
    prior_strength: float = Field(default=1.0, ge=0)
    """Where they start: above 0 for own experts and below for other scenarios'."""
    gate_temperature: float = Field(default=1.0, gt=0)
    """Divides the gates' logits."""
    gate_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of experts a gate loses in training."""
    levels: Literal[1, 2] = 1
    """Levels of fusion; the second has experts of each task's own, too."""
    task_experts: int = Field(default=1, ge=0)
    """Experts of each task's own in the second level."""
    tower_gate: bool = True
    """Scale each tower's last hidden layer by the scenario and the priors."""
    prior_features: tuple[str, ...] | None = None
    """Features that tower gates read: ids of user, item, author. Where null, the
    categorical ones of the user's and the item's side."""
    gate_hidden_units: int = Field(default=16, ge=1)
    """Width of the hidden layers of the field gate and the tower gates."""
    aux_net: bool = True
    """Add logits of a network that sees the scenario alone."""
    auxiliary_units: tuple[int, ...] = Field(default=(16,), min_length=1)
    """Widths of the auxiliary network's hidden layers."""
    scenario_features: tuple[str, ...] = ()
    """Features that describe the scenario: the field gate and the auxiliary network
    read them beside its embedding."""
    bias_table: bool = True
    """Add a number of each cell of scenario and task to its logit."""
    task_embeddings: bool = False
    """Split each embedding into a shared part and one of each task's own, of the same
    size together; columns narrower than tasks + 1 stay shared."""
    match: Literal["mmoe"] | None = None
    """Choose `shared_experts`, `expert_units`, `tower_units`, `gate_units` and, where
    scenarios are many, `clusters` or `low_rank`, such that the model costs what
    `match_to` does: parameters within 1 %, at most 2 % more MACs."""
    match_to: MMoESize | None = None
    """Settings of the MMoE that `match` refers to."""

    @model_validator(mode="after")
    def _both_or_neither(self) -> ExpertFusionConfig:
        if (self.match is None) != (self.match_to is None):
            raise ValueError(
                "`match: mmoe` and `match_to`, the size of that MMoE, need each other. "
                f"Received: match={self.match!r}, match_to={self.match_to!r}"
            )
        if self.task_embeddings and self.levels > 1:
            raise ValueError(
                "`task_embeddings` needs `levels: 1`: a shared stream would mix the "
                f"tasks' own tables. Received: levels={self.levels}"
            )
        if isinstance(self.clusters, int) and self.clusters < 1:
            raise ValueError(f"`clusters` must be above 0. Received: {self.clusters}")
        return self


class _Input(NamedTuple):
    """Features by the shared tables, and by each task's own in order of their names."""

    shared: Embedded
    own: tuple[Embedded, ...]


class ExpertFusion(MultiTaskModel):
    """Multi-scenario expert fusion.

    V are the fields, n the numbers, s the scenario and e its embedding, c what
    describes it, r the priors; sg is no gradient, phi a ReLU layer.

    1  delta = 2 sigmoid(phi([e ; c ; sg(x) P_x]) W_2 + b_2)    one factor a field
       x^    = [V * delta ; n]
    2  x     = PN(x^, s)
    3  H_e   = ReLU network of x,   e shared, or of a scenario
       H'    = H, but sg(H) of other scenarios' experts
    4  A_t   = softmax(([x P_g ; e] G_t + P_{s,t}) / tau)       over all experts
       z_t   = sum_e A_{t,e} H'_e
    5  a second level repeats 3 and 4 with the streams z_t, read by experts of task t's
       own, and a shared one, read by all others (PLE)
    6  zeta  = tower's hidden layers of z_t
       d_t   = 2 sigmoid(phi([e ; sg(r)]) U_2 + b)
       main  = (zeta * d_t) t_2 + c_2
    7  aux   = phi([e ; c]) A_2
    8  s_t   = main + aux + b_{s,t}

    W_2 and U_2 start at 0, so that all factors are 1; P at 0 for shared experts and at
    +1 and -1 for own and others'. c_2 starts at the task's log-odds and b at what the
    cell's differ by, shrunk by ten rows, so that a cell without a positive does not
    start at -14. The soft tie is added once a step.

    An unknown scenario is the shared centre: e is the scenarios' mean, PN the centre's
    with the moments of all rows, P = b = 0, and the gates hide all scenarios' experts
    (with `low_rank`, it reads their common centre), so it depends on nothing that
    belongs to a scenario, and changes nothing.

    Experts do not read e, a constant within a scenario that PN would take out. With
    `clusters`, own means of the own cluster. With `task_embeddings`, steps 3 and 4 are
    done once per task, on the shared part and the task's own: neither reads another
    task's tables. Dot products (`interaction`) are of ungated fields.
    """

    Config = ExpertFusionConfig
    citation = "ExpertFusion, this project's own; built on STAR, PEPNet, STEM and PLE"
    config: ExpertFusionConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scenarios = self.manifest.dataset.scenario_values
        if not self.scenarios:
            raise ConfigError("ExpertFusion needs `dataset.scenario`. Received: none")
        self.priors = self._check_features()
        self._outputs = [t.width for t in self.tasks]
        self.task_embeddings = self._make_embeddings()
        self.sizes, self._widths = self._measure()
        if self.config.match is not None:
            self.config = match(self.config, self.sizes)
        self.clusters = cluster(self.scenarios, self._rates(), self.config.clusters)
        self._make_layers()

    # === Construction ===

    def _check_features(self) -> tuple[str, ...]:
        """The prior features; all named ones must have a vector."""
        config, features = self.config, self.manifest.dataset.features
        legal = [
            f.name
            for f in features
            if not (f.kind == "sequence" and f.pooling == "none")
        ]
        for key in ("scenario_features", "prior_features"):
            wrong = sorted({*(getattr(config, key) or ())} - {*legal})
            if wrong:
                raise ConfigError(
                    f"`model.config.{key}` must name features with a vector. Received: "
                    f"{wrong}; there are {legal}"
                )
        if not config.tower_gate:
            return ()
        if config.prior_features is not None:
            return config.prior_features
        sides = {*self.features_of_side("user", "item")}
        return tuple(
            f.name for f in features if f.kind == "categorical" and f.name in sides
        )

    def _make_embeddings(self) -> list[FeatureEmbedding]:
        """Each task's own tables, by the tasks' names; narrows the shared ones."""
        if not self.config.task_embeddings:
            return []
        split = split_tables(self.manifest.dataset.features, len(self.tasks))
        self.embedding = self.make_embedding("embedding", replace=split.shared)
        return [
            self.make_embedding(
                f"embedding_of_{name}",
                exclude=split.not_own,
                use_scenario=False,
                replace=split.own,
            )
            for name in sorted(t.name for t in self.tasks)
        ]

    def _measure(self) -> tuple[Inputs, list[dict[str, int]]]:
        """Widths of what the networks read; of each embedding's fields."""
        layers = [self.embedding, *self.task_embeddings]
        seen = [layer.measure() for layer in layers]
        x = seen[0]
        vector = int(x.scenario_vector.shape[1])
        own = int(seen[1].flat.shape[1]) if self.task_embeddings else 0
        shared = int(x.flat.shape[1]) - vector
        inputs = Inputs(
            width=shared + own * len(self.task_embeddings),
            vector=vector,
            fields=len(x.fields),
            described=_width_of(x, self.config.scenario_features),
            priors=_width_of(x, self.priors),
            own=own,
            scenarios=len(self.scenarios),
            outputs=tuple(self._outputs),
        )
        if not inputs.width:
            raise ConfigError(
                "ExpertFusion needs a feature with a vector beside the scenario. "
                f"Received: {[f.kind for f in self.manifest.dataset.features]}"
            )
        fields = [{k: int(v.shape[1]) for k, v in e.fields.items()} for e in seen]
        return inputs, fields

    def _rates(self) -> list[float]:
        """Mean log-odds of each scenario over the tasks."""
        return [
            sum(self.initial_bias(t) + self._cell_start(t, s)[0] for t in self.tasks)
            for s in self.scenarios
        ]

    def _cell_start(self, task: TaskSpec, scenario: str) -> list[float]:
        """By what a cell's output starts above the task's."""
        overall = self.initial_bias(task)
        cell = self._stats(task.name, scenario)
        zeros = [0.0] * task.width
        if task.width > 1 or cell is None or self.regularization.output_bias == "zero":
            return zeros
        if task.type == "regression":
            return [self.initial_bias(task, scenario) - overall] if cell.rows else zeros
        rows = float(cell.rows)
        if task.given is not None:
            given = self._stats(task.given, scenario)
            rows = given.total if given is not None else 0.0
        rate = 1 / (1 + math.exp(-overall))
        rate = (cell.total + SHRINKAGE * rate) / (rows + SHRINKAGE)
        rate = min(max(rate, 1e-6), 1 - 1e-6)
        return [math.log(rate / (1 - rate)) - overall]

    def _make_layers(self) -> None:
        config, names = self.config, [t.name for t in self.tasks]
        tasks = [f"task/{n}" for n in names]
        self.field_gate: Any = None
        self.field_projection: Any = None
        if config.field_gate and self.sizes.fields:
            self.field_gate = GateUnit(
                config.gate_hidden_units,
                self.sizes.fields,
                seed=self.seed_for("field_gate"),
                neutral=True,
                name="field_gate",
            )
            if config.gate_units is not None:
                self.field_projection = StackedDense(
                    1,
                    config.gate_units,
                    seed=self.seed_for("field_projection"),
                    use_bias=False,
                    name="field_projection",
                )
        self.norm: Any = None
        if config.partitioned_norm != "none":
            self.norm = PartitionedNorm(
                self.scenarios if config.partitioned_norm == "pn" else (),
                config.norm_rho,
                config.norm_epsilon,
                config.norm_min_rows,
                name="norm",
            )
        self.levels = [self._make_level(i) for i in range(config.levels)]
        self.towers = Towers(
            tasks,
            config.tower_units,
            self._outputs,
            seed=self.seed_for("towers"),
            dropout=config.dropout,
            initial_bias=[self.initial_output(t) for t in self.tasks],
            name="towers",
        )
        self.tower_gate: Any = None
        if config.tower_gate:
            self.tower_gate = GateUnit(
                config.gate_hidden_units,
                [*config.expert_units, *config.tower_units][-1],
                seed=self.seed_for("tower_gate"),
                owners=[f"gate/{n}" for n in names],
                neutral=True,
                name="tower_gate",
            )
        self.auxiliary: Any = None
        self.auxiliary_towers: Any = None
        if config.aux_net:
            self.auxiliary = StackedMLP(
                1,
                config.auxiliary_units,
                seed=self.seed_for("auxiliary"),
                dropout=config.dropout,
                name="auxiliary",
            )
            self.auxiliary_towers = Towers(
                tasks,
                (),
                self._outputs,
                seed=self.seed_for("auxiliary_towers"),
                name="auxiliary_towers",
            )
        self.bias_table: Any = None
        if config.bias_table:
            self.bias_table = ScenarioTable(
                self.scenarios,
                names,
                [[self._cell_start(t, s) for t in self.tasks] for s in self.scenarios],
                name="bias_table",
            )

    def _make_level(self, level: int) -> ScenarioFusion:
        config = self.config
        place = {s: i for i, held in enumerate(self.clusters.values()) for s in held}
        return ScenarioFusion(
            [t.name for t in self.tasks],
            self.scenarios,
            [place[s] for s in self.scenarios],
            [self._owner(name) for name in self.clusters],
            config.shared_experts,
            config.scenario_experts,
            config.expert_units,
            seed=self.seed_for("level", level),
            rank=config.low_rank,
            isolation=config.isolation,
            prior=config.prior_strength if config.gate_prior else None,
            gate_units=config.gate_units,
            temperature=config.gate_temperature,
            task_experts=config.task_experts if level else 0,
            shared_gate=level + 1 < config.levels,
            dropout=config.dropout,
            gate_dropout=config.gate_dropout,
            name=f"level_{level + 1}",
        )

    def _owner(self, name: str) -> str:
        """Group of a cluster's experts: a scenario's if its rows alone reach them."""
        members = self.clusters[name]
        alone = self.config.isolation or self.config.low_rank is not None
        if len(members) == 1 and alone:
            return f"scenario/{members[0]}"
        return f"shared/{name}"

    # === Forward pass ===

    def embed(self, features: Mapping[str, Any], training: bool) -> Any:
        shared = self.embedding(features, training=training)
        self.keep_for_inspection(**shared.inspect)
        own = [layer(features, training=training) for layer in self.task_embeddings]
        return _Input(shared, tuple(own))

    def logits(self, x: Any, training: bool) -> dict[str, Any]:
        scenario = tf.minimum(x.shared.scenario, len(self.scenarios))
        streams = self._streams(x, scenario, training)
        mixed = self._fuse(streams, x.shared.scenario_vector, scenario, training)
        factors = self._tower_factors(x.shared)
        outputs = self.towers(mixed, training=training, factors=factors)
        if self.auxiliary is not None:
            more = self._auxiliary(x.shared, training)
            outputs = [s + a for s, a in zip(outputs, more)]
        if self.bias_table is not None:
            more = [b if b.shape[1] > 1 else b[:, 0] for b in self.bias_table(scenario)]
            outputs = [s + b for s, b in zip(outputs, more)]
        return {t.conditional: s for t, s in zip(self.tasks, outputs)}

    def _streams(self, x: _Input, scenario: Any, training: bool) -> Any:
        """Steps 1 and 2: [B, D], or [B, T, D'] with embeddings of each task's own."""
        # The scenario's embedding comes last in the flat input.
        parts = [x.shared.flat[:, : -self.sizes.vector], *(e.flat for e in x.own)]
        flat = tf.concat(parts, axis=1)  # [B, D]
        if self.field_gate is not None:
            factors = self._field_factors(x.shared, tf.stop_gradient(flat))
            names = list(self._widths[0])
            for i, (part, widths) in enumerate(zip(parts, self._widths)):
                own = factors
                if i:
                    own = tf.gather(factors, [names.index(n) for n in widths], axis=1)
                parts[i] = _scaled(part, own, list(widths.values()))
            flat = tf.concat(parts, axis=1)
        if self.norm is not None:
            flat = self.norm(flat, scenario, training=training)
        if not x.own:
            return flat
        shared, *own = tf.split(flat, [int(p.shape[1]) for p in parts], axis=1)
        by_name = sorted(t.name for t in self.tasks)
        own = [own[by_name.index(t.name)] for t in self.tasks]
        return tf.stack([tf.concat([shared, o], axis=1) for o in own], axis=1)

    def _field_factors(self, x: Embedded, flat: Any) -> Any:
        """delta, [B, F]."""
        read = flat
        if self.field_projection is not None:
            read = self.field_projection(flat)[:, 0]
        factors, _ = self.field_gate(tf.concat([self._described(x), read], axis=1))
        self.keep_for_inspection(field_factors=factors[:, 0])
        return factors[:, 0]

    def _fuse(self, streams: Any, vector: Any, scenario: Any, training: bool) -> Any:
        """Steps 3 to 5: [B, T, H]."""
        for i, level in enumerate(self.levels):
            fused = level((streams, vector), scenario, training=training)
            self.keep_for_cut(fused.experts, fused.read)
            name = "gates" if len(self.levels) == 1 else f"level_{i + 1}_gates"
            self.keep_for_inspection(**{name: fused.gates})
            name = name.removesuffix("gates") + "experts"
            self.keep_for_inspection(**{name: fused.experts})
            streams = fused.mixed
        return streams

    def _tower_factors(self, x: Embedded) -> Any:
        """d_t, [B, T, j]; None without the gate."""
        if self.tower_gate is None:
            return None
        read = [x.scenario_vector]
        if self.priors:
            read.append(tf.stop_gradient(x.of(self.priors)))
        factors, hidden = self.tower_gate(tf.concat(read, axis=1))
        self.keep_for_cut(hidden)
        self.keep_for_inspection(tower_factors=factors)
        return factors

    def _auxiliary(self, x: Embedded, training: bool) -> list[Any]:
        """Logits of the scenario alone, [B] or [B, C] of each task."""
        hidden = self.auxiliary(self._described(x), training=training)[:, 0]
        self.keep_for_cut(hidden)
        logits: list[Any] = self.auxiliary_towers(hidden)
        return logits

    def _described(self, x: Embedded) -> Any:
        """[e ; c]."""
        if not self.config.scenario_features:
            return x.scenario_vector
        described = x.of(self.config.scenario_features)
        return tf.concat([x.scenario_vector, described], axis=1)

    def aux_losses(self) -> dict[str, Any]:
        if not self.config.soft_tie or not self.config.scenario_experts:
            return {}
        spread = tf.add_n([level.spread() for level in self.levels])
        return {"soft_tie": self.config.soft_tie * spread}

    # === What it costs ===

    def matching_table(self) -> list[str]:
        """Parameters and MACs of this model and of the MMoE it matches, as lines.

        Raises:
            ValueError: Nothing is matched.
        """
        if self.config.match is None:
            raise ValueError("`match` is not set: there is nothing to compare with")
        norm = self.norm
        rows = 0 if norm is None else len(norm.scenarios) + 1
        statistics = rows * (2 * self.sizes.width + 1)
        return describe(self.config, len(self.clusters), self.sizes, statistics)

    def notes(self) -> list[str]:
        return self.matching_table() if self.config.match is not None else []


def _scaled(flat: Any, factors: Any, widths: Sequence[int]) -> Any:
    """Fields [B, D] times factors [B, F]; what lies behind the fields is left alone."""
    parts, place, field = [], 0, 0
    for width, run in itertools.groupby(widths):
        count = len(list(run))
        size = count * width
        values = tf.reshape(flat[:, place : place + size], [-1, count, width])
        values *= factors[:, field : field + count, None]
        parts.append(tf.reshape(values, [-1, size]))
        place, field = place + size, field + count
    return tf.concat([*parts, flat[:, place:]], axis=1)


def _width_of(x: Embedded, names: Sequence[str]) -> int:
    return int(x.of(names).shape[1]) if names else 0
