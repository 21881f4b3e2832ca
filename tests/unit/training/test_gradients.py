"""Steps by the kind of balancer: who gets which gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.conformance.catalogue import ENTRIES
from tfmtl._keras import tf
from tfmtl.balance import (
    DCB,
    MGDAUB,
    BalancerConfig,
    CombinationConfig,
    CutCombination,
    Equal,
    GradientCombination,
    GradientConfig,
    GradientWeighting,
    GradVac,
    MetaBalance,
    TaskInfo,
)
from tfmtl.balance.gram import weighted_sum
from tfmtl.errors import ConfigError
from tfmtl.models import MODELS
from tfmtl.optim import OptimizerGroups
from tfmtl.schema.experiment import OptimizerSpec
from tfmtl.testing.conformance import ModelConformance
from tfmtl.testing.tiny import DATASET
from tfmtl.training import between as last_weights
from tfmtl.training import gradients
from tfmtl.training.gradients import differentiate
from tfmtl.training.trainer import Trainer, forward

NAMES = ("SharedBottom", "MMoE", "STAR", "ExpertFusion")
WEIGHTS = np.array([0.5, -2.0, 3.0])


class Constant(GradientWeighting):
    """Weights that the Gram matrix does not move; remembers it."""

    def prepare(self, groups: int) -> None:
        start = tf.zeros([groups, self.count, self.count], tf.float64)
        self.gramian = self.state("gramian", start)

    def solve(self, gramian: Any, chosen: Any, group: int, stats: Any) -> Any:
        return tf.gather(tf.constant(WEIGHTS), chosen)

    def weigh(self, stats: Any) -> Any:
        self.gramian.assign(stats.gramian)
        return super().weigh(stats)


class ConstantCombination(GradientCombination):
    """The same weights, by the protocol of whole gradients."""

    def combine(self, stats: Any, gradients: Any) -> Any:
        weights = tf.constant(WEIGHTS, tf.float32)
        return [weighted_sum(g, weights) for g in gradients], weights


OWN = np.array([2.0, 0.5, -1.0])


class Owning(Constant):
    """What the balancer leaves alone descends other losses than the plain ones."""

    def own_weights(self, stats: Any, weights: Any) -> Any:
        return tf.constant(OWN, tf.float32)


class OwningCombination(ConstantCombination):
    def own_weights(self, stats: Any, weights: Any) -> Any:
        return weights * tf.constant(OWN / WEIGHTS, tf.float32)


class ConstantCut(CutCombination):
    """The same weights, at the cut."""

    def combine(self, stats: Any, values: Any, gradients: Any) -> Any:
        weights = tf.constant(WEIGHTS, tf.float32)
        return [tf.tensordot(weights, g, 1) for g in gradients], weights


def suite(name: str, dataset: dict[str, Any] | None = None) -> Any:
    entry: dict[str, Any] = {"model": MODELS[name], **ENTRIES[name]}
    if dataset is not None:
        entry["dataset"] = dataset
    return type("Suite", (ModelConformance,), entry)


@pytest.fixture(scope="module", params=NAMES)
def model(request: Any) -> Any:
    return stirred(request.param)


@pytest.fixture(scope="module")
def mmoe() -> Any:
    return stirred("MMoE")


def stirred(name: str, dataset: dict[str, Any] | None = None) -> Any:
    """A model with every variable moved off its start."""
    made = suite(name, dataset).make()
    draw = np.random.default_rng(0)
    for variable in made.trainable_variables:
        variable.assign_add(draw.normal(0, 0.1, variable.shape))
    return made


def trainer_of(model: Any, kind: Any, **config: Any) -> Trainer:
    optimizers = OptimizerGroups(
        {"default": OptimizerSpec(class_name="SGD", learning_rate=1.0)},
        model.variable_groups(),
        10,
    )
    return Trainer(
        model,
        ModelConformance.losses(model),
        kind(TaskInfo(model.manifest.dataset.task_names), kind.Config(**config)),
        optimizers,
    )


def moves(trainer: Trainer, batch: Any, steps: int = 1) -> dict[str, np.ndarray]:
    """How far each variable moves by SGD at rate 1: the gradient's opposite."""
    variables = [*trainer.model.trainable_variables]
    others = [trainer.model.step, *trainer.model.non_trainable_variables]
    before = [v.numpy() for v in (*variables, *others)]
    for _ in range(steps):
        trainer.train_step(batch)
    moved = {v.name: b - v.numpy() for v, b in zip(variables, before)}
    for variable, old in zip((*variables, *others), before):
        variable.assign(old)
    return moved


def per_task(model: Any, batch: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Dense gradients of each task's loss and of the penalty, by a tape."""
    variables = model.trainable_variables
    kept = [v.numpy() for v in model.non_trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        losses, _, penalty = forward(model, ModelConformance.losses(model), batch)
        targets = [*tf.unstack(losses), penalty]
    for variable, old in zip(model.non_trainable_variables, kept):
        variable.assign(old)
    found = []
    for target in targets:
        gradients = tape.gradient(target, variables, unconnected_gradients="zero")
        found.append(
            {
                v.name: tf.convert_to_tensor(g).numpy()
                for v, g in zip(variables, gradients)
            }
        )
    return found[:-1], found[-1]


def kinds(model: Any) -> dict[str, str]:
    groups = model.variable_groups()
    return {v.name: g.partition("/")[0] for g, vs in groups.items() for v in vs}


def expected(
    model: Any, batch: Any, plain: tuple[str, ...] = (), own: Any = (1.0, 1.0, 1.0)
) -> dict[str, Any]:
    tasks, penalty = per_task(model, batch)
    kind = kinds(model)
    wanted = {}
    for name in penalty:
        weigh = kind[name] in ("shared", "embedding") and kind[name] not in plain
        weights = WEIGHTS if weigh else own
        wanted[name] = sum(w * g[name] for w, g in zip(weights, tasks)) + penalty[name]
    return wanted


def assert_moves(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, gradient in wanted.items():
        np.testing.assert_allclose(
            found[name], gradient, rtol=2e-4, atol=2e-6, err_msg=name
        )


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (Constant, {}),
        (Constant, {"gradients": "representation"}),
        (ConstantCut, {}),
    ],
    ids=["full", "representation", "cut"],
)
def test_shared_variables_get_the_weighted_sum_and_others_their_own_gradient(
    model: Any, kind: Any, config: dict[str, Any]
) -> None:
    batch = ModelConformance.tiny().batch
    found = moves(trainer_of(model, kind, **config), batch)
    assert_moves(found, expected(model, batch))


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (Constant, {"granularity": "tensor"}),
        (Constant, {"granularity": "layer"}),
        (Constant, {"probe": "last_shared"}),
        (Constant, {"gradients": "full", "embedding": "sum"}),
        (Constant, {"gradients": "representation", "embedding": "sum"}),
        (ConstantCombination, {}),
    ],
    ids=["tensor", "layer", "last", "sum", "sum_at_cut", "combination"],
)
def test_settings_change_what_is_compared_not_who_gets_what(
    mmoe: Any, kind: Any, config: dict[str, Any]
) -> None:
    batch = ModelConformance.tiny().batch
    found = moves(trainer_of(mmoe, kind, **config), batch)
    plain = ("embedding",) if config.get("embedding") == "sum" else ()
    assert_moves(found, expected(mmoe, batch, plain))


@pytest.mark.parametrize(
    ("kind", "config", "steps"),
    [
        (Owning, {"embedding": "sum"}, 1),
        (Owning, {"gradients": "representation", "embedding": "sum"}, 1),
        (Owning, {"every": 2}, 2),
        (OwningCombination, {"embedding": "sum"}, 1),
    ],
    ids=["full", "representation", "between", "combination"],
)
def test_what_is_not_balanced_descends_the_balancers_own_losses(
    mmoe: Any, kind: Any, config: dict[str, Any], steps: int
) -> None:
    batch = ModelConformance.tiny().batch
    trainer = trainer_of(mmoe, kind, **config)
    if steps == 2:  # The step between two solutions.
        mmoe.step.assign(1)
        trainer.balancer.last_weights.assign(WEIGHTS[None])
    plain = ("embedding",) if config.get("embedding") == "sum" else ()
    found = moves(trainer, batch)
    mmoe.step.assign(0)
    assert_moves(found, expected(mmoe, batch, plain, OWN))


def test_equal_weights_are_the_gradient_of_the_sum(model: Any) -> None:
    batch = ModelConformance.tiny().batch
    tasks, penalty = per_task(model, batch)
    wanted = {n: sum(g[n] for g in tasks) + penalty[n] for n in penalty}
    assert_moves(moves(trainer_of(model, Equal), batch), wanted)


def test_the_gram_matrix_is_that_of_the_probed_variables(mmoe: Any) -> None:
    batch = ModelConformance.tiny().batch
    tasks, _ = per_task(mmoe, batch)
    kind = kinds(mmoe)
    for probe, compared in (
        ("shared", ("shared",)),
        ("shared+embedding", ("shared", "embedding")),
    ):
        trainer = trainer_of(mmoe, Constant, probe=probe)
        moves(trainer, batch)
        names = [n for n in kind if kind[n] in compared]
        flat = np.stack([np.concatenate([g[n].ravel() for n in names]) for g in tasks])
        np.testing.assert_allclose(
            trainer.balancer.gramian[0], flat @ flat.T, rtol=1e-4, atol=1e-9
        )


PLAIN: dict[str, Any] = {
    "features": [f for f in DATASET["features"] if f["name"] in ("user", "price")],
    "vocabularies": {},
    "scenario": None,
}
"""Data whose features have no dense variables of their own."""


@pytest.fixture(scope="module", params=["ESMM", "AITM"])
def funnel(request: Any) -> Any:
    """Of a funnel's models, whose dense shared variables `like` does not reach."""
    return stirred(request.param, PLAIN)


@pytest.fixture(scope="module")
def batch_of_funnel() -> Any:
    return suite("ESMM", PLAIN).tiny().batch


def test_a_task_outside_the_funnel_is_compared_by_the_tables(
    funnel: Any, batch_of_funnel: Any
) -> None:
    batch = batch_of_funnel
    tasks, _ = per_task(funnel, batch)
    kind = kinds(funnel)
    dense = [n for n in kind if kind[n] == "shared"]
    assert dense and all(np.all(tasks[1][n] == 0) for n in dense)
    trainer = trainer_of(funnel, Constant)
    assert_moves(moves(trainer, batch), expected(funnel, batch))
    names = [n for n in kind if kind[n] in ("shared", "embedding")]
    flat = np.stack([np.concatenate([g[n].ravel() for n in names]) for g in tasks])
    np.testing.assert_allclose(
        trainer.balancer.gramian[0], flat @ flat.T, rtol=1e-4, atol=1e-9
    )


def test_only_what_gets_the_weights_is_compared_for_a_task_outside(
    funnel: Any, batch_of_funnel: Any
) -> None:
    for config, hidden in (({"embedding": "sum"}, False), ({}, True)):
        batch = batch_of_funnel
        if hidden:
            batch = batch._replace(mask=batch.mask & tf.constant([True, False, True]))
        tasks, _ = per_task(funnel, batch)
        trainer = trainer_of(funnel, Constant, **config)
        moves(trainer, batch)
        names = [n for n, k in kinds(funnel).items() if k == "shared"]
        flat = np.stack([np.concatenate([g[n].ravel() for n in names]) for g in tasks])
        found = trainer.balancer.gramian.numpy()[0]
        np.testing.assert_allclose(found, flat @ flat.T, rtol=1e-4, atol=1e-9)
        assert found[1, 1] == 0 < found[0, 0]


def test_between_solutions_the_last_weights_serve(mmoe: Any) -> None:
    batch = ModelConformance.tiny().batch
    every = trainer_of(mmoe, Constant, every=2)
    each = trainer_of(mmoe, Constant)
    assert_moves(moves(every, batch, steps=3), moves(each, batch, steps=3))
    np.testing.assert_allclose(every.balancer.last_weights, WEIGHTS[None], rtol=1e-6)
    every.balancer.last_weights.assign([[1.0, 1.0, 1.0]])
    mmoe.step.assign(1)
    tasks, penalty = per_task(mmoe, batch)
    wanted = {n: sum(g[n] for g in tasks) + penalty[n] for n in penalty}
    assert_moves(moves(every, batch), wanted)
    mmoe.step.assign(0)


@pytest.mark.parametrize("granularity", ["layer", "tensor"])
def test_between_solutions_each_group_has_its_last_weights(
    mmoe: Any, granularity: str
) -> None:
    batch = ModelConformance.tiny().batch
    trainer = trainer_of(
        mmoe, Owning, every=2, granularity=granularity, embedding="sum"
    )
    last = trainer.balancer.last_weights
    weights = np.random.default_rng(1).normal(size=last.shape)
    assert len(weights) >= 3
    last.assign(weights)
    mmoe.step.assign(1)
    wanted = expected(mmoe, batch, ("embedding",), OWN)
    tasks, penalty = per_task(mmoe, batch)
    shared = trainer.variables_shared
    groups = shared.group_of_each(trainer.balancer.config)
    for v, group in zip(shared.shared, groups):
        if group is not None:
            parts = [w * g[v.name] for w, g in zip(weights[group], tasks)]
            wanted[v.name] = sum(parts) + penalty[v.name]
    found = moves(trainer, batch)
    mmoe.step.assign(0)
    assert_moves(found, wanted)


@pytest.mark.parametrize(
    ("config", "solving", "between"),
    [
        ({}, 3, 1),
        ({"embedding": "sum"}, 3, 2),
        ({"granularity": "layer"}, 3, 3),
        ({"granularity": "tensor", "embedding": "sum"}, 3, 3),
    ],
    ids=["whole", "sum", "layer", "tensor"],
)
def test_no_step_between_solutions_takes_more_passes_than_one_that_solves(
    mmoe: Any,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any],
    solving: int,
    between: int,
) -> None:
    trainer = trainer_of(mmoe, Constant, every=2, **config)
    shared = {v.ref() for v in trainer.variables_shared.shared}
    count = {"solving": 0, "between": 0}
    current = ""

    def counting(ys: Any, xs: Any, *more: Any, **kept: Any) -> Any:
        reached = any(isinstance(x, tf.Variable) and x.ref() in shared for x in xs)
        count[current] += reached
        return differentiate(ys, xs, *more, **kept)

    def named(name: str, inner: Any) -> Any:
        def call(forward: Any) -> Any:
            nonlocal current
            current = name
            return inner(forward)

        return call

    for module in (gradients, last_weights):
        monkeypatch.setattr(module, "differentiate", counting)
    monkeypatch.setattr(trainer, "_gradients", named("solving", trainer._gradients))
    monkeypatch.setattr(trainer, "_last", named("between", trainer._last))
    moves(trainer, ModelConformance.tiny().batch)
    penalties = 1
    assert count == {"solving": solving + penalties, "between": between + penalties}


def test_a_step_without_its_labels_leaves_a_tasks_last_weight(mmoe: Any) -> None:
    batch = ModelConformance.tiny().batch
    hidden = batch._replace(mask=batch.mask & tf.constant([True, False, True]))
    trainer = trainer_of(mmoe, Constant, every=2)
    for weight in (1.0, 7.0):
        last = trainer.balancer.last_weights
        last.assign([[1.0, weight, 1.0]])
        moves(trainer, hidden)
        np.testing.assert_array_equal(last, [[WEIGHTS[0], weight, WEIGHTS[2]]])
    moves(trainer, batch)
    np.testing.assert_array_equal(last, WEIGHTS[None])


def test_a_task_without_labels_is_left_out() -> None:
    model = suite("SharedBottom").make()
    batch = ModelConformance.tiny().batch
    hidden = batch._replace(mask=batch.mask & tf.constant([True, False, True]))
    trainer = trainer_of(model, Constant)
    np.testing.assert_array_equal(
        trainer.train_step(hidden).weights, WEIGHTS * [1, 0, 1]
    )


def test_bfloat16_solves_on_float32_gradients() -> None:
    class Half(suite("MMoE")):  # type: ignore[misc]
        precision = "bfloat16"

    batch = ModelConformance.tiny().batch
    made = Half.make()
    sums = trainer_of(made, Constant, gradients="representation").train_step(batch)
    np.testing.assert_array_equal(sums.weights, WEIGHTS.astype("f4"))
    assert bool(sums.finite)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="needs `gradients: full`"):
        GradientConfig(granularity="tensor", gradients="representation")
    model = suite("SharedBottom").make()
    with pytest.raises(Exception, match="fits no shared variable"):
        trainer_of(model, Constant, probe="last_shared", last_shared="nowhere")
    assert BalancerConfig() == BalancerConfig()


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        (GradientConfig, {"granularity": "layer"}, "probe='.*', .*'layer'"),
        (GradientConfig, {"gradients": "representation"}, "`probe` other than"),
        (MGDAUB.Config, {}, "gradients='representation'"),
        (GradVac.Config, {}, "granularity='layer'"),
        (DCB.Config, {}, "granularity='layer'"),
        (MetaBalance.Config, {"target": "click"}, "granularity='tensor'"),
    ],
)
def test_a_probe_that_would_be_ignored_is_refused(
    kind: Any, config: dict[str, Any], message: str
) -> None:
    kind(**config)
    kind(**kind(**config).model_dump())  # `probe: shared` is what there is.
    for probe in ("last_shared", "shared+embedding"):
        with pytest.raises(ValueError, match=message):
            kind(**config, probe=probe)
    if kind is not MGDAUB.Config:
        whole = {"gradients": "full", "granularity": "whole"}
        kind(**(config | whole), probe="last_shared", last_shared="x")
    with pytest.raises(ValueError, match=r"`last_shared` needs .*'x', probe='shared'"):
        kind(**config, last_shared="x")


class Elsewhere(ConstantCombination):
    """Settings of balancers that find weights, which it does not."""

    Config = GradientConfig


class Often(ConstantCombination):
    """A setting of its own that is called as one of others."""

    class Config(CombinationConfig):
        every: int = 3


def test_a_combination_has_no_settings_of_a_solution(mmoe: Any) -> None:
    for name, value in {
        "every": 2,
        "gradients": "representation",
        "granularity": "layer",
        "probe": "last_shared",
    }.items():
        with pytest.raises(ValueError, match=f"{name}\n  Extra inputs"):
            ConstantCombination.Config(**{name: value})
        with pytest.raises(ConfigError, match=f"config.{name}` is for.* {value!r}"):
            trainer_of(mmoe, Elsewhere, **{name: value})
    assert ConstantCombination.Config(embedding="sum")
    trainer_of(mmoe, Elsewhere, embedding="sum")
    batch = ModelConformance.tiny().batch
    assert_moves(moves(trainer_of(mmoe, Often), batch, 2), _twice(mmoe, batch))


def _twice(mmoe: Any, batch: Any) -> dict[str, Any]:
    """Two steps of the same balancer without that setting."""
    return moves(trainer_of(mmoe, ConstantCombination), batch, 2)
