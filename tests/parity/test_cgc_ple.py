"""CGC and PLE against NumPy, their limits, and who reaches what."""

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
    relu,
    softmax,
    tower,
    with_spec,
)
from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.losses import TaskLosses

ONE: dict[str, Any] = {
    "task_experts": {"click": 2, "like": 0, "buy": 1},
    "shared_experts": 2,
    "tower_units": [4],
}
CGC = {**ONE, "expert_units": [6, 5]}


def independent_tasks() -> Any:
    return with_spec(tasks=[{"name": n, "label": n} for n in TASKS])


def parts(level: Any, owner: str) -> list[tuple[Any, Any]]:
    """Kernels [m, d, h] and biases of an owner's experts, layer by layer."""
    if owner == "shared":
        return [(d._kernels[0], d._biases[0]) for d in level.shared.layers]
    pairs = zip(level.own._kernels, level.own._biases)
    return [(k[owner], b[owner]) for k, b in pairs if owner in k]


def experts(level: Any, owner: str, x: np.ndarray) -> list[np.ndarray]:
    layers = parts(level, owner)
    results = []
    for m in range(layers[0][0].shape[0] if layers else 0):
        value = x
        for kernel, bias in layers:
            value = relu(value @ kernel[m].numpy() + bias[m].numpy())
        results.append(value)
    return results


def read(
    level: Any, gate: str, selector: np.ndarray, rows: list[np.ndarray], ones: bool
) -> np.ndarray:
    weights = softmax(selector @ level._gate_kernels[gate].numpy())
    if ones:
        weights = np.ones_like(weights)
    assert weights.shape[1] == len(rows)
    mixed: np.ndarray = sum(weights[:, [r]] * row for r, row in enumerate(rows))
    return mixed


def ple(model: Any, levels: list[Any] | None = None, wrong: str = "") -> Truth:
    """The papers' equations, one task after the other.

    Args:
        model: CGC or PLE.
        levels: Its levels.
        wrong: A mistake of public code: `ones` (all gates 1), `order` (columns of the
            gates belong to other experts), `selector` (x selects at every level),
            `in_place` (g^{t,j-1} is overwritten while the shared gate still needs it).
    """
    levels = levels or model.levels
    x = flat(model)
    of_task, shared = dict.fromkeys(TASKS, x), x
    for j, level in enumerate(levels):
        own = {t: experts(level, f"task/{t}", of_task[t]) for t in TASKS}
        common = experts(level, "shared", shared)
        after = {}
        for t in TASKS:
            rows = [*own[t], *common]
            if wrong == "order":
                rows = [*common, *own[t]]
            selector = x if wrong == "selector" else of_task[t]
            after[t] = read(level, f"gate/{t}", selector, rows, wrong == "ones")
        if wrong == "in_place":
            own = {t: experts(level, f"task/{t}", after[t]) for t in TASKS}
        if j < len(levels) - 1:
            rows = [e for t in sorted(TASKS) for e in own[t]] + common
            selector = x if wrong == "selector" else shared
            shared = read(level, "gate_shared", selector, rows, wrong == "ones")
        of_task = after
    return {
        o: tower(of_task[t], model, n) for n, (t, o) in enumerate(zip(TASKS, OUTPUTS))
    }


def cgc(model: Any, wrong: str = "") -> Truth:
    return ple(model, [model.extraction], wrong)


def same_weights(target: Any, source: Any, *names: str) -> None:
    for name in names:
        pairs = zip(getattr(target, name).weights, getattr(source, name).weights)
        for a, b in pairs:
            a.assign(b)


def same_outputs(a: Any, b: Any) -> None:
    for output, value in a(features()).items():
        np.testing.assert_allclose(b(features())[output], value, rtol=1e-4, atol=1e-4)


def test_cgc_equals_numpy() -> None:
    model = make("CGC", **CGC)
    assert close(model, cgc(model))
    for wrong in ("ones", "order"):
        assert not close(model, cgc(model, wrong)), wrong


@pytest.mark.parametrize("count", [2, 3])
def test_ple_equals_numpy(count: int) -> None:
    width = flat(make("SharedBottom")).shape[1]  # so that every mistake fits in shape
    model = make("PLE", **ONE, expert_units=[[width]] * count)
    assert close(model, ple(model))
    for wrong in ("ones", "order", "selector", "in_place"):
        assert not close(model, ple(model, wrong=wrong)), wrong


def test_levels_of_different_depth_and_width_equal_numpy() -> None:
    model = make("PLE", **ONE, expert_units=[[7, 6], [5], [4]])
    assert close(model, ple(model))


def test_any_perturbed_weight_breaks_parity() -> None:
    check_each_weight_matters(make("CGC", **CGC), cgc)
    model = make("PLE", **{**ONE, "task_experts": 1}, expert_units=[[9], [8]])
    check_each_weight_matters(model, ple)


def test_one_level_is_cgc() -> None:
    one, plain = make("PLE", **ONE, expert_units=[[6, 5]]), make("CGC", **CGC)
    same_weights(plain, one, "embedding", "towers")
    for a, b in zip(plain.extraction.weights, one.levels[0].weights):
        a.assign(b)
    same_outputs(one, plain)
    assert {k: len(v) for k, v in one.variable_groups().items()} == {
        k: len(v) for k, v in plain.variable_groups().items()
    }


@pytest.mark.parametrize("name", ["CGC", "PLE"])
def test_without_task_experts_it_is_mmoe(name: str) -> None:
    units = {"CGC": [6], "PLE": [[6]]}[name]
    config = {"task_experts": 0, "shared_experts": 3, "tower_units": [4]}
    model = make(name, **config, expert_units=units)
    plain = make("MMoE", num_experts=3, expert_units=[6], tower_units=[4])
    same_weights(plain, model, "embedding", "towers")
    level = model.extraction if name == "CGC" else model.levels[0]
    ((kernel, bias),) = parts(level, "shared")
    plain.experts.layers[0]._kernels[0].assign(kernel)
    plain.experts.layers[0]._biases[0].assign(bias)
    for t, task in enumerate(TASKS):
        plain.gates.dense._kernels[t].assign(level._gate_kernels[f"gate/{task}"])
    same_outputs(model, plain)


@pytest.mark.parametrize("depth", [1, 3])
def test_one_expert_a_task_and_none_shared_are_independent_networks(depth: int) -> None:
    widths = [6, 5, 4][:depth]
    model = make(
        "PLE",
        independent_tasks(),
        task_experts=1,
        shared_experts=0,
        tower_units=[4],
        expert_units=[[w] for w in widths],
    )
    plain = make(
        "SoftSharing", independent_tasks(), units=widths, tower_units=[4], alpha=0.0
    )
    same_weights(plain, model, "embedding", "towers")
    for level, dense in zip(model.levels, plain.trunks.layers):
        for t, task in enumerate(TASKS):
            ((kernel, bias),) = parts(level, f"task/{task}")
            dense._kernels[t].assign(kernel[0])
            dense._biases[t].assign(bias[0])
    same_outputs(model, plain)
    for name, gates in model.inspect().items():
        if not name.endswith("gates"):
            continue
        own = gates.numpy()[:, [0, 1, 2], [1, 2, 0]]  # experts lie by name
        np.testing.assert_array_equal(own, np.ones([50, 3]))
    groups = model.variable_groups()
    assert not any("level_" in v.name for v in groups["shared"])
    held = sum("level_" in v.name for vs in groups.values() for v in vs)
    assert held == 9 * depth  # kernel, bias and gate of each task


def reach(model: Any, variables: dict[str, list[Any]]) -> dict[str, set[str]]:
    """Name to the tasks whose output reaches one of the variables."""
    flat_list = [(name, v) for name, members in variables.items() for v in members]
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(features())
    found: dict[str, set[str]] = {name: set() for name in variables}
    for task in TASKS:
        gradients = tape.gradient(outputs[task], [v for _, v in flat_list])
        for (name, _), gradient in zip(flat_list, gradients):
            if gradient is not None and np.any(gradient):
                found[name].add(task)
    return found


def experts_of(level: Any) -> dict[str, list[Any]]:
    owners = [*level.own.variable_groups(), "shared"]
    return {o: [v for pair in parts(level, o) for v in pair] for o in owners}


def test_no_task_moves_anothers_experts_in_cgc() -> None:
    model = make("CGC", independent_tasks(), **CGC)
    found = reach(model, experts_of(model.extraction))
    assert found == {
        "task/click": {"click"},
        "task/buy": {"buy"},
        "shared": set(TASKS),
    }


def test_who_reaches_what_in_ple() -> None:
    model = make(
        "PLE",
        independent_tasks(),
        **{**ONE, "task_experts": 1},
        expert_units=[[9], [8], [7]],
    )
    parts_of = {}
    for j, level in enumerate(model.levels):
        parts_of |= {f"{j}/{k}": vs for k, vs in experts_of(level).items()}
        parts_of |= {f"{j}/{k}": [v] for k, v in level._gate_kernels.items()}
    found, everyone = reach(model, parts_of), set(TASKS)
    assert {"0/gate_shared", "1/gate_shared"} < set(found)
    assert "2/gate_shared" not in found, "nothing would read it"
    for part, tasks in found.items():
        level, kind, task = (part + "/").split("/")[:3]
        first_own = {"task": 2, "gate": 1}.get(kind, 3)
        assert tasks == ({task} if int(level) >= first_own else everyone), part
    grouped = {k: {v.ref() for v in vs} for k, vs in model.variable_groups().items()}
    for task in TASKS:
        assert grouped[f"gate/{task}"] == {
            level._gate_kernels[f"gate/{task}"].ref() for level in model.levels[1:]
        }
        last_experts = experts_of(model.levels[2])[f"task/{task}"]
        assert {v.ref() for v in last_experts} < grouped[f"task/{task}"]
        below = experts_of(model.levels[0])[f"task/{task}"]
        assert {v.ref() for v in below} < grouped["shared"]


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("CGC", CGC),
        ("PLE", {**ONE, "expert_units": [[7], [6], [5]]}),
        ("PLE", {**ONE, "task_experts": 1, "shared_experts": 0}),
        ("MoE", {"num_experts": 3, "expert_units": [6], "active_experts": 2}),
        ("OMoE", {"num_experts": 3, "expert_units": [6]}),
        ("CrossStitch", {"units": [6, 5]}),
        ("SoftSharing", {"units": [6, 5]}),
    ],
)
def test_all_that_is_shared_passes_the_cut(name: str, config: dict[str, Any]) -> None:
    """dL/dv = sum_c dL/dc dc/dv over the tensors of the cut, each held by itself."""
    model = make(name, independent_tasks(), **config)
    groups = model.variable_groups()
    kinds = ("shared", "embedding")
    shared = [v for g, vs in groups.items() if g.partition("/")[0] in kinds for v in vs]

    def both_ways() -> Any:
        outputs = model(features())
        cut, pairs = model.cut(), []
        for task in ("click", "buy"):
            direct = tf.gradients(outputs[task], shared)
            heads = tf.gradients(outputs[task], cut, stop_gradients=cut)
            seen = [(c, h) for c, h in zip(cut, heads) if h is not None]
            through = tf.gradients(
                [c for c, _ in seen], shared, grad_ys=[h for _, h in seen]
            )
            for a, b in zip(direct, through):
                assert (a is None) == (b is None), task
                if a is not None:
                    pairs.append((tf.convert_to_tensor(a), tf.convert_to_tensor(b)))
        return pairs

    pairs = tf.function(both_ways, autograph=False)()
    assert len(pairs) >= 2
    assert any(np.abs(a).max() > 1e-3 for a, _ in pairs)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["CGC", "PLE"])
def test_gates_are_0_out_of_sight(architecture: str) -> None:
    units = {"CGC": [6], "PLE": [[6], [5]]}[architecture]
    model = make(architecture, **ONE, expert_units=units)
    model(features())
    # buy 1, click 2, then the shared 2
    seen = {"click": [1, 2, 3, 4], "like": [3, 4], "buy": [0, 3, 4]}
    for name, gates in model.inspect().items():
        if not name.endswith("gates"):
            continue
        for t, task in enumerate(TASKS):
            weights = gates.numpy()[:, t]
            assert (weights[:, seen[task]] > 0).all()
            assert (np.delete(weights, seen[task], axis=1) == 0).all()
            np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)


def test_each_loss_is_the_mean_over_the_tasks_own_rows() -> None:
    model = make("PLE", independent_tasks(), **ONE, expert_units=[[7], [6]])
    losses = TaskLosses(model.tasks, {t: t for t in TASKS})
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, (50, 3)).astype(np.float32)
    mask = draw.random((50, 3)) < [0.9, 0.3, 0.0]  # no row is in the space of `buy`
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(features())
        found, present = losses(
            outputs, tf.constant(labels), tf.constant(mask), tf.ones([50, 3])
        )
        one = [found[t] for t in range(3)]
    for t, task in enumerate(TASKS):
        s = outputs[task].numpy()
        rows = np.log1p(np.exp(-np.abs(s))) + np.maximum(s, 0) - labels[:, t] * s
        truth = rows[mask[:, t]].mean() if mask[:, t].any() else 0.0
        np.testing.assert_allclose(one[t], truth, rtol=1e-4)
    assert present.numpy().tolist() == [True, True, False]
    for gradient in tape.gradient(one[2], model.trainable_variables):
        assert gradient is None or not np.any(tf.convert_to_tensor(gradient))


@pytest.mark.parametrize("name", ["CGC", "PLE"])
def test_settings_that_do_not_fit_the_tasks(name: str) -> None:
    with pytest.raises(ConfigError, match=r"0 and 0 for 'like'"):
        make(name, task_experts={"click": 1, "like": 0, "buy": 1}, shared_experts=0)
    for counts in ({"click": 1}, {"click": 1, "like": 1, "buy": 1, "share": 1}):
        with pytest.raises(ConfigError, match="name every task once"):
            make(name, task_experts=counts)
