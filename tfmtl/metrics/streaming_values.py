"""Streaming metrics of regression and multiclass tasks; see `streaming`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.metrics.names import metric_key
from tfmtl.metrics.streaming import Streaming, add_defined, mean_of


class StreamingRegression(Streaming):
    """RMSE and MAE of regression tasks.

    `result` has `task/rmse`, `task/mae`, the same as `task@scenario/...`, and
    `mean/rmse` and `mean/mae` over tasks.

    Args:
      tasks: T names, in the order of the predictions' columns.
      scenarios: S declared values, in the order of the scenario ids.

    Raises:
      ConfigError: for no task, or repeated names.
    """

    def __init__(self, tasks: Sequence[str], scenarios: Sequence[str]) -> None:
        super().__init__(tasks, scenarios)
        self._moments = self._sums("regression", 3)
        table = [None, len(self.tasks)]
        self._update = tf.function(
            self._accumulate,
            input_signature=[
                tf.TensorSpec(table, tf.float64),
                tf.TensorSpec(table, tf.float64),
                tf.TensorSpec(table, tf.bool),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec(table, tf.float64),
            ],
        )

    @property
    def state(self) -> tuple[tf.Variable, ...]:
        """Sums [S + 1, T, 3] of squared error, absolute error and weight."""
        return (self._moments,)

    def update(
        self,
        predictions: Any,
        labels: Any,
        mask: Any = None,
        scenario: Any = None,
        weights: Any = None,
    ) -> None:
        """Adds a batch.

        Args:
          predictions: [B, T].
          labels: [B, T]; NaN counts as missing.
          mask: [B, T], true where the label was observed; None for everywhere.
          scenario: [B] ids, or None for unknown everywhere.
          weights: [B, T] sample weights, or None for 1 each.
        """
        values = tf.cast(predictions, tf.float64)
        self._update(
            values,
            tf.cast(labels, tf.float64),
            tf.ones_like(values, tf.bool) if mask is None else tf.cast(mask, tf.bool),
            self._scenario_ids(scenario, values),
            tf.ones_like(values) if weights is None else tf.cast(weights, tf.float64),
        )

    def _accumulate(
        self,
        predictions: tf.Tensor,
        labels: tf.Tensor,
        mask: tf.Tensor,
        scenario: tf.Tensor,
        weights: tf.Tensor,
    ) -> None:
        """Traced once; shapes as in `update`, with B unknown."""
        mask = mask & ~tf.math.is_nan(labels)
        error = predictions - labels
        values = tf.stack([error**2, tf.abs(error), tf.ones_like(error)], axis=-1)
        values = values * weights[..., None]  # [B, T, 3]
        values = tf.where(mask[..., None], values, 0.0)
        self._moments.assign_add(
            tf.math.unsorted_segment_sum(values, scenario, len(self._rows))
        )

    def result(self) -> dict[str, float]:
        """The defined metrics by name; see the class."""
        moments = np.moveaxis(self._moments.numpy(), 1, 0)  # [T, S + 1, 3]
        found: dict[str, float] = {}
        for t, task in enumerate(self.tasks):
            cells: list[tuple[str | None, Any]] = [(None, moments[t].sum(axis=0))]
            cells += [
                (name, moments[t, row])
                for row, name in self._cell_keys(moments[t, :, 2])
            ]
            for name, (squared, absolute, weight) in cells:
                if weight > 0.0:
                    rmse = float(np.sqrt(squared / weight))
                    add_defined(found, metric_key(task, "rmse", name), rmse)
                    mae = float(absolute / weight)
                    add_defined(found, metric_key(task, "mae", name), mae)
        for metric in ("rmse", "mae"):
            keys = [metric_key(task, metric) for task in self.tasks]
            add_defined(found, metric_key("mean", metric), mean_of(found, keys))
        return found


class StreamingMulticlass(Streaming):
    """Accuracy and log-loss of multiclass tasks.

    `result` has `task/accuracy`, `task/logloss`, the same as `task@scenario/...`, and
    `mean/accuracy` over tasks.

    Args:
      classes: number of classes C_t >= 2 of each task by name; its order is that of
        the labels' columns.
      scenarios: S declared values, in the order of the scenario ids.

    Raises:
      ConfigError: for no task, fewer than two classes, or repeated scenarios.
    """

    def __init__(self, classes: Mapping[str, int], scenarios: Sequence[str]) -> None:
        super().__init__(list(classes), scenarios)
        few = {name: count for name, count in classes.items() if count < 2}
        if few:
            raise ConfigError(f"`classes` must be >= 2 for each task, got {few}")
        self._classes = tuple(classes.values())
        self._moments = self._sums("multiclass", 3)
        table = [None, len(self.tasks)]
        self._update = tf.function(
            self._accumulate,
            input_signature=[
                tuple(tf.TensorSpec([None, c], tf.float32) for c in self._classes),
                tf.TensorSpec(table, tf.float32),
                tf.TensorSpec(table, tf.bool),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec(table, tf.float64),
            ],
        )

    @property
    def state(self) -> tuple[tf.Variable, ...]:
        """Sums [S + 1, T, 3] of hits, log-loss and weight."""
        return (self._moments,)

    def update(
        self,
        logits: Mapping[str, Any],
        labels: Any,
        mask: Any = None,
        scenario: Any = None,
        weights: Any = None,
    ) -> None:
        """Adds a batch.

        Args:
          logits: [B, C_t] by task name.
          labels: [B, T] class numbers; NaN counts as missing.
          mask: [B, T], true where the label was observed; None for everywhere.
          scenario: [B] ids, or None for unknown everywhere.
          weights: [B, T] sample weights, or None for 1 each.

        Raises:
          ConfigError: where `logits` lacks a task.
        """
        missing = [task for task in self.tasks if task not in logits]
        if missing:
            raise ConfigError(
                f"`logits` must hold every task of {self.tasks}, missing: {missing}"
            )
        label = tf.cast(labels, tf.float32)
        ones = tf.ones_like(label, tf.float64)
        self._update(
            tuple(tf.cast(logits[task], tf.float32) for task in self.tasks),
            label,
            tf.ones_like(label, tf.bool) if mask is None else tf.cast(mask, tf.bool),
            self._scenario_ids(scenario, label),
            ones if weights is None else tf.cast(weights, tf.float64),
        )

    def _accumulate(
        self,
        logits: tuple[tf.Tensor, ...],
        labels: tf.Tensor,
        mask: tf.Tensor,
        scenario: tf.Tensor,
        weights: tf.Tensor,
    ) -> None:
        """Traced once; shapes as in `update`, with B unknown."""
        mask = mask & ~tf.math.is_nan(labels)
        target = tf.cast(tf.where(mask, labels, 0.0), tf.int32)
        # Tasks differ in their number of classes, hence one softmax for each.
        hits, losses = [], []
        for t, logit in enumerate(logits):
            guess = tf.argmax(logit, axis=-1, output_type=tf.int32)
            hits.append(tf.cast(guess == target[:, t], tf.float32))
            losses.append(
                tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels=target[:, t], logits=logit
                )
            )
        loss = tf.stack(losses, axis=-1)  # [B, T]
        values = tf.stack([tf.stack(hits, axis=-1), loss, tf.ones_like(loss)], axis=-1)
        values = tf.cast(values, tf.float64) * weights[..., None]  # [B, T, 3]
        values = tf.where(mask[..., None], values, 0.0)
        self._moments.assign_add(
            tf.math.unsorted_segment_sum(values, scenario, len(self._rows))
        )

    def result(self) -> dict[str, float]:
        """The defined metrics by name; see the class."""
        moments = np.moveaxis(self._moments.numpy(), 1, 0)  # [T, S + 1, 3]
        found: dict[str, float] = {}
        for t, task in enumerate(self.tasks):
            cells: list[tuple[str | None, Any]] = [(None, moments[t].sum(axis=0))]
            cells += [
                (name, moments[t, row])
                for row, name in self._cell_keys(moments[t, :, 2])
            ]
            for name, (hits, loss, weight) in cells:
                if weight > 0.0 and np.isfinite(loss):
                    key = metric_key(task, "accuracy", name)
                    add_defined(found, key, float(hits / weight))
                    key = metric_key(task, "logloss", name)
                    add_defined(found, key, float(loss / weight))
        keys = [metric_key(task, "accuracy") for task in self.tasks]
        add_defined(found, "mean/accuracy", mean_of(found, keys))
        return found
