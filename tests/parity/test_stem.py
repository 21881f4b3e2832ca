"""STEM against NumPy, what each loss may change, and its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.parity.reference import (
    OUTPUTS,
    TASKS,
    Truth,
    check_each_weight_matters,
    close,
    features,
    make,
    mlp,
    single_task,
    softmax,
    tower,
)
from tfmtl._keras import tf

SETTINGS: dict[str, Any] = {
    "task_experts": 2,
    "shared_experts": 2,
    "expert_units": [6],
    "gate_units": [5],
    "tower_units": [4],
}


def stem(**changes: Any) -> Any:
    return make("STEM", **{**SETTINGS, **changes})


def streams(model: Any) -> tuple[list[np.ndarray], np.ndarray]:
    """Flat inputs by the tables of each task, and by the shared ones."""
    own = [e(features()).flat.numpy() for e in model.task_embeddings]
    return own, model.embedding(features()).flat.numpy()


def outputs(
    model: Any, *, axis: int = -1, reads: str = "sum", foreign: bool = True
) -> Truth:
    """The forward pass, and wrong ones: gates over rows, of another input, or that
    hide the other tasks' experts."""
    own, shared = streams(model)
    count = model.config.task_experts
    experts, owner = [], []
    for task in sorted(TASKS):
        for _ in range(count):
            experts.append(
                mlp(own[TASKS.index(task)], model.task_experts, len(experts))
            )
            owner.append(task)
    for j in range(model.config.shared_experts):
        experts.append(mlp(shared, model.shared_experts, j))
        owner.append("")
    truth = {}
    for t, (task, output) in enumerate(zip(TASKS, OUTPUTS)):
        read = own[t] + shared if reads == "sum" else own[t]
        hidden = mlp(read, model.gate_hidden, t)
        logits = hidden @ model.gates.kernel[t].numpy() + model.gates.bias[t].numpy()
        if not foreign:
            logits = np.where([o in ("", task) for o in owner], logits, -np.inf)
        weights = softmax(logits, axis)
        z = sum(weights[:, [e]] * f for e, f in enumerate(experts))
        truth[output] = tower(z, model, t)
    return truth


def test_equals_numpy() -> None:
    model = stem()
    assert close(model, outputs(model))
    assert not close(model, outputs(model, axis=0)), "softmax over the batch passes too"
    assert not close(model, outputs(model, reads="own"))
    assert not close(model, outputs(model, foreign=False)), "PLE's gates pass too"


def test_any_perturbed_weight_breaks_parity() -> None:
    check_each_weight_matters(stem(), outputs)


def test_a_gate_without_hidden_layers_is_linear() -> None:
    model = stem(gate_units=[])
    assert close(model, outputs(model))


def gradients(model: Any, output: str, variables: list[Any]) -> list[bool]:
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(features())[output])
    found = tape.gradient(total, variables)
    return [
        g is not None and bool(tf.reduce_any(tf.convert_to_tensor(g) != 0))
        for g in found
    ]


@pytest.mark.parametrize("task", range(3))
def test_all_forward_task_specific_backward(task: int) -> None:
    """A task's loss leaves the others' experts and tables as they are, exactly."""
    model = stem()
    groups = model.variable_groups()
    for t, name in enumerate(TASKS):
        tables = list(model.task_embeddings[t].trainable_variables)
        for variables in (tables, groups[f"task/{name}"], groups[f"gate/{name}"]):
            assert any(gradients(model, OUTPUTS[task], variables)) == (t == task)
    for layer in (model.embedding, model.shared_experts):
        assert any(gradients(model, OUTPUTS[task], layer.trainable_variables))


def test_a_task_reads_what_the_others_have_learnt() -> None:
    """The forward pass does depend on foreign experts and their tables."""
    model = stem()
    before = model(features())["click"].numpy()
    table = model.task_embeddings[TASKS.index("like")].trainable_variables[0]
    table.assign_add(tf.random.stateless_normal(table.shape, [1, 2]))
    assert np.abs(model(features())["click"] - before).max() > 1e-3


def test_the_stop_changes_gradients_and_no_value() -> None:
    """Gradients of a task's own experts are those of a network without any stop."""
    model = stem()
    own = [model.task_experts.layers[0]._kernels[i] for i in range(6)]
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(features())["click"])
    found = tape.gradient(total, own)
    # Of the experts by name, click's are the third and fourth.
    for i, kernel in enumerate(own):
        if i in (2, 3):
            assert "task/click" in kernel.name
            step = 1e-2 * tf.random.stateless_normal(kernel.shape, [i, 1])
            kernel.assign_add(step)
            up = float(tf.reduce_sum(model(features())["click"]))
            kernel.assign_sub(2 * step)
            down = float(tf.reduce_sum(model(features())["click"]))
            kernel.assign_add(step)
            slope = float(tf.reduce_sum(found[i] * step))
            assert (up - down) / 2 == pytest.approx(slope, rel=0.05, abs=1e-3)
        else:
            assert found[i] is None or not np.any(found[i])


def test_weights_sum_to_one_over_all_experts() -> None:
    model = stem()
    model(features())
    gates = model.inspect()["gates"].numpy()
    assert gates.shape == (50, 3, 8)
    np.testing.assert_allclose(gates.sum(-1), 1, rtol=1e-5)
    assert (gates > 0).all(), "an expert is hidden from a task"


def test_one_task_is_a_mixture_over_two_tables() -> None:
    model = make("STEM", single_task(), **SETTINGS)
    own = model.task_embeddings[0](features()).flat.numpy()
    shared = model.embedding(features()).flat.numpy()
    experts = [mlp(own, model.task_experts, j) for j in range(2)]
    experts += [mlp(shared, model.shared_experts, j) for j in range(2)]
    hidden = mlp(own + shared, model.gate_hidden, 0)
    logits = hidden @ model.gates.kernel[0].numpy() + model.gates.bias[0].numpy()
    weights = softmax(logits)
    z = sum(weights[:, [e]] * f for e, f in enumerate(experts))
    np.testing.assert_allclose(
        model(features())["click"], tower(z, model, 0), rtol=1e-4, atol=1e-4
    )
