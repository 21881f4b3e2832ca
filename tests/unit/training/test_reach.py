"""Clipped tasks and tasks kept to their own, under each kind of balancer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.training.test_gradients import (
    WEIGHTS,
    Constant,
    assert_moves,
    kinds,
    moves,
    per_task,
    stirred,
    suite,
)
from tfmtl._keras import tf
from tfmtl.balance import BALANCERS, Balancer, Equal, Fixed, LossWeighting, TaskInfo
from tfmtl.errors import ConfigError
from tfmtl.optim import OptimizerGroups
from tfmtl.schema.control import TaskControlSpec
from tfmtl.schema.experiment import OptimizerSpec
from tfmtl.testing.conformance import ModelConformance
from tfmtl.training.control import TaskControl, task_of
from tfmtl.training.trainer import Trainer, forward

TASKS = ("click", "like", "buy")
FIXED = {"weights": {"click": 2.0, "like": 3.0, "buy": 0.5}}
LOSS_WEIGHTS = np.array([2.0, 3.0, 0.5])


@pytest.fixture(scope="module")
def mmoe() -> Any:
    return stirred("MMoE")


@pytest.fixture(scope="module")
def gradients(mmoe: Any) -> Any:
    """Gradients of each task and of the penalty; they are the same for all tests."""
    return per_task(mmoe, ModelConformance.tiny().batch)


def trainer(model: Any, kind: Any, config: dict[str, Any], **tasks: Any) -> Trainer:
    groups = model.variable_groups()
    specs = {t: TaskControlSpec.model_validate(s) for t, s in tasks.items()}
    control = TaskControl(TASKS, specs, groups)
    sgd = {"default": OptimizerSpec(class_name="SGD", learning_rate=1.0)}
    optimizers = OptimizerGroups(sgd, groups, 10, control.waiting)
    balancer = kind(TaskInfo(TASKS), kind.Config(**config))
    losses = ModelConformance.losses(model)
    return Trainer(model, losses, balancer, optimizers, control)


def owners(model: Any) -> dict[str, str | None]:
    groups = model.variable_groups()
    return {v.name: task_of(g) for g, vs in groups.items() for v in vs}


def wanted(
    model: Any, found: Any, on_shared: np.ndarray, on_rest: np.ndarray
) -> dict[str, Any]:
    tasks, penalty = found
    kind = kinds(model)
    result = {}
    for name in penalty:
        weights = on_shared if kind[name] in ("shared", "embedding") else on_rest
        result[name] = sum(w * g[name] for w, g in zip(weights, tasks)) + penalty[name]
    return result


def norm_on_shared(model: Any, gradient: dict[str, Any]) -> float:
    kind = kinds(model)
    names = [n for n in gradient if kind[n] in ("shared", "embedding")]
    return float(np.sqrt(sum((gradient[n] ** 2).sum() for n in names)))


@pytest.mark.parametrize(
    ("kind", "config", "weights", "rest"),
    [
        (Fixed, FIXED, LOSS_WEIGHTS, LOSS_WEIGHTS),
        (Constant, {}, WEIGHTS, np.ones(3)),
    ],
    ids=["losses", "gradients"],
)
def test_a_task_is_clipped_on_shared_variables_before_it_is_weighed(
    mmoe: Any, gradients: Any, kind: Any, config: Any, weights: Any, rest: Any
) -> None:
    norm = norm_on_shared(mmoe, gradients[0][1])
    made = trainer(mmoe, kind, config, like={"clip_norm": norm / 4})
    factors = np.array([1.0, 0.25, 1.0])
    found = moves(made, ModelConformance.tiny().batch)
    assert_moves(found, wanted(mmoe, gradients, weights * factors, rest))
    if kind is Constant:
        gram = made.balancer.gramian.numpy()[0]
        names = [n for n, k in kinds(mmoe).items() if k == "shared"]
        like = np.sqrt(sum((gradients[0][1][n] ** 2).sum() for n in names)) / 4
        np.testing.assert_allclose(np.sqrt(gram[1, 1]), like, rtol=1e-4)


class Norms(Equal):
    """Equal weights; remembers the norms of the last shared layer's gradients."""

    needs_gramian = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.norms = self.state("norms", tf.zeros([self.count], tf.float64))

    def weigh(self, stats: Any) -> Any:
        self.norms.assign(tf.sqrt(tf.linalg.diag_part(stats.gramian[0])))
        return super().weigh(stats)


def test_a_balancer_of_losses_sees_the_norms_of_clipped_gradients(
    mmoe: Any, gradients: Any
) -> None:
    norm = norm_on_shared(mmoe, gradients[0][1])
    made = trainer(mmoe, Norms, {}, like={"clip_norm": norm / 4})
    moves(made, ModelConformance.tiny().batch)
    names = [v.name for v in made.variables_shared.probed("last_shared", None)]
    norms = [np.sqrt(sum((g[n] ** 2).sum() for n in names)) for g in gradients[0]]
    wanted_norms = norms * np.array([1.0, 0.25, 1.0])
    np.testing.assert_allclose(made.balancer.norms, wanted_norms, rtol=1e-4)


def norms_at_cut(model: Any, batch: Any) -> np.ndarray:
    """Norms of the tasks' gradients by the activations, each with the others held."""

    @tf.function(autograph=False)
    def norms() -> Any:
        losses, *_ = forward(model, ModelConformance.losses(model), batch)
        cut = model.cut()
        found = [tf.gradients(x, cut, stop_gradients=cut) for x in tf.unstack(losses)]
        return [tf.linalg.global_norm(g) for g in found]

    return np.array([float(n) for n in norms()])


def test_with_gradients_by_activations_the_norm_is_theirs(
    mmoe: Any, gradients: Any
) -> None:
    batch = ModelConformance.tiny().batch
    norms = norms_at_cut(mmoe, batch)
    norm = norms[1]
    assert abs(norm / norm_on_shared(mmoe, gradients[0][1]) - 1) > 0.05
    by_activations = {"gradients": "representation"}
    made = trainer(mmoe, Constant, by_activations, like={"clip_norm": norm / 4})
    found = moves(made, batch)
    factors = np.array([1.0, 0.25, 1.0])
    assert_moves(found, wanted(mmoe, gradients, WEIGHTS * factors, np.ones(3)))
    gram = made.balancer.gramian.numpy()[0]
    np.testing.assert_allclose(np.sqrt(np.diag(gram)), norms * factors, rtol=1e-4)
    made = trainer(mmoe, Constant, by_activations, like={"clip_norm": norm * 1.01})
    assert_moves(moves(made, batch), wanted(mmoe, gradients, WEIGHTS, np.ones(3)))


def test_a_norm_out_of_reach_changes_nothing(mmoe: Any, gradients: Any) -> None:
    made = trainer(mmoe, Equal, {}, like={"clip_norm": 1e6})
    found = moves(made, ModelConformance.tiny().batch)
    assert_moves(found, wanted(mmoe, gradients, np.ones(3), np.ones(3)))


@pytest.mark.parametrize(
    ("kind", "config", "weights", "rest"),
    [
        (Fixed, FIXED, LOSS_WEIGHTS, LOSS_WEIGHTS),
        (Constant, {"gradients": "representation"}, WEIGHTS, np.ones(3)),
    ],
    ids=["losses", "gradients"],
)
def test_a_task_of_own_reach_moves_its_own_variables_alone(
    mmoe: Any, gradients: Any, kind: Any, config: Any, weights: Any, rest: Any
) -> None:
    made = trainer(mmoe, kind, config, like={"reach": "own"})
    found = moves(made, ModelConformance.tiny().batch)
    expected = wanted(mmoe, gradients, weights * [1, 0, 1], rest)
    own = [n for n, owner in owners(mmoe).items() if owner == "like"]
    assert own and all(np.abs(expected[n]).max() > 0 for n in own)
    assert_moves(found, expected)


WEIGHTED = {"own": "weighted"}
OWNERS = [
    ("DB-MTL", {}, 0, "log"),
    ("DB-MTL", {"beta": 0.0}, 0, "log"),
    ("IMTL", {}, 0, "plain"),
    ("IMTL", {"every": 2}, 1, "plain"),
    ("Nash-MTL", WEIGHTED, 0, "plain"),
    ("Nash-MTL", {**WEIGHTED, "gradients": "representation"}, 0, "plain"),
    ("Nash-MTL", {**WEIGHTED, "every": 2}, 1, "plain"),
]
"""Balancer, settings, step, and what a task apart descends: its loss or the log."""


def test_every_balancer_with_own_weights_is_tried_apart() -> None:
    plain = (Balancer.own_weights, LossWeighting.own_weights)
    overriding = {n for n, b in BALANCERS.items() if b.own_weights not in plain}
    assert overriding == {name for name, *_ in OWNERS}


@pytest.mark.parametrize(("name", "config", "step", "descends"), OWNERS)
def test_a_task_of_own_reach_trains_under_weights_of_own_parts(
    mmoe: Any, gradients: Any, name: str, config: Any, step: int, descends: str
) -> None:
    batch = ModelConformance.tiny().batch
    made = trainer(mmoe, BALANCERS[name], config, like={"reach": "own"})
    if step:  # Between two solutions; `like` was absent when they were found.
        made.balancer.last_weights.assign([[0.5, 0.0, 2.0]])
    mmoe.step.assign(step)
    tasks, penalty = gradients
    factor = 1.0
    if descends == "log":
        losses, *_ = forward(mmoe, ModelConformance.losses(mmoe), batch)
        factor = 1.0 / losses.numpy()[1]
    found = moves(made, batch)
    mmoe.step.assign(0)
    own = [n for n, owner in owners(mmoe).items() if owner == "like"]
    assert own and all(np.abs(tasks[1][n]).max() > 1e-3 for n in own)
    wanted_moves = {n: factor * tasks[1][n] + penalty[n] for n in own}
    assert_moves(found, wanted_moves)


def test_outside_its_steps_a_task_moves_nothing(mmoe: Any, gradients: Any) -> None:
    made = trainer(mmoe, Fixed, FIXED, like={"start": 1})
    found = moves(made, ModelConformance.tiny().batch)
    expected = wanted(mmoe, gradients, LOSS_WEIGHTS * [1, 0, 1], LOSS_WEIGHTS)
    for name, owner in owners(mmoe).items():
        if owner == "like":
            expected[name] = np.zeros_like(expected[name])
    assert_moves(found, expected)


def test_what_a_model_adds_by_a_tasks_label_waits_with_the_task() -> None:
    model = suite("DeepMCP").make(beta=0.0)
    batch = suite("DeepMCP").tiny().batch
    ((_, extra),) = model.extra_losses().items()
    assert extra.task == "click"

    def matching(steps: int, **tasks: Any) -> float:
        found = moves(trainer(model, Equal, {}, **tasks), batch, steps)
        return max(np.abs(v).max() for n, v in found.items() if "matching" in n)

    assert matching(1) > 1e-4
    assert matching(1, click={"start": 1}) == 0.0
    assert matching(2, click={"start": 1}) > 1e-4
    assert matching(1, like={"start": 1}) > 1e-4


def test_clipping_needs_gradients_in_each_step(mmoe: Any) -> None:
    with pytest.raises(ConfigError, match=r"`balancer.config.every` saves them"):
        trainer(mmoe, Constant, {"every": 3}, like={"clip_norm": 1.0})
