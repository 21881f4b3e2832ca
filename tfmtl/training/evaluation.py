"""A model over a split: streaming metrics, or every prediction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.calibration import Finish
from tfmtl.data.damage import damage_named
from tfmtl.data.read import Batch, Reader
from tfmtl.errors import DataError
from tfmtl.losses.targets import Target, targets
from tfmtl.losses.units import to_logit, to_unit
from tfmtl.metrics.streaming import StreamingMetrics, mean_of
from tfmtl.metrics.streaming_values import StreamingMulticlass, StreamingRegression
from tfmtl.models.base import MultiTaskModel
from tfmtl.schema.task import outputs_of
from tfmtl.training.monitor import mean_members
from tfmtl.training.smearing import SmearingEstimator


class SplitEvaluator:
    """Streaming metrics of all outputs over a split.

    Args:
        model: The model.
        reader: Of the split, unshuffled.
    """

    def __init__(self, model: MultiTaskModel, reader: Reader) -> None:
        self.model = model
        self.reader = reader
        self._finish = Finish(model.manifest)
        dataset = model.manifest.dataset
        self._outputs = outputs_of(model.tasks)
        self._names = {
            kind: tuple(n for n, t in self._outputs.items() if t.type == kind)
            for kind in ("binary", "regression", "multiclass")
        }
        values = dataset.scenario_values
        self._weighted = {
            kind: any(self._outputs[n].weight for n in names)
            for kind, names in self._names.items()
        }
        self._metrics: dict[str, Any] = {}
        if self._names["binary"]:
            self._metrics["binary"] = StreamingMetrics(
                self._names["binary"], values, weighted=self._weighted["binary"]
            )
        if self._names["regression"]:
            self._metrics["regression"] = StreamingRegression(
                self._names["regression"], values
            )
        if self._names["multiclass"]:
            self._metrics["multiclass"] = StreamingMulticlass(
                {n: self._outputs[n].classes or 2 for n in self._names["multiclass"]},
                values,
            )
        self._smear = SmearingEstimator(model, reader) if model.smearing else None
        self._run = tf.function(self._update_all, autograph=False)

    def __call__(self) -> dict[str, float]:
        """Metrics of the split now, by `output/metric` and `output@scenario/metric`.

        A task's sample weights enter its metrics, as they enter those of
        `metrics.report`. `mean/...` and `mean_cell/...` are over the main tasks' own
        outputs, and never over two types of tasks: see `monitor.mean_members`.

        Where tasks have `smearing`, their factors are first estimated on the split, in
        a pass of their own, and belong to the model from then on.
        """
        if self._smear is not None:
            self._smear()
        for metric in self._metrics.values():
            metric.reset()
        count = tf.constant(self.reader.batches_per_epoch, tf.int64)
        with damage_named(self.reader):
            self._run(iter(self.reader.epoch()), count)
        result: dict[str, float] = {}
        for metric in self._metrics.values():
            result.update(metric.result())
        return self._with_means(result)

    def _with_means(self, result: dict[str, float]) -> dict[str, float]:
        result = {k: v for k, v in result.items() if not k.startswith("mean")}
        scenarios = self.model.manifest.dataset.scenario_values
        means = {
            name: mean_of(result, members)
            for name, members in mean_members(self.model.tasks, scenarios).items()
        }
        return result | {k: v for k, v in means.items() if np.isfinite(v)}

    def _update_all(self, iterator: Any, count: Any) -> None:
        """All batches in one graph: the host is asked once a split."""

        def update(done: Any) -> tuple[Any]:
            self._update(next(iterator))
            return (done + 1,)

        tf.while_loop(
            lambda done: done < count,
            update,
            (tf.constant(0, tf.int64),),
            parallel_iterations=1,
        )

    def _update(self, batch: Batch) -> None:
        outputs = self.model(batch.features, training=False)
        outputs = self._finish(outputs, batch.features)
        compared = targets(self.model.tasks, batch.labels, batch.mask, batch.weights)
        scenario = batch.features.get("scenario", tf.zeros_like(batch.labels[:, 0]))
        scenario = tf.cast(scenario, tf.int32)
        for kind, metric in self._metrics.items():
            names = self._names[kind]
            labels = tf.stack([compared[n].labels for n in names], axis=1)
            mask = tf.stack([compared[n].mask for n in names], axis=1)
            weights = None
            if self._weighted[kind]:
                weights = tf.stack([compared[n].weights for n in names], axis=1)
            if kind == "binary":
                logits = [to_logit(self._outputs[n], outputs[n]) for n in names]
                values = tf.stack(logits, axis=1)
            elif kind == "regression":
                found = [self._in_unit(n, outputs[n]) for n in names]
                values = tf.stack(found, axis=1)
            else:
                values = {n: to_logit(self._outputs[n], outputs[n]) for n in names}
            metric.update(values, labels, mask, scenario, weights)

    def _in_unit(self, name: str, outputs: Any) -> Any:
        task = self._outputs[name]
        return to_unit(task, outputs, self.model.smearing.get(task.name))


def predictions(
    model: MultiTaskModel,
    reader: Reader,
    finish: Finish | None = None,
    *,
    logits: bool = False,
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]], np.ndarray, Any]:
    """Every prediction of a split.

    Args:
        model: The model.
        reader: Of the split, unshuffled, with keys.
        finish: Corrects the logits; sampling alone is corrected where None.
        logits: Answer with the corrected logits instead, of tasks that have them: a
            regression stays in its unit.

    Returns:
        Output to [N] (or [N, C]) in the label's unit; output to labels (NaN outside the
        population) and weights, [N] each; scenario ids [N]; key to [N].
    """
    kept: dict[str, list[np.ndarray]] = {}
    finish = finish or Finish(model.manifest)
    for columns in _predicted(model, reader, finish, logits):
        for name, values in columns.items():
            kept.setdefault(name, []).append(values)
    columns = {name: np.concatenate(parts) for name, parts in kept.items()}
    names = outputs_of(model.tasks)
    return (
        {n: columns[f"prediction:{n}"] for n in names},
        {
            n: {"labels": columns[f"label:{n}"], "weights": columns[f"weight:{n}"]}
            for n in names
        },
        columns["scenario"],
        {k.removeprefix("key:"): v for k, v in columns.items() if k.startswith("key:")},
    )


def _predicted(
    model: MultiTaskModel, reader: Reader, finish: Finish, logits: bool
) -> Iterator[dict[str, Any]]:
    names = outputs_of(model.tasks)

    @tf.function(autograph=False)
    def predict(batch: Batch) -> dict[str, Any]:
        outputs = finish(model(batch.features, training=False), batch.features)
        compared = targets(model.tasks, batch.labels, batch.mask, batch.weights)
        columns: dict[str, Any] = {}
        for name, task in names.items():
            target: Target = compared[name]
            if logits and task.type != "regression":
                found = to_logit(task, outputs[name])
            else:
                factor = model.smearing.get(task.name)
                found = to_unit(task, outputs[name], factor)
            columns[f"prediction:{name}"] = found
            columns[f"label:{name}"] = tf.where(
                target.mask, target.labels, float("nan")
            )
            columns[f"weight:{name}"] = target.weights
        zeros = tf.zeros(tf.shape(batch.labels)[0], tf.int32)
        columns["scenario"] = batch.features.get("scenario", zeros)
        columns.update({f"key:{k}": v for k, v in batch.keys.items()})
        return columns

    rows = 0
    with damage_named(reader):
        for batch in reader.epoch():
            rows += int(tf.shape(batch.labels)[0])
            yield {k: v.numpy() for k, v in predict(batch).items()}
    if rows != reader.rows:
        raise DataError(
            f"the split {'+'.join(reader.splits)} of {str(reader.directory)!r} has "
            f"{rows} rows in its record files, but {reader.rows} in dataset.json"
        )
