"""A linear model over ids, crosses and numbers, for all tasks at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._keras import keras, tf
from tfmtl.layers.embedding import FeatureEmbedding
from tfmtl.layers.initializers import StackedInitializer, Start, spread
from tfmtl.layers.seeds import child_seed
from tfmtl.schema.experiment import RegularizationSpec
from tfmtl.schema.manifest import DatasetManifest


class WideLinear(keras.layers.Layer):
    """w_t . [x, phi(x)] + b_t for each task t.

    The weights of an id or cross for all tasks are one row of a table, [rows, K] with K
    outputs over all tasks: one gather for all. A value that a feature holds several
    times or in a list counts as the feature is pooled. Numbers and vectors have one
    kernel a task. Tables start at 0, as is usual for a linear model.

    Groups: tables are `embedding/wide` (what FTRL is for), numbers and bias `task/<t>`,
    the scenario's weights are shared.

    Args:
        manifest: Of the data set.
        regularization: Of the tables.
        owners: Groups of the tasks (`task/click`), T of them.
        outputs: Outputs of each task, `TaskSpec.width`.
        seed: Of kernels and masks.
        exclude: Features that are not read.
        side_tables: As for `FeatureEmbedding`.
        initial_bias: Where each task's bias starts; no bias where None.

    References:
        H.-T. Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016,
        section 3.1.
    """

    def __init__(
        self,
        manifest: DatasetManifest,
        regularization: RegularizationSpec,
        owners: Sequence[str],
        outputs: Sequence[int],
        *,
        seed: int,
        exclude: Sequence[str] = (),
        side_tables: Mapping[str, np.ndarray] | None = None,
        initial_bias: Sequence[Start] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.owners = tuple(owners)
        self.outputs = tuple(outputs)
        self.seed = seed
        self.initial_bias = initial_bias
        # By name, so that a table means the same whatever the order of the tasks.
        self._order = sorted(range(len(self.owners)), key=self.owners.__getitem__)
        columns = {c.name for c in manifest.columns}
        self._dense: dict[str, int] = {}
        self._vectors = set()
        for feature in manifest.dataset.features:
            if feature.name in exclude:
                continue
            if feature.kind == "vector":
                self._vectors.add(feature.name)
                self._dense[feature.name] = feature.project or feature.size
            elif feature.kind == "numeric" and feature.transform != "bucketize":
                names = {feature.name, f"{feature.name}_missing"}
                self._dense[feature.name] = len(names & columns)
        self.embedding = FeatureEmbedding(
            manifest,
            regularization.model_copy(update={"embedding_std": 0.0}),
            seed=child_seed(seed, "tables"),
            side_tables=side_tables,
            exclude=exclude,
            width=sum(outputs),
            name="tables",
        )
        self._kernels: list[Any] = []
        self._biases: list[Any] = []

    def build(self, input_shape: Any) -> None:
        width = sum(self._dense.values())
        for t in self._order:
            owner, outputs = self.owners[t], self.outputs[t]
            if width:
                self._kernels.append(
                    self.add_weight(
                        f"{owner}/kernel",
                        [width, outputs],
                        initializer=StackedInitializer(child_seed(self.seed, owner)),
                    )
                )
            if self.initial_bias is not None:
                start = spread(self.initial_bias[t], outputs)
                bias = keras.initializers.Constant(start)
                self._biases.append(
                    self.add_weight(f"{owner}/bias", [outputs], initializer=bias)
                )
        super().build(input_shape)

    def call(self, features: Mapping[str, Any], training: bool = False) -> list[Any]:
        """Record columns -> T float32 tensors, [B] or [B, C]."""
        x = self.embedding(features, training=training)
        parts = [v for name, v in x.fields.items() if name not in self._vectors]
        if x.scenario_vector is not None:
            parts.append(x.scenario_vector)
        if self._dense:
            numbers = x.of(list(self._dense))  # [B, D]
            parts.append(tf.matmul(numbers, tf.concat(self._kernels, axis=1)))
        if self._biases:
            parts.append(tf.concat(self._biases, axis=0))
        total = tf.zeros([], tf.float32)
        for part in parts:
            total += tf.cast(part, tf.float32)  # [B, K]
        split = tf.split(total, [self.outputs[t] for t in self._order], axis=1)
        results: list[Any] = [None] * len(self.owners)
        for t, part in zip(self._order, split):
            results[t] = part if self.outputs[t] > 1 else part[:, 0]
        return results

    def variable_groups(self) -> dict[str, list[Any]]:
        """`embedding/wide`, and each owner's kernel and bias."""
        tables = self.embedding.variable_groups().values()
        groups = {"embedding/wide": [v for vs in tables for v in vs]}
        for i, t in enumerate(self._order):
            groups[self.owners[t]] = [
                *self._kernels[i : i + 1],
                *self._biases[i : i + 1],
            ]
        return groups
