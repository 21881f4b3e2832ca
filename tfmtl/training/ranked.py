"""Streaming metrics of a split, and one metric of the order inside its lists."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.data.damage import damage_named
from tfmtl.data.read import Batch, Reader
from tfmtl.losses.targets import targets
from tfmtl.losses.units import to_logit
from tfmtl.metrics.lists import find_places, gains, make_lists
from tfmtl.metrics.ranking import mean_over_lists, per_list
from tfmtl.models.base import MultiTaskModel
from tfmtl.schema.evaluation import RankingMetric, RankingSpec
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.task import outputs_of
from tfmtl.training.evaluation import SplitEvaluator


class RankedEvaluator(SplitEvaluator):
    """A `SplitEvaluator` that knows a monitor such as `click@feed/ndcg@10`, too.

    Lists cross batches, so the scores of a split are kept and ordered at its end: a
    second pass over the split, and as many rows of a few numbers in memory.

    Args:
        model: The model.
        reader: Of the split, unshuffled, with keys.
        experiment: Whose monitor is a metric of the order inside lists.
    """

    def __init__(
        self, model: MultiTaskModel, reader: Reader, experiment: Experiment
    ) -> None:
        super().__init__(model, reader)
        self._monitor = experiment.training.monitor
        subject, _, metric = self._monitor.rpartition("/")
        self._output, _, self._scenario = subject.partition("@")
        parsed = RankingMetric.parse(metric)
        self._spec = experiment.evaluation.ranking or RankingSpec()
        key = self._spec.key(experiment.dataset)
        assert parsed is not None and key is not None  # the experiment was checked
        self._metric, self._key = parsed, key
        self._collect = tf.function(self._columns, autograph=False)

    def __call__(self) -> dict[str, float]:
        """As `SplitEvaluator`, with the monitor; without it where it is undefined."""
        result = super().__call__()
        value = self._ranked()
        return result | ({self._monitor: value} if math.isfinite(value) else {})

    def _ranked(self) -> float:
        with damage_named(self.reader):
            parts = [
                {k: v.numpy() for k, v in self._collect(batch).items()}
                for batch in self.reader.epoch()
            ]
        if not parts:
            return math.nan
        rows = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        used = rows["mask"]
        if self._scenario:
            values = self.model.manifest.dataset.scenario_values
            used = used & (rows["scenario"] == values.index(self._scenario))
        task = outputs_of(self.model.tasks)[self._output]
        label = rows["label"][used].astype(np.float64)
        if not len(label) or label.min() < 0.0:
            return math.nan
        lists = make_lists(
            gains(label, self._spec.gain.get(task.name, "linear")),
            rows["list"][used],
            rows["value"][used] if "value" in rows else None,
        )
        places = find_places(lists, rows["score"][used])
        values_of_lists = per_list(lists, places, self._metric.name, self._metric.at)
        return mean_over_lists(values_of_lists, self._spec.empty)

    def _columns(self, batch: Batch) -> dict[str, Any]:
        """What the metric needs of a batch, [B] each.

        Logits order rows as probabilities do. A loss of several outputs a row has its
        score in what they mean.
        """
        outputs = self.model(batch.features, training=False)
        score = self._finish(outputs, batch.features)[self._output]
        task = self._outputs[self._output]
        if task.type == "binary":
            score = to_logit(task, score)
        else:
            score = self._in_unit(self._output, score)
        compared = targets(self.model.tasks, batch.labels, batch.mask, batch.weights)
        target = compared[self._output]
        zeros = tf.zeros_like(batch.labels[:, 0], tf.int32)
        columns = {
            "score": score,
            "label": target.labels,
            "mask": target.mask,
            "list": batch.keys[self._key],
            "scenario": batch.features.get("scenario", zeros),
        }
        if self._spec.value is not None:
            value = compared[self._spec.value]
            columns["value"] = tf.where(value.mask, value.labels, float("nan"))
        return columns
