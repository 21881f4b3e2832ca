"""Metrics kept as sums inside `tf.function` while batches pass, per task x scenario.

One class for each type of task, all with the same interface: `update` (inside or
outside a `tf.function`, once a batch), `result` (outside), `reset`, `merge`. The state
is made of sums, so that shards merge by addition and a checkpoint can hold it.

`StreamingMetrics` keeps histograms of scores, since Keras' AUC with 200 thresholds on
the probability is badly biased on rare labels, where nearly all rows fall into the
first bin.

T tasks, S declared scenarios, B batch, K bins. Row S of the state is for scenarios
that were not declared.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.metrics.histogram import histogram_auc
from tfmtl.metrics.names import metric_key, unknown_name

# Logits are clipped to +-16 before binning; probability 1.1e-7 at the lower end.
LOGIT_RANGE = 16.0


class Streaming(tf.Module, abc.ABC):
    """Sums over batches, per task and scenario.

    Args:
      tasks: T names.
      scenarios: S declared values, in the order of the scenario ids; may be empty.

    Raises:
      ConfigError: for no task, or for names given twice.
    """

    def __init__(self, tasks: Sequence[str], scenarios: Sequence[str]) -> None:
        super().__init__()
        for argument, names in (("tasks", tasks), ("scenarios", scenarios)):
            if len(set(names)) != len(names):
                raise ConfigError(
                    f"`{argument}` must be distinct names, got {list(names)}"
                )
        if not tasks:
            raise ConfigError("`tasks` must name at least one task, got none")
        # tf.Module would wrap lists for tracking; tuples stay as they are.
        self.tasks = tuple(tasks)
        self.scenarios = tuple(scenarios)
        self._rows = (*self.scenarios, unknown_name(self.scenarios))

    @property
    @abc.abstractmethod
    def state(self) -> tuple[tf.Variable, ...]:
        """The variables that hold the sums."""

    @abc.abstractmethod
    def result(self) -> dict[str, float]:
        """The defined metrics by name; an undefined one has no entry."""

    def reset(self) -> None:
        """Forgets all rows seen."""
        for variable in self.state:
            variable.assign(tf.zeros_like(variable))

    def merge(self, *others: Streaming) -> None:
        """Adds the rows that others of the same tasks, scenarios and bins have seen.

        Raises:
          ConfigError: where the others' state does not fit.
        """
        for other in others:
            if (
                type(other) is not type(self)
                or (other.tasks, other.scenarios) != (self.tasks, self.scenarios)
                or [(v.shape, v.dtype) for v in other.state]
                != [(v.shape, v.dtype) for v in self.state]
            ):
                raise ConfigError(
                    "`others` must have the same type, tasks, scenarios and bins as "
                    f"this object (tasks {self.tasks}, scenarios {self.scenarios}), "
                    f"got {type(other).__name__} of {other.tasks}, {other.scenarios}"
                )
            for mine, theirs in zip(self.state, other.state, strict=True):
                mine.assign_add(theirs)

    def _sums(self, name: str, kinds: int) -> tf.Variable:
        """Makes a float64 variable [S + 1, T, kinds] of zeros."""
        shape = (len(self._rows), len(self.tasks), kinds)
        return tf.Variable(
            tf.zeros(shape, tf.float64), trainable=False, name=f"{name}_sums"
        )

    def _cell_keys(self, rows: npt.NDArray[np.float64]) -> list[tuple[int, str]]:
        """Scenario rows to report: declared ones, and the unknown one where seen.

        Args:
          rows: [S + 1] weight of the rows seen.

        Returns:
          (row of the state, name) pairs; none where no scenario was declared.
        """
        if not self.scenarios:
            return []
        shown = list(enumerate(self.scenarios))
        if rows[-1] > 0.0:
            shown.append((len(self.scenarios), self._rows[-1]))
        return shown

    def _scenario_ids(self, scenario: Any, like: tf.Tensor) -> tf.Tensor:
        """Returns ids [B] in 0 .. S; None and every id out of range become S."""
        unknown = len(self.scenarios)
        if scenario is None:
            return tf.fill([tf.shape(like)[0]], unknown)
        ids = tf.reshape(tf.cast(scenario, tf.int32), [-1])
        return tf.where((ids >= 0) & (ids < unknown), ids, unknown)


def add_defined(result: dict[str, float], key: str, value: float) -> None:
    """Sets `result[key]` unless the value is NaN or infinite."""
    if np.isfinite(value):
        result[key] = float(value)


def mean_of(result: dict[str, float], keys: Sequence[str]) -> float:
    """Mean of those entries that are defined; NaN where none is."""
    values = [result[key] for key in keys if key in result]
    return float(np.mean(values)) if values else float("nan")


class StreamingMetrics(Streaming):
    """AUC, log-loss and PCOC of binary tasks.

    Scores go into K bins of equal width in the **logit**, clipped to [-16, 16]: with
    K = 2^14 a bin is 1/512 wide, 0.2 % of the odds, at any base rate. Bins of equal
    width in the probability would be 6e-5 wide: at a base rate of 1e-4 that is most of
    the rows in a few bins. AUC depends on the order only, so that any monotone scale
    is right; the reported bound says what ties within bins can hide.

    Counts are int64: float32 stops counting at 2^24. The histograms take
    16 (S + 1) T K bytes (6.3 MB for T = 4, S = 5), and one scatter-add of B T numbers
    into them serves all tasks and scenarios.

    `result` has `task/auc`, `task/auc_bound`, `task/logloss`, `task/pcoc`, the same as
    `task@scenario/...`, `mean/auc` (over tasks) and `mean_cell/auc` (over task x
    declared scenario; over tasks where none is declared). A cell whose logits were not
    all finite has no metrics.

    Args:
      tasks: T names, in the order of the logits' columns.
      scenarios: S declared values, in the order of the scenario ids.
      bins: K, >= 2.
      weighted: keep float64 sums of sample weights instead of int64 counts.

    Raises:
      ConfigError: for no task, repeated names or `bins` < 2.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        scenarios: Sequence[str],
        bins: int = 2**14,
        *,
        weighted: bool = False,
    ) -> None:
        super().__init__(tasks, scenarios)
        if bins < 2:
            raise ConfigError(f"`bins` must be >= 2, got {bins}")
        self.bins = bins
        self.weighted = weighted
        counts = tf.float64 if weighted else tf.int64
        cells = len(self._rows) * len(self.tasks)
        # Flat, so that one index addresses (scenario, task, label, bin).
        self._histogram = tf.Variable(
            tf.zeros([cells * 2 * bins], counts), trainable=False, name="histogram"
        )
        self._moments = self._sums("binary", 2)
        columns = len(self.tasks)
        table = [None, columns]
        self._update = tf.function(
            self._accumulate,
            input_signature=[
                tf.TensorSpec(table, tf.float32),
                tf.TensorSpec(table, tf.float32),
                tf.TensorSpec(table, tf.bool),
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec(table if weighted else [], tf.float64),
            ],
        )

    @property
    def state(self) -> tuple[tf.Variable, ...]:
        """Histograms [(S + 1) T 2 K] and sums [S + 1, T, 2] of loss and prediction."""
        return (self._histogram, self._moments)

    def update(
        self,
        logits: Any,
        labels: Any,
        mask: Any = None,
        scenario: Any = None,
        weights: Any = None,
    ) -> None:
        """Adds a batch.

        Args:
          logits: [B, T].
          labels: [B, T] of 0 and 1; NaN counts as missing.
          mask: [B, T], true where the label was observed; None for everywhere.
          scenario: [B] ids; any id outside 0 .. S - 1 counts as unknown. None for
            unknown everywhere.
          weights: [B, T] sample weights, only with `weighted=True`.

        Raises:
          ConfigError: for weights without `weighted=True`, or none with it.
        """
        if (weights is not None) != self.weighted:
            raise ConfigError(
                f"`weights` must be given exactly where weighted=True; weighted is "
                f"{self.weighted}, weights are {'not ' if weights is None else ''}given"
            )
        scores = tf.cast(logits, tf.float32)
        self._update(
            scores,
            tf.cast(labels, tf.float32),
            tf.ones_like(scores, tf.bool) if mask is None else tf.cast(mask, tf.bool),
            self._scenario_ids(scenario, scores),
            tf.cast(1.0 if weights is None else weights, tf.float64),
        )

    def _accumulate(
        self,
        logits: tf.Tensor,
        labels: tf.Tensor,
        mask: tf.Tensor,
        scenario: tf.Tensor,
        weights: tf.Tensor,
    ) -> None:
        """Traced once; shapes as in `update`, with B unknown."""
        tasks = len(self.tasks)
        mask = mask & ~tf.math.is_nan(labels)
        positive = mask & (labels > 0.5)
        scaled = (logits + LOGIT_RANGE) * (self.bins / (2.0 * LOGIT_RANGE))
        # A NaN logit may become any integer: it is clipped into range here, and makes
        # the cell's log-loss NaN below, which `result` reads as undefined.
        scaled = tf.clip_by_value(scaled, 0.0, self.bins - 1.0)
        bins = tf.clip_by_value(tf.cast(scaled, tf.int32), 0, self.bins - 1)
        cell = scenario[:, None] * tasks + tf.range(tasks)[None]  # [B, T]
        index = (cell * 2 + tf.cast(positive, tf.int32)) * self.bins + bins
        amount = tf.cast(mask, self._histogram.dtype)
        if self.weighted:
            amount = tf.where(mask, weights, 0.0)
        # The raw op: `Variable.scatter_add` reads the whole state back in eager mode.
        tf.raw_ops.ResourceScatterAdd(
            resource=self._histogram.handle,
            indices=tf.reshape(index, [-1]),
            updates=tf.reshape(amount, [-1]),
        )
        target = tf.cast(positive, tf.float32)
        loss = tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=logits)
        values = tf.stack([loss, tf.sigmoid(logits)], axis=-1)  # [B, T, 2]
        # Where, not a product: a NaN logit in an unobserved entry must not count.
        values = tf.cast(tf.where(mask[..., None], values, 0.0), tf.float64)
        if self.weighted:
            values *= tf.where(mask, weights, 0.0)[..., None]
        self._moments.assign_add(
            tf.math.unsorted_segment_sum(values, scenario, len(self._rows))
        )

    def histograms(self) -> npt.NDArray[Any]:
        """Counts [T, S + 1, 2, K]: of negatives at index 0, positives at index 1."""
        shape = (len(self._rows), len(self.tasks), 2, self.bins)
        return np.moveaxis(self._histogram.numpy().reshape(shape), 1, 0)

    def result(self) -> dict[str, float]:
        """The defined metrics by name; see the class."""
        counts = self.histograms()
        moments = np.moveaxis(self._moments.numpy(), 1, 0)  # [T, S + 1, 2]
        totals = counts.sum(axis=-1).astype(np.float64)  # [T, S + 1, 2]
        cell_auc = histogram_auc(counts[:, :, 0], counts[:, :, 1])
        pooled = counts.sum(axis=1)
        pooled_auc = histogram_auc(pooled[:, 0], pooled[:, 1])

        found: dict[str, float] = {}
        task_keys, cell_keys = [], []
        for t, task in enumerate(self.tasks):
            key = metric_key(task, "auc")
            task_keys.append(key)
            _add_binary(
                found,
                key,
                (pooled_auc.auc[t], pooled_auc.bound[t]),
                totals[t].sum(axis=0),
                moments[t].sum(axis=0),
            )
            for row, name in self._cell_keys(totals[t].sum(axis=-1)):
                key = metric_key(task, "auc", name)
                if row < len(self.scenarios):
                    cell_keys.append(key)
                _add_binary(
                    found,
                    key,
                    (cell_auc.auc[t, row], cell_auc.bound[t, row]),
                    totals[t, row],
                    moments[t, row],
                )
        add_defined(found, "mean/auc", mean_of(found, task_keys))
        cells = cell_keys if self.scenarios else task_keys
        add_defined(found, "mean_cell/auc", mean_of(found, cells))
        return found


def _add_binary(
    found: dict[str, float],
    key: str,
    auc: tuple[float, float],
    totals: npt.NDArray[np.float64],
    moments: npt.NDArray[np.float64],
) -> None:
    """Adds the metrics of one cell where they are defined.

    Args:
      found: the result so far.
      key: the cell's name of its AUC, `.../auc`.
      auc: AUC and its bound.
      totals: [2] weight of negatives and positives.
      moments: [2] sums of log-loss and prediction.
    """
    rows = float(totals.sum())
    if rows <= 0.0 or not np.all(np.isfinite(moments)):
        return
    prefix = key.removesuffix("auc")
    add_defined(found, f"{prefix}auc", auc[0])
    add_defined(found, f"{prefix}auc_bound", auc[1])
    add_defined(found, f"{prefix}logloss", float(moments[0]) / rows)
    if totals[1] > 0.0:
        add_defined(found, f"{prefix}pcoc", float(moments[1]) / float(totals[1]))
