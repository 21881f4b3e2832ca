"""Some steps of a balancer on a small model whose two tasks conflict.

Every model is built once; every balancer starts from the same values and sees the same
batches, by SGD and without dropout. What a task alone would do to its own variables is
asked of `tf.gradients` of its loss, at the values each step starts from.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tests.conformance.catalogue import ENTRIES
from tfmtl._keras import tf
from tfmtl.balance import Balancer, TaskInfo
from tfmtl.data.read import Batch
from tfmtl.models import MODELS
from tfmtl.optim import OptimizerGroups
from tfmtl.schema.experiment import OptimizerSpec
from tfmtl.testing.conformance import ModelConformance
from tfmtl.testing.tiny import DATASET
from tfmtl.training.control import task_of
from tfmtl.training.shared import SharedVariables
from tfmtl.training.trainer import Trainer, forward

TASKS = ("click", "like")
ROWS, STEPS, RATE = 32, 4, 0.1
SMALL: dict[str, Any] = {
    "features": [f for f in DATASET["features"] if f["name"] in ("user", "price")],
    "vocabularies": {},
    "scenario": {"column": "page", "values": ("feed", "search"), "dim": 2},
    "tasks": [{"name": name, "label": name} for name in TASKS],
}
SETTINGS: dict[str, dict[str, Any]] = {
    "STAR": {"tower_units": []},
    "ExpertFusion": {"gate_dropout": 0.0, "partitioned_norm": "none"},
}
"""What differs from the catalogue of models: no dropout, and the smaller graph where
there is a choice; partitioned normalisation is STAR's too."""


class Step(NamedTuple):
    """What one step did.

    Attributes:
        shared: Values of all shared variables after it, in one row.
        moved: What each other variable moved by, over the learning rate: the gradient
            it was given, by name.
        alone: [T] the gradients of each task's loss by the same variables.
        penalty: Those of what is added to the tasks' losses.
        own: [T] what the balancer weighs losses by on variables that are not shared.
    """

    shared: np.ndarray
    moved: dict[str, np.ndarray]
    alone: list[dict[str, np.ndarray]]
    penalty: dict[str, np.ndarray]
    own: np.ndarray


class Bed:
    """A model to take steps on, and the batches.

    Args:
        name: Of the architecture.

    Attributes:
        owner: Name of each variable that is not shared to the task it belongs to, None
            where it is a scenario's.
        start: Shared variables before the first step, in one row.
    """

    def __init__(self, name: str) -> None:
        entry: dict[str, Any] = {"model": MODELS[name], **ENTRIES[name]}
        entry["config"] = entry["config"] | SETTINGS.get(name, {})
        suite = type("Suite", (ModelConformance,), {**entry, "dataset": SMALL})
        self.model: Any = suite.make()
        read = suite.tiny().reader(ROWS).epoch().take(STEPS)
        self.batches = [_wanted(batch) for batch in read]
        groups = self.model.variable_groups()
        _set_against(groups)
        self.losses = ModelConformance.losses(self.model)
        variables = SharedVariables(groups, self.model.trainable_variables)
        self._shared, self._rest = variables.shared, variables.rest
        tasks = {v.ref(): task_of(g) for g, vs in groups.items() for v in vs}
        self.owner = {v.name: tasks[v.ref()] for v in self._rest}
        self._values = [v.numpy() for v in self.model.variables]
        self.start = _row(self._shared)
        self._alone = tf.function(self._gradients, autograph=False)

    def _gradients(self, batch: Batch) -> list[Any]:
        """Of each task's loss, and of the penalties, by what is not shared."""
        losses, _, penalty = forward(self.model, self.losses, batch)
        return [
            tf.gradients(target, self._rest, unconnected_gradients="zero")
            for target in (*tf.unstack(losses), penalty)
        ]

    def alone(self, batch: Batch) -> list[dict[str, np.ndarray]]:
        """The same, by name; statistics stay as they are."""
        kept = [(v, v.numpy()) for v in self.model.non_trainable_variables]
        found = self._alone(batch)
        for variable, value in kept:
            variable.assign(value)
        return [
            {v.name: g.numpy() for v, g in zip(self._rest, gradients)}
            for gradients in found
        ]

    def conflict(self) -> float:
        """Cosine of the two tasks' gradients by the dense shared variables."""
        dense = [v for v in self._shared if "embedding" not in v.name]

        @tf.function(autograph=False)
        def gradients(batch: Batch) -> list[Any]:
            losses, *_ = forward(self.model, self.losses, batch)
            return [tf.gradients(x, dense) for x in tf.unstack(losses)]

        self.reset()
        click, like = (_row(g) for g in gradients(self.batches[0]))
        self.reset()
        return float(click @ like / np.sqrt(click @ click * (like @ like)))

    def reset(self) -> None:
        """Back to the start."""
        for variable, value in zip(self.model.variables, self._values):
            variable.assign(value)

    def run(
        self,
        kind: type[Balancer],
        config: dict[str, Any],
        own: Any = None,
        batches: Sequence[Batch] | None = None,
    ) -> list[Step]:
        """Steps from the start.

        Args:
            kind: The balancer.
            config: Its settings.
            own: Balancer and sums of a step -> what `Step.own` says; 1 where None.
            batches: To see; `batches` where None.
        """
        self.reset()
        balancer = kind(TaskInfo(TASKS, seed=3), kind.Config.model_validate(config))
        optimizers = OptimizerGroups(
            {"default": OptimizerSpec(class_name="SGD", learning_rate=RATE)},
            self.model.variable_groups(),
            STEPS,
        )
        trainer = Trainer(self.model, self.losses, balancer, optimizers)
        return [self._step(trainer, own, b) for b in batches or self.batches]

    def _step(self, trainer: Trainer, own: Any, batch: Batch) -> Step:
        *alone, penalty = self.alone(batch)
        before = {v.name: v.numpy() for v in self._rest}
        sums = trainer.train_step(batch)
        moved = {v.name: (before[v.name] - v.numpy()) / RATE for v in self._rest}
        factors = np.ones(2) if own is None else np.asarray(own(trainer.balancer, sums))
        return Step(_row(self._shared), moved, alone, penalty, factors)


@functools.cache
def bed(name: str) -> Bed:
    """The bed of an architecture, once a process."""
    return Bed(name)


def _wanted(batch: Batch) -> Batch:
    """Most rows are clicked and liked, each a few others are not."""
    row = tf.range(ROWS)
    labels = tf.stack([row % 8 != 0, row % 7 != 1], axis=1)
    return batch._replace(
        labels=tf.cast(labels, tf.float32), mask=tf.ones_like(batch.mask)
    )


def _set_against(groups: dict[str, list[Any]]) -> None:
    """Moves all off their start; then both tasks read what they share in one way, but
    for the last layer's sign and size: what makes the one answer yes, makes the other
    answer no."""
    draw = np.random.default_rng(0)
    for variables in groups.values():
        for variable in variables:
            variable.assign_add(draw.normal(0, 0.1, variable.shape))
    for group, variables in groups.items():
        if task_of(group) == "click":
            others = groups[group.replace("click", "like")]
            for click, like in zip(variables, others, strict=True):
                assert like.name == click.name.replace("click", "like")
                last = group == "task/click" and "head" in click.name
                like.assign(-2.0 * click if last else click)


def _row(tensors: Sequence[Any]) -> np.ndarray:
    return np.concatenate([np.ravel(tf.convert_to_tensor(t)) for t in tensors])
