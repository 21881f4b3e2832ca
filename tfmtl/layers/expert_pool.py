"""Experts that all share, beside experts of owners that start as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.dropout import Dropout
from tfmtl.layers.initializers import NearCentre, NormalRows, StackedInitializer
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import stacked_product


class _OwnedExperts(keras.layers.Layer):
    """What both kinds have in common: an owner's experts are variables of its own.

    Args:
        owners: Groups, Q of them, of one name or several.
        units: Widths of the layers.
        seed: Of kernels and masks.
        dropout: After each layer, in training.
    """

    def __init__(
        self,
        owners: Sequence[str],
        units: Sequence[int],
        *,
        seed: int,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.owners = tuple(owners)
        self.units = tuple(units)
        self.seed = seed
        self.dropout = dropout
        self.dropouts = [
            Dropout(dropout, child_seed(seed, "dropout", i), name=f"dropout_{i}")
            for i in range(len(self.units))
        ]
        # A layer's variables: for each owner, in the order of the owners.
        self._kernels: list[list[Any]] = []
        self._biases: list[list[Any]] = []

    def variable_groups(self) -> dict[str, list[Any]]:
        """Owner to its variables over all layers."""
        groups: dict[str, list[Any]] = {}
        for layer in (*self._kernels, *self._biases):
            for owner, variable in zip(self.owners, layer):
                groups.setdefault(owner, []).append(variable)
        return groups

    def spread(self) -> Any:
        """Sum over owners and layers of their kernels' squared distance to the mean.

        The sum over all pairs of owners of their squared distance is Q times that.
        """
        total = tf.zeros([])
        for kernels in filter(None, self._kernels):
            members = tf.stack(kernels)
            away = members - tf.reduce_mean(members, axis=0)
            total += tf.reduce_sum(tf.square(away))
        return total

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "owners": self.owners,
            "units": self.units,
            "seed": self.seed,
            "dropout": self.dropout,
        }


@keras.utils.register_keras_serializable("tfmtl")
class ExpertPool(_OwnedExperts):
    """E = shared + Q m ReLU networks as one product a layer: [B, d] -> [B, E, h].

    The shared experts come first, then m of each owner. Owners' j-th experts start as
    one network with 1 % of noise: what they come to differ in, they have learnt.

    Args:
        shared: Experts that no owner has.
        owners: Groups, Q of them.
        per_owner: m.
        units: Widths of the layers.
        seed: Of kernels and masks.
        dropout: After each layer, in training.
    """

    def __init__(
        self,
        shared: int,
        owners: Sequence[str],
        per_owner: int,
        units: Sequence[int],
        *,
        seed: int,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(owners, units, seed=seed, dropout=dropout, **kwargs)
        if min(shared, per_owner) < 0 or shared + per_owner * len(self.owners) < 1:
            raise ValueError(
                "`shared`, `owners` and `per_owner` must leave an expert. Received: "
                f"{shared}, {list(owners)}, {per_owner}"
            )
        self.shared = shared
        self.per_owner = per_owner
        self._shared: list[list[Any]] = []

    def build(self, input_shape: Any) -> None:
        width = int(input_shape[-1])
        for i, units in enumerate(self.units):
            shared, kernels, biases = [], [], []
            if self.shared:
                start = StackedInitializer(child_seed(self.seed, "shared", i), 2.0)
                shape = [self.shared, width, units]
                shared = [
                    self.add_weight(f"shared/kernel_{i}", shape, initializer=start),
                    self.add_weight(
                        f"shared/bias_{i}", [self.shared, units], initializer="zeros"
                    ),
                ]
            for q, owner in enumerate(self.owners if self.per_owner else ()):
                near = NearCentre(
                    child_seed(self.seed, "centre", i),
                    child_seed(self.seed, "own", i, owner, q),
                    2.0,
                )
                shape = [self.per_owner, width, units]
                kernels.append(
                    self.add_weight(f"own_{q}/kernel_{i}", shape, initializer=near)
                )
                biases.append(
                    self.add_weight(
                        f"own_{q}/bias_{i}",
                        [self.per_owner, units],
                        initializer="zeros",
                    )
                )
            self._shared.append(shared)
            self._kernels.append(kernels)
            self._biases.append(biases)
            width = units
        super().build(input_shape)

    def call(self, inputs: Any, training: bool = False) -> Any:
        outputs = inputs
        for i, dropout in enumerate(self.dropouts):
            kernel = tf.concat([*self._shared[i][:1], *self._kernels[i]], axis=0)
            bias = tf.concat([*self._shared[i][1:], *self._biases[i]], axis=0)
            outputs = stacked_product(outputs, kernel)  # [B, E, h]
            outputs = tf.nn.relu(outputs + tf.cast(bias, outputs.dtype))
            outputs = dropout(outputs, training=training)
        return outputs

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "shared": self.shared,
            "per_owner": self.per_owner,
        }


@keras.utils.register_keras_serializable("tfmtl")
class LowRankExperts(_OwnedExperts):
    """m networks whose kernels differ between owners by a term of low rank.

        H_q = relu(x W + ((x U) * a_q) V + b + b_q)         [B, d] -> [B, m, h]

    Rows of the owner q read a_q and b_q alone, so the cost does not grow with the
    owners; rows of no owner read a = b = 0, the centre. a_q starts near zero, b_q at
    zero. U, V, W and b are common to all.

    Args:
        owners: Groups of a_q and b_q, Q of them.
        count: m.
        rank: Width of a_q.
        units: Widths of the layers.
        seed: Of kernels and masks.
        dropout: After each layer, in training.
    """

    def __init__(
        self,
        owners: Sequence[str],
        count: int,
        rank: int,
        units: Sequence[int],
        *,
        seed: int,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(owners, units, seed=seed, dropout=dropout, **kwargs)
        self.count = count
        self.rank = rank
        self._centres: list[dict[str, Any]] = []

    def build(self, input_shape: Any) -> None:
        width = int(input_shape[-1])
        for i, units in enumerate(self.units):
            shapes = {
                "kernel": [width, units],
                "down": [width, self.rank],
                "up": [self.rank, units],
            }
            centre = {
                name: self.add_weight(
                    f"centre/{name}_{i}",
                    [self.count, *shape],
                    initializer=StackedInitializer(
                        child_seed(self.seed, name, i), 2.0 if name == "kernel" else 1.0
                    ),
                )
                for name, shape in shapes.items()
            }
            centre["bias"] = self.add_weight(
                f"centre/bias_{i}", [self.count, units], initializer="zeros"
            )
            self._centres.append(centre)
            self._kernels.append(
                [
                    self.add_weight(
                        f"own_{q}/factors_{i}",
                        [self.count, self.rank],
                        initializer=NormalRows(child_seed(self.seed, "own", i, owner)),
                    )
                    for q, owner in enumerate(self.owners)
                ]
            )
            self._biases.append(
                [
                    self.add_weight(
                        f"own_{q}/bias_{i}", [self.count, units], initializer="zeros"
                    )
                    for q in range(len(self.owners))
                ]
            )
            width = units
        super().build(input_shape)

    def call(self, inputs: Any, owner: Any, training: bool = False) -> Any:
        """Runs the experts of each row's owner.

        Args:
            inputs: [B, d].
            owner: [B] int32 in [0, Q]; Q is none.
            training: Whether dropout acts.
        """
        outputs = inputs
        for i, dropout in enumerate(self.dropouts):
            centre = self._centres[i]
            factors, bias = (
                _of_rows(own[i], owner, inputs.dtype)
                for own in (self._kernels, self._biases)
            )
            low = stacked_product(outputs, centre["down"]) * factors  # [B, m, rank]
            outputs = stacked_product(outputs, centre["kernel"])
            outputs += stacked_product(low, centre["up"]) + bias  # [B, m, h]
            outputs = tf.nn.relu(outputs + tf.cast(centre["bias"], outputs.dtype))
            outputs = dropout(outputs, training=training)
        return outputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count, "rank": self.rank}


def _of_rows(own: Sequence[Any], owner: Any, dtype: Any) -> Any:
    """Q variables [m, w] -> those of each row's owner, [B, m, w]; 0 without one."""
    table = tf.stack([*own, tf.zeros_like(own[0])])
    return tf.cast(tf.gather(table, owner), dtype)
