"""AdaTask: an adaptive optimizer whose memory of squared gradients is each task's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.balance.base import BalancerConfig, GradientCombination, TaskInfo, TaskStats
from tfmtl.balance.gram import by_row
from tfmtl.balance.state import put

_SLOTS = {"adam": ("mean", "square"), "adagrad": ("square",), "rmsprop": ("square",)}
_USAGE_DECAY = 0.99
"""Of the diagnostic `updates`."""


class AdaTaskConfig(BalancerConfig):
    """Settings of AdaTask."""

    kind: Literal["adam", "adagrad", "rmsprop"] = "adam"
    """The rule that makes a task's gradient its step."""
    divide: bool = False
    """Divide the steps by T: alone, each task moves a variable as far as the plain
    optimizer does, so that together they can go T times as far."""
    beta_1: float = Field(default=0.9, ge=0, lt=1)
    """Adam's decay of the mean."""
    beta_2: float = Field(default=0.999, ge=0, lt=1)
    """Adam's and RMSprop's decay of the squares."""
    epsilon: float = Field(default=1e-7, gt=0)
    """Added to the root of the squares."""
    initial_accumulator: float = Field(default=0.0, ge=0)
    """Adagrad's; above 0 the step depends on the losses' scales."""
    embedding: Literal["balanced", "sum"] = "balanced"
    """What moves embedding tables: AdaTask too, with T sets of slots of the tables'
    size, or the plain sum of gradients and their own optimizer."""


def task_steps(
    gradients: Any, slots: Sequence[Any], counts: Any, config: AdaTaskConfig
) -> tuple[Any, list[Any]]:
    """Each task's step, and its slots after it.

        adam      m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2
                  u = m / (1 - b1^k) / (sqrt(v / (1 - b2^k)) + eps)
        adagrad   v <- v + g^2,                  u = g / (sqrt(v) + eps)
        rmsprop   v <- b2 v + (1 - b2) g^2,      u = g / (sqrt(v) + eps)

    Args:
        gradients: [T, ...].
        slots: m and v of adam, v of the others; each [T, ...].
        counts: [T, 1 ...], k: steps of the task, this one included.
        config: Kind, decays, epsilon.
    """
    b1, b2 = config.beta_1, config.beta_2
    if config.kind == "adagrad":
        square = slots[0] + tf.square(gradients)
        return gradients / (tf.sqrt(square) + config.epsilon), [square]
    square = b2 * slots[-1] + (1.0 - b2) * tf.square(gradients)
    if config.kind == "rmsprop":
        return gradients / (tf.sqrt(square) + config.epsilon), [square]
    mean = b1 * slots[0] + (1.0 - b1) * gradients
    corrected = square / (1.0 - tf.pow(b2, counts))
    step = mean / (1.0 - tf.pow(b1, counts)) / (tf.sqrt(corrected) + config.epsilon)
    return step, [mean, square]


class AdaTask(GradientCombination):
    """Shared variables move by the sum of the tasks' own adaptive steps.

        theta <- theta - rate sum_t u_t,    u_t by the task's own slots

    of Adam, Adagrad or RMSprop, so that no task's gradients, large or frequent, set the
    scale for the others: u_t does not change when L_t is multiplied by a constant. The
    rate, its schedule, `clip_norm` (of the steps alone) and `weight_decay` are those of
    the variables' pattern in `optimizers`; its class is not used for them. Other
    variables have their ordinary optimizer.

    Slots of embedding rows move with the rows of the batch, as LazyAdam's. An absent
    task keeps its slots and its count of steps. Gradients of penalties are given to the
    present tasks in equal parts, since they belong before the division, not after. In a
    step without any label all rests, penalties too: only slots of an absent task could
    turn them into a step.

    `updates` holds the paper's diagnostic AU_t, the moving average of a task's squared
    step, summed over the variables: who it is that moves them.
    """

    Config = AdaTaskConfig
    citation = (
        "E. Yang et al., AdaTask: A Task-aware Adaptive Learning Rate Approach to "
        "Multi-task Learning, AAAI 2023, arXiv 2211.15055"
    )
    replaces_optimizer = True
    config: AdaTaskConfig

    def __init__(self, tasks: TaskInfo, config: AdaTaskConfig) -> None:
        super().__init__(tasks, config)
        self.counts = self.state("counts", tf.zeros([self.count]))
        self.updates = self.state("updates", tf.zeros([self.count]))
        self.slots: list[list[Any]] = []

    def prepare(self, variables: Sequence[Any], tables: Sequence[bool]) -> None:
        adagrad = self.config.kind == "adagrad"
        start = self.config.initial_accumulator if adagrad else 0.0
        self.slots = [
            [
                self.state(
                    f"{v.name.partition(':')[0]}/{slot}",
                    tf.fill([self.count, *v.shape], tf.constant(start, tf.float32)),
                )
                for slot in _SLOTS[self.config.kind]
            ]
            for v in variables
        ]

    def combine(self, stats: TaskStats, gradients: Sequence[Sequence[Any]]) -> Any:
        present = tf.cast(stats.present, tf.float32)
        self.counts.assign_add(present)
        counts = tf.maximum(tf.convert_to_tensor(self.counts), 1.0)
        steps: list[Any] = []
        sizes = [tf.zeros([self.count])]
        for per_task, slots in zip(gradients, self.slots):
            if all(g is None for g in per_task):
                steps.append(None)
                continue
            move = self._rows if _is_sparse(per_task) else self._dense
            found, size = move(per_task, slots, counts, stats.present)
            steps.append(found)
            sizes.append(size)
        mean = tf.convert_to_tensor(self.updates)
        moved = _USAGE_DECAY * mean + (1.0 - _USAGE_DECAY) * tf.add_n(sizes)
        self.updates.assign(tf.where(stats.present, moved, mean))
        return steps, present

    def _dense(
        self, gradients: Sequence[Any], slots: Sequence[Any], counts: Any, present: Any
    ) -> tuple[Any, Any]:
        shape = next(g for g in gradients if g is not None)
        stacked = tf.stack(
            [tf.zeros_like(shape) if g is None else g for g in gradients]
        )
        old = [tf.convert_to_tensor(s) for s in slots]
        steps, new = self._moved(stacked, old, counts, present)
        for slot, value in zip(slots, new):
            slot.assign(value)
        return tf.reduce_sum(steps, axis=0), _squares(steps)

    def _rows(
        self, gradients: Sequence[Any], slots: Sequence[Any], counts: Any, present: Any
    ) -> tuple[Any, Any]:
        rows, stacked = by_row(gradients)  # [U], [T, U, d]
        tasks = tf.range(self.count, dtype=rows.dtype)
        places = tf.stack(tf.meshgrid(tasks, rows, indexing="ij"), axis=-1)  # [T, U, 2]
        old = [
            tf.raw_ops.ResourceGatherNd(
                resource=s.handle, indices=places, dtype=tf.float32
            )
            for s in slots
        ]
        steps, new = self._moved(stacked, old, counts, present)
        for slot, value in zip(slots, new):
            put(slot, places, value)
        sparse = next(g for g in gradients if isinstance(g, tf.IndexedSlices))
        summed = tf.reduce_sum(steps, axis=0)
        return tf.IndexedSlices(summed, rows, sparse.dense_shape), _squares(steps)

    def _moved(
        self, gradients: Any, slots: Sequence[Any], counts: Any, present: Any
    ) -> tuple[Any, list[Any]]:
        """Steps and slots [T, ...]; absent tasks stand still."""
        wide = [self.count] + [1] * (gradients.shape.rank - 1)
        here = tf.reshape(present, wide)
        steps, new = task_steps(
            tf.cast(gradients, tf.float32),
            slots,
            tf.reshape(counts, wide),
            self.config,
        )
        if self.config.divide:
            steps /= self.count
        kept = [tf.where(here, n, o) for n, o in zip(new, slots)]
        return tf.where(here, steps, 0.0), kept


def _is_sparse(gradients: Sequence[Any]) -> bool:
    return any(isinstance(g, tf.IndexedSlices) for g in gradients)


def _squares(steps: Any) -> Any:
    """[T, ...] -> [T]."""
    flat = tf.reshape(steps, [steps.shape[0], -1])
    return tf.reduce_sum(tf.square(flat), axis=1)
