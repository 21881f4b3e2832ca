"""Duan's smearing factors of a model, from the residuals of a split."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf
from tfmtl.data.damage import damage_named
from tfmtl.data.read import Batch, Reader
from tfmtl.losses.targets import targets
from tfmtl.losses.value import smearing_sums
from tfmtl.models.base import MultiTaskModel


class SmearingEstimator:
    """Sets `model.smearing` to the factors that a split's residuals say.

    The split is the validation one: the residuals of rows that the model was fitted to
    are too small. The factors are variables of the model, so that the checkpoint of the
    best step, evaluation, scores and export have those of that step. One factor holds
    for all rows of a task: its residuals are taken not to depend on the row.

    Args:
        model: The model; has a task with `smearing`.
        reader: Of the split, unshuffled.
    """

    def __init__(self, model: MultiTaskModel, reader: Reader) -> None:
        self.model = model
        self.reader = reader
        self._tasks = [t for t in model.tasks if t.name in model.smearing]
        self._run = tf.function(self._sums, autograph=False)

    def __call__(self) -> dict[str, float]:
        """One pass over the split.

        Returns:
            Task to its new factor; tasks without a label in the split keep theirs.
        """
        count = tf.constant(self.reader.batches_per_epoch, tf.int64)
        with damage_named(self.reader):
            sums = self._run(iter(self.reader.epoch()), count).numpy()  # [K, 2]
        found = {}
        for task, (total, weight) in zip(self._tasks, sums):
            if weight > 0:
                found[task.name] = float(total / weight)
                self.model.smearing[task.name].assign(found[task.name])
        return found

    def _sums(self, iterator: Any, count: Any) -> Any:
        def add(done: Any, sums: Any) -> tuple[Any, Any]:
            return done + 1, sums + self._of_batch(next(iterator))

        start = (tf.constant(0, tf.int64), tf.zeros([len(self._tasks), 2], tf.float64))
        found = tf.while_loop(
            lambda done, _: done < count, add, start, parallel_iterations=1
        )
        return found[1]

    def _of_batch(self, batch: Batch) -> Any:
        outputs = self.model(batch.features, training=False)
        compared = targets(self.model.tasks, batch.labels, batch.mask, batch.weights)
        sums = []
        for task in self._tasks:
            target = compared[task.name]
            weights = tf.where(target.mask, target.weights, 0.0)
            sums.append(smearing_sums(outputs[task.name], target.labels, weights))
        return tf.stack(sums)
