"""Partitioned normalisation against a NumPy loop over scenarios, and its edge cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import keras, tf
from tfmtl.layers.partitioned_norm import PartitionedNorm

NAMES = ("a", "b", "c")
S, D = len(NAMES), 5
UNKNOWN = S


def layer(names: tuple[str, ...] = NAMES, **settings: Any) -> PartitionedNorm:
    """A layer whose every weight was moved off its start."""
    made = PartitionedNorm(names, **settings)
    made.build([None, D])
    draw = np.random.default_rng(1)
    for variable in made.trainable_variables:
        variable.assign_add(draw.normal(0, 0.4, variable.shape))
    return made


def values(rows: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.normal(2.0, 3.0, [rows, D]).astype(np.float32)


def mixed(rows: int = 60, seed: int = 0) -> np.ndarray:
    """Scenarios of rows, all of them and the unknown one present."""
    draw = np.random.default_rng(seed)
    return draw.choice(S + 1, rows, p=[0.5, 0.25, 0.15, 0.1]).astype(np.int32)


def weights(norm: PartitionedNorm, s: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift of a scenario."""
    gamma, beta = norm.gamma.numpy(), norm.beta.numpy()
    if s < len(norm.scenarios):
        own_gamma, own_beta = norm.variable_groups()[f"scenario/{norm.scenarios[s]}"]
        gamma, beta = gamma * own_gamma.numpy(), beta + own_beta.numpy()
    return gamma, beta


def by_loop(norm: PartitionedNorm, x: np.ndarray, scenario: np.ndarray) -> np.ndarray:
    """The formula, one scenario after the other."""
    result = np.zeros_like(x, np.float64)
    x = x.astype(np.float64)
    for s in range(S + 1):
        rows = scenario == s
        read = x if s == UNKNOWN else x[rows]
        if rows.any():
            gamma, beta = weights(norm, s)
            deviation = x[rows] - read.mean(0)
            result[rows] = gamma * deviation / np.sqrt(read.var(0) + norm.epsilon)
            result[rows] += beta
    return result


def moments(norm: PartitionedNorm) -> tuple[np.ndarray, ...]:
    return tuple(
        v.numpy().copy()
        for v in (norm.moving_mean, norm.moving_variance, norm.moving_weight)
    )


def trained(**settings: Any) -> PartitionedNorm:
    """A layer that has seen all scenarios."""
    norm = layer(**settings)
    for seed in range(3):
        norm(values(60, seed), mixed(60, seed), training=True)
    return norm


# === Mixed batches ===


@pytest.mark.parametrize("s", range(S))
def test_a_batch_of_one_scenario_is_batch_normalisation(s: int) -> None:
    norm, x = layer(), values(40)
    gamma, beta = weights(norm, s)
    plain = keras.layers.BatchNormalization(epsilon=norm.epsilon)
    plain.build([None, D])
    plain.gamma.assign(gamma)
    plain.beta.assign(beta)
    found = norm(x, np.full(40, s, np.int32), training=True)
    np.testing.assert_allclose(found, plain(x, training=True), rtol=1e-5, atol=1e-5)


def test_each_scenarios_rows_are_normalised_alone() -> None:
    norm, x, scenario = layer(), values(60), mixed()
    found = norm(x, scenario, training=True)
    truth = by_loop(norm, x, scenario)
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-5)
    whole = by_loop(norm, x, np.full(60, UNKNOWN))
    assert np.abs(found - whole).max() > 0.1, "moments of the whole batch pass too"


@pytest.mark.parametrize("training", [True, False])
def test_rows_of_other_scenarios_do_not_matter(training: bool) -> None:
    for changed in range(S + 1):
        x, scenario = values(60), mixed()
        before = trained()(x, scenario, training=training).numpy()
        x[scenario == changed] = 100 * x[scenario == changed] + 7
        after = trained()(x, scenario, training=training).numpy()
        for s in range(S + 1):
            same = np.array_equal(before[scenario == s], after[scenario == s])
            # The unknown scenario has the moments of all rows.
            moved = s == changed or (training and s == UNKNOWN)
            assert same != moved, (changed, s)


def test_scale_is_a_product_and_shift_a_sum() -> None:
    norm, x = layer(), values(30)
    norm.gamma.assign([2.0] * D)
    own_gamma, own_beta = norm.variable_groups()["scenario/b"]
    own_gamma.assign([3.0] * D)
    own_beta.assign([1.0] * D)
    norm.beta.assign([4.0] * D)
    found = norm(x, np.full(30, 1, np.int32), training=True).numpy()
    np.testing.assert_allclose(found.mean(0), 5.0, rtol=1e-4)
    np.testing.assert_allclose(found.std(0), 6.0, rtol=1e-3)


def test_a_large_mean_leaves_the_variance_alone() -> None:
    norm, scenario = layer(), mixed()
    x = (values(60) + 30_000.0).astype(np.float32)
    found = norm(x, scenario, training=True)
    np.testing.assert_allclose(found, by_loop(norm, x, scenario), rtol=0.01, atol=0.01)


def test_gradients_flow_through_the_moments() -> None:
    norm, x, scenario = layer(), values(60), mixed()
    pull = values(60, seed=5)
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        total = tf.reduce_sum(norm(inputs, scenario, training=True) * pull)
    found = tape.gradient(total, inputs).numpy()
    for row, column in ((0, 0), (7, 3), (int(np.argmax(scenario == UNKNOWN)), 1)):
        step = np.zeros_like(x, np.float64)
        step[row, column] = 1e-4
        ends = [(by_loop(norm, x + k * step, scenario) * pull).sum() for k in (1, -1)]
        slope = (ends[0] - ends[1]) / 2e-4
        np.testing.assert_allclose(found[row, column], slope, rtol=2e-3, atol=2e-3)


def test_no_scenario_moves_anothers_scale_or_shift() -> None:
    norm, x, scenario = layer(), values(60), mixed()
    with tf.GradientTape(persistent=True) as tape:
        outputs = tf.square(norm(x, scenario, training=True))
        parts = [tf.reduce_sum(outputs[scenario == s]) for s in range(S + 1)]
    for p, part in enumerate(parts):
        for q, own in enumerate(norm.variable_groups().values()):
            for gradient in tape.gradient(part, own):
                assert (np.abs(gradient).max() > 0) == (p == q)
        assert np.abs(tape.gradient(part, norm.gamma)).max() > 0


# === Absent scenarios, single rows, the unknown scenario ===


@pytest.mark.parametrize("absent", range(S))
def test_an_absent_scenario_keeps_its_moments_bit_for_bit(absent: int) -> None:
    norm, scenario = trained(), mixed(seed=9)
    scenario[scenario == absent] = (absent + 1) % S
    before = moments(norm)
    with tf.GradientTape() as tape:
        inputs = tf.constant(values(60, seed=9))
        tape.watch(inputs)
        outputs = norm(inputs, scenario, training=True)
        total = tf.reduce_sum(tf.square(outputs))
    gradients = tape.gradient(total, [inputs, *norm.trainable_variables])
    assert all(np.isfinite(g).all() for g in [outputs, *gradients])
    for old, new in zip(before, moments(norm)):
        assert np.isfinite(new).all()
        np.testing.assert_array_equal(old[absent], new[absent])
        present = [s for s in range(S + 1) if s != absent]
        assert (old[present] != new[present]).reshape(S, -1).any(axis=1).all()


def test_a_request_of_one_row_equals_the_row_among_others() -> None:
    norm, x, scenario = trained(), values(60, seed=4), mixed(seed=4)
    whole = norm(x, scenario).numpy()
    for row in range(60):
        alone = norm(x[row : row + 1], scenario[row : row + 1])
        np.testing.assert_array_equal(alone[0], whole[row])
    order = np.random.default_rng(0).permutation(60)[:17]
    np.testing.assert_array_equal(norm(x[order], scenario[order]), whole[order])


def test_evaluation_uses_the_scenarios_moving_moments() -> None:
    norm, x, scenario = trained(), values(60, seed=4), mixed(seed=4)
    before = moments(norm)
    found = norm(x, scenario)
    for row, s in enumerate(scenario):
        gamma, beta = weights(norm, s)
        truth = (x[row] - before[0][s]) / np.sqrt(before[1][s] + norm.epsilon)
        np.testing.assert_allclose(found[row], gamma * truth + beta, rtol=1e-4)
    for old, new in zip(before, moments(norm)):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("min_rows", [2, 4])
def test_too_few_rows_are_normalised_by_moving_moments(min_rows: int) -> None:
    norm, x = trained(min_rows=min_rows), values(20, seed=4)
    scenario = np.zeros(20, np.int32)
    scenario[: min_rows - 1] = 2
    scenario[min_rows - 1 : 2 * min_rows - 1] = 1
    served, before = norm(x, scenario).numpy(), moments(norm)
    found = norm(x, scenario, training=True).numpy()
    few, enough = scenario == 2, scenario == 1
    np.testing.assert_array_equal(found[few], served[few])
    truth = by_loop(norm, x, scenario)
    np.testing.assert_allclose(found[enough], truth[enough], rtol=1e-4, atol=1e-4)
    for old, new in zip(before, moments(norm)):
        np.testing.assert_array_equal(old[2], new[2])
        assert (old[1] != new[1]).any()


def test_the_first_row_ever_alone_is_finite() -> None:
    norm = layer()
    found = norm(values(1), np.zeros(1, np.int32), training=True)
    assert np.isfinite(found).all()
    assert (moments(norm)[2] == 0).all()


def test_the_unknown_scenario_is_the_shared_centre() -> None:
    norm, x = trained(), values(20, seed=4)
    served = norm(x, np.full(20, UNKNOWN, np.int32)).numpy()
    mean, variance, _ = moments(norm)
    truth = (x - mean[-1]) / np.sqrt(variance[-1] + norm.epsilon)
    truth = norm.gamma.numpy() * truth + norm.beta.numpy()
    np.testing.assert_allclose(served, truth, rtol=1e-4, atol=1e-5)
    for variable in (v for own in norm.variable_groups().values() for v in own):
        variable.assign_add(tf.ones(D))
    np.testing.assert_array_equal(norm(x, np.full(20, UNKNOWN, np.int32)), served)
    np.testing.assert_array_equal(norm(x, np.full(20, UNKNOWN + 5)), served)


def test_the_centre_tracks_the_moments_of_all_rows() -> None:
    norm, x, scenario = layer(), values(60), mixed()
    norm(x, scenario, training=True)
    mean, variance, _ = moments(norm)
    np.testing.assert_allclose(mean[-1], x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance[-1], x.var(0), rtol=1e-5)


def test_a_scenario_never_seen_is_served_with_the_centres_moments() -> None:
    norm, scenario = layer(), mixed()
    scenario[scenario == 1] = 0
    norm(values(60), scenario, training=True)
    x = values(20, seed=4)
    found = norm(x, np.full(20, 1, np.int32)).numpy()
    gamma, beta = weights(norm, 1)
    mean, variance, _ = moments(norm)
    truth = (x - mean[-1]) / np.sqrt(variance[-1] + norm.epsilon)
    np.testing.assert_allclose(found, gamma * truth + beta, rtol=1e-4, atol=1e-5)


# === Moving moments ===


def test_the_first_update_copies() -> None:
    norm, scenario = layer(), mixed()
    x = values(60) * 1e-3
    norm(x, scenario, training=True)
    mean, variance, _ = moments(norm)
    for s in range(S):
        rows = x[scenario == s].astype(np.float64)
        np.testing.assert_allclose(mean[s], rows.mean(0), rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(variance[s], rows.var(0), rtol=1e-4)


def test_updates_follow_the_formula() -> None:
    rho = 0.8
    norm = layer(rho=rho)
    mean, variance = np.zeros([S + 1, D]), np.ones([S + 1, D])
    weight = np.zeros(S + 1)
    for seed in range(6):
        x, scenario = values(30, seed), mixed(30, seed)
        scenario[: 10 * (seed % 2)] = 0
        norm(x, scenario, training=True)
        average = (scenario < S).sum() / S
        for s in range(S + 1):
            rows = x if s == UNKNOWN else x[scenario == s]
            if len(rows) < 2:
                continue
            forget = rho ** (1.0 if s == UNKNOWN else len(rows) / average)
            weight[s] = forget * weight[s] + 1 - forget
            share = (1 - forget) / weight[s]
            mean[s] += share * (rows.mean(0) - mean[s])
            variance[s] += share * (rows.var(0) - variance[s])
    for found, truth in zip(moments(norm), (mean, variance, weight)):
        np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-5)


def test_scenarios_forget_by_rows_seen_not_by_steps() -> None:
    """Three batches of one scenario each, or three thirds of mixed ones."""
    alone, together = layer(rho=0.9), layer(rho=0.9)
    for s in range(S):
        alone(values(30), np.full(30, s, np.int32), training=True)
        together(values(30), np.repeat(np.arange(S), 10), training=True)
    np.testing.assert_allclose(
        alone.moving_weight[:S], together.moving_weight[:S], rtol=1e-5
    )


def test_a_rare_scenario_is_not_served_with_its_first_two_rows_for_long() -> None:
    norm, rng = layer(rho=0.99), np.random.default_rng(0)
    scenario = np.repeat([0, 2], [98, 2]).astype(np.int32)
    for _ in range(50):
        norm(rng.normal(size=[100, D]).astype("f"), scenario, training=True)
    # Pairs have half the variance on average; one pair is anywhere in (0, 3).
    np.testing.assert_allclose(norm.moving_variance[2], 0.5, atol=0.25)
    assert np.abs(norm.moving_mean[2]).max() < 0.4


def test_one_update_a_call_inside_a_graph_of_any_batch_size() -> None:
    eager, graph = layer(), layer()
    traces = []

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec([None, D], tf.float32),
            tf.TensorSpec([None], tf.int32),
        ],
    )
    def step(x: Any, scenario: Any) -> Any:
        traces.append(1)
        return graph(x, scenario, training=True)

    for seed, rows in enumerate((60, 13, 1)):
        x, scenario = values(rows, seed), mixed(rows, seed)
        truth = eager(x, scenario, training=True)
        np.testing.assert_allclose(step(x, scenario), truth, rtol=1e-5, atol=1e-5)
        for a, b in zip(moments(eager), moments(graph)):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert len(traces) == 1


# === Storage and precision ===


def test_moving_moments_are_checkpointed_and_not_trained(tmp_path: Any) -> None:
    norm, other = trained(), layer()
    names = {v.name for v in norm.trainable_variables}
    assert not [n for n in names if "moving" in n]
    assert all(v.dtype == tf.float32 for v in norm.variables)
    x, scenario = values(20, seed=4), mixed(20, seed=4)
    assert np.abs(norm(x, scenario) - other(x, scenario)).max() > 0.1
    path = tf.train.Checkpoint(layer=norm).write(str(tmp_path / "state"))
    tf.train.Checkpoint(layer=other).read(path).assert_consumed()
    np.testing.assert_array_equal(norm(x, scenario), other(x, scenario))


def test_bfloat16_is_computed_in_float32() -> None:
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        norm = layer()
    finally:
        keras.mixed_precision.set_global_policy(policy)
    x, scenario = tf.cast(values(60), tf.bfloat16), mixed()
    found = norm(x, scenario, training=True)
    assert found.dtype == tf.bfloat16
    assert all(v.dtype == tf.float32 for v in norm.variables)
    truth = layer()(tf.cast(x, tf.float32), scenario, training=True)
    np.testing.assert_array_equal(found, tf.cast(truth, tf.bfloat16))
    wide = norm(tf.cast(x, tf.float32), scenario, training=True)
    assert wide.dtype == tf.float32
    np.testing.assert_array_equal(wide, truth)


def test_config_round_trip() -> None:
    norm = PartitionedNorm(NAMES, rho=0.7, epsilon=0.01, min_rows=3, name="norm")
    copy = PartitionedNorm.from_config(norm.get_config())
    assert copy.get_config() == norm.get_config()
    x, scenario = values(20), mixed(20)
    np.testing.assert_array_equal(
        norm(x, scenario, training=True), copy(x, scenario, training=True)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rho": 1.0}, "`rho` must be in"),
        ({"rho": 0.0}, "`rho` must be in"),
        ({"epsilon": 0.0}, "`epsilon` must be above 0"),
        ({"min_rows": 0}, "`min_rows` must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PartitionedNorm(NAMES, **settings)


def test_without_scenarios_it_is_batch_normalisation() -> None:
    """Which no request of several scenarios could be told from another."""
    ours, keras_own = layer(()), keras.layers.BatchNormalization(momentum=0.99)
    keras_own.build([None, D])
    keras_own.gamma.assign(ours.gamma)
    keras_own.beta.assign(ours.beta)
    x, scenario = values(60), mixed(60)
    found = ours(x, scenario, training=True)
    np.testing.assert_allclose(found, keras_own(x, training=True), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(ours.moving_mean[0], x.mean(0), rtol=1e-5)
    assert ours.moving_mean.shape == [1, D]
    assert ours.variable_groups() == {}
    served = ours(x, scenario)
    np.testing.assert_array_equal(served, ours(x, np.zeros(60, np.int32)))
    np.testing.assert_allclose(served, found, rtol=1e-3, atol=1e-4)
