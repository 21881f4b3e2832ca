"""DBMTL against NumPy, along its graph."""

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
    flat,
    make,
    mlp,
    relu,
    softmax,
    tower,
    with_spec,
)
from tfmtl._keras import tf
from tfmtl.errors import ConfigError

GRAPH = {"buy": ["like", "click"], "like": ["click"]}
SMALL: dict[str, Any] = {
    "bottom_units": [6],
    "specific_units": [4],
    "relation_units": [3],
}


def dbmtl(parents: Any = GRAPH, data: Any = None, **changes: Any) -> Any:
    return make("DBMTL", data, **{**SMALL, "parents": parents, **changes})


def relation(model: Any, task: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of a task's Bayesian layers, found by the variables' names."""
    found = []
    for stack in model.relations:
        for layer in stack.layers:
            for kernel, bias in zip(layer._kernels, layer._biases):
                if f"task_{task}/" in kernel.name or f"task/{task}/" in kernel.name:
                    found.append((kernel.numpy(), bias.numpy()))
    assert found, task
    return found


def own(model: Any) -> dict[str, np.ndarray]:
    """q of each task."""
    x, result = flat(model), {}
    for t, task in enumerate(TASKS):
        if model.config.num_experts:
            experts = [mlp(x, model.bottom, e) for e in range(model.config.num_experts)]
            weights = softmax(x @ model.gates.dense.kernel[t].numpy())
            r = sum(weights[:, [e]] * f for e, f in enumerate(experts))
        else:
            r = mlp(x, model.bottom, 0)
        result[task] = mlp(r, model.specific, t)
    return result


def reference(
    model: Any, parents: Any = GRAPH, passed: str = "hidden", reverse: bool = False
) -> Truth:
    q, t, o = own(model), {}, {}
    for number, task in [(TASKS.index(n), n) for n in ("click", "like", "buy")]:
        above = parents.get(task, [])[:: -1 if reverse else 1]
        read = {"hidden": t, "own": q}[passed]
        hidden = np.concatenate([q[task], *(read[p] for p in above)], axis=1)
        for kernel, bias in relation(model, task):
            hidden = relu(hidden @ kernel + bias)
        t[task] = hidden
        o[OUTPUTS[number]] = tower(hidden, model, number)
    return o


def test_equals_numpy() -> None:
    # As wide as q, so that reading q in place of t is possible too.
    model = dbmtl(relation_units=[4])
    assert close(model, reference(model))
    assert not close(model, reference(model, passed="own")), "children read q"
    assert not close(model, reference(model, reverse=True)), "parents change places"


def test_with_experts_equals_numpy() -> None:
    model = dbmtl(num_experts=3, relation_units=[5, 3], tower_units=[4])
    assert close(model, reference(model))


@pytest.mark.parametrize("experts", [0, 3])
def test_each_weight_matters(experts: int) -> None:
    check_each_weight_matters(dbmtl(num_experts=experts), reference)


def test_the_graph_defaults_to_given() -> None:
    model = dbmtl(parents=None)
    assert close(model, reference(model, {"buy": ["click"]}))
    assert model.config.parents is None


def test_an_empty_graph_is_shared_bottom() -> None:
    model = dbmtl(parents={})
    plain = make("SharedBottom", bottom_units=[6], tower_units=[4, 3])
    (stack,) = model.relations
    hidden = plain.towers.hidden.layers
    for one, other in (
        (plain.embedding, model.embedding),
        (plain.bottom, model.bottom),
        (hidden[0], model.specific.layers[0]),
        (hidden[1], stack.layers[0]),
        (plain.towers.head, model.towers.head),
    ):
        for a, b in zip(one.weights, other.weights):
            a.assign(b)
    found = plain(features())
    for output, value in model(features()).items():
        np.testing.assert_allclose(value, found[output], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("parents", "ancestors"),
    [
        ({}, {}),
        (GRAPH, {"like": {"click"}, "buy": {"click", "like"}}),
        (
            {"click": ["like"], "like": ["buy"]},
            {"click": {"like", "buy"}, "like": {"buy"}},
        ),
        ({"buy": ["click", "like"]}, {"buy": {"click", "like"}}),
    ],
)
def test_a_task_depends_on_its_ancestors_alone(parents: Any, ancestors: Any) -> None:
    model = dbmtl(parents)
    x = model.embedding(features())
    q = model.specific(model.bottom(x.flat)[:, 0])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(q)
        found = [tf.reduce_sum(o) for o in model.towers(model.relate(q))]
    for task, value in zip(TASKS, found):
        slopes = np.abs(tape.gradient(value, q)).max(axis=(0, 2))
        reached = {name for name, slope in zip(TASKS, slopes) if slope > 0}
        assert reached == {task, *ancestors.get(task, ())}


def test_parents_own_nothing_that_a_child_trains() -> None:
    groups = dbmtl().variable_groups()
    assert set(groups) == {
        "embedding",
        "shared",
        "task/click",
        "task/like",
        "task/buy",
    }
    # Only the last has layers of its own; a head is its task's.
    assert [len(groups[f"task/{t}"]) for t in TASKS] == [2, 2, 6]
    joint = dbmtl(given_loss="joint").variable_groups()
    assert set(joint) == {"embedding", "shared", "task/like", "task/buy"}


def test_the_order_in_the_file_does_not_matter() -> None:
    graph = {"click": ["like"], "like": ["buy"]}
    forwards, backwards = dbmtl(graph), dbmtl(dict(reversed(graph.items())))
    for a, b in zip(forwards.weights, backwards.weights):
        assert a.name.partition("/")[2] == b.name.partition("/")[2]
        b.assign(a)
    expected = forwards(features())
    for output, value in backwards(features()).items():
        np.testing.assert_allclose(value, expected[output])


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        ({"like": ["buy"], "buy": ["like"]}, r"`model.config.parents` .*circle"),
        ({"like": ["cart"]}, "cart"),
        ({"like": ["click", "click"]}, "once"),
    ],
)
def test_impossible_graphs_are_refused(parents: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dbmtl(parents)


def test_numbers_and_classes_may_be_parents() -> None:
    tasks = [
        {"name": "kind", "label": "kind", "type": "multiclass", "classes": 3},
        {"name": "time", "label": "time", "type": "regression"},
        {"name": "click", "label": "click"},
    ]
    model = dbmtl({"click": ["kind", "time"], "time": ["kind"]}, with_spec(tasks=tasks))
    outputs = model(features())
    assert {k: v.shape.as_list() for k, v in outputs.items()} == {
        "kind": [50, 3],
        "time": [50],
        "click": [50],
    }
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(model(features())["click"])
    claimed = model.specific.variable_groups()
    assert set(claimed) == {"shared/task_kind", "shared/task_time", "task/click"}
    slopes = tape.gradient(value, [v for vs in claimed.values() for v in vs])
    assert all(np.any(s) for s in slopes)
