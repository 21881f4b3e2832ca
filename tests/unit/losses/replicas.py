"""Run by `test_sums.py` in a process of its own: losses on two replicas and on one.

Virtual devices must be set up before TensorFlow starts, hence the process. Prints one
JSON object.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.losses import Context, TaskLosses
from tfmtl.losses.task import over_replicas
from tfmtl.schema.task import TaskSpec

B, HALF = 12, 7  # the second replica gets 5 rows, and one group less
NORMALIZATIONS = ("observed", "batch", "weights", "sum")


def task(name: str, loss: Any, normalization: str, **changes: Any) -> TaskSpec:
    document = {"name": name, "label": "y", "loss": loss, **changes}
    return TaskSpec.model_validate({**document, "normalization": normalization})


def tasks(n: str) -> tuple[TaskSpec, ...]:
    return (
        task("bce", "bce", n),
        task("value", "ziln", n, type="regression"),
        task("kind", "ordinal", n, type="multiclass", classes=3),
        task("pairs", {"name": "bpr", "pointwise": 0.5}, n),
        # Distinct labels: ties are drawn by the place in the batch.
        task("lists", "listmle", n, type="regression"),
        task("jrc", "jrc", n),
        task("nowhere", "bce", n),
        task("there", "bce", n),
    )


def data() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    count = len(tasks("sum"))
    labels = draw.integers(0, 2, (B, count)).astype(np.float32)
    mask = draw.random((B, count)) < 0.8
    mask[:, 6] = False  # no label in any replica
    mask[:HALF, 7] = False  # labels in the second one alone
    # Rows of one group stay in one replica.
    groups = np.array([b"a"] * 4 + [b"b"] * 3 + [b"c"] * 5)
    labels[[0, 4, 7], 3:6], labels[[1, 5, 8], 3:6] = 1, 0
    labels[:, 4] = draw.permutation(B)
    return {
        "x": draw.normal(size=(B, 4)).astype(np.float32),
        "labels": labels,
        "mask": mask,
        "weights": draw.integers(1, 5, (B, count)).astype(np.float32),
        "groups": groups,
    }


def losses_and_gradients(
    losses: TaskLosses, kernels: dict[str, Any], rows: dict[str, Any]
) -> Any:
    with tf.GradientTape(persistent=True) as tape:
        outputs = {}
        for t in losses.tasks:
            made = tf.matmul(rows["x"], kernels[t.name])
            outputs[t.name] = made if t.width > 1 else made[:, 0]
        found, present = losses(
            outputs,
            rows["labels"],
            rows["mask"],
            rows["weights"],
            Context(rows["groups"]),
        )
        each = tf.unstack(found)
    gradients = [tape.gradient(v, kernels[t.name]) for v, t in zip(each, losses.tasks)]
    return found, tf.cast(present, tf.float32), gradients


def compare(normalization: str, strategy: Any) -> dict[str, Any]:
    """Largest differences between two replicas and one, of losses and gradients."""
    chosen = tasks(normalization)
    losses = TaskLosses(chosen, {t.name: t.name for t in chosen})
    rows, draw = data(), np.random.default_rng(1)
    starts = {t.name: draw.normal(size=(4, t.width)).astype("f") for t in chosen}
    plain = {k: tf.Variable(v) for k, v in starts.items()}
    whole = {k: tf.constant(v) for k, v in rows.items()}
    one, present, gradients = losses_and_gradients(losses, plain, whole)
    parts = [
        {k: tf.constant(v[s]) for k, v in rows.items()}
        for s in (slice(None, HALF), slice(HALF, None))
    ]
    with strategy.scope():
        mirrored = {k: tf.Variable(v) for k, v in starts.items()}

    def of_replica(number: Any) -> Any:
        # Rows differ in number, which a value per replica may.
        which = int(number)
        return losses_and_gradients(losses, mirrored, parts[which])

    numbers = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(context.replica_id_in_sync_group)
    )
    found, presences, by_replica = strategy.run(of_replica, args=(numbers,))

    def mean(value: Any) -> np.ndarray:
        reduced = strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None)
        return np.asarray(reduced)

    differences = [
        float(np.abs(mean(ours) - theirs.numpy()).max())
        for ours, theirs in zip(by_replica, gradients)
    ]
    own = [np.asarray(v) for v in strategy.experimental_local_results(presences)]
    return {
        "by_task": {t.name: d for t, d in zip(chosen, differences)},
        "loss": float(np.abs(mean(found) - one.numpy()).max()),
        "gradient": max(differences),
        "size": float(min(np.abs(g).max() for g in (*gradients[:6], gradients[7]))),
        "present": float(max(np.abs(v - present.numpy()).max() for v in own)),
    }


def main() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    found: dict[str, Any] = {n: compare(n, strategy) for n in NORMALIZATIONS}
    # Dividing by what a replica has itself is not the same.
    import tfmtl.losses.task as module

    module.over_replicas = lambda values: (values, 1.0)  # type: ignore[assignment]
    found["wrong"] = compare("observed", strategy)
    module.over_replicas = over_replicas
    print(json.dumps(found))


if __name__ == "__main__":
    main()
