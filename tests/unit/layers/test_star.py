"""Star layers against a loop over rows; all paths agree; the work is that of one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tests.parity.products import multiplications
from tfmtl._keras import keras, tf
from tfmtl.layers.grouped import from_tiles, tile_rows, to_tiles
from tfmtl.layers.stacked import StackedDense
from tfmtl.layers.star import StarDense, StarMLP
from tfmtl.layers.star_towers import StarTowers

NAMES, TASKS = ("a", "b", "c"), ("x", "y")
S, T, D, H = 3, 2, 4, 5
VARIANTS = [("full", "tiles"), ("full", "einsum"), ("rank1", "tiles")]


def stir(layer: Any) -> Any:
    """Moves every weight off its start, each differently."""
    draw = np.random.default_rng(1)
    for variable in layer.trainable_variables:
        variable.assign_add(draw.normal(0, 0.4, variable.shape))
    return layer


def dense(stirred: bool = True, **settings: Any) -> StarDense:
    layer = StarDense(**{"scenarios": NAMES, "units": H, "seed": 1, **settings})
    layer.build([None, D])
    return stir(layer) if stirred else layer


def rows(count: int = 30, *shape: int) -> tuple[Any, np.ndarray]:
    draw = np.random.default_rng(count)
    scenario = draw.integers(0, S + 1, count).astype(np.int32)
    return tf.constant(draw.normal(size=[count, *shape, D]), tf.float32), scenario


def by_loop(layer: StarDense, x: Any, scenario: np.ndarray) -> np.ndarray:
    """The formula, row by row and task by task."""
    groups = {k: [v.numpy() for v in vs] for k, vs in layer._leaves.items()}
    result = np.zeros([len(scenario), len(layer.tasks or "1"), layer.units])
    for n, s in enumerate(scenario):
        for t, task in enumerate(layer.tasks or (None,)):
            kernel, bias = layer._centres[f"task/{task}" if task else "shared"]
            kernel, bias = kernel.numpy(), bias.numpy()
            if s < S:
                name = f"cell/{NAMES[s]}/{task}" if task else f"scenario/{NAMES[s]}"
                *factors, own = groups[name]
                kernel = kernel * (
                    np.outer(*factors) if len(factors) == 2 else factors[0]
                )
                bias = bias + own
            row = x[n].numpy() if x.shape.rank == 2 else x[n, t].numpy()
            result[n, t] = row @ kernel + bias
    result = np.asarray(layer.activation(result))
    return result if layer.tasks else result[:, 0]


# === The formula, by every path ===


@pytest.mark.parametrize(("leaf", "path"), VARIANTS)
@pytest.mark.parametrize("tasks", [None, TASKS])
@pytest.mark.parametrize("own_inputs", [False, True])
@pytest.mark.parametrize("count", [1, 30, 200])
def test_equals_a_loop_over_rows(
    leaf: Any, path: Any, tasks: Any, own_inputs: bool, count: int
) -> None:
    if own_inputs and tasks is None:
        return
    layer = dense(activation="relu", leaf=leaf, path=path, tasks=tasks)
    x, scenario = rows(count, *([T] if own_inputs else []))
    found = layer(x, scenario)
    truth = by_loop(layer, x, scenario)
    assert found.shape == truth.shape
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-5)
    moved = by_loop(layer, x, (scenario + 1) % (S + 1))
    assert np.abs(found - moved).max() > 0.1


def with_rank_one_leaves(layer: StarDense) -> StarDense:
    """W_p = a_p c_p^T, the same for either kind of leaf."""
    for i, (*factors, bias) in enumerate(layer._leaves.values()):
        draw = np.random.default_rng(i)
        before, after = draw.normal(size=D), draw.normal(size=H)
        bias.assign(draw.normal(size=H))
        pair = (np.outer(before, after),) if len(factors) == 1 else (before, after)
        for variable, value in zip(factors, pair, strict=True):
            variable.assign(value)
    return layer


@pytest.mark.parametrize("tasks", [None, TASKS])
def test_all_paths_agree_on_values_and_gradients(tasks: Any) -> None:
    found = []
    x, scenario = rows()
    for leaf, path in VARIANTS:
        layer = dense(False, activation="relu", leaf=leaf, path=path, tasks=tasks)
        with_rank_one_leaves(layer)
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, scenario)
            total = tf.reduce_sum(tf.square(outputs))
        read = [x, *(v for c in layer._centres.values() for v in c)]
        read += [v[-1] for v in layer._leaves.values()]
        if leaf == "full":
            read += [v[0] for v in layer._leaves.values()]
        found.append([outputs, *tape.gradient(total, read)])
    for first, second in itertools.combinations(found, 2):
        for a, b in zip(first, second):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tasks", [None, TASKS])
def test_laid_out_in_tiles_it_is_the_same(tasks: Any) -> None:
    first = dense(activation="relu", tasks=tasks)
    second = stir(StarDense(NAMES, 2, seed=2, tasks=tasks))
    x, scenario = rows(70)
    plain = second(first(x, scenario), scenario)
    tiles = tile_rows(tf.constant(scenario), S + 1, size=8)
    inside = second(first(to_tiles(x, tiles), scenario, tiles), scenario, tiles)
    np.testing.assert_allclose(from_tiles(inside, tiles), plain, rtol=1e-5, atol=1e-5)


# === Where it starts, and what moves what ===


@pytest.mark.parametrize(("leaf", "path"), VARIANTS)
def test_all_scenarios_start_as_the_shared_network(leaf: Any, path: Any) -> None:
    network = StarMLP(NAMES, [6, 5], seed=1, leaf=leaf, path=path)
    x, _ = rows(10)
    first = network(x, np.zeros(10, np.int32)).numpy()
    for s in range(1, S + 2):
        other = network(x, np.full(10, s, np.int32))
        np.testing.assert_allclose(other, first, rtol=1e-6, atol=1e-6)
    assert np.abs(first).max() > 0.1


@pytest.mark.parametrize(("leaf", "path"), VARIANTS)
def test_no_scenario_moves_anothers_leaf(leaf: Any, path: Any) -> None:
    layer = dense(leaf=leaf, path=path)
    x, scenario = rows(60)
    with tf.GradientTape(persistent=True) as tape:
        outputs = tf.square(layer(x, scenario))
        parts = [tf.reduce_sum(outputs[scenario == s]) for s in range(S + 1)]
    for p, part in enumerate(parts):
        for q, own in enumerate(layer.variable_groups().values()):
            for gradient in tape.gradient(part, own):
                assert (np.abs(gradient).max() > 0) == (p == q), (p, q)
        for centre in tape.gradient(part, layer._centres["shared"]):
            assert np.abs(centre).max() > 0


@pytest.mark.parametrize(("leaf", "path"), VARIANTS)
def test_one_scenario_with_a_leaf_of_ones_is_a_dense_layer(
    leaf: Any, path: Any
) -> None:
    layer = StarDense(["only"], H, "relu", seed=1, leaf=leaf, path=path)
    plain = StackedDense(1, H, "relu", seed=1)
    x, _ = rows()
    plain(x)
    layer(x, np.zeros(30, np.int32))
    plain._kernels[0].assign(layer._centres["shared"][0][None])
    found = layer(x, np.zeros(30, np.int32))
    np.testing.assert_allclose(found, plain(x)[:, 0], rtol=1e-5, atol=1e-6)


def test_owners() -> None:
    layer = dense(tasks=TASKS)
    cells = {f"cell/{s}/{t}" for s in NAMES for t in TASKS}
    assert set(layer.variable_groups()) == {"task/x", "task/y", *cells}
    assert set(dense().variable_groups()) == {f"scenario/{s}" for s in NAMES}
    names = [v.name for v in layer.trainable_variables]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("leaf", ["full", "rank1"])
def test_the_penalty_pulls_leaves_towards_one(leaf: Any) -> None:
    layer = dense(stirred=False, leaf=leaf)
    assert float(layer.leaf_penalty()) == 0
    stir(layer)
    truth = 0.0
    for *factors, _ in layer.variable_groups().values():
        truth += sum(((f.numpy() - 1) ** 2).sum() for f in factors)
    with tf.GradientTape() as tape:
        penalty = layer.leaf_penalty()
    np.testing.assert_allclose(penalty, truth, rtol=1e-5)
    leaf_variable = layer.variable_groups()["scenario/a"][0]
    gradient = tape.gradient(penalty, leaf_variable)
    np.testing.assert_allclose(gradient, 2 * (leaf_variable - 1), rtol=1e-5)


# === Cost ===


def many(count: int, **settings: Any) -> StarMLP:
    names = [f"s{i}" for i in range(count)]
    return StarMLP(names, [8, 6], seed=1, **settings)


def scenario_of_many(count: int) -> np.ndarray:
    draw = np.random.default_rng(0)
    return draw.integers(0, count, 1_000).astype(np.int32)


def test_work_does_not_grow_with_scenarios() -> None:
    x, _ = rows(1_000)
    plain = 1_000 * (D * 8 + 8 * 6)
    found = {}
    for count in (1, 8, 40):
        for leaf, path in VARIANTS:
            network = many(count, leaf=leaf, path=path)
            args = (x, scenario_of_many(count))
            found[count, leaf, path] = multiplications(network, *args) / plain
    for count in (1, 8, 40):
        assert found[count, "rank1", "tiles"] == 1
        # A tile of 64 rows may be empty but for one row.
        assert 1 <= found[count, "full", "tiles"] <= 1 + 64 * count / 1_000
        assert found[count, "full", "einsum"] == count + 1


def test_as_many_products_in_the_graph_whatever_the_scenarios() -> None:
    found = set()
    for count in (2, 40):
        network = many(count)
        network(*rows(2))
        graph = (
            tf.function(lambda x, s, network=network: network(x, s), autograph=False)
            .get_concrete_function(
                tf.TensorSpec([None, D]), tf.TensorSpec([None], tf.int32)
            )
            .graph
        )
        products = [o.type for o in graph.get_operations() if "MatMul" in o.type] + [
            o.type for o in graph.get_operations() if o.type == "Einsum"
        ]
        found.add(len(products))
    assert found == {2}


# === Towers ===


@pytest.mark.parametrize(("leaf", "path"), VARIANTS)
@pytest.mark.parametrize("units", [(), (3,)])
def test_towers_of_every_kind_of_output(leaf: Any, path: Any, units: Any) -> None:
    towers = StarTowers(
        NAMES,
        ["x", "y", "z"],
        units,
        [1, 4, 1],
        seed=1,
        initial_bias=[0.5, 0.0, -2.0],
        leaf=leaf,
        path=path,
    )
    x, scenario = rows()
    start = towers(x * 0, scenario)
    assert [s.shape for s in start] == [[30, 1], [30, 4], [30, 1]]
    for logits, bias in zip(start, (0.5, 0.0, -2.0)):
        np.testing.assert_allclose(logits, bias, atol=1e-6)
    stir(towers)
    found = towers(x, scenario)
    for t, (head, place) in enumerate(((0, 0), (1, 0), (0, 1))):
        read: Any = x
        if units:
            hidden = by_loop(towers.hidden.layers[0], x, scenario)
            read = tf.constant(hidden[:, [(0, 2), (1,)][head]], tf.float32)
        truth = by_loop(towers.heads[head], read, scenario)[:, place]
        np.testing.assert_allclose(found[t], truth, rtol=1e-4, atol=1e-4)


# === Storage and precision ===


@pytest.mark.parametrize(("leaf", "path"), VARIANTS)
def test_config_round_trip(leaf: Any, path: Any) -> None:
    x, scenario = rows()
    first = StarMLP(NAMES, [6], seed=4, dropout=0.5, leaf=leaf, path=path, tasks=TASKS)
    copy = StarMLP.from_config(first.get_config())
    assert copy.get_config() == first.get_config()
    np.testing.assert_array_equal(copy(x, scenario), first(x, scenario))
    layer = StarDense(NAMES, 3, seed=4, tasks=TASKS, initial_bias=[1.0, 2.0])
    again = StarDense.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    np.testing.assert_array_equal(again(x, scenario), layer(x, scenario))


@pytest.mark.parametrize("path", ["tiles", "einsum"])
def test_bfloat16_sees_small_steps_of_a_leaf(path: Any) -> None:
    """Beside 1, 16 bits hold nothing below 1/128; the products W * W_p do."""
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layer = dense(stirred=False, path=path)
    finally:
        keras.mixed_precision.set_global_policy(policy)
    x, _ = rows(200)
    scenario = np.zeros(200, np.int32)
    before = layer(x, scenario)
    assert before.dtype == tf.bfloat16
    leaf = layer.variable_groups()["scenario/a"][0]
    leaf.assign_add(tf.fill(leaf.shape, 0.0015))
    assert np.abs(tf.cast(layer(x, scenario) - before, tf.float32)).max() > 0
