"""The one training step of the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tfmtl._keras import tf
from tfmtl.balance.base import Balancer, TaskStats
from tfmtl.calibration import correct_batch
from tfmtl.data.read import Batch
from tfmtl.errors import ConfigError
from tfmtl.layers.statistics import frozen_statistics
from tfmtl.losses import Context, TaskLosses
from tfmtl.models.base import MultiTaskModel
from tfmtl.optim.groups import OptimizerGroups
from tfmtl.training.between import between_solutions, solves_each
from tfmtl.training.control import TaskControl
from tfmtl.training.gradients import Forward, Found
from tfmtl.training.reach import controlled_gradients, within_reach
from tfmtl.training.replicas import any_over_replicas, mean_over_replicas
from tfmtl.training.shared import SharedVariables


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
    *found, _ = _forward(model, losses, batch)
    return tuple(found)


def _forward(
    model: MultiTaskModel,
    losses: TaskLosses,
    batch: Batch,
    active: Mapping[str, Any] | None = None,
) -> Any:
    """As `forward`, and the model's cut.

    Args:
        model: The model.
        losses: Of its tasks.
        batch: B rows.
        active: Task to whether it takes part: what an architecture adds by its label
            counts only where it does. All do where None.
    """
    logits = model(batch.features, training=True)
    # What the model keeps of its last call is read before losses may speak to other
    # replicas: while this one waits, those call the same model.
    cut, extra = model.cut(), model.extra_losses()
    own = [*model.losses, *model.aux_losses().values()]
    logits, compared = correct_batch(model, logits, batch)
    context = Context(
        batch.keys.get("group"), batch.features.get("scenario"), batch.teachers
    )
    read = (*compared, context)
    task_losses, present = losses(logits, *read)
    added = losses.extra({k: v.task for k, v in extra.items()}, logits, *read)
    if active is not None:
        added = {
            k: tf.where(active[extra[k].task], v, tf.zeros_like(v))
            for k, v in added.items()
        }
    weighted = [extra[k].weight * v for k, v in added.items()]
    penalty = tf.add_n([tf.zeros([]), *own, *weighted])
    return task_losses, present, penalty, cut


class Trainer(tf.Module):
    """A model, its losses, a balancer and optimizers, joined in one step.

    Steps run in chunks inside one graph, so that Python and the host are asked once a
    chunk; a loss that is not finite ends the chunk.

    Under a distribution strategy, in whose scope model, balancer and optimizers were
    made, it is `train_step` that each replica runs, inside one `tf.function`:

        step = tf.function(lambda b: strategy.run(trainer.train_step, args=(b,)))

    All replicas then take the step of their rows together.

    Args:
        model: Has been called once, so that its variables exist.
        losses: Of its tasks.
        balancer: Weighs them.
        optimizers: Of its variable groups.
        control: Who takes part, and how far; all do, wholly, where None.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        losses: TaskLosses,
        balancer: Balancer,
        optimizers: OptimizerGroups,
        control: TaskControl | None = None,
    ) -> None:
        super().__init__(name="trainer")
        self.model = model
        self.losses = losses
        self.balancer = balancer
        self.optimizers = optimizers
        groups = model.variable_groups()
        names = [t.name for t in model.tasks]
        self.control = control or TaskControl(names, {}, groups)
        balanced = getattr(balancer.config, "groups", "shared")
        self.variables_shared = SharedVariables(
            groups,
            optimizers.variables_in_order,
            scenarios=balanced == "shared+scenario",
        )
        self._gradients = controlled_gradients(
            balancer, self.variables_shared, self.control
        )
        if getattr(balancer, "replaces_optimizer", False):
            shared, config = self.variables_shared.shared, balancer.config
            places = self.variables_shared.balanced(config)
            optimizers.follow([shared[i] for i in places])
        self._every = solves_each(balancer)
        self._last = self._last_weights()
        self.train_chunk = tf.function(self._train_chunk, autograph=False)
        self._eager_step = tf.function(self.train_step, autograph=False)

    def _last_weights(self) -> Any:
        """How a step between two solutions is differentiated; None where all solve."""
        if self._every == 1:
            return None
        config: Any = self.balancer.config
        groups = len(self.variables_shared.groups(config))
        # Attribute of the balancer, so that checkpoints hold it.
        self.balancer.last_weights = self.balancer.state(
            "last_weights", tf.ones([groups, self.balancer.count])
        )
        last = between_solutions(
            self.balancer, self.variables_shared, self.balancer.last_weights
        )
        return within_reach(last, self.control)

    def all_finite(self) -> bool:
        """Whether every variable is a number: a loss may still be one when a gradient
        no longer was."""
        finite = [
            tf.reduce_all(tf.math.is_finite(v)) for v in self.model.trainable_variables
        ]
        return bool(tf.reduce_all(finite))

    def train_step(self, batch: Batch) -> StepSums:
        """One update of all variables: forward, the balancer's gradients, optimizers.

        Args:
            batch: B rows.

        Returns:
            The sums of this one step.
        """
        distributed = tf.distribute.has_strategy()
        if distributed and (tf.executing_eagerly() or self._last is not None):
            raise ConfigError(
                "under a distribution strategy `strategy.run(train_step)` must be "
                "inside a tf.function, and `balancer.config.every` must be 1. "
                f"Received: every={self._every}"
            )
        if tf.executing_eagerly():
            sums: StepSums = self._eager_step(batch)
            return sums
        if self._last is None:
            return self._step(batch, self._gradients)
        solving = self.model.step % self._every == 0
        chosen: StepSums = tf.cond(
            solving,
            lambda: self._step(batch, self._gradients, keep=True),
            lambda: self._step(batch, self._last),
        )
        return chosen

    def _step(self, batch: Batch, gradients: Any, keep: bool = False) -> StepSums:
        step = tf.convert_to_tensor(self.model.step)
        active = self.control.active_by_task(step)
        own, here, penalty, cut = _forward(self.model, self.losses, batch, active)
        own, here = self.control.masked(own, here, step)
        losses, total_penalty = mean_over_replicas([own, penalty])
        stats = TaskStats(losses, any_over_replicas(here), step)
        passed = Forward(tf.unstack(own), penalty, cut, stats)
        found: Found = gradients(passed)
        if keep:
            last = self.balancer.last_weights
            # A task without labels in this batch may have some in the next.
            last.assign(tf.where(found.stats.present, found.group_weights, last))
        self.optimizers.apply(found.gradients, step, active)
        if self.balancer.needs_new_losses:
            with frozen_statistics():
                after, *_ = forward(self.model, self.losses, batch)
                after, _ = self.control.masked(after, stats.present, step)
            self.balancer.after_update(found.stats, *mean_over_replicas([after]))
        self.model.step.assign_add(1)
        finite = tf.math.is_finite(tf.reduce_sum(losses) + total_penalty)
        return StepSums(
            steps=tf.constant(1, tf.int64),
            losses=losses,
            present=tf.cast(stats.present, tf.float32),
            weights=found.weights,
            penalty=total_penalty,
            finite=finite & tf.reduce_all(tf.math.is_finite(found.weights)),
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
