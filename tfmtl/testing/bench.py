"""One small model and data set on which balancers take some steps."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import tempfile
from typing import Any

import numpy as np

from tfmtl import build
from tfmtl._keras import keras, tf
from tfmtl.balance import Balancer, BalancerConfig, Equal, TaskInfo
from tfmtl.data.read import Batch, Reader
from tfmtl.losses import TaskLosses
from tfmtl.models.shared_bottom import SharedBottom, SharedBottomConfig
from tfmtl.optim import OptimizerGroups
from tfmtl.schema.experiment import OptimizerSpec, RegularizationSpec
from tfmtl.testing.tiny import DATASET, tiny_dataset, tiny_spec
from tfmtl.training.trainer import Trainer

NAMES = ("click", "like", "buy")
"""The tasks."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """What some steps left.

    Attributes:
        traces: How often the step was traced.
        finite: Whether every loss, weight and variable was a number.
        shared: Shared variables after three steps.
        hidden: Before and after a step in which `like` has no label, the variables of
            its own.
        next: All variables, the balancer's too, after the step that follows a
            checkpoint.
        again: The same, after the checkpoint was read back and the step repeated.
    """

    traces: int
    finite: bool
    shared: list[np.ndarray]
    hidden: list[tuple[np.ndarray, np.ndarray]]
    next: list[np.ndarray]
    again: list[np.ndarray]


@functools.cache
def _reader() -> tuple[Reader, Any]:
    """Batches of 64, 64, 64, 64 and 44 rows of two features."""
    keep = tempfile.TemporaryDirectory(prefix="tfmtl-bench-")
    directory = pathlib.Path(keep.name)
    used = [f for f in DATASET["features"] if f["name"] in ("user", "price")]
    tasks = [{"name": name, "label": name} for name in NAMES]
    spec = tiny_spec(features=used, vocabularies={}, tasks=tasks)
    manifest = tiny_dataset(directory, spec=spec)
    return Reader(directory, manifest, ("train",), 64), keep


@functools.cache
def _model(precision: str) -> tuple[Any, list[np.ndarray]]:
    """The model, and the values it starts from."""
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(precision)
    try:
        manifest = _reader()[0].manifest
        model = SharedBottom(
            manifest,
            SharedBottomConfig(bottom_units=[4], tower_units=[]),
            seed=3,
            regularization=RegularizationSpec(embedding_std=0.3),
            name="model",
        )
        model(build.empty_features(manifest))
    finally:
        keras.mixed_precision.set_global_policy(policy)
    return model, [v.numpy() for v in model.variables]


def bench(balancer: Balancer | None, precision: str = "float32") -> Bench:
    """Some steps by SGD from the model's start.

    Args:
        balancer: New, of the tasks `NAMES`; Equal where None.
        precision: Keras policy; other than float32, two steps are all.
    """
    if balancer is None:
        return _by_equal()
    model, start = _model(precision)
    for variable, value in zip(model.variables, start):
        variable.assign(value)
    trainer = Trainer(
        model,
        TaskLosses(model.tasks, {t.name: t.name for t in model.tasks}),
        balancer,
        OptimizerGroups(
            {"default": OptimizerSpec(class_name="SGD", learning_rate=0.1)},
            model.variable_groups(),
            10,
        ),
    )
    if precision != "float32":
        read = _reader()[0].epoch().take(2)
        steps = [trainer.train_step(batch) for batch in read]
        finite = all(bool(s.finite) for s in steps) and trainer.all_finite()
        return Bench(1, finite, [], [], [], [])
    return _steps(trainer)


@functools.cache
def _by_equal() -> Bench:
    return bench(Equal(TaskInfo(NAMES), BalancerConfig()))


def _steps(trainer: Trainer) -> Bench:
    model, reader = trainer.model, _reader()[0]
    groups = model.variable_groups()
    shared = [v for g in ("shared", "embedding") for v in groups[g]]
    own = groups["task/like"]
    everything = [*model.variables, *trainer.balancer.variables]
    finite = []

    def go(data: tf.data.Dataset, steps: int) -> None:
        sums = trainer.train_chunk(iter(data), tf.constant(steps, tf.int64))
        finite.append(bool(sums.finite) and int(sums.steps) == steps)

    go(reader.epoch(), 2)
    go(reader.epoch(0, 2), 1)
    moved = [v.numpy() for v in shared]
    checkpoint = tf.train.Checkpoint(
        model=model,
        balancer=trainer.balancer,
        optimizers=trainer.optimizers.composite,
    )
    with tempfile.TemporaryDirectory(prefix="tfmtl-bench-") as folder:
        path = checkpoint.write(str(pathlib.Path(folder) / "state"))
        go(reader.epoch(0, 3), 1)
        after = [v.numpy() for v in everything]
        before = [v.numpy() for v in own]
        go(reader.epoch().map(_hidden), 1)
        hidden = [(b, v.numpy()) for b, v in zip(before, own)]
        finite.append(trainer.all_finite())
        checkpoint.read(path).assert_consumed()
        go(reader.epoch(0, 3), 1)
    again = [v.numpy() for v in everything]
    traces = trainer.train_chunk.experimental_get_tracing_count()
    return Bench(traces, all(finite), moved, hidden, after, again)


def _hidden(batch: Batch) -> Batch:
    return batch._replace(mask=batch.mask & tf.constant([True, False, True]))
