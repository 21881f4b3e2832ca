"""AITM against NumPy, its transfer along chains and trees, and its calibrator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.parity.funnels import (
    CHAIN,
    FORK,
    cross_entropy,
    labels,
    losses,
    probabilities,
    product,
    random_funnel,
    reaches,
)
from tests.parity.reference import (
    Truth,
    check_each_weight_matters,
    close,
    features,
    flat,
    make,
    manifest,
    mlp,
    relu,
    sigmoid,
    single_task,
    softmax,
    tower,
    with_spec,
)
from tfmtl import build
from tfmtl._keras import tf
from tfmtl.data.read import Batch
from tfmtl.losses import TaskLosses
from tfmtl.models import MODELS
from tfmtl.schema.manifest import LabelStats
from tfmtl.training.trainer import forward

SMALL: dict[str, Any] = {"step_units": [6, 4], "tower_units": [3]}


def aitm(tasks: Any = CHAIN, **changes: Any) -> Any:
    return make("AITM", with_spec(tasks=tasks), **{**SMALL, **changes})


def kernel(model: Any, task: str, part: str, kind: str = "kernel") -> np.ndarray:
    """A matrix of the transfer to a task, found by the variables' names."""
    for transfer in model.transfers:
        for variable in transfer.trainable_variables:
            if f"/{part}/" in variable.name and f"/{task}/{kind}" in variable.name:
                return variable.numpy()
    raise AssertionError((task, part))


def receive(
    model: Any, task: str, before: np.ndarray, own: np.ndarray, across: bool
) -> np.ndarray:
    """AIT(g(z_before), q)."""
    p = relu(
        before @ kernel(model, task, "passed") + kernel(model, task, "passed", "bias")
    )
    h1, h2, h3 = (kernel(model, task, n) for n in ("value", "query", "key"))
    pair = [p, own]
    keys = pair[::-1] if across else pair
    scores = [((u @ h2) * (v @ h3)).sum(1) for u, v in zip(pair, keys)]
    w = softmax(np.stack(scores, axis=1) / np.sqrt(h1.shape[1]))
    return w[:, [0]] * (p @ h1) + w[:, [1]] * (own @ h1)


def reference(model: Any, across: bool = False) -> Truth:
    """End-to-end logits of each task."""
    x, z = flat(model), {}
    for t, task in enumerate(model.tasks):
        own = mlp(x, model.steps, t)
        given = task.given
        z[task.name] = (
            receive(model, task.name, z[given], own, across) if given else own
        )
    return {t.name: tower(z[t.name], model, i) for i, t in enumerate(model.tasks)}


@pytest.mark.parametrize("tasks", [CHAIN, FORK], ids=["chain", "fork"])
def test_equals_numpy(tasks: Any) -> None:
    model = aitm(tasks)
    truth = reference(model)
    assert close(model, truth)
    assert not close(model, reference(model, across=True)), "attention across passes"
    multiplied = {**truth, "buy": product(truth["click"], truth["buy"])}
    assert not close(model, multiplied), "outputs are taken for conditionals"


@pytest.mark.parametrize("tasks", [CHAIN, FORK], ids=["chain", "fork"])
def test_each_weight_matters(tasks: Any) -> None:
    check_each_weight_matters(aitm(tasks), reference)


def test_conditionals_are_ratios() -> None:
    model = aitm()
    # Far apart, so that the order of the steps holds.
    for bias, start in zip(model.towers.head._biases, (3.0, 0.0, -3.0)):
        bias.assign([start])
    for weights in model.towers.head._kernels:
        weights.assign(0.1 * weights)
    p = probabilities(model)
    assert (p["click"] > p["like"]).all()
    assert (p["like"] > p["buy"]).all()
    np.testing.assert_allclose(p["like|click"], p["like"] / p["click"], rtol=1e-4)
    np.testing.assert_allclose(p["buy|like"], p["buy"] / p["like"], rtol=1e-4)


def test_one_step_is_a_plain_network() -> None:
    model = make("AITM", single_task(), **SMALL)
    assert model.transfers == []
    assert close(model, {"click": tower(mlp(flat(model), model.steps, 0), model, 0)})
    assert "transfer_gates" not in model.inspect()


def test_tasks_outside_a_funnel_are_chains_of_one() -> None:
    model = aitm([CHAIN[0], {"name": "like", "label": "like"}, FORK[2]])
    x = flat(model)
    alone = {
        n: tower(mlp(x, model.steps, t), model, t)
        for t, n in enumerate(("click", "like"))
    }
    assert close(model, alone)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(model(features())["like"])
    claimed = model.variable_groups()
    assert all(reaches(value, tape, claimed["task/like"]))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(model(features())["buy"])
    assert not any(reaches(value, tape, claimed["task/like"]))


def test_every_step_has_its_own_maps() -> None:
    model = aitm(FORK)
    (transfer,) = model.transfers
    assert transfer.owners == ("task/like", "task/buy")
    chained = aitm()
    assert [t.owners for t in chained.transfers] == [("shared/like",), ("task/buy",)]
    assert chained.inspect()["transfer_gates"].shape == [2, 2, 2]


def test_a_later_step_trains_what_it_receives() -> None:
    model = aitm()
    steps = model.steps.variable_groups()
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(features())
        buy, click = (tf.reduce_sum(outputs[n]) for n in ("buy", "click"))
    for variables in steps.values():
        assert any(reaches(buy, tape, variables)), "a gradient is stopped"
    assert not any(reaches(click, tape, steps["task/buy"]))
    assert not any(reaches(buy, tape, model.variable_groups()["task/click"]))


def test_the_loss_is_on_end_to_end_labels_of_all_rows() -> None:
    model, truth = aitm(), random_funnel(3)
    p = probabilities(model)
    found = losses(model, model(features()), labels(*truth))
    expected = [cross_entropy(y, p[t.name]) for y, t in zip(truth, model.tasks)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def violations(p: Truth, pairs: Any) -> float:
    return sum(np.maximum(p[a] - p[b], 0).mean() for a, b in pairs)


@pytest.mark.parametrize(
    ("tasks", "pairs"),
    [
        (CHAIN, [("like", "click"), ("buy", "like")]),
        (FORK, [("like", "click"), ("buy", "click")]),
    ],
    ids=["chain", "fork"],
)
def test_the_calibrator_compares_each_step_with_the_one_it_follows(
    tasks: Any, pairs: Any
) -> None:
    model = aitm(tasks, calibrator=0.3)
    for bias, start in zip(model.towers.head._biases, (-1.0, 0.0, 1.0)):
        bias.assign([start])
    p = probabilities(model)
    model(features(), training=True)
    expected = violations(p, pairs)
    assert expected > 0.01
    (found,) = model.aux_losses().values()
    assert float(found) == pytest.approx(0.3 * expected, rel=1e-4)
    logits = {k: np.log(v / (1 - v)) for k, v in p.items()}
    assert float(found) < 0.9 * 0.3 * violations(logits, pairs), "on logits"


def test_the_calibrator_is_silent_where_the_order_holds() -> None:
    model = aitm()
    for bias, start in zip(model.towers.head._biases, (60.0, 0.0, -60.0)):
        bias.assign([start])
    model(features(), training=True)
    assert float(model.aux_losses()["calibrator"]) == 0


def test_the_calibrator_is_part_of_the_loss_in_training_alone() -> None:
    model, on = aitm(), batch()
    task_losses = TaskLosses(
        model.tasks, {t.name: model.trained_output(t) for t in model.tasks}
    )
    _, _, penalty = forward(model, task_losses, on)
    model(features())
    assert model.aux_losses() == {}
    p = probabilities(model)
    expected = 0.6 * violations(p, [("like", "click"), ("buy", "like")])
    assert float(penalty) == pytest.approx(expected, rel=1e-4)
    off = aitm(calibrator=0.0)
    assert float(forward(off, task_losses, on)[2]) == 0


def batch() -> Batch:
    truth = labels(*random_funnel(3))
    everywhere = tf.ones_like(truth, tf.bool)
    return Batch(features(), truth, everywhere, tf.ones_like(truth), {})


def test_outputs_start_at_the_rates_over_all_rows() -> None:
    train = manifest().splits["train"]
    stats = {
        name: LabelStats(rows=1000, total=total)
        for name, total in (("click", 400), ("like", 100), ("buy", 10))
    }
    data = with_spec(tasks=CHAIN).model_copy(
        update={"splits": {"train": train.model_copy(update={"tasks": stats})}}
    )
    model = MODELS["AITM"](data, MODELS["AITM"].Config(**SMALL), seed=1)
    model(build.empty_features(data))
    biases = model.towers.head.bias[:, 0].numpy()
    np.testing.assert_allclose(sigmoid(biases), [0.4, 0.1, 0.01], rtol=1e-5)


def test_a_number_receives_and_is_not_compared() -> None:
    time = {"name": "time", "label": "time", "type": "regression", "given": "click"}
    model = aitm([*FORK, time])
    assert close(model, reference(model))
    model(features(), training=True)
    expected = violations(probabilities(model), [("like", "click"), ("buy", "click")])
    model(features(), training=True)
    assert float(model.aux_losses()["calibrator"]) == pytest.approx(
        0.6 * expected, rel=1e-4
    )
