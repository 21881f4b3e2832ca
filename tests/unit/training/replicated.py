"""Two replicas on two halves of a batch, or one on the whole: run by test_replicas.py.

    python replicated.py OUT.npz

Logical devices must be set before TensorFlow starts, hence the process of its own.
"""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

import numpy as np

from tfmtl import build
from tfmtl._keras import tf
from tfmtl.balance import (
    FAMO,
    AdaTask,
    Equal,
    GradDrop,
    GradientWeighting,
    TaskInfo,
    graddrop,
)
from tfmtl.layers.dropout import dropout_step, step_seed
from tfmtl.layers.partitioned_norm import PartitionedNorm
from tfmtl.losses import TaskLosses
from tfmtl.models.shared_bottom import SharedBottom, SharedBottomConfig
from tfmtl.optim import OptimizerGroups
from tfmtl.schema.experiment import OptimizerSpec
from tfmtl.testing import bench
from tfmtl.training.trainer import Trainer

ROWS = 32
STEPS = 2


class EqualProjections(GradientWeighting):
    """M^+ n / (1 . M^+ n): weights that only the whole batch's gradients have."""

    def solve(self, gramian: Any, chosen: Any, group: int, stats: Any) -> Any:
        norms = tf.sqrt(tf.linalg.diag_part(gramian))
        raw = tf.linalg.matvec(tf.linalg.pinv(gramian), norms)
        return raw / tf.reduce_sum(raw)


CASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "equal": (Equal, {}, {"weight_decay": 0.1, "clip_norm": 0.5}),
    "full": (EqualProjections, {"gradients": "full", "probe": "shared+embedding"}, {}),
    "dense": (EqualProjections, {}, {}),  # tables under a condition
    "representation": (EqualProjections, {"gradients": "representation"}, {}),
    "famo": (FAMO, {}, {}),
    "graddrop": (GradDrop, {}, {}),
    "adatask": (AdaTask, {"epsilon": 1e-3}, {}),
}
"""Name to balancer, its settings, and settings of the optimizer."""


def batch() -> Any:
    """2 * ROWS rows with every label, so that both halves count the same."""
    found = next(iter(bench._reader()[0].epoch()))
    labels = np.nan_to_num(found.labels.numpy())
    return found._replace(labels=tf.constant(labels), mask=tf.ones_like(found.mask))


def trainer_of(case: str) -> Trainer:
    """A new model and its trainer, in the strategy's scope that is entered."""
    kind, config, spec = CASES[case]
    manifest = bench._reader()[0].manifest
    # Many units, of which the halves of a batch drop different ones.
    units = 32 if kind is GradDrop else 4
    settings = SharedBottomConfig(bottom_units=[units], tower_units=[3])
    model = SharedBottom(manifest, settings, seed=3, name="model")
    model(build.empty_features(manifest))
    return Trainer(
        model,
        TaskLosses(model.tasks, {t.name: t.name for t in model.tasks}),
        kind(TaskInfo(bench.NAMES), kind.Config(**config)),
        OptimizerGroups(
            {"default": OptimizerSpec(class_name="SGD", learning_rate=0.1, **spec)},
            model.variable_groups(),
            10,
        ),
    )


def rows(whole: Any, replica: Any, parts: int) -> Any:
    """A replica's part of a batch."""

    def part(values: Any) -> Any:
        cut = tf.reshape(values, [parts, -1, *values.shape[1:]])
        return tf.gather(cut, replica)

    return tf.nest.map_structure(part, whole)


def alone(case: str, whole: Any) -> tuple[Trainer, Any]:
    """STEPS steps of one replica; the sums of the first."""
    trainer = trainer_of(case)
    sums = [trainer.train_step(whole) for _ in range(STEPS)]
    return trainer, sums[0]


def together(strategy: Any, case: str, whole: Any) -> tuple[Trainer, Any]:
    """The same of two replicas."""
    with strategy.scope():
        trainer = trainer_of(case)

    def replica() -> Any:
        context = tf.distribute.get_replica_context()
        own = rows(whole, context.replica_id_in_sync_group, 2)
        return trainer.train_step(own)

    step = tf.function(lambda: strategy.run(replica), autograph=False)
    sums = [step() for _ in range(STEPS)]
    return trainer, sums[0]


def layers(strategy: Any) -> dict[str, np.ndarray]:
    """What layers that draw or that keep moments make of two replicas."""
    with strategy.scope():
        norm = PartitionedNorm(["feed"], rho=0.5, min_rows=2)
        norm.build([None, 2])
    whole = tf.constant(np.random.default_rng(0).normal(size=(8, 2)), tf.float32)

    def replica() -> Any:
        context = tf.distribute.get_replica_context()
        own = rows(whole, context.replica_id_in_sync_group, 2)
        norm(own, tf.zeros([4], tf.int32), training=True)
        with dropout_step(tf.constant(5, tf.int64)):
            return step_seed(3)

    found = tf.function(lambda: strategy.run(replica), autograph=False)()
    return {
        "seeds": np.stack([v.numpy() for v in found.values]),
        "rows": whole.numpy(),
        "moving": norm.moving_mean.numpy(),
        "each": np.stack([v.numpy() for v in norm.moving_mean.values]),
    }


def main(path: str) -> None:
    """Writes variables, weights and losses of all cases."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    # One for all: a second would number its exchanges as the first did.
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    whole, out = batch(), layers(strategy)
    for case in CASES:
        trainer, sums = alone(case, whole)
        for v in trainer.model.trainable_variables:
            out[f"{case}|one|{v.name}"] = v.numpy()
        out[f"{case}|one-weights"] = sums.weights.numpy()
        out[f"{case}|one-losses"] = sums.losses.numpy()
        trainer, sums = together(strategy, case, whole)
        for v in trainer.model.trainable_variables:
            for r, of_replica in enumerate(v.values):
                out[f"{case}|replica {r}|{v.name}"] = of_replica.numpy()
        for r in range(2):
            out[f"{case}|weights {r}"] = sums.weights.values[r].numpy()
            out[f"{case}|losses {r}"] = sums.losses.values[r].numpy()
        out[f"{case}|steps"] = np.array([s.numpy() for s in trainer.model.step.values])
    with mock.patch.object(graddrop, "_over_replicas", list):
        trainer, _ = together(strategy, "graddrop", whole)
    for v in trainer.model.trainable_variables:
        out[f"own masks|{v.name}"] = v.values[0].numpy()
    for half in range(2):
        _, sums = alone("full", rows(whole, half, 2))
        out[f"half {half}"] = sums.weights.numpy()
    np.savez(path, **out)


if __name__ == "__main__":
    main(sys.argv[1])
