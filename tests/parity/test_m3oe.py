"""M3oE against NumPy, its two levels of fusion, and its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.parity.reference import (
    TASKS,
    Truth,
    check_each_weight_matters,
    close,
    features,
    make,
    mlp,
    relu,
    sigmoid,
    softmax,
    with_spec,
)
from tests.parity.scenarios import cell, check_groups, every_row, tower
from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.models import MODELS
from tfmtl.testing.tiny import SCENARIOS

SETTINGS: dict[str, Any] = {
    "star_units": 6,
    "representation_units": [5, 7],
    "shared_experts": 2,
    "expert_units": 5,
    "tower_units": [4],
}


def m3oe(**changes: Any) -> Any:
    return make("M3oE", **{**SETTINGS, **changes})


def fusion(model: Any) -> dict[str, float]:
    return {k: float(sigmoid(v.numpy())) for k, v in model.fusion._numbers.items()}


def experts(h: np.ndarray, layer: Any) -> list[np.ndarray]:
    """ReLU after a layer norm of each expert's own."""
    found = []
    for e in range(layer.count):
        x = h @ layer.dense.kernel[e].numpy() + layer.dense.bias[e].numpy()
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        found.append(relu(x * layer.scale[e].numpy() + layer.shift[e].numpy()))
    return found


def outputs(
    model: Any,
    *,
    swapped: bool = False,
    others: str = "mean",
    shared_gate: bool = False,
) -> Truth:
    """The forward pass, and wrong ones: equation 7 as printed, other experts summed,
    one gate for all cells."""
    w = fusion(model)

    def mixed(members: list[np.ndarray], own: int, beta: float) -> np.ndarray:
        rest = [f for i, f in enumerate(members) if i != own]
        share = (1 - beta) / (len(rest) if others == "mean" else 1)
        return beta * members[own] + share * sum(rest)

    def answer(x: Any, p: int) -> list[np.ndarray]:
        flat, star = x.flat.numpy(), model.star
        kernel, bias = (v.numpy() for v in star._centres["shared"])
        leaf, own_bias = (v.numpy() for v in star._leaves[f"scenario/{SCENARIOS[p]}"])
        represented = flat @ (kernel * leaf) + bias + own_bias
        common = model.common
        h = represented @ common.kernel[0].numpy() + common.bias[0].numpy()
        h = h + mlp(flat, model.agnostic, 0)
        found = experts(h, model.experts)
        count = model.config.shared_experts
        by_scenario, by_task = found[count : count + 3], found[count + 3 :]
        d = mixed(by_scenario, p, w["beta_scenario"])
        said = []
        for t, task in enumerate(TASKS):
            shared = found[0]
            if count > 1:
                gate, start = cell(model.gates, p, 0 if shared_gate else t)
                weights = softmax(h @ gate + start)
                shared = sum(weights[:, [e]] * found[e] for e in range(count))
            own = sorted(TASKS).index(task)
            of_tasks = mixed(by_task, own, w["beta_task"])
            first, second = (of_tasks, d) if swapped else (d, of_tasks)
            r = shared + w["alpha_scenario"] * first + w["alpha_task"] * second
            said.append(tower(r, model.towers, p, t))
        return said

    return every_row(model, answer)


def test_equals_numpy() -> None:
    model = m3oe()
    assert close(model, outputs(model))
    assert not close(model, outputs(model, swapped=True)), "equation 7 as printed"
    assert not close(model, outputs(model, others="sum"))
    assert not close(model, outputs(model, shared_gate=True))


def test_a_single_shared_expert_needs_no_gate() -> None:
    model = m3oe(shared_experts=1)
    assert model.gates is None
    assert close(model, outputs(model))


def test_any_perturbed_weight_breaks_parity() -> None:
    check_each_weight_matters(m3oe(), outputs)


def test_fusion_starts_where_told_and_learns() -> None:
    starts = {
        "alpha_scenario": 0.2,
        "alpha_task": 0.4,
        "beta_scenario": 0.6,
        "beta_task": 0.9,
    }
    model = MODELS["M3oE"](
        with_spec(), MODELS["M3oE"].Config(**SETTINGS, **starts), seed=1
    )
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.square(model(features())["click"]))
    assert fusion(model) == pytest.approx(starts, rel=1e-5)
    numbers = [model.fusion._numbers[k] for k in starts]
    assert all(float(g) != 0 for g in tape.gradient(total, numbers))
    shared = {v.ref() for v in model.variable_groups()["shared"]}
    assert shared >= {v.ref() for v in numbers}
    for name, value in starts.items():
        assert float(model.inspect()[name]) == pytest.approx(value, rel=1e-5)


def test_fixed_fusion_is_no_trainable_variable() -> None:
    model = m3oe(train_fusion=False)
    assert not [v for v in model.trainable_variables if "fusion" in v.name]
    assert list(fusion(model).values()) == pytest.approx([0.73] * 4, rel=1e-5)
    assert close(model, outputs(model))


@pytest.mark.parametrize("kind", ["scenario", "task"])
def test_a_share_of_one_hides_the_other_experts(kind: str) -> None:
    """beta -> 1: only the own expert counts."""
    model = m3oe()
    model.fusion._numbers[f"beta_{kind}"].assign(40.0)
    before = {k: v.numpy() for k, v in model(features()).items()}
    scale = model.experts.shift
    first = 2 if kind == "scenario" else 5
    scale.assign_add(tf.one_hot(first, 8)[:, None] * tf.ones([1, 5]))
    after = {k: v.numpy() for k, v in model(features()).items()}
    if kind == "scenario":
        known = features()["scenario"].numpy()
        changed = np.abs(after["click"] - before["click"]) > 1e-6
        assert changed[known == 0].any()
        assert not changed[(known == 1) | (known == 2)].any()
    else:
        name = sorted(TASKS)[0]  # buy
        assert name == "buy"
        assert np.abs(after["buy|click"] - before["buy|click"]).max() > 1e-4
        for output in ("click", "like"):
            np.testing.assert_array_equal(after[output], before[output])


def test_weights_of_zero_leave_the_shared_experts_alone() -> None:
    """alpha -> 0: MMoE on h with gates and towers of each cell's own."""
    model = m3oe()
    for kind in ("scenario", "task"):
        model.fusion._numbers[f"alpha_{kind}"].assign(-80.0)
    before = {k: v.numpy() for k, v in model(features()).items()}
    model.experts.shift.assign_add(
        tf.concat([tf.zeros([2, 5]), tf.ones([6, 5])], axis=0)
    )
    for name, value in model(features()).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_all_scenarios_start_as_one_in_the_first_layer() -> None:
    model = MODELS["M3oE"](with_spec(), MODELS["M3oE"].Config(**SETTINGS), seed=1)
    model(features())
    x = tf.random.stateless_normal(
        [3, model.star._centres["shared"][0].shape[0]], [1, 2]
    )
    same = tf.repeat(x[:1], 3, axis=0)
    found = model.star(same, tf.range(3)).numpy()
    np.testing.assert_allclose(found[1:], found[:2], rtol=1e-6)


def test_gates_sum_to_one() -> None:
    model = m3oe()
    model(features())
    gates = model.inspect()["gates"].numpy()
    np.testing.assert_allclose(gates.sum(-1), 1, rtol=1e-5)
    assert gates.std(axis=0).max() > 1e-3


def test_cells_are_moved_by_their_own_rows() -> None:
    check_groups(m3oe(), SCENARIOS)


def test_one_scenario_and_one_task_have_nothing_to_share() -> None:
    data = with_spec(
        tasks=[{"name": "click", "label": "click"}],
        scenario={"column": "page", "values": ["feed"], "dim": 3},
    )
    model = make("M3oE", data, **SETTINGS)
    assert set(model.fusion._numbers) == {"alpha_scenario", "alpha_task"}
    rows = {**features(), "scenario": tf.zeros([50], tf.int32)}
    assert np.isfinite(model(rows)["click"]).all()


def test_refuses_data_without_scenarios() -> None:
    model = MODELS["M3oE"]
    with pytest.raises(ConfigError, match=r"scenarios \[\]"):
        model(with_spec(scenario=None), model.Config(**SETTINGS))
