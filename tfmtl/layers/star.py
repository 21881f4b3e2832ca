"""Star-shaped layers: one shared centre, and a factor of each scenario's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tfmtl._keras import keras, tf
from tfmtl.layers.dropout import Dropout
from tfmtl.layers.grouped import Tiles, from_tiles, tile_rows, to_tiles
from tfmtl.layers.groups import merged_groups
from tfmtl.layers.initializers import StackedInitializer, Start, spread
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import stacked_product

Leaf = Literal["full", "rank1"]
Path = Literal["tiles", "einsum"]


@keras.utils.register_keras_serializable("tfmtl")
class StarDense(keras.layers.Layer):
    """A dense layer per scenario around a shared one: [B, D] -> [B, H].

        out = activation((W * W_p)^T x + b + b_p),   p the row's scenario

    W_p starts at 1 and b_p at 0: at first all scenarios are the shared layer, and two
    random factors would start near zero. A row of the unknown scenario, id S, reads the
    centre alone: W and b.

    With `tasks` there are T such layers side by side, [B, D] or [B, T, D] -> [B, T, H]:
    the centre of one belongs to `task/<t>` and its leaves to `cell/<s>/<t>`; without,
    the centre is shared and the leaves belong to `scenario/<s>`.

    Args:
        scenarios: Names of the known scenarios, S of them.
        units: H.
        activation: Name of a Keras activation.
        seed: Of the kernels.
        tasks: Names, T of them.
        leaf: `full`: W_p has W's shape. `rank1`: W_p = a_p c_p^T, which is
            ((x * a_p) W) * c_p, one product for all rows and far fewer weights.
        path: How rows meet full kernels. `tiles`: sorted into tiles of one scenario,
            the work of one layer whatever S. `einsum`: every row meets all kernels and
            keeps one result, S times the work and fewer operations. Forward and
            backward on one CPU thread, S = 3, tiles / einsum / a plain network: widths
            64-32-16 at 512 rows 0.9 / 1.0 / 0.6 ms, 400-128-64 at 4,096 rows 25 / 29 /
            8 ms; at S = 16 1.2 / 1.7 and 32 / 169 ms. At 512 rows einsum won in three
            cases: S = 1 at 400-128-64 (by 1.5 ms), S = 5 and 8 at 64-32-16 (0.5, 0.3).
        initial_bias: Where the T centres' biases start, a number or H of them each;
            zeros if None.

    References:
        X.-R. Sheng et al., "One Model to Serve All: Star Topology Adaptive Recommender
        for Multi-Domain CTR Prediction", CIKM 2021, arXiv 2101.11427, section 3.4.
    """

    def __init__(
        self,
        scenarios: Sequence[str],
        units: int,
        activation: str = "linear",
        *,
        seed: int,
        tasks: Sequence[str] | None = None,
        leaf: Leaf = "full",
        path: Path = "tiles",
        initial_bias: Sequence[Start] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scenarios = tuple(scenarios)
        self.units = units
        self.activation = keras.activations.get(activation)
        self.seed = seed
        self.tasks = tuple(tasks) if tasks is not None else None
        self.leaf = leaf
        self.path = path
        self.initial_bias = tuple(initial_bias) if initial_bias is not None else None
        # By owner: [kernel, bias] of the centres, [factors ..., bias] of the leaves.
        self._centres: dict[str, list[Any]] = {}
        self._leaves: dict[str, list[Any]] = {}

    @property
    def tiled(self) -> bool:
        """Whether the layer works on tiles, so that a chain of layers shares them."""
        return self.leaf == "full" and self.path == "tiles"

    def build(self, input_shape: Any) -> None:
        width, members = int(input_shape[-1]), self.tasks or (None,)
        scale = 2.0 if self.activation is keras.activations.relu else 1.0
        starts = self.initial_bias or (0.0,) * len(members)
        for task, start in zip(members, starts):
            name = f"task/{task}/" if task else ""
            seed = child_seed(self.seed, task or "centre")
            self._centres[f"task/{task}" if task else "shared"] = [
                self._weight(
                    f"{name}kernel",
                    [width, self.units],
                    StackedInitializer(seed, scale),
                ),
                self._weight(
                    f"{name}bias",
                    [self.units],
                    keras.initializers.Constant(spread(start, self.units)),
                ),
            ]
        factors = {"leaf": [width, self.units]}
        if self.leaf == "rank1":
            factors = {"leaf_in": [width], "leaf_out": [self.units]}
        for s, scenario in enumerate(self.scenarios):
            for task in members:
                owner = f"cell/{scenario}/{task}" if task else f"scenario/{scenario}"
                name = f"cell_{s}/{task}" if task else f"scenario_{s}"
                self._leaves[owner] = [
                    *(
                        self._weight(f"{name}/{k}", v, "ones")
                        for k, v in factors.items()
                    ),
                    self._weight(f"{name}/bias", [self.units], "zeros"),
                ]
        super().build(input_shape)

    def _weight(self, name: str, shape: list[int], initializer: Any) -> Any:
        # Multiplied in float32: beside 1, 16 bits would not see a small step of W_p.
        return self.add_weight(
            name, shape, initializer=initializer, experimental_autocast=False
        )

    def call(self, inputs: Any, scenario: Any, tiles: Tiles | None = None) -> Any:
        """Applies each row's kernel.

        Args:
            inputs: [B, D] for all tasks or [B, T, D]; laid out in `tiles` (which only
                layers that are `tiled` take), [K, R, D] or [K, R, T, D].
            scenario: [B] int32; S and above is unknown.
            tiles: How the inputs are laid out, with ids up to S.

        Returns:
            [B, H], with tasks [B, T, H]; in tiles where the inputs are.
        """
        scenario = tf.minimum(tf.cast(scenario, tf.int32), len(self.scenarios))
        if tiles is not None:
            return self._on_tiles(inputs, tiles)
        if self.leaf == "rank1":
            return self._by_factors(inputs, scenario)
        if self.path == "einsum":
            return self._by_all_kernels(inputs, scenario)
        tiles = tile_rows(scenario, len(self.scenarios) + 1)
        return from_tiles(self._on_tiles(to_tiles(inputs, tiles), tiles), tiles)

    def _on_tiles(self, inputs: Any, tiles: Tiles) -> Any:
        """[K, R, (T,) D] -> [K, R, (T,) H], one product a tile."""
        kernels = self._full_kernels(inputs.dtype)  # [S + 1, T, D, H]
        bias = tf.gather(self._biases(inputs.dtype), tiles.scenario)  # [K, T, H]
        count, width = kernels.shape[1:3]
        if inputs.shape.rank == 4:
            kernels = tf.gather(kernels, tiles.scenario)  # [K, T, D, H]
            outputs = tf.einsum("krtd,ktdh->krth", inputs, kernels)
        else:
            # One matrix product of [R, D] with [D, T·H] a tile.
            if count > 1:
                kernels = tf.transpose(kernels, [0, 2, 1, 3])
            flat = tf.reshape(kernels, [-1, width, count * self.units])
            outputs = tf.matmul(inputs, tf.gather(flat, tiles.scenario))
            shape = [-1, tiles.size, count, self.units]
            outputs = tf.reshape(outputs, shape)  # [K, R, T, H]
        return self._single(self.activation(outputs + bias[:, None]))

    def _by_all_kernels(self, inputs: Any, scenario: Any) -> Any:
        """[B, (T,) D] -> [B, (T,) H], by the products with all scenarios' kernels."""
        kernels = self._full_kernels(inputs.dtype)  # [S + 1, T, D, H]
        if inputs.shape.rank == 3:
            outputs = tf.einsum("btd,stdh->bsth", inputs, kernels)
        else:
            every = tf.reshape(kernels, [-1, *kernels.shape[2:]])
            outputs = stacked_product(inputs, every)
            outputs = tf.reshape(outputs, [-1, *kernels.shape[:2], self.units])
        outputs = tf.gather(outputs, scenario, axis=1, batch_dims=1)  # [B, T, H]
        bias = tf.gather(self._biases(inputs.dtype), scenario)
        return self._single(self.activation(outputs + bias))

    def _by_factors(self, inputs: Any, scenario: Any) -> Any:
        """[B, (T,) D] -> [B, (T,) H], by one product with the shared kernel."""
        before, after = (
            tf.gather(tf.cast(self._leaf_stack(i), inputs.dtype), scenario)
            for i in range(2)
        )  # [B, T, D], [B, T, H]
        if inputs.shape.rank == 2:
            inputs = inputs[:, None]
        outputs = stacked_product(inputs * before, self._centre_stack(0)) * after
        bias = tf.gather(self._biases(inputs.dtype), scenario)
        return self._single(self.activation(outputs + bias))

    def _single(self, outputs: Any) -> Any:
        """Without the axis of tasks where there are none."""
        return tf.squeeze(outputs, -2) if self.tasks is None else outputs

    def _full_kernels(self, dtype: Any) -> Any:
        """W * W_p, and W last: [S + 1, T, D, H]."""
        centre = self._centre_stack(0)
        leaves = self._leaf_stack(0)[:-1]
        return tf.cast(tf.concat([centre * leaves, centre[None]], axis=0), dtype)

    def _biases(self, dtype: Any) -> Any:
        """b + b_p, and b last: [S + 1, T, H]."""
        leaves = self._leaf_stack(-1, neutral=0.0)
        return tf.cast(self._centre_stack(-1) + leaves, dtype)

    def _centre_stack(self, position: int) -> Any:
        """[T, ...]."""
        return tf.stack([c[position] for c in self._centres.values()])

    def _leaf_stack(self, position: int, neutral: float = 1.0) -> Any:
        """[S + 1, T, ...]; the last is the unknown scenario's, which is no variable."""
        leaves = tf.stack([v[position] for v in self._leaves.values()])
        shape = [len(self._centres), *leaves.shape[1:]]
        leaves = tf.reshape(leaves, [-1, *shape])
        return tf.concat([leaves, tf.fill([1, *shape], neutral)], axis=0)

    def leaf_penalty(self) -> Any:
        """Sum of (W_p - 1)^2, of both factors for `rank1`: 1, not 0, is no change."""
        factors = [f for v in self._leaves.values() for f in v[:-1]]
        return tf.add_n([tf.reduce_sum(tf.square(f - 1.0)) for f in factors])

    def variable_groups(self) -> dict[str, list[Any]]:
        """Owner to its variables; without tasks, the centre claims nothing."""
        if self.tasks is None:
            return dict(self._leaves)
        return {**self._centres, **self._leaves}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scenarios": self.scenarios,
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "seed": self.seed,
            "tasks": self.tasks,
            "leaf": self.leaf,
            "path": self.path,
            "initial_bias": self.initial_bias,
        }


@keras.utils.register_keras_serializable("tfmtl")
class StarMLP(keras.layers.Layer):
    """Star layers one above the other, ReLU and dropout after each.

    Args:
        scenarios: Names of the known scenarios.
        units: Widths of the layers.
        seed: Of kernels and masks.
        dropout: After every layer, in training.
        tasks: As for `StarDense`.
        leaf: As for `StarDense`.
        path: As for `StarDense`.
    """

    def __init__(
        self,
        scenarios: Sequence[str],
        units: Sequence[int],
        *,
        seed: int,
        dropout: float = 0.0,
        tasks: Sequence[str] | None = None,
        leaf: Leaf = "full",
        path: Path = "tiles",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scenarios = tuple(scenarios)
        self.units = tuple(units)
        self.seed = seed
        self.dropout = dropout
        self.tasks = tuple(tasks) if tasks is not None else None
        self.leaf = leaf
        self.path = path
        self.layers = [
            StarDense(
                scenarios,
                width,
                "relu",
                seed=child_seed(seed, "kernel", i),
                tasks=tasks,
                leaf=leaf,
                path=path,
                name=f"dense_{i}",
            )
            for i, width in enumerate(self.units)
        ]
        self.dropouts = [
            Dropout(dropout, child_seed(seed, "dropout", i), name=f"dropout_{i}")
            for i in range(len(self.units))
        ]

    def call(
        self,
        inputs: Any,
        scenario: Any,
        tiles: Tiles | None = None,
        training: bool = False,
    ) -> Any:
        """Shapes as for `StarDense`."""
        outputs = inputs
        for dense, dropout in zip(self.layers, self.dropouts):
            outputs = dropout(dense(outputs, scenario, tiles), training=training)
        return outputs

    def leaf_penalty(self) -> Any:
        """Sum over the layers."""
        return tf.add_n([tf.zeros([]), *(d.leaf_penalty() for d in self.layers)])

    def variable_groups(self) -> dict[str, list[Any]]:
        """Owner to its variables over all layers."""
        return merged_groups(self.layers)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scenarios": self.scenarios,
            "units": self.units,
            "seed": self.seed,
            "dropout": self.dropout,
            "tasks": self.tasks,
            "leaf": self.leaf,
            "path": self.path,
        }
