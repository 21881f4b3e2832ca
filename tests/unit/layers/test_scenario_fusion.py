"""Blocks of ExpertFusion alone: pools, low rank, tables, fusion levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers.expert_pool import ExpertPool, LowRankExperts
from tfmtl.layers.initializers import NearCentre, StackedInitializer
from tfmtl.layers.scenario_fusion import ScenarioFusion
from tfmtl.layers.scenario_table import ScenarioTable

X = tf.random.stateless_normal([9, 5], [1, 2])
E_S = tf.random.stateless_normal([9, 2], [3, 4])
SCENARIO = tf.constant([0, 1, 2, 0, 1, 2, 2, 0, 1])
OWNERS = ("scenario/a", "scenario/b")


def stir(layer: Any) -> Any:
    draw = np.random.default_rng(0)
    for variable in layer.trainable_variables:
        variable.assign_add(draw.normal(0, 0.3, variable.shape))
    return layer


def test_near_centre() -> None:
    first = NearCentre(1, 2, 2.0)([2, 200, 200]).numpy()
    again = NearCentre(1, 3, 2.0)([2, 200, 200]).numpy()
    centre = StackedInitializer(1, 2.0)([2, 200, 200]).numpy()
    assert (first - centre).std() / centre.std() == pytest.approx(0.01, rel=0.05)
    assert np.abs(first - again).max() > 0
    copy = NearCentre.from_config(NearCentre(1, 2, 2.0).get_config())
    np.testing.assert_array_equal(copy([2, 200, 200]), first)


def test_a_pool_is_a_loop_over_its_experts() -> None:
    pool = ExpertPool(2, OWNERS, 2, [4, 3], seed=1)
    pool(X)
    stir(pool)
    found = pool(X).numpy()
    assert found.shape == (9, 6, 3)
    for e in range(6):
        y = X.numpy()
        for i in range(2):
            kernel, bias = pool._shared[i]
            j = e
            if e >= 2:
                q, j = divmod(e - 2, 2)
                kernel, bias = pool._kernels[i][q], pool._biases[i][q]
            y = np.maximum(y @ kernel.numpy()[j] + bias.numpy()[j], 0)
        np.testing.assert_allclose(found[:, e], y, rtol=1e-4, atol=1e-5)
    groups = pool.variable_groups()
    assert {k: len(v) for k, v in groups.items()} == dict.fromkeys(OWNERS, 4)
    with pytest.raises(ValueError, match="leave an expert"):
        ExpertPool(0, OWNERS, 0, [4], seed=1)


def test_low_rank_experts_are_full_ones_written_short() -> None:
    layer = LowRankExperts(OWNERS, 2, 3, [4, 3], seed=1)
    layer(X, SCENARIO)
    stir(layer)
    found = layer(X, SCENARIO).numpy()
    for b in range(9):
        q = int(SCENARIO[b])
        for j in range(2):
            y = X.numpy()[b]
            for i, centre in enumerate(layer._centres):
                kernel = centre["kernel"].numpy()[j]
                bias = centre["bias"].numpy()[j]
                if q < 2:
                    factor = np.diag(layer._kernels[i][q].numpy()[j])
                    kernel = (
                        kernel
                        + centre["down"].numpy()[j] @ factor @ (centre["up"].numpy()[j])
                    )
                    bias = bias + layer._biases[i][q].numpy()[j]
                y = np.maximum(y @ kernel + bias, 0)
            np.testing.assert_allclose(found[b, j], y, rtol=1e-4, atol=1e-5)


def test_a_table_gives_its_scenarios_vectors() -> None:
    start = [[[1.0, 2.0], [3.0]], [[4.0, 5.0], [6.0]]]
    table = ScenarioTable(["a", "b"], ["click", None], start)
    first, second = table(tf.constant([1, 2, 0]))
    np.testing.assert_array_equal(first, [[4, 5], [0, 0], [1, 2]])
    np.testing.assert_array_equal(second, [[6], [0], [3]])
    assert [*table.variable_groups()] == [
        "cell/a/click",
        "scenario/a",
        "cell/b/click",
        "scenario/b",
    ]


def level(**changes: Any) -> ScenarioFusion:
    settings = {
        "tasks": ["x", "y"],
        "scenarios": ["a", "b"],
        "owner_of": [0, 1],
        "owners": OWNERS,
        "shared": 2,
        "per_owner": 1,
        "units": [4],
        "seed": 1,
        "gate_units": 3,
        **changes,
    }
    return ScenarioFusion(**settings)


@pytest.mark.parametrize(
    ("changes", "experts", "gates"),
    [
        ({}, 4, 2),
        ({"per_owner": 2, "shared_gate": True}, 6, 3),
        ({"rank": 2}, 3, 2),
        ({"per_owner": 0}, 2, 2),
        ({"prior": None, "isolation": False}, 4, 2),
    ],
)
def test_gates_sum_to_one_over_all_experts(
    changes: dict[str, Any], experts: int, gates: int
) -> None:
    layer = level(**changes)
    layer((X, E_S), SCENARIO)
    fused = stir(layer)((X, E_S), SCENARIO)
    assert fused.gates.shape == [9, gates, experts]
    assert fused.mixed.shape == [9, gates, 4]
    np.testing.assert_allclose(tf.reduce_sum(fused.gates, -1), 1, rtol=1e-5)
    truth = np.einsum("bte,beh->bth", fused.gates, fused.experts)
    np.testing.assert_allclose(fused.mixed, truth, rtol=1e-4, atol=1e-5)


def test_one_task_with_an_input_of_its_own() -> None:
    layer = level(tasks=["x"])
    fused = layer((X[:, None], E_S), SCENARIO)
    assert fused.experts.shape == [9, 1, 4, 4]
    again = level(tasks=["x"])((X, E_S), SCENARIO)
    np.testing.assert_allclose(fused.mixed, again.mixed, rtol=1e-5, atol=1e-6)


def test_an_unknown_scenario_needs_a_shared_expert() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        level(shared=0)


@pytest.mark.parametrize(
    "layer",
    [
        level(rank=2, prior=0.5, temperature=2.0),
        level(task_experts=1, shared_gate=True, dropout=0.1),
        ExpertPool(1, OWNERS, 1, [3], seed=4, dropout=0.2),
        LowRankExperts(OWNERS, 1, 2, [3], seed=4),
        ScenarioTable(["a"], ["click"], [[[1.0]]]),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_config_round_trip(layer: Any) -> None:
    config = layer.get_config()
    assert type(layer).from_config(config).get_config() == config
