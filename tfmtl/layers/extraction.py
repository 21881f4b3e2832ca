"""Experts of tasks and shared ones, under gates that each see some of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tfmtl._keras import keras, tf
from tfmtl.layers.dropout import Dropout
from tfmtl.layers.gate import renormalised
from tfmtl.layers.initializers import StackedInitializer
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import StackedMLP, stacked_product


class Extracted(NamedTuple):
    """What an extraction makes of a batch.

    Attributes:
        mixed: [B, G, H], mixtures of the T tasks, in their order, and of the shared
            stream where the level has a gate for it.
        gates: [B, G, E], weights of the tasks' experts, by the tasks' names, and then
            of the shared ones; exactly 0 for an expert that a gate does not see.
        own: [B, E_t, H], the tasks' experts, or None.
        shared: [B, E_s, H], the shared experts, or None.
    """

    mixed: Any
    gates: Any
    own: Any
    shared: Any

    @property
    def experts(self) -> Any:
        """[B, E, H], in the order of the gates."""
        return tf.concat([x for x in (self.own, self.shared) if x is not None], axis=1)


@keras.utils.register_keras_serializable("tfmtl")
class Extraction(keras.layers.Layer):
    """One level of CGC or PLE: T + 1 streams -> T + 1 streams, or T.

        g^t = softmax(W^t x^t) [E_t,1(x^t) ... ; E_s,1(x^s) ...]      task t
        g^s = softmax(W^s x^s) [all experts of the level]             the shared stream

    The tasks' experts are one einsum a layer, and so are the shared ones; all gates are
    one softmax with a mask of 0 and -inf. Slicing the shared experts out of one tensor
    of all, so that they can be told apart on the way to the towers, costs more.
    A task's gate has as many columns as it sees experts, own ones first. Experts lie in
    the order of the tasks' names, so that no variable depends on the order in which
    tasks are declared.

    Args:
        tasks: Names of the tasks, T of them.
        task_experts: m_t of each task; may be 0.
        shared_experts: m_s; may be 0.
        units: Widths of each expert's layers, at least one.
        shared_gate: Whether there is g^s.
        own_experts: Whether the experts of a task belong to `task/<t>`; else several
            tasks reach them and they are shared.
        own_gates: The same of the tasks' gates and `gate/<t>`.
        seed: Of kernels and masks.
        dropout: After each layer of the experts, in training.
        gate_dropout: Share of its experts that a gate loses in training.

    Raises:
        ValueError: A task has no expert at all.

    References:
        H. Tang, J. Liu, M. Zhao, X. Gong, "Progressive Layered Extraction (PLE)",
        RecSys 2020, equations 1 to 3 and 5.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        task_experts: Sequence[int],
        shared_experts: int,
        units: Sequence[int],
        *,
        seed: int,
        shared_gate: bool = False,
        own_experts: bool = True,
        own_gates: bool = True,
        dropout: float = 0.0,
        gate_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tasks = tuple(tasks)
        self.task_experts = tuple(task_experts)
        if len(self.task_experts) != len(self.tasks):
            raise ValueError(
                f"`task_experts` must give {len(self.tasks)} counts, one a task. "
                f"Received: {list(task_experts)}"
            )
        for task, count in zip(self.tasks, self.task_experts):
            if min(count, shared_experts) < 0 or count + shared_experts == 0:
                raise ValueError(
                    "`task_experts` and `shared_experts` must leave each task an "
                    f"expert. Received: {count} of task {task!r}, {shared_experts}"
                )
        self.shared_experts = shared_experts
        self.units = tuple(units)
        self.seed = seed
        self.shared_gate = shared_gate
        self.own_experts = own_experts
        self.own_gates = own_gates
        self.dropout = dropout
        self.gate_dropout = gate_dropout
        self.first, self.num_experts = self._layout()
        self.mask = self._mask()
        by_name = sorted(range(len(self.tasks)), key=self.tasks.__getitem__)
        counts = [self.task_experts[t] for t in by_name]
        self._stream_of = tuple(t for t, n in zip(by_name, counts) for _ in range(n))
        self.own = None
        if any(counts):
            self.own = _TaskExperts(
                [f"task/{self.tasks[t]}" for t in by_name],
                counts,
                units,
                seed=child_seed(seed, "own"),
                dropout=dropout,
                name="own",
            )
        self.shared = None
        if shared_experts:
            self.shared = StackedMLP(
                shared_experts,
                units,
                seed=child_seed(seed, "shared"),
                dropout=dropout,
                name="shared",
            )
        self.drop = Dropout(gate_dropout, child_seed(seed, "gates"), name="drop")
        self._gate_kernels: dict[str, Any] = {}

    def _layout(self) -> tuple[tuple[int, ...], int]:
        """Place of the first expert of each task and of the shared ones; E."""
        sizes = dict(zip(self.tasks, self.task_experts))
        first, place = {}, 0
        for task in sorted(self.tasks):
            first[task] = place
            place += sizes[task]
        places = (*(first[t] for t in self.tasks), place)
        return places, place + self.shared_experts

    def _mask(self) -> np.ndarray:
        """[G, E] bool, which experts each gate sees."""
        mask = np.zeros([len(self.tasks) + self.shared_gate, self.num_experts], bool)
        mask[:, self.first[-1] :] = True
        for t, count in enumerate(self.task_experts):
            mask[t, self.first[t] : self.first[t] + count] = True
        mask[len(self.tasks) :] = True
        return mask

    def build(self, input_shape: Any) -> None:
        width = int(input_shape[-1])
        for name, row in zip(self._gates(), self.mask):
            self._gate_kernels[name] = self.add_weight(
                f"{name}/kernel",
                [width, int(row.sum())],
                initializer=StackedInitializer(child_seed(self.seed, name)),
            )
        super().build(input_shape)

    def _gates(self) -> tuple[str, ...]:
        shared = ("gate_shared",) if self.shared_gate else ()
        return (*(f"gate/{t}" for t in self.tasks), *shared)

    def call(self, inputs: Any, training: bool = False) -> Extracted:
        """Extracts.

        Args:
            inputs: [B, D] for all streams, or [B, T + 1, D]; [B, T, D] where there is
                no shared expert.
            training: Whether dropouts act.

        Returns:
            Mixtures, experts and gates.
        """
        weights = self._weights(inputs, training)  # [B, G, E]
        own = shared = None
        if self.own is not None:
            streams = inputs
            if inputs.shape.rank == 3:
                streams = tf.gather(inputs, self._stream_of, axis=1)  # [B, E_t, D]
            own = self.own(streams, training=training)  # [B, E_t, H]
        if self.shared is not None:
            stream = inputs if inputs.shape.rank == 2 else inputs[:, len(self.tasks)]
            shared = self.shared(stream, training=training)  # [B, E_s, H]
        parts = (
            (own, weights[..., : self.first[-1]]),
            (shared, weights[..., self.first[-1] :]),
        )
        mixed = tf.add_n(
            [
                tf.einsum("bge,beh->bgh", tf.cast(read, experts.dtype), experts)
                for experts, read in parts
                if experts is not None
            ]
        )
        return Extracted(mixed, weights, own, shared)

    def _weights(self, inputs: Any, training: bool) -> Any:
        selectors = inputs
        if inputs.shape.rank == 3:
            selectors = inputs[:, : len(self.mask)]
        logits = stacked_product(selectors, self.gate_kernel)
        hidden = tf.constant(np.where(self.mask, 0.0, -math.inf), tf.float32)
        weights = tf.nn.softmax(tf.cast(logits, tf.float32) + hidden, axis=-1)
        if not training or self.gate_dropout == 0:
            return weights
        alike = self.mask / self.mask.sum(axis=1, keepdims=True)
        return renormalised(
            self.drop(weights, training=True), tf.constant(alike, tf.float32)
        )

    @property
    def gate_kernel(self) -> Any:
        """[G, D, E]; 0 for the experts that a gate does not see."""
        tasks = self.first[-1]
        kernels = []
        for t, name in enumerate(self._gates()):
            kernel = self._gate_kernels[name]
            if t < len(self.tasks):
                # Own experts to their place among the tasks', the shared ones last.
                first, count = self.first[t], self.task_experts[t]
                rest = tasks - first - count
                own = tf.pad(kernel[:, :count], [[0, 0], [first, rest]])
                kernel = tf.concat([own, kernel[:, count:]], axis=1)
            kernels.append(kernel)
        return tf.stack(kernels)

    def variable_groups(self) -> dict[str, list[Any]]:
        """Group to what it owns; what several tasks reach is left out."""
        groups: dict[str, list[Any]] = {}
        if self.own_gates:
            for name in self._gates()[: len(self.tasks)]:
                groups[name] = [self._gate_kernels[name]]
        if self.own_experts and self.own is not None:
            groups |= self.own.variable_groups()
        return groups

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "tasks": self.tasks,
            "task_experts": self.task_experts,
            "shared_experts": self.shared_experts,
            "units": self.units,
            "seed": self.seed,
            "shared_gate": self.shared_gate,
            "own_experts": self.own_experts,
            "own_gates": self.own_gates,
            "dropout": self.dropout,
            "gate_dropout": self.gate_dropout,
        }


@keras.utils.register_keras_serializable("tfmtl")
class _TaskExperts(keras.layers.Layer):
    """ReLU networks of which each owner has some: [B, d] or [B, E, d] -> [B, E, h].

    An owner's experts are one variable; a forward pass lays the owners' side by side.

    Args:
        owners: Groups, as many as `counts`.
        counts: Experts of each owner; may be 0.
        units: Widths of the layers.
        seed: Of kernels and masks.
        dropout: After each layer, in training.
    """

    def __init__(
        self,
        owners: Sequence[str],
        counts: Sequence[int],
        units: Sequence[int],
        *,
        seed: int,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.owners = tuple(owners)
        self.counts = tuple(counts)
        self.units = tuple(units)
        self.seed = seed
        self.dropout = dropout
        self.dropouts = [
            Dropout(dropout, child_seed(seed, "dropout", i), name=f"dropout_{i}")
            for i in range(len(self.units))
        ]
        self._kernels: list[dict[str, Any]] = []
        self._biases: list[dict[str, Any]] = []

    def build(self, input_shape: Any) -> None:
        width = int(input_shape[-1])
        held = [(o, n) for o, n in zip(self.owners, self.counts) if n]
        for i, units in enumerate(self.units):
            kernels, biases = {}, {}
            for owner, count in held:
                seed = child_seed(self.seed, "kernel", i, owner)
                kernels[owner] = self.add_weight(
                    f"{owner}/kernel_{i}",
                    [count, width, units],
                    initializer=StackedInitializer(seed, 2.0),
                )
                biases[owner] = self.add_weight(
                    f"{owner}/bias_{i}", [count, units], initializer="zeros"
                )
            self._kernels.append(kernels)
            self._biases.append(biases)
            width = units
        super().build(input_shape)

    def call(self, inputs: Any, training: bool = False) -> Any:
        outputs = inputs
        for kernels, biases, dropout in zip(self._kernels, self._biases, self.dropouts):
            outputs = stacked_product(outputs, tf.concat([*kernels.values()], axis=0))
            bias = tf.concat([*biases.values()], axis=0)
            outputs = tf.nn.relu(outputs + tf.cast(bias, outputs.dtype))
            outputs = dropout(outputs, training=training)  # [B, E, h]
        return outputs

    def variable_groups(self) -> dict[str, list[Any]]:
        """Owner to its kernels and biases."""
        return {
            owner: [part[owner] for part in (*self._kernels, *self._biases)]
            for owner, count in zip(self.owners, self.counts)
            if count
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "owners": self.owners,
            "counts": self.counts,
            "units": self.units,
            "seed": self.seed,
            "dropout": self.dropout,
        }
