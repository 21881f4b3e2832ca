"""The one training step of the package."""

from __future__ import annotations

from typing import Any, NamedTuple

from tfmtl._keras import tf
from tfmtl.balance.base import LossWeighting, TaskStats
from tfmtl.data.read import Batch
from tfmtl.losses import Context, TaskLosses
from tfmtl.models.base import MultiTaskModel
from tfmtl.optim.groups import OptimizerGroups


class StepSums(NamedTuple):
    """Sums over the steps of a chunk.

    Attributes:
        steps: Scalar int64, steps done.
        losses: [T] sum of each task's loss over the steps where it had a label.
        present: [T] number of those steps.
        weights: [T] sum of the balancer's weights.
        penalty: Scalar, sum of the regularisation and auxiliary losses.
        finite: Scalar bool, whether every loss was a number.
    """

    steps: Any
    losses: Any
    present: Any
    weights: Any
    penalty: Any
    finite: Any


def forward(model: MultiTaskModel, losses: TaskLosses, batch: Batch) -> Any:
    """One forward pass in training mode.

    Args:
        model: The model.
        losses: Of its tasks.
        batch: B rows.

    Returns:
        Losses [T], which tasks have a label [T] bool, and the scalar sum of what is
        added to them: regularisation, and the architecture's own losses.
    """
    logits = model(batch.features, training=True)
    context = Context(
        batch.keys.get("group"), batch.features.get("scenario"), batch.teachers
    )
    read = (batch.labels, batch.mask, batch.weights, context)
    task_losses, present = losses(logits, *read)
    extra = model.extra_losses()
    added = losses.extra({k: v.task for k, v in extra.items()}, logits, *read)
    penalty = tf.add_n(
        [
            tf.zeros([]),
            *model.losses,
            *model.aux_losses().values(),
            *(extra[k].weight * v for k, v in added.items()),
        ]
    )
    return task_losses, present, penalty


class Trainer(tf.Module):
    """A model, its losses, a balancer and optimizers, joined in one step.

    Steps run in chunks inside one graph, so that Python and the host are asked once a
    chunk; a loss that is not finite ends the chunk.

    Args:
        model: Has been called once, so that its variables exist.
        losses: Of its tasks.
        balancer: Weighs them.
        optimizers: Of its variable groups.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        losses: TaskLosses,
        balancer: LossWeighting,
        optimizers: OptimizerGroups,
    ) -> None:
        super().__init__(name="trainer")
        self.model = model
        self.losses = losses
        self.balancer = balancer
        self.optimizers = optimizers
        self.train_chunk = tf.function(self._train_chunk, autograph=False)

    def all_finite(self) -> bool:
        """Whether every variable is a number: a loss may still be one when a gradient
        no longer was."""
        finite = [
            tf.reduce_all(tf.math.is_finite(v)) for v in self.model.trainable_variables
        ]
        return bool(tf.reduce_all(finite))

    def train_step(self, batch: Batch) -> StepSums:
        """One update of all variables.

            w = balancer(L),   total = sum_t w_t L_t + penalties

        Args:
            batch: B rows.

        Returns:
            The sums of this one step.
        """
        with tf.GradientTape() as tape:
            losses, present, penalty = forward(self.model, self.losses, batch)
            weights = self.balancer.weigh(TaskStats(losses, present, self.model.step))
            total = tf.reduce_sum(tf.stop_gradient(weights) * losses) + penalty
        variables = self.optimizers.variables_in_order
        self.optimizers.apply(tape.gradient(total, variables))
        self.model.step.assign_add(1)
        return StepSums(
            steps=tf.constant(1, tf.int64),
            losses=losses,
            present=tf.cast(present, tf.float32),
            weights=weights,
            penalty=penalty,
            finite=tf.math.is_finite(total),
        )

    def _train_chunk(self, iterator: Any, steps: Any) -> StepSums:
        """Up to `steps` updates with the iterator's next batches."""
        count = len(self.model.tasks)
        zeros = tf.zeros([count])

        def going(sums: StepSums) -> Any:
            return tf.logical_and(sums.steps < steps, sums.finite)

        def step(sums: StepSums) -> tuple[StepSums]:
            one = self.train_step(next(iterator))
            added = [a + b for a, b in zip(sums[:-1], one[:-1])]
            return (StepSums._make([*added, one.finite]),)

        start = StepSums(
            tf.constant(0, tf.int64),
            zeros,
            zeros,
            zeros,
            tf.zeros([]),
            tf.constant(True),
        )
        sums: StepSums
        (sums,) = tf.while_loop(going, step, (start,), parallel_iterations=1)
        return sums
