"""MMoE+ESMM against NumPy, and as ESMM, Shared-Bottom and ESM2 in its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.parity.funnels import CHAIN, FORK, probabilities, product, reaches
from tests.parity.reference import (
    Truth,
    check_each_weight_matters,
    close,
    features,
    flat,
    make,
    mlp,
    softmax,
    tower,
    with_spec,
)
from tfmtl._keras import tf

NAME = "MMoE+ESMM"
SMALL: dict[str, Any] = {"num_experts": 3, "expert_units": [6, 4], "tower_units": [3]}


def steps(model: Any, axis: int = 1) -> list[np.ndarray]:
    """Each step's own logit."""
    x = flat(model)
    experts = [mlp(x, model.experts, e) for e in range(model.config.num_experts)]
    found = []
    for t in range(len(model.tasks)):
        weights = softmax(x @ model.gates.dense.kernel[t].numpy(), axis)
        z = sum(weights[:, [e]] * f for e, f in enumerate(experts))
        found.append(tower(z, model, t))
    return found


def fork(model: Any, axis: int = 1) -> Truth:
    click, like, buy = steps(model, axis)
    return {
        "click": click,
        "like|click": like,
        "like": product(click, like),
        "buy|click": buy,
        "buy": product(click, buy),
    }


def made(tasks: Any = FORK, name: str = NAME, **changes: Any) -> Any:
    return make(name, with_spec(tasks=tasks), **{**SMALL, **changes})


def test_equals_numpy() -> None:
    model = made()
    truth = fork(model)
    assert close(model, truth)
    assert not close(model, fork(model, axis=0)), "softmax over the batch passes too"
    in_line = {**truth, "buy": product(*steps(model))}
    assert not close(model, in_line), "a fork passes as a chain"


def test_each_weight_matters() -> None:
    check_each_weight_matters(made(), fork)


def test_losses_are_on_products_and_move_gates_above() -> None:
    model = made(CHAIN)
    assert [model.trained_output(t) for t in model.tasks] == ["click", "like", "buy"]
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(model(features())["buy"])
    gates = [v for vs in model.gates.variable_groups().values() for v in vs]
    assert len(gates) == 3
    assert all(reaches(value, tape, gates))
    groups = set(model.variable_groups())
    assert groups == {"embedding", "shared", "gate/buy", "task/buy"}


def test_an_expert_a_step_behind_hard_gates_is_esmm() -> None:
    model = made(CHAIN)
    hard = tf.constant(np.where(np.eye(3), 0.0, -1e9), tf.float32)  # [T, E]
    model.gates.dense = lambda x: tf.tile(hard[None], [tf.shape(x)[0], 1, 1])
    plain = make("ESMM", with_spec(tasks=CHAIN), tower_units=[6, 4, 3])
    for a, b in zip(plain.embedding.weights, model.embedding.weights):
        a.assign(b)
    *below, last = plain.towers.hidden.layers
    for layer, stack in zip(below, model.experts.layers):
        for t in range(3):
            layer._kernels[t].assign(stack.kernel[t])
            layer._biases[t].assign(stack.bias[t])
    for a, b in zip(last.weights, model.towers.hidden.layers[0].weights):
        a.assign(b)
    for a, b in zip(plain.towers.head.weights, model.towers.head.weights):
        a.assign(b)
    found = plain(features())
    for output, value in model(features()).items():
        np.testing.assert_allclose(value, found[output], rtol=1e-4, atol=1e-4)


def test_one_expert_is_esmm_on_a_shared_bottom() -> None:
    model = made(CHAIN, num_experts=1)
    plain = make(
        "SharedBottom",
        with_spec(tasks=CHAIN),
        bottom_units=[6, 4],
        tower_units=[3],
        given_loss="joint",
    )
    for one, other in (
        (plain.embedding, model.embedding),
        (plain.bottom, model.experts),
        (plain.towers, model.towers),
    ):
        for a, b in zip(one.weights, other.weights):
            a.assign(b)
    found = plain(features())
    for output, value in model(features()).items():
        np.testing.assert_allclose(value, found[output], rtol=1e-4, atol=1e-4)
    for task in model.tasks:
        assert model.trained_output(task) == plain.trained_output(task)


def test_the_tree_of_esm2_gives_its_purchase_when_mixed() -> None:
    tasks = [
        CHAIN[0],
        CHAIN[1],
        {"name": "buy_after", "label": "buy", "given": "like"},
        {"name": "buy_without", "label": "buy", "given": "click"},
    ]
    model = made(tasks)
    p = probabilities(model)
    y1, y2 = p["click"], p["like|click"]
    y3, y4 = p["buy_after|like"], p["buy_without|click"]
    mixed = p["buy_after"] + (1 - y2) * p["buy_without"]
    np.testing.assert_allclose(mixed, y1 * (y2 * y3 + (1 - y2) * y4), rtol=1e-5)


@pytest.mark.parametrize("name", ["MMoE", "SharedBottom"])
def test_any_model_trained_on_products_shares_the_steps_above(name: str) -> None:
    small = SMALL if name == "MMoE" else {"bottom_units": [6]}
    for loss, own in (
        ("conditional", {"click", "like", "buy"}),
        ("joint", {"buy"}),
    ):
        model = make(name, with_spec(tasks=CHAIN), given_loss=loss, **small)
        groups = model.variable_groups()
        assert {g[5:] for g in groups if g.startswith("task/")} == own
        grouped = {v.ref() for vs in groups.values() for v in vs}
        assert grouped == {v.ref() for v in model.trainable_variables}
