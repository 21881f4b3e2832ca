"""Several dense layers of one shape, computed as one einsum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.dropout import Dropout
from tfmtl.layers.groups import merged_groups
from tfmtl.layers.initializers import StackedInitializer, Start, spread
from tfmtl.layers.seeds import child_seed


@keras.utils.register_keras_serializable("tfmtl")
class StackedDense(keras.layers.Layer):
    """N dense layers side by side: [B, d] or [B, N, d] -> [B, N, h].

        y_n = activation(x_n W_n + b_n)

    With `owners` each member is a variable of its own, stacked in the forward pass (3 %
    dearer than one variable), so that a task's or scenario's variables are whole
    variables; without, the stack is one variable [N, d, h].

    Args:
        count: N.
        units: h.
        activation: Name of a Keras activation.
        seed: Of the kernels; members start different.
        owners: Names of the groups the members belong to, N of them, not all different.
        use_bias: Add b_n.
        initial_bias: Where the N members' biases start, a number or h of them each;
            zeros if None.
        scale: Variance factor of the kernels' start; where None, 2 below a ReLU and
            else 1. With 0 they start at zero.
    """

    def __init__(
        self,
        count: int,
        units: int,
        activation: str = "linear",
        *,
        seed: int,
        owners: Sequence[str] | None = None,
        use_bias: bool = True,
        initial_bias: Sequence[Start] | None = None,
        scale: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if owners is not None and len(owners) != count:
            raise ValueError(
                f"`owners` must name {count} groups. Received: {list(owners)}"
            )
        self.count = count
        self.units = units
        self.activation = keras.activations.get(activation)
        self.seed = seed
        self.owners = tuple(owners) if owners is not None else None
        self.use_bias = use_bias
        self.initial_bias = tuple(initial_bias) if initial_bias is not None else None
        self.scale = scale
        self._kernels: list[Any] = []
        self._biases: list[Any] = []

    def build(self, input_shape: Any) -> None:
        width = int(input_shape[-1])
        scale = self.scale
        if scale is None:
            scale = 2.0 if self.activation is keras.activations.relu else 1.0
        bias = self.initial_bias or (0.0,) * self.count
        if self.owners is None:
            self._kernels = [
                self.add_weight(
                    "kernel",
                    [self.count, width, self.units],
                    initializer=StackedInitializer(self.seed, scale),
                )
            ]
            if self.use_bias:
                values = [spread(b, self.units) for b in bias]
                self._biases = [
                    self.add_weight(
                        "bias",
                        [self.count, self.units],
                        initializer=_constant(values),
                    )
                ]
        else:
            for n, owner in enumerate(self.owners):
                name = owner.replace("|", "_")
                if self.owners.count(owner) > 1:
                    name += f"/{self.owners[:n].count(owner)}"
                seed = child_seed(self.seed, n)
                self._kernels.append(
                    self.add_weight(
                        f"{name}/kernel",
                        [width, self.units],
                        initializer=StackedInitializer(seed, scale),
                    )
                )
                if self.use_bias:
                    self._biases.append(
                        self.add_weight(
                            f"{name}/bias",
                            [self.units],
                            initializer=_constant(spread(bias[n], self.units)),
                        )
                    )
        super().build(input_shape)

    def variable_groups(self) -> dict[str, list[Any]]:
        """Owner to its variables; empty where the stack has no owners."""
        groups: dict[str, list[Any]] = {}
        for n, owner in enumerate(self.owners or ()):
            members = [self._kernels[n], *self._biases[n : n + 1]]
            groups.setdefault(owner, []).extend(members)
        return groups

    @property
    def kernel(self) -> Any:
        """[N, d, h]."""
        return self._kernels[0] if self.owners is None else tf.stack(self._kernels)

    @property
    def bias(self) -> Any:
        """[N, h], or None."""
        if not self.use_bias:
            return None
        return self._biases[0] if self.owners is None else tf.stack(self._biases)

    def call(self, inputs: Any) -> Any:
        outputs = stacked_product(inputs, self.kernel)
        if self.use_bias:
            outputs += tf.cast(self.bias, inputs.dtype)
        return self.activation(outputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "count": self.count,
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "seed": self.seed,
            "owners": self.owners,
            "use_bias": self.use_bias,
            "initial_bias": self.initial_bias,
            "scale": self.scale,
        }


@keras.utils.register_keras_serializable("tfmtl")
class StackedMLP(keras.layers.Layer):
    """N multi-layer perceptrons side by side: [B, d] or [B, N, d] -> [B, N, h].

    Args:
        count: N.
        units: Widths of the layers.
        activation: After every layer.
        dropout: After every layer, in training.
        seed: Of kernels and masks.
        owners: As for `StackedDense`.
    """

    def __init__(
        self,
        count: int,
        units: Sequence[int],
        activation: str = "relu",
        *,
        seed: int,
        dropout: float = 0.0,
        owners: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.count = count
        self.units = tuple(units)
        self.activation = activation
        self.seed = seed
        self.dropout = dropout
        self.owners = tuple(owners) if owners is not None else None
        self.layers = [
            StackedDense(
                count,
                width,
                activation,
                seed=child_seed(seed, "kernel", i),
                owners=owners,
                name=f"dense_{i}",
            )
            for i, width in enumerate(self.units)
        ]
        self.dropouts = [
            Dropout(dropout, child_seed(seed, "dropout", i), name=f"dropout_{i}")
            for i in range(len(self.units))
        ]

    def call(self, inputs: Any, training: bool = False) -> Any:
        outputs = inputs
        for dense, dropout in zip(self.layers, self.dropouts):
            outputs = dropout(dense(outputs), training=training)  # [B, N, h]
        if not self.layers:
            outputs = _spread(inputs, self.count)
        return outputs

    def variable_groups(self) -> dict[str, list[Any]]:
        """Owner to its variables over all layers."""
        return merged_groups(self.layers)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "count": self.count,
            "units": self.units,
            "activation": self.activation,
            "seed": self.seed,
            "dropout": self.dropout,
            "owners": self.owners,
        }


def stacked_product(inputs: Any, kernel: Any) -> Any:
    """N matrix products side by side.

    Args:
        inputs: [B, d] for all members, or [B, N, d].
        kernel: [N, d, h], cast to the inputs' type.

    Returns:
        [B, N, h].
    """
    kernel = tf.cast(kernel, inputs.dtype)
    if inputs.shape.rank == 3:
        return tf.einsum("bnd,ndh->bnh", inputs, kernel)
    # One matrix product of [B, d] with [d, N·h]: no batched one is as fast.
    count, width, units = kernel.shape
    flat = tf.reshape(tf.transpose(kernel, [1, 0, 2]), [width, -1])
    return tf.reshape(tf.matmul(inputs, flat), [-1, count, units])


def _spread(inputs: Any, count: int) -> Any:
    """[B, d] -> [B, N, d]; [B, N, d] as it is."""
    if inputs.shape.rank == 3:
        return inputs
    return tf.repeat(inputs[:, None, :], count, axis=1)


def _constant(values: Any) -> Any:
    return keras.initializers.Constant(values)
