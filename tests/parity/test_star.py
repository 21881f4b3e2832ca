"""STAR against NumPy, and what may depend on what."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from tests.parity.products import multiplications
from tests.parity.reference import (
    Truth,
    check_each_weight_matters,
    close,
    features,
    flat,
    make,
    mlp,
    relu,
    with_spec,
)
from tfmtl import build
from tfmtl._keras import tf
from tfmtl.balance import BalancerConfig, Equal, TaskInfo
from tfmtl.data.read import Reader
from tfmtl.errors import ConfigError
from tfmtl.losses import TaskLosses
from tfmtl.models import MODELS
from tfmtl.optim import OptimizerGroups
from tfmtl.schema.experiment import OptimizerSpec
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.testing.tiny import DATASET, SCENARIOS, tiny_dataset
from tfmtl.training.checkpoint import Checkpoints, Progress
from tfmtl.training.trainer import Trainer

S = len(SCENARIOS)
SMALL: dict[str, Any] = {
    "star_units": [6, 4],
    "tower_units": [3],
    "auxiliary_units": [3],
    "auxiliary_features": ["price", "user"],
}
VARIANTS = [
    {},
    {"path": "einsum"},
    {"leaf": "rank1"},
    {"tower_units": []},
    {"interaction": "dot"},
]


def star(data: DatasetManifest | None = None, **changes: Any) -> Any:
    """A model off its start, scenarios each differently, with moments of its own."""
    model = make("STAR", data, **{**SMALL, **changes})
    draw = np.random.default_rng(0)
    for group, variables in model.variable_groups().items():
        if group.partition("/")[0] in ("scenario", "cell"):
            for variable in variables:
                variable.assign_add(draw.normal(0, 0.3, variable.shape))
    shape = model.norm.moving_mean.shape
    model.norm.moving_mean.assign(draw.normal(0, 0.3, shape))
    model.norm.moving_variance.assign(draw.uniform(0.2, 2.0, shape))
    model.norm.moving_weight.assign(np.full(shape[0], 0.5))
    return model


# === The forward pass ===


def own(variables: dict[str, list[Any]], owner: str, place: int, neutral: float) -> Any:
    """A scenario's own array, or the neutral one of the unknown scenario."""
    return variables[owner][place].numpy() if owner in variables else neutral


def layer(x: np.ndarray, dense: Any, task: str | None, name: str | None) -> np.ndarray:
    """One star layer, for rows of one scenario."""
    kernel, bias = dense._centres[f"task/{task}" if task else "shared"]
    owner = f"cell/{name}/{task}" if task else f"scenario/{name}"
    leaves = dense.variable_groups()
    factor = own(leaves, owner, 0, 1.0)
    if dense.leaf == "rank1" and owner in leaves:
        factor = np.outer(factor, leaves[owner][1].numpy())
    shift = own(leaves, owner, -1, 0.0)
    return x @ (kernel.numpy() * factor) + bias.numpy() + shift


def normalised(x: np.ndarray, norm: Any, s: int, name: str | None) -> np.ndarray:
    """Partitioned normalisation of rows of one scenario, when served."""
    leaves, owner = norm.variable_groups(), f"scenario/{name}"
    gamma = norm.gamma.numpy() * own(leaves, owner, 0, 1.0)
    beta = norm.beta.numpy() + own(leaves, owner, 1, 0.0)
    mean, variance = norm.moving_mean[s].numpy(), norm.moving_variance[s].numpy()
    return gamma * (x - mean) / np.sqrt(variance + norm.epsilon) + beta


def reference(
    model: Any,
    auxiliary: bool = True,
    last: Any = lambda logit: logit,
    additive: bool = False,
    whole: bool = False,
) -> Truth:
    """The papers' formulas; the switches are mistakes found in public code."""
    x = flat(model)
    width = model.embedding.scenario_vector(tf.constant([0])).shape[1]
    described, main = x[:, -width:], x[:, :-width]
    described = np.concatenate(
        [described, model.embedding(features()).of(["price", "user"]).numpy()], axis=1
    )
    hidden = mlp(described, model.auxiliary, 0)
    head = model.auxiliary_towers.head
    scenario = features()["scenario"].numpy()
    result: Truth = {}
    for t, task in enumerate(model.tasks):
        logits = np.zeros(50)
        for s in range(S + 1):
            rows, name = scenario == s, SCENARIOS[s] if s < S else None
            z = normalised(main[rows], model.norm, S if whole else s, name)
            if additive and name:
                gamma = model.norm.variable_groups()[f"scenario/{name}"][0].numpy()
                base = normalised(main[rows], model.norm, s, None)
                beta = model.norm.variable_groups()[f"scenario/{name}"][1].numpy()
                centre = model.norm.beta.numpy()
                z = (base - centre) / model.norm.gamma.numpy()
                z = z * (model.norm.gamma.numpy() + gamma) + centre + beta
            for dense in model.star.layers:
                z = relu(layer(z, dense, None, name))
            for dense in model.towers.hidden.layers:
                z = relu(layer(z, dense, task.name, name))
            logits[rows] = last(layer(z, model.towers.heads[0], task.name, name)[:, 0])
        if auxiliary:
            extra = hidden @ head.kernel[t].numpy() + head.bias[t].numpy()
            logits = logits + extra[:, 0]
        result[task.conditional] = logits
    return result


@pytest.mark.parametrize("changes", VARIANTS)
def test_equals_numpy(changes: dict[str, Any]) -> None:
    model = star(**changes)
    assert set(features()["scenario"].numpy()) == set(range(S + 1))
    assert close(model, reference(model))


@pytest.mark.parametrize("leaf", ["full", "rank1"])
def test_any_perturbed_weight_breaks_parity(leaf: str) -> None:
    check_each_weight_matters(star(leaf=leaf), reference)


def test_the_mistakes_of_public_code_do_not_pass() -> None:
    model = star()
    assert not close(model, reference(model, last=relu)), "ReLU on the logit"
    assert not close(model, reference(model, auxiliary=False))
    assert not close(model, reference(model, additive=True)), "gamma + gamma_p"
    assert not close(model, reference(model, whole=True)), "moments of all rows"


def test_moving_moments_matter() -> None:
    for name in ("moving_mean", "moving_variance"):
        model = star()
        truth = reference(model)
        getattr(model.norm, name).assign_add(
            0.5 * tf.ones_like(getattr(model.norm, name))
        )
        assert not close(model, truth), name


@pytest.mark.parametrize("count", [1, 12])
def test_one_scenario_and_many(count: int) -> None:
    values = [f"s{i}" for i in range(count)]
    data = with_spec(scenario={"column": "page", "values": values, "dim": 3})
    model = star(data)
    batch = dict(features())
    batch["scenario"] = tf.constant(np.arange(50) % (count + 1), tf.int32)
    whole = model(batch)
    assert all(np.isfinite(v).all() for v in whole.values())
    for row in range(count + 1):
        alone = model({k: v[row : row + 1] for k, v in batch.items()})
        for name, value in alone.items():
            np.testing.assert_allclose(value[0], whole[name][row], rtol=1e-4, atol=1e-5)


def test_one_scenario_with_neutral_leaves_is_batch_normalisation_and_a_plain_mlp() -> (
    None
):
    data = with_spec(
        scenario={"column": "page", "values": ["only"], "dim": 3},
        tasks=[{"name": "click", "label": "click"}],
    )
    model = make("STAR", data, **SMALL)
    for group, variables in model.variable_groups().items():
        if group.startswith(("scenario", "cell")):
            for variable in variables:
                factor = "gamma" in variable.name or "leaf" in variable.name
                variable.assign(tf.fill(variable.shape, float(factor)))
    for variable in model.auxiliary_towers.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    batch = {**features(), "scenario": tf.zeros([50], tf.int32)}
    x = model.embedding(batch).flat.numpy()[:, :-3].astype(np.float64)
    z = (x - x.mean(0)) / np.sqrt(x.var(0) + model.norm.epsilon)
    z = model.norm.gamma.numpy() * z + model.norm.beta.numpy()
    network = [*model.star.layers, *model.towers.hidden.layers, *model.towers.heads]
    for dense in network:
        kernel, bias = next(iter(dense._centres.values()))
        z = z @ kernel.numpy() + bias.numpy()
        z = z if dense is network[-1] else relu(z)
    found = model(batch, training=True)["click"]
    np.testing.assert_allclose(found, z[:, 0], rtol=1e-3, atol=1e-3)


# === Scenarios ===


def test_at_the_start_all_scenarios_are_one_network() -> None:
    model = MODELS["STAR"](with_spec(), MODELS["STAR"].Config(**SMALL), seed=1)
    model(build.empty_features(model.manifest))
    for variable in model.auxiliary_towers.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    answers = [
        model({**features(), "scenario": tf.fill([50], s)}) for s in range(S + 1)
    ]
    for name, first in answers[0].items():
        for other in answers[1:]:
            np.testing.assert_allclose(other[name], first, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_a_scenarios_rows_depend_on_no_other_scenario(training: bool) -> None:
    scenario = features()["scenario"].numpy()
    before = star()(features(), training=training)
    changed = dict(features())
    other = scenario != 0
    changed["price"] = tf.where(other, 50.0, features()["price"])
    changed["user"] = tf.where(other, 3, features()["user"])
    after = star()(changed, training=training)
    for name in before:
        np.testing.assert_array_equal(before[name][~other], after[name][~other])
        assert np.abs(before[name][other] - after[name][other]).max() > 0.01


@pytest.mark.parametrize("training", [True, False])
def test_a_scenarios_rows_move_no_other_scenarios_parts(training: bool) -> None:
    model = star()
    scenario = features()["scenario"].numpy()
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(features(), training=training)
        # An unknown row is normalised by all rows, yet has no parts of its own.
        parts = [
            tf.add_n([tf.reduce_sum(v[scenario == s]) for v in outputs.values()])
            for s in range(S + 1)
        ]
    own = [
        (group.split("/")[1], variable)
        for group, variables in model.variable_groups().items()
        if group.partition("/")[0] in ("scenario", "cell")
        for variable in variables
    ]
    for p, part in enumerate(parts):
        gradients = tape.gradient(part, [v for _, v in own])
        moved = {
            scenario
            for (scenario, _), gradient in zip(own, gradients)
            if gradient is not None and np.abs(gradient).max() > 0
        }
        assert moved == set(SCENARIOS[p : p + 1])


def test_evaluation_does_not_depend_on_the_batch() -> None:
    model = star()
    model(features(), training=True)
    whole = model(features())
    order = np.random.default_rng(0).permutation(50)
    for rows in ([7], order[:1], order[:23], order):
        part = model({k: tf.gather(v, rows) for k, v in features().items()})
        for name, value in part.items():
            truth = tf.gather(whole[name], rows)
            np.testing.assert_allclose(value, truth, rtol=1e-5, atol=1e-5)


def test_a_training_batch_without_a_scenario_leaves_all_of_it_alone() -> None:
    model = star()
    rows = np.flatnonzero(features()["scenario"].numpy() != 1)
    batch = {k: tf.gather(v, rows) for k, v in features().items()}
    moving = (model.norm.moving_mean, model.norm.moving_variance)
    before = [v[1].numpy() for v in (*moving, model.norm.moving_weight)]
    with tf.GradientTape() as tape:
        outputs = model(batch, training=True)
        total = tf.add_n([tf.reduce_sum(tf.square(v)) for v in outputs.values()])
    variables = model.trainable_variables
    gradients = [tf.convert_to_tensor(g) for g in tape.gradient(total, variables)]
    assert all(np.isfinite(g).all() for g in gradients)
    absent = {
        v.ref()
        for group, members in model.variable_groups().items()
        if group.split("/")[1:2] == [SCENARIOS[1]]
        for v in members
    }
    assert len(absent) == 2 + 2 * 2 + 2 * 2 * 3
    for variable, gradient in zip(variables, gradients):
        if variable.ref() in absent:
            assert np.abs(gradient).max() == 0, variable.name
    for old, new in zip(before, (*moving, model.norm.moving_weight)):
        np.testing.assert_array_equal(old, new[1])


def test_work_does_not_grow_with_scenarios() -> None:
    found = {}
    batch = {k: tf.repeat(v, 20, axis=0) for k, v in features().items()}  # 1,000 rows
    for count in (1, 24):
        values = [f"s{i}" for i in range(count)]
        data = with_spec(scenario={"column": "page", "values": values, "dim": 3})
        batch["scenario"] = tf.constant(np.arange(1_000) % count, tf.int32)
        for leaf, path in (("full", "tiles"), ("rank1", "tiles"), ("full", "einsum")):
            model = star(data, leaf=leaf, path=path)
            found[count, leaf, path] = multiplications(model, batch)
    one = found[1, "rank1", "tiles"]
    # The mean of the scenarios' embeddings is a product with [S, 3].
    assert found[24, "rank1", "tiles"] - one == 1_000 * 3 * 23
    for count in (1, 24):
        # A tile of 64 rows may be empty but for one row.
        assert found[count, "full", "tiles"] <= (1.1 + count * 0.064) * one
    assert found[24, "full", "einsum"] > 8 * one


# === Training ===


def test_leaves_are_pulled_towards_one() -> None:
    model = star(leaf_l2=0.1)
    (penalty,) = model.aux_losses().values()
    leaves = [v for v in model.trainable_variables if "leaf" in v.name]
    truth = 0.1 * sum(((v.numpy() - 1) ** 2).sum() for v in leaves)
    np.testing.assert_allclose(penalty, truth, rtol=1e-5)
    assert len(leaves) == S * (2 + 2 * 3)
    assert star().aux_losses() == {}
    for variable in leaves:
        variable.assign(tf.ones_like(variable))
    assert float(model.aux_losses()["leaf_l2"]) == 0


def _trainer(manifest: DatasetManifest) -> Trainer:
    found = MODELS["STAR"]
    model = found(manifest, found.Config(**SMALL, dropout=0.2), seed=1)
    model(build.empty_features(manifest))
    names = {t.name: model.trained_output(t) for t in model.tasks}
    return Trainer(
        model,
        TaskLosses(model.tasks, names),
        Equal(TaskInfo(manifest.dataset.task_names), BalancerConfig()),
        OptimizerGroups(
            {"default": OptimizerSpec(learning_rate=0.02)}, model.variable_groups(), 9
        ),
    )


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    tmp_path: pathlib.Path,
) -> None:
    manifest = tiny_dataset(tmp_path / "data")
    reader = Reader(tmp_path / "data", manifest, ("train",), 64)
    # Graphs that run a few times are not worth optimizing.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    whole, resumed = _trainer(manifest), _trainer(manifest)
    batches = iter(reader.epoch())
    whole.train_chunk(batches, tf.constant(2, tf.int64))
    Checkpoints(tmp_path / "checkpoints", whole).save(Progress(2, batch=2))
    early = [v.numpy() for v in _moving(whole)]
    whole.train_chunk(batches, tf.constant(3, tf.int64))
    for variable in resumed.model.variables:
        variable.assign_add(tf.ones_like(variable))
    progress = Checkpoints(tmp_path / "checkpoints", resumed).restore()
    assert progress is not None
    for old, new in zip(early, _moving(resumed), strict=True):
        np.testing.assert_array_equal(old, new)
    rest = iter(reader.epoch(start=progress.batch))
    resumed.train_chunk(rest, tf.constant(3, tf.int64))
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
    assert [np.abs(a - b).max() > 0 for a, b in zip(early, _moving(whole))] == [
        True
    ] * 3
    for old, new in zip(whole.model.variables, resumed.model.variables):
        np.testing.assert_array_equal(old, new, err_msg=old.name)


def _moving(trainer: Trainer) -> list[Any]:
    return [v for v in trainer.model.variables if "moving" in v.name]


# === Tasks and settings ===


def test_classes_and_numbers() -> None:
    tasks = [
        {"name": "click", "label": "click"},
        {"name": "like", "label": "like", "type": "multiclass", "classes": 3},
        {"name": "buy", "label": "buy", "type": "regression"},
    ]
    model = star(with_spec(tasks=tasks))
    outputs = model(features())
    assert {k: v.shape for k, v in outputs.items()} == {
        "click": [50],
        "like": [50, 3],
        "buy": [50],
    }
    alone = model({k: v[4:5] for k, v in features().items()})
    for name, value in outputs.items():
        np.testing.assert_allclose(alone[name][0], value[4], rtol=1e-4, atol=1e-5)


UNPOOLED = {
    "name": "hist",
    "kind": "sequence",
    "max_length": 5,
    "pooling": "none",
    "columns": [{"name": "item", "vocabulary": "item", "dim": 4}],
}


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        ({"scenario": None}, {}, "dataset.scenario"),
        ({}, {"auxiliary_features": ["colour"]}, "colour"),
        (
            {"features": [*DATASET["features"][:2], UNPOOLED]},
            {"auxiliary_features": ["hist"]},
            "hist",
        ),
    ],
)
def test_impossible_settings_are_refused(
    spec: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        star(with_spec(**spec), **changes)
