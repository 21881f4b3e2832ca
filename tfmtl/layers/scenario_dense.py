"""Dense layers of each scenario's own, several side by side, at the cost of one set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.dropout import Dropout
from tfmtl.layers.groups import merged_groups
from tfmtl.layers.initializers import StackedInitializer
from tfmtl.layers.seeds import child_seed


@keras.utils.register_keras_serializable("tfmtl")
class ScenarioDense(keras.layers.Layer):
    """N dense layers per scenario, on tiles: [K, R, d] or [K, R, N, d] -> [K, R, N, h].

        y_n = activation(x_n W_{p,n} + b_{p,n}),   p the tile's scenario

    The members are `per_task` of each task, in the order of the tasks, which belong to
    `cell/<scenario>/<task>`, then `per_scenario` of the scenario's own, which belong to
    `scenario/<scenario>`. What one owner has is one variable.

    Args:
        scenarios: Names, S of them.
        tasks: Names, T of them.
        units: h.
        activation: Name of a Keras activation.
        seed: Of the kernels; members start different.
        per_task: Members of each task.
        per_scenario: Members of no task; N = T * per_task + per_scenario.
        use_bias: Add b.
        initial_bias: [S][T] numbers the tasks' biases start at; zeros if None.
    """

    def __init__(
        self,
        scenarios: Sequence[str],
        tasks: Sequence[str],
        units: int,
        activation: str = "linear",
        *,
        seed: int,
        per_task: int = 1,
        per_scenario: int = 0,
        use_bias: bool = True,
        initial_bias: Sequence[Sequence[float]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scenarios = tuple(scenarios)
        self.tasks = tuple(tasks)
        self.units = units
        self.activation = keras.activations.get(activation)
        self.seed = seed
        self.per_task = per_task
        self.per_scenario = per_scenario
        self.use_bias = use_bias
        self.initial_bias = initial_bias
        self.count = len(self.tasks) * per_task + per_scenario
        self._owned: dict[str, list[Any]] = {}

    def build(self, input_shape: Any) -> None:
        width = int(input_shape[-1])
        for s, scenario in enumerate(self.scenarios):
            if self.per_task:
                for t, task in enumerate(self.tasks):
                    self._owned[f"cell/{scenario}/{task}"] = self._own(
                        f"cell_{s}_{task}",
                        [self.per_task, width],
                        child_seed(self.seed, scenario, task),
                        self.initial_bias[s][t] if self.initial_bias else 0.0,
                    )
            if self.per_scenario:
                self._owned[f"scenario/{scenario}"] = self._own(
                    f"scenario_{s}",
                    [self.per_scenario, width],
                    child_seed(self.seed, scenario),
                    0.0,
                )
        super().build(input_shape)

    def _own(self, name: str, shape: list[int], seed: int, start: float) -> list[Any]:
        """[n, d, h], and [n, h] with a bias."""
        scale = 2.0 if self.activation is keras.activations.relu else 1.0
        kernel = self.add_weight(
            f"{name}_kernel",
            [*shape, self.units],
            initializer=StackedInitializer(seed, scale),
        )
        if not self.use_bias:
            return [kernel]
        constant = keras.initializers.Constant(start)
        bias = self.add_weight(
            f"{name}_bias", [shape[0], self.units], initializer=constant
        )
        return [kernel, bias]

    def call(self, inputs: Any, scenario: Any) -> Any:
        """Applies each tile's layers; `scenario` is [K]."""
        kernels = tf.gather(self._stack(0, inputs.dtype), scenario)  # [K, N, d, h]
        if inputs.shape.rank == 4:
            outputs = tf.einsum("krnd,kndh->krnh", inputs, kernels)
        else:
            # One matrix product of [R, d] with [d, N·h] a tile.
            width = kernels.shape[2]
            flat = tf.reshape(
                tf.transpose(kernels, [0, 2, 1, 3]),
                [-1, width, self.count * self.units],
            )
            shape = [-1, tf.shape(inputs)[1], self.count, self.units]
            outputs = tf.reshape(tf.matmul(inputs, flat), shape)
        if self.use_bias:
            outputs += tf.gather(self._stack(1, inputs.dtype), scenario)[:, None]
        return self.activation(outputs)

    def _stack(self, position: int, dtype: Any) -> Any:
        """Kernels or biases of all members, [S, N, ...]."""
        owned = tf.concat([v[position] for v in self._owned.values()], axis=0)
        shape = [len(self.scenarios), self.count, *owned.shape[1:]]
        return tf.cast(tf.reshape(owned, shape), dtype)

    def variable_groups(self) -> dict[str, list[Any]]:
        """Owner to its variables."""
        return dict(self._owned)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scenarios": self.scenarios,
            "tasks": self.tasks,
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "seed": self.seed,
            "per_task": self.per_task,
            "per_scenario": self.per_scenario,
            "use_bias": self.use_bias,
            "initial_bias": self.initial_bias,
        }


@keras.utils.register_keras_serializable("tfmtl")
class ScenarioMLP(keras.layers.Layer):
    """ReLU layers of each scenario's own: [K, R, (N,) d] -> [K, R, N, h].

    Args:
        scenarios: As for `ScenarioDense`.
        tasks: As for `ScenarioDense`.
        units: Widths of the layers, at least one.
        seed: Of kernels and masks.
        dropout: After every layer, in training.
        per_task: As for `ScenarioDense`.
        per_scenario: As for `ScenarioDense`.
    """

    def __init__(
        self,
        scenarios: Sequence[str],
        tasks: Sequence[str],
        units: Sequence[int],
        *,
        seed: int,
        dropout: float = 0.0,
        per_task: int = 1,
        per_scenario: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scenarios = tuple(scenarios)
        self.tasks = tuple(tasks)
        self.units = tuple(units)
        self.seed = seed
        self.dropout = dropout
        self.per_task = per_task
        self.per_scenario = per_scenario
        self.layers = [
            ScenarioDense(
                scenarios,
                tasks,
                width,
                "relu",
                seed=child_seed(seed, "kernel", i),
                per_task=per_task,
                per_scenario=per_scenario,
                name=f"dense_{i}",
            )
            for i, width in enumerate(self.units)
        ]
        self.dropouts = [
            Dropout(dropout, child_seed(seed, "dropout", i), name=f"dropout_{i}")
            for i in range(len(self.units))
        ]

    def call(self, inputs: Any, scenario: Any, training: bool = False) -> Any:
        """Shapes as for `ScenarioDense`."""
        outputs = inputs
        for dense, dropout in zip(self.layers, self.dropouts):
            outputs = dropout(dense(outputs, scenario), training=training)
        return outputs

    def variable_groups(self) -> dict[str, list[Any]]:
        """Owner to its variables over all layers."""
        return merged_groups(self.layers)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scenarios": self.scenarios,
            "tasks": self.tasks,
            "units": self.units,
            "seed": self.seed,
            "dropout": self.dropout,
            "per_task": self.per_task,
            "per_scenario": self.per_scenario,
        }


@keras.utils.register_keras_serializable("tfmtl")
class ScenarioTowers(keras.layers.Layer):
    """One tower per scenario and task, on tiles: [K, R, T, d] -> logits [K, R, T].

    Args:
        scenarios: Names, S of them.
        tasks: Names, T of them.
        units: Widths of the hidden layers; may be empty.
        seed: Of kernels and masks.
        initial_bias: [S][T] numbers the logits start at.
        dropout: After each hidden layer.
    """

    def __init__(
        self,
        scenarios: Sequence[str],
        tasks: Sequence[str],
        units: Sequence[int],
        *,
        seed: int,
        initial_bias: Sequence[Sequence[float]],
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scenarios = tuple(scenarios)
        self.tasks = tuple(tasks)
        self.units = tuple(units)
        self.seed = seed
        self.initial_bias = initial_bias
        self.dropout = dropout
        self.hidden = ScenarioMLP(
            scenarios,
            tasks,
            units,
            seed=child_seed(seed, "hidden"),
            dropout=dropout,
            name="hidden",
        )
        self.head = ScenarioDense(
            scenarios,
            tasks,
            1,
            seed=child_seed(seed, "head"),
            initial_bias=initial_bias,
            name="head",
        )

    def call(self, inputs: Any, scenario: Any, training: bool = False) -> Any:
        """Runs each tile's towers; `scenario` is [K]."""
        hidden = self.hidden(inputs, scenario, training=training)
        return self.head(hidden, scenario)[..., 0]

    def variable_groups(self) -> dict[str, list[Any]]:
        """`cell/<scenario>/<task>` to its tower's variables."""
        return merged_groups([self.hidden, self.head])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scenarios": self.scenarios,
            "tasks": self.tasks,
            "units": self.units,
            "seed": self.seed,
            "initial_bias": self.initial_bias,
            "dropout": self.dropout,
        }
