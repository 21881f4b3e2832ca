"""Experts of all scenarios, fused for each task by gates that know the scenario."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tfmtl._keras import keras, tf
from tfmtl.layers.dropout import Dropout
from tfmtl.layers.expert_pool import ExpertPool, LowRankExperts
from tfmtl.layers.gate import renormalised
from tfmtl.layers.groups import merged_groups
from tfmtl.layers.initializers import NormalRows, StackedInitializer
from tfmtl.layers.scenario_table import ScenarioTable
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import StackedMLP, stacked_product


class Fused(NamedTuple):
    """What a level found.

    Attributes:
        mixed: [B, G, H], what each gate mixed.
        gates: [B, G, E] float32, sums of 1 over E.
        experts: [B, E, H], or [B, T, E, H]: the experts that tasks share.
        read: [B, k] or [B, T, k], what the gates read.
    """

    mixed: Any
    gates: Any
    experts: Any
    read: Any


@keras.utils.register_keras_serializable("tfmtl")
class ScenarioFusion(keras.layers.Layer):
    """One level: experts of all scenarios under a softmax gate per task.

        H_e = ReLU network of x                          e = 1..E, as one product
        H'  = H where the row may change it, else sg(H)
        A_t = softmax(([x P_g ; e_s] G_t + P_{s,t}) / tau)
        z_t = sum_e A_{t,e} H'_e

    s is the row's scenario, e_s its embedding, sg no gradient. Experts belong to all or
    to an owner, which is a scenario or a cluster of them. A row changes shared experts
    and its owner's; it reads all (all forward, own backward). P starts at 0 for shared
    experts, at +strength for the owner's and at -strength for others'; G near zero.

    - A row of an unknown scenario reads shared experts alone, and P = 0.
    - With `rank`, each row reads its owner's experts of low rank in place of all
      owners', and an unknown scenario the common centre of them.
    - A second level (inputs [B, T + 1, d]) has experts of each task's own, which its
      gate alone reads beside the others; they come last. Its shared stream is last.

    Args:
        tasks: Names, T of them.
        scenarios: Names, S of them.
        owner_of: [S], place of each scenario's owner among the owners.
        owners: Groups of the owners' experts, Q of them.
        shared: Experts of no owner; at least 1.
        per_owner: m; E = shared + Q m, or shared + m with `rank`.
        units: Widths of an expert's layers.
        seed: Of kernels and masks.
        rank: Of the scenarios' experts; full ones where None.
        isolation: Stop the gradients of rows to other owners' experts.
        prior: Strength; no P where None.
        gate_units: Columns of P_g; the input itself where None.
        temperature: tau.
        task_experts: Experts of each task's own.
        shared_gate: Add a gate of no task, for the next level's shared stream.
        dropout: After each layer of the experts, in training.
        gate_dropout: Share of experts a gate loses in training.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        scenarios: Sequence[str],
        owner_of: Sequence[int],
        owners: Sequence[str],
        shared: int,
        per_owner: int,
        units: Sequence[int],
        *,
        seed: int,
        rank: int | None = None,
        isolation: bool = True,
        prior: float | None = 1.0,
        gate_units: int | None = 16,
        temperature: float = 1.0,
        task_experts: int = 0,
        shared_gate: bool = False,
        dropout: float = 0.0,
        gate_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tasks = tuple(tasks)
        self.scenarios = tuple(scenarios)
        self.owner_of = tuple(owner_of)
        self.owners = tuple(owners)
        if shared < 1:
            raise ValueError(
                "`shared` must be at least 1: a row of an unknown scenario reads "
                f"nothing else. Received: {shared}"
            )
        self.shared = shared
        self.per_owner = per_owner
        self.units = tuple(units)
        self.seed = seed
        self.rank = rank
        self.isolation = isolation
        self.prior = prior
        self.gate_units = gate_units
        self.temperature = temperature
        self.task_experts = task_experts
        self.shared_gate = shared_gate
        self.dropout = dropout
        self.gate_dropout = gate_dropout
        self.pool = ExpertPool(
            shared,
            owners,
            per_owner if rank is None else 0,
            units,
            seed=child_seed(seed, "pool"),
            dropout=dropout,
            name="pool",
        )
        self.low_rank = None
        if rank is not None and per_owner:
            self.low_rank = LowRankExperts(
                owners,
                per_owner,
                rank,
                units,
                seed=child_seed(seed, "low_rank"),
                dropout=dropout,
                name="low_rank",
            )
        self.own = None
        if task_experts:
            self.own = StackedMLP(
                len(self.tasks) * task_experts,
                units,
                seed=child_seed(seed, "own"),
                dropout=dropout,
                owners=[f"task/{t}" for t in self.tasks for _ in range(task_experts)],
                name="own",
            )
        self.drop = Dropout(
            gate_dropout, child_seed(seed, "gates"), name="drop", dtype="float32"
        )
        self.mine, self.visible = self._masks()
        self.priors = None
        if prior is not None:
            columns = (*self.tasks, *([None] if shared_gate else []))
            start = prior * (2.0 * self.mine[:-1] - 1.0)  # [S, E]
            start[:, :shared] = 0.0
            start[:, self.num_experts - task_experts :] = 0.0
            self.priors = ScenarioTable(
                self.scenarios,
                columns,
                [[row.tolist()] * len(columns) for row in start],
                name="prior",
            )
        self._gate_kernels: dict[str, Any] = {}
        self._projection: Any = None

    def _masks(self) -> tuple[np.ndarray, np.ndarray]:
        """[S + 1, E]: whether a scenario's rows change, and read, each expert."""
        rows = len(self.scenarios) + 1
        if self.rank is not None:
            count = self.shared + self.per_owner + self.task_experts
            everything = np.ones([rows, count], np.float32)
            return everything, everything
        owner = np.repeat(np.arange(len(self.owners)), self.per_owner)
        # No scenario's for the unknown one.
        of_row = np.array([*self.owner_of, -1])
        mine = (of_row[:, None] == owner).astype(np.float32)
        visible = np.ones_like(mine)
        visible[-1] = 0.0
        shared = np.ones([rows, self.shared], np.float32)
        last = np.ones([rows, self.task_experts], np.float32)
        return (
            np.concatenate([shared, mine, last], axis=1),
            np.concatenate([shared, visible, last], axis=1),
        )

    @property
    def num_experts(self) -> int:
        """E, with a task's own."""
        return int(self.mine.shape[1])

    def build(self, input_shape: Any) -> None:
        width, vector = (int(shape[-1]) for shape in input_shape)
        if self.gate_units is not None:
            self._projection = self.add_weight(
                "projection",
                [width, self.gate_units],
                initializer=StackedInitializer(child_seed(self.seed, "projection")),
            )
            width = self.gate_units
        names = [f"gate/{t}" for t in self.tasks]
        if self.shared_gate:
            names.append("gate_shared")
        for name in names:
            self._gate_kernels[name] = self.add_weight(
                f"{name}/kernel",
                [width + vector, self.num_experts],
                initializer=NormalRows(child_seed(self.seed, name)),
            )
        super().build(input_shape)

    def call(self, inputs: Any, scenario: Any, training: bool = False) -> Fused:
        """Fuses.

        Args:
            inputs: x [B, d], [B, T, d] where each task has an input of its own, or
                [B, T + 1, d] at a second level; and e_s [B, d_s].
            scenario: [B] int32 in [0, S]; S is unknown.
            training: Whether dropouts act.
        """
        streams, vector = inputs
        if streams.shape.rank == 3:
            streams = streams[:, : len(self.tasks)]
        read = self._read(streams, vector)
        weights = self._weights(read, scenario, training)  # [B, G, E]
        experts, own = self._experts(inputs[0], scenario, training)
        used = tf.cast(weights, experts.dtype)
        if own is None:
            pattern = "bte,beh->bth" if experts.shape.rank == 3 else "bte,bteh->bth"
            return Fused(tf.einsum(pattern, used, experts), weights, experts, read)
        last = self.num_experts - self.task_experts
        mixed = tf.einsum("bte,beh->bth", used[..., :last], experts)
        mixed += tf.einsum("bte,bteh->bth", used[..., last:], own)
        return Fused(mixed, weights, experts, read)

    def _read(self, streams: Any, vector: Any) -> Any:
        """[x P_g ; e_s], [B, k] or [B, T, k]."""
        if self._projection is not None:
            kernel = tf.cast(self._projection, streams.dtype)
            pattern = "bd,dk->bk" if streams.shape.rank == 2 else "btd,dk->btk"
            streams = tf.einsum(pattern, streams, kernel)
        if streams.shape.rank == 3:
            vector = tf.repeat(vector[:, None], streams.shape[1], axis=1)
        return tf.concat([streams, vector], axis=-1)

    def _weights(self, read: Any, scenario: Any, training: bool) -> Any:
        kernel = tf.stack([*self._gate_kernels.values()])
        logits = tf.cast(stacked_product(read, kernel), tf.float32)
        if self.priors is not None:
            logits += tf.stack(self.priors(scenario), axis=1)
        hidden = np.where(self.visible > 0, 0.0, -math.inf).astype(np.float32)
        logits = logits / self.temperature + tf.gather(hidden, scenario)[:, None]
        weights = tf.nn.softmax(logits, axis=-1)
        if not training or self.gate_dropout == 0:
            return weights
        alike = self.visible / self.visible.sum(axis=1, keepdims=True)
        return renormalised(
            self.drop(weights, training=True), tf.gather(alike, scenario)[:, None]
        )

    def _experts(self, inputs: Any, scenario: Any, training: bool) -> tuple[Any, Any]:
        """Experts that tasks share, isolated; and [B, T, n, H] of a task's own."""
        tasks, own, stream = len(self.tasks), None, inputs
        by_task = inputs.shape.rank == 3 and inputs.shape[1] == tasks
        if by_task:
            stream = tf.reshape(inputs, [-1, inputs.shape[2]])  # [B T, d]
            scenario = tf.repeat(scenario, tasks)
        elif inputs.shape.rank == 3:
            stream = inputs[:, tasks]
        if self.own is not None:
            streams = tf.repeat(inputs[:, :tasks], self.task_experts, axis=1)
            own = self.own(streams, training=training)
            own = tf.reshape(own, [-1, tasks, self.task_experts, self.units[-1]])
        experts = self.pool(stream, training=training)  # [B, E, H]
        if self.isolation and self.rank is None and self.per_owner:
            mine = tf.gather(self.mine[:, : experts.shape[1]] > 0, scenario)
            experts = tf.where(mine[..., None], experts, tf.stop_gradient(experts))
        if self.low_rank is not None:
            owner = tf.gather(tf.constant([*self.owner_of, len(self.owners)]), scenario)
            more = self.low_rank(stream, owner, training=training)
            experts = tf.concat([experts, more], axis=1)
        if by_task:
            experts = tf.reshape(experts, [-1, tasks, *experts.shape[1:]])
        return experts, own

    def spread(self) -> Any:
        """Sum over owners of their kernels' squared distance to the owners' mean."""
        total = self.pool.spread()
        if self.low_rank is not None:
            total += self.low_rank.spread()
        return total

    def variable_groups(self) -> dict[str, list[Any]]:
        """Group to what it owns; what several tasks reach is left out."""
        layers = (self.pool, self.low_rank, self.own, self.priors)
        groups = merged_groups(layer for layer in layers if layer is not None)
        for task in self.tasks:
            name = f"gate/{task}"
            groups[name] = [self._gate_kernels[name]]
        return groups

    def get_config(self) -> dict[str, Any]:
        names = (
            *("tasks", "scenarios", "owner_of", "owners", "shared", "per_owner"),
            *("units", "seed", "rank", "isolation", "prior", "gate_units"),
            *("temperature", "task_experts", "shared_gate", "dropout", "gate_dropout"),
        )
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
