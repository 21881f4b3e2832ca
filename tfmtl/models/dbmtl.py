"""DBMTL: targets as a Bayesian network, hidden vectors passed along its edges.

Q. Wang, Z. Ji, H. Liu, B. Zhao, "Deep Bayesian Multi-Target Learning for Recommender
Systems", 2019, arXiv 1902.09154.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.layers.embedding import Embedded
from tfmtl.layers.gate import Gates
from tfmtl.layers.stacked import StackedMLP
from tfmtl.models.base import ModelConfig, MultiTaskModel
from tfmtl.models.task_graph import task_levels


class DBMTLConfig(ModelConfig):
    """Settings of DBMTL."""

    parents: dict[str, tuple[str, ...]] | None = None
    """Task to the tasks it depends on: the whole graph, in any order, without circles.
    Each task's `given` where absent; `{}` for independent tasks."""
    bottom_units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of the layers that all tasks share, or of each expert."""
    num_experts: int = Field(default=0, ge=0)
    """Replace the shared layers by so many experts with a gate a task; 0: do not."""
    gate_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of experts a gate loses in training."""
    specific_units: tuple[int, ...] = (64,)
    """Widths of each task's own layers; may be empty."""
    relation_units: tuple[int, ...] = Field(default=(32,), min_length=1)
    """Widths of each task's Bayesian layer, whose output its children read."""
    tower_units: tuple[int, ...] = ()
    """Widths of each head's hidden layers."""


class DBMTL(MultiTaskModel):
    """Deep Bayesian multi-target learning.

    p(t_1 .. t_T | x) = prod_i p(t_i | t_pa(i), x)      a DAG over the tasks
    r   = f_sh(x)                                       shared layers
    q_i = f_i^spec(r)                                   the task's own layers
    t_i = f_i([q_i; t_j for j in pa(i)])                Bayesian layer
    o_i = head_i(t_i)
    L   = -sum_i w_i log p(t_i | ...)       Bernoulli, normal or categorical by task

    What a child reads is the parent's hidden vector, neither probability nor label,
    and no gradient is stopped: children train their ancestors' layers. The graph is
    sorted, so that it may be written in any order. With `num_experts` r is one mixture
    a task (MMoE). Without parents it is Shared-Bottom.

    The paper chooses the graph by model selection; widths are unconfirmed. Unlike some
    public versions: no stopped gradient, and no reliance on the order in the file.
    """

    Config = DBMTLConfig
    citation = (
        "Q. Wang et al., Deep Bayesian Multi-Target Learning for Recommender Systems, "
        "2019, arXiv 1902.09154"
    )
    config: DBMTLConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config, names = self.config, [t.name for t in self.tasks]
        parents = config.parents
        if parents is None:
            parents = {t.name: (t.given,) for t in self.tasks if t.given is not None}
        levels = task_levels(names, parents, "parents")
        self._parents = {n: tuple(parents.get(n, ())) for n in names}
        read = {p for above in self._parents.values() for p in above}
        self.read = tuple(n for n in names if n in read)
        self.bottom = StackedMLP(
            config.num_experts or 1,
            config.bottom_units,
            seed=self.seed_for("bottom"),
            dropout=config.dropout,
            name="bottom",
        )
        if config.num_experts:
            self.gates = Gates(
                self._owners(names, "gate"),
                config.num_experts,
                seed=self.seed_for("gates"),
                dropout=config.gate_dropout,
                name="gates",
            )
        self.specific = self._layers("specific", names, config.specific_units)
        self._members: list[list[str]] = []
        self.relations: list[StackedMLP] = []
        for depth, level in enumerate(levels):
            # Tasks of one depth that read equally much are one stack.
            for count in sorted({len(self._parents[n]) for n in level}):
                members = [n for n in level if len(self._parents[n]) == count]
                name = f"relation_{depth}_{count}"
                self._members.append(members)
                self.relations.append(
                    self._layers(name, members, config.relation_units)
                )
        self.towers = self.make_towers()

    def _owners(self, names: list[str], kind: str) -> list[str]:
        """A task's children train what it passes on."""
        return [
            f"shared/{kind}_{n}" if n in self.read else f"{kind}/{n}" for n in names
        ]

    def _layers(
        self, name: str, members: list[str], units: tuple[int, ...]
    ) -> StackedMLP:
        return StackedMLP(
            len(members),
            units,
            seed=self.seed_for(name),
            dropout=self.config.dropout,
            owners=self._owners(members, "task"),
            name=name,
        )

    def represent(self, x: Embedded, training: bool) -> Any:
        shared = self.bottom(x.flat, training=training)  # [B, E, H]
        if self.config.num_experts:
            self.keep_for_cut(shared, x.flat)
            self.keep_for_inspection(experts=shared)
            shared, gates = self.gates(x.flat, shared, training=training)  # [B, T, H]
            self.keep_for_inspection(gates=gates)
        else:
            shared = shared[:, 0]
            self.keep_for_cut(shared)
        return self.relate(self.specific(shared, training=training), training)

    def relate(self, specific: Any, training: bool = False) -> Any:
        """Passes hidden vectors down the graph.

        Args:
            specific: q, [B, T, h].
            training: Whether dropout acts.

        Returns:
            t, [B, T, H].
        """
        names = [t.name for t in self.tasks]
        own = dict(zip(names, tf.unstack(specific, axis=1)))
        hidden: dict[str, Any] = {}
        for members, relation in zip(self._members, self.relations):
            read = [
                tf.concat([own[n], *(hidden[p] for p in self._parents[n])], axis=1)
                for n in members
            ]
            found = relation(tf.stack(read, axis=1), training=training)
            hidden.update(zip(members, tf.unstack(found, axis=1)))
        self.keep_for_cut(*(hidden[n] for n in self.read))
        return tf.stack([hidden[n] for n in names], axis=1)
