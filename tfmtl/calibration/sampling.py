"""Undoing negative down-sampling, in training or after it.

`tfmtl.schema.sampling` derives which outputs move, and how. With d = ln w(scenario):

    shift    s_true = s_sampled + d
    product  log p_true = log p_sampled + sum over shifted steps of
                          (log sigmoid(s_step_true) - log sigmoid(s_step_sampled))

The same two lines with -d lead from true to sampled logits. `correction: export` goes
the first way when the model is read. `correction: training` goes the second way before
the loss, so that the logits themselves are true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.data.read import Batch
from tfmtl.layers.funnel import log1mexp
from tfmtl.losses.targets import targets
from tfmtl.models.base import MultiTaskModel
from tfmtl.schema.funnel import steps_of
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.schema.sampling import SamplingSpec, effects


class SamplingCorrection:
    """The correction of one data set.

    Args:
        manifest: Of a data set with `sampling`.
        spec: Its `sampling`.
    """

    def __init__(self, manifest: DatasetManifest, spec: SamplingSpec) -> None:
        dataset = manifest.dataset
        self.kind = spec.correction
        self._tasks = dataset.tasks
        self._keep = spec.keep
        self._rates = np.array(spec.rates(dataset.scenario_values), np.float64)
        exposed = manifest.sampling.exposed if manifest.sampling else {}
        self.effects = effects(dataset.tasks, spec, exposed)
        # Importance weights of mean 1: learning rates keep their meaning.
        stats = manifest.sampling
        self._scale = stats.kept / stats.rows if stats and stats.rows else 1.0

    @classmethod
    def of(cls, manifest: DatasetManifest) -> SamplingCorrection | None:
        """The correction that a data set asks for; None where there is none to make."""
        spec = manifest.dataset.sampling
        if spec is None or spec.correction == "none":
            return None
        return cls(manifest, spec)

    def log_rates(self, scenario: Any) -> Any:
        """ln w of each row, [B] float32.

        Args:
            scenario: [B] positions of scenarios.
        """
        return tf.gather(tf.constant(np.log(self._rates), tf.float32), scenario)

    def moved(
        self,
        outputs: Mapping[str, Any],
        distance: Any,
        reaches: Callable[[str], bool] = lambda task: True,
    ) -> dict[str, Any]:
        """Logits of all outputs, those that sampling moves moved.

        Args:
            outputs: Output to [B] or [B, C].
            distance: [B], what is added to a shifted logit: ln w towards the true one.
            reaches: Whether the loss of a joint output reaches the step of this task;
                where not, no gradient leads there through its factor either.
        """
        moved = dict(outputs)
        for name, effect in self.effects.items():
            if effect == "shift":
                moved[name] = outputs[name] + distance
        for name, effect in self.effects.items():
            if effect == "product":
                moved[name] = self._product(name, outputs, moved, reaches)
        return moved

    def _product(
        self,
        task: str,
        outputs: Mapping[str, Any],
        moved: Mapping[str, Any],
        reaches: Callable[[str], bool],
    ) -> Any:
        log_p = -tf.nn.softplus(-outputs[task])
        for step in steps_of(self._tasks, task):
            output = step.conditional
            if self.effects[output] == "shift":
                before = -tf.nn.softplus(-outputs[output])
                factor = -tf.nn.softplus(-moved[output]) - before
                own = step.name == task or reaches(step.name)
                log_p += factor if own else tf.stop_gradient(factor)
        # Free estimates may have p(buy) > p(click): no probability exceeds 1.
        log_p = tf.minimum(log_p, -1e-30)
        return log_p - log1mexp(log_p)

    def importance(self, batch: Batch) -> Any:
        """Weight of each row, [B, 1]: 1 / w of a sampled row, scaled to mean 1."""
        compared = targets(self._tasks, batch.labels, batch.mask, batch.weights)
        positive = tf.stack([compared[t].labels > 0.5 for t in self._keep], axis=1)
        sure = tf.reduce_any(positive, axis=1)
        weight = tf.where(sure, 1.0, tf.exp(-self.log_rates(scenario_of(batch))))
        return (self._scale * weight)[:, tf.newaxis]


def correct_batch(
    model: MultiTaskModel, logits: Mapping[str, Any], batch: Batch
) -> tuple[Mapping[str, Any], tuple[Any, Any, Any]]:
    """What the losses of a training batch read.

    Args:
        model: Has just been called on the batch, in training mode.
        logits: Its outputs.
        batch: B rows of the training split.

    Returns:
        The logits, moved to the sampled odds under `correction: training`; and labels
        [B, T], mask [B, T] and weights [B, T], which `weights` multiplies.
    """
    correction = SamplingCorrection.of(model.manifest)
    weights = batch.weights
    if correction is not None and correction.kind == "weights":
        weights = weights * correction.importance(batch)
    if correction is not None and correction.kind == "training":
        away = -correction.log_rates(scenario_of(batch))
        moved = correction.moved(logits, away, model.reached_by_others)
        for name, extra in model.extra_losses().items():
            # An output beside the task's own is compared with the same labels.
            (task, *_) = steps_of(model.tasks, extra.task)
            if correction.effects[model.trained_output(task)] == "shift":
                moved[name] = logits[name] + away
        logits = moved
    return logits, (batch.labels, batch.mask, weights)


def scenario_of(batch: Batch) -> Any:
    """Position of each row's scenario, [B] int32; 0 where there are no scenarios."""
    return scenario_ids(batch.features, batch.labels)


def scenario_ids(features: Mapping[str, Any], like: Any) -> Any:
    """`scenario` of features, [B] int32; zeros as long as `like` without scenarios."""
    found = features.get("scenario")
    if found is None:
        return tf.zeros(tf.shape(like)[:1], tf.int32)
    return tf.cast(found, tf.int32)
