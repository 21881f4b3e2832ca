"""Extraction equals a loop over gates and experts; what a gate must not see is 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers.dropout import dropout_step
from tfmtl.layers.extraction import Extraction

B, D = 9, 5
TASKS = ("like", "click", "buy")  # not in the order of their names
COUNTS = {"like": 2, "click": 1, "buy": 0}
GATES = {f"gate/{t}": 1 for t in TASKS}


def inputs(streams: int | None = None, seed: int = 0) -> Any:
    shape = (B, D) if streams is None else (B, streams, D)
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def make(x: Any, tasks: tuple[str, ...] = TASKS, **changes: Any) -> Extraction:
    """A level whose biases, too, have left their zeros."""
    settings = {"shared_experts": 2, "units": [6, 4], "seed": 3, "name": "level"}
    settings |= changes
    settings.setdefault("task_experts", [COUNTS[t] for t in tasks])
    layer = Extraction(tasks, **settings)
    layer(x)
    for variable in layer.trainable_variables:
        seed = sum(map(ord, variable.name))
        draw = np.random.default_rng(seed).normal(0, 0.3, variable.shape)
        variable.assign_add(draw.astype(np.float32))
    return layer


def members(layer: Extraction, stream: str) -> list[list[tuple[Any, Any]]]:
    """Kernel and bias of each layer of each expert that reads a stream."""
    if stream == "shared":
        stacks = layer.shared.layers if layer.shared else []
        layers = [(d.kernel.numpy(), d.bias.numpy()) for d in stacks]
    else:
        held = (layer.own._kernels, layer.own._biases) if layer.own else ((), ())
        layers = [
            (k[f"task/{stream}"].numpy(), b[f"task/{stream}"].numpy())
            for k, b in zip(*held)
            if f"task/{stream}" in k
        ]
    count = len(layers[0][0]) if layers else 0
    return [[(k[m], b[m]) for k, b in layers] for m in range(count)]


def loop(layer: Extraction, x: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """Stream to its mixture, and to its weights by expert."""
    names = [*layer.tasks, "shared"]
    read = {n: x if x.ndim == 2 else x[:, s] for s, n in enumerate(names[: x.shape[1]])}
    experts: dict[str, list[np.ndarray]] = {}
    for name in names:
        experts[name] = []
        for kernels_and_biases in members(layer, name):
            value = read[name]
            for kernel, bias in kernels_and_biases:
                value = np.maximum(value @ kernel + bias, 0)
            experts[name].append(value)
    mixed, weights = {}, {}
    for name in names if layer.shared_gate else layer.tasks:
        seen = sorted(layer.tasks) if name == "shared" else [name]
        rows = [(n, m, e) for n in [*seen, "shared"] for m, e in enumerate(experts[n])]
        gate = "gate_shared" if name == "shared" else f"gate/{name}"
        logits = read[name] @ layer._gate_kernels[gate].numpy()
        w = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert w.shape[1] == len(rows)
        mixed[name] = sum(w[:, [r]] * e for r, (_, _, e) in enumerate(rows))
        weights[name] = {(n, m): w[:, r] for r, (n, m, _) in enumerate(rows)}
    return mixed, weights


@pytest.mark.parametrize("shared_gate", [False, True])
@pytest.mark.parametrize("streams", [None, 4])
def test_equals_a_loop(streams: int | None, shared_gate: bool) -> None:
    x = inputs(streams)
    layer = make(x, shared_gate=shared_gate)
    found = layer(x)
    mixed, weights = loop(layer, x.numpy())
    names = [*TASKS, "shared"][: 3 + shared_gate]
    assert found.mixed.shape == [B, len(names), 4]
    assert found.gates.shape == [B, len(names), 5]
    # click's expert, like's two, the shared two
    order = [("click", 0), ("like", 0), ("like", 1), ("shared", 0), ("shared", 1)]
    for g, name in enumerate(names):
        np.testing.assert_allclose(found.mixed[:, g], mixed[name], rtol=1e-4, atol=1e-5)
        truth = [weights[name].get(e, np.zeros(B)) for e in order]
        np.testing.assert_allclose(
            found.gates[:, g], np.stack(truth, axis=1), rtol=1e-4, atol=1e-6
        )
    assert found.own.shape == [B, 3, 4]
    assert found.shared.shape == [B, 2, 4]


def test_weights_sum_to_one_and_are_exactly_0_out_of_sight() -> None:
    x = inputs()
    layer = make(x, shared_gate=True)
    gates = layer(x).gates.numpy()
    np.testing.assert_allclose(gates.sum(axis=-1), 1, rtol=1e-6)
    seen = np.array(
        [[0, 1, 1, 1, 1], [1, 0, 0, 1, 1], [0, 0, 0, 1, 1], [1, 1, 1, 1, 1]], bool
    )
    assert (gates[:, ~seen] == 0).all()
    assert (gates[:, seen] > 0).all()
    assert gates.std(axis=0)[seen].min() > 1e-3


def test_no_variable_depends_on_the_order_of_the_tasks() -> None:
    other_order = ("buy", "like", "click")
    x = inputs(4)
    layer = make(x, shared_gate=True)
    move = [TASKS.index(t) for t in other_order]
    swapped = tf.gather(x, [*move, 3], axis=1)
    other = make(swapped, other_order, shared_gate=True)
    by_name = {v.name: v for v in layer.trainable_variables}
    assert {v.name for v in other.trainable_variables} == set(by_name)
    for variable in other.trainable_variables:
        variable.assign(by_name[variable.name])
    found, whole = other(swapped), layer(x)
    np.testing.assert_allclose(
        found.mixed, tf.gather(whole.mixed, [*move, 3], axis=1), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(found.own, whole.own, rtol=1e-5, atol=1e-6)


def test_members_start_different_with_the_right_spread() -> None:
    layer = Extraction(("a", "b"), [2, 2], 2, [256], seed=1)
    layer(tf.zeros([1, 256]))
    kernels = np.stack(
        [e[0][0] for s in ("a", "b", "shared") for e in members(layer, s)]
    )
    np.testing.assert_allclose(kernels.std(axis=(1, 2)), np.sqrt(2 / 256), rtol=0.03)
    for i in range(6):
        for j in range(i):
            assert np.abs(kernels[i] - kernels[j]).max() > 0
    gates = [k.numpy() for k in layer._gate_kernels.values()]
    assert np.abs(gates[0] - gates[1]).max() > 0


def test_gate_dropout_loses_experts_in_sight_and_renormalises() -> None:
    x = tf.repeat(inputs(), 200, axis=0)
    layer = make(x, shared_gate=True, gate_dropout=0.5)
    whole = layer(x).gates.numpy()
    with dropout_step(tf.constant(2, tf.int64)):
        gates = layer(x, training=True).gates.numpy()
        again = layer(x, training=True).gates.numpy()
    np.testing.assert_array_equal(gates, again)
    np.testing.assert_allclose(gates.sum(axis=-1), 1, rtol=1e-5)
    assert (gates[:, ~layer.mask] == 0).all()
    assert 0.2 < (gates[:, layer.mask] == 0).mean() < 0.55
    # Where chance took both experts of `buy`, they count alike.
    alike = np.isclose(gates[:, 2, 3:], 0.5).all(axis=-1)
    assert alike.mean() == pytest.approx(0.25, abs=0.05)
    # Where it took one of all, the rest keep their proportions.
    both = (gates[:, 3, 0] > 0) & (gates[:, 3, 4] > 0) & (gates[:, 3] == 0).any(-1)
    np.testing.assert_allclose(
        gates[both, 3, 0] / gates[both, 3, 4],
        whole[both, 3, 0] / whole[both, 3, 4],
        rtol=1e-4,
    )


def test_dropout_of_experts_in_training_only() -> None:
    x = inputs()
    layer = make(x, dropout=0.5)
    plain = layer(x).mixed
    np.testing.assert_array_equal(plain, layer(x, training=False).mixed)
    assert np.abs(layer(x, training=True).mixed - plain).max() > 0.01


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"task/click": 4, "task/like": 4, **GATES}),
        ({"own_experts": False}, GATES),
        ({"own_experts": False, "own_gates": False, "shared_gate": True}, {}),
    ],
)
def test_groups_hold_what_one_task_alone_reaches(
    settings: dict[str, Any], expected: dict[str, int]
) -> None:
    layer = make(inputs(), **settings)
    groups = {k: len(v) for k, v in layer.variable_groups().items()}
    assert groups == expected


def test_config_round_trip() -> None:
    x = inputs()
    layer = Extraction(
        TASKS, [1, 0, 2], 1, [4], seed=5, shared_gate=True, own_experts=False
    )
    expected = layer(x).mixed
    copy = Extraction.from_config(layer.get_config())
    np.testing.assert_array_equal(copy(x).mixed, expected)
    assert copy.get_config() == layer.get_config()


def test_unknown_batch_size_in_a_graph() -> None:
    layer = make(inputs(4), shared_gate=True)
    run = tf.function(
        lambda x: layer(x).mixed, input_signature=[tf.TensorSpec([None, 4, D])]
    )
    x = inputs(4)
    np.testing.assert_allclose(run(x)[:4], run(x[:4]), rtol=1e-5, atol=1e-6)


def test_either_kind_of_experts_may_be_missing() -> None:
    x = inputs()
    for counts, shared in (([0, 0, 0], 2), ([1, 2, 1], 0)):
        layer = make(x, task_experts=counts, shared_experts=shared)
        found = layer(x)
        assert (found.own is None) == (shared == 2)
        assert (found.shared is None) == (shared == 0)
        mixed, _ = loop(layer, x.numpy())
        for t, task in enumerate(TASKS):
            np.testing.assert_allclose(found.mixed[:, t], mixed[task], rtol=1e-4)


def test_every_task_needs_an_expert() -> None:
    with pytest.raises(ValueError, match="0 of task 'click', 0"):
        Extraction(("click",), [0], 0, [4], seed=0)
    with pytest.raises(ValueError, match="must give 2 counts"):
        Extraction(("click", "buy"), [1], 0, [4], seed=0)
