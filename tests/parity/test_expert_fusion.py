"""ExpertFusion against a NumPy loop over rows, what may move what, and its limits."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

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
    relu,
    sigmoid,
    softmax,
    with_spec,
)
from tfmtl import build
from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.models import MODELS
from tfmtl.schema.manifest import DatasetManifest, LabelStats
from tfmtl.testing.tiny import SCENARIOS

S = len(SCENARIOS)
SMALL: dict[str, Any] = {
    "shared_experts": 2,
    "expert_units": [6],
    "tower_units": [4],
    "gate_units": 4,
    "gate_hidden_units": 3,
    "auxiliary_units": [3],
    "scenario_features": ["price", "user"],
}
OFF: dict[str, Any] = {
    "scenario_experts": 0,
    "field_gate": False,
    "partitioned_norm": "none",
    "gate_prior": False,
    "gate_units": None,
    "tower_gate": False,
    "aux_net": False,
    "bias_table": False,
}
MAIN: dict[str, dict[str, Any]] = {
    "whole": {},
    "two levels": {"levels": 2, "task_experts": 2, "scenario_experts": 2},
    "low rank": {"low_rank": 2, "expert_units": [6, 5]},
    "clusters": {"clusters": {"some": ["feed", "live"], "other": ["search"]}},
    "task embeddings": {"task_embeddings": True},
}
VARIANTS: dict[str, dict[str, Any]] = {
    **MAIN,
    "deep": {"expert_units": [6, 5], "tower_units": [4, 3], "auxiliary_units": [3, 2]},
    "no towers": {"tower_units": []},
    "low rank, two levels": {"levels": 2, "low_rank": 2, "task_experts": 0},
    "batch norm": {"partitioned_norm": "bn", "gate_temperature": 0.7},
    "dots": {"interaction": "dot"},
    "not isolated": {"isolation": False},
    **{f"no {key}": {key: value} for key, value in OFF.items()},
    "nothing": OFF,
}


def fusion(data: DatasetManifest | None = None, **changes: Any) -> Any:
    """A model off its start, every owner differently, with moments of its own."""
    model = make("ExpertFusion", data, **{**SMALL, **changes})
    draw = np.random.default_rng(0)
    for variable in model.trainable_variables:
        if any(part in variable.name for part in ("own_", "scenario_")):
            variable.assign_add(draw.normal(0, 0.3, variable.shape))
    if model.norm is not None:
        shape = model.norm.moving_mean.shape
        model.norm.moving_mean.assign(draw.normal(0, 0.3, shape))
        model.norm.moving_variance.assign(draw.uniform(0.2, 2.0, shape))
        model.norm.moving_weight.assign(np.full(shape[0], 0.5))
    return model


def fresh(data: DatasetManifest | None = None, **changes: Any) -> Any:
    """A model at its start."""
    found = MODELS["ExpertFusion"]
    model = found(data or with_spec(), found.Config(**{**SMALL, **changes}), seed=1)
    model(build.empty_features(model.manifest))
    return model


# === The forward pass, row by row ===


@functools.cache
def held(variable: Any) -> np.ndarray:
    """A variable's value; forgotten when the next reference begins."""
    return variable.deref().numpy().astype(np.float64)


def value(variable: Any) -> np.ndarray:
    return held(variable.ref())


def dense(x: np.ndarray, layer: Any, member: int = 0) -> np.ndarray:
    several = layer.owners is None
    kernels, biases = layer._kernels, layer._biases
    y = x @ (value(kernels[0])[member] if several else value(kernels[member]))
    if not layer.use_bias:
        return y
    return y + (value(biases[0])[member] if several else value(biases[member]))


def network(x: np.ndarray, stack: Any, member: int = 0) -> np.ndarray:
    for layer in stack.layers:
        x = relu(dense(x, layer, member))
    return x


def unit(x: np.ndarray, gate: Any, member: int, top: float = 2.0) -> np.ndarray:
    hidden = relu(dense(x, gate.prior))
    return top * sigmoid(dense(hidden, gate.factors, member))


def normalised(x: np.ndarray, norm: Any, s: int, additive: bool) -> np.ndarray:
    rows = norm.moving_mean.shape[0]
    own = norm.variable_groups().get(f"scenario/{SCENARIOS[s]}" if s < S else "")
    gamma, beta = value(norm.gamma), value(norm.beta)
    if own is not None:
        gamma = gamma + value(own[0]) if additive else gamma * value(own[0])
        beta = beta + value(own[1])
    place = min(s, rows - 1)
    mean, variance = value(norm.moving_mean)[place], value(norm.moving_variance)[place]
    return gamma * (x - mean) / np.sqrt(variance + norm.epsilon) + beta


def experts_of(x: np.ndarray, level: Any, s: int) -> list[np.ndarray]:
    """Shared experts, then all owners', or the row's own of low rank."""
    found, pool = [], level.pool

    def run(kernels: list[Any], biases: list[Any], j: int) -> np.ndarray:
        y = x
        for kernel, bias in zip(kernels, biases):
            y = relu(y @ value(kernel)[j] + value(bias)[j])
        return y

    for j in range(level.shared):
        kernels, biases = zip(*pool._shared)
        found.append(run(kernels, biases, j))
    if level.low_rank is None:
        for q in range(len(level.owners)):
            kernels = [k[q] for k in pool._kernels if k]
            biases = [b[q] for b in pool._biases if b]
            found += [run(kernels, biases, j) for j in range(level.per_owner)]
        return found
    low = level.low_rank
    for j in range(low.count):
        y = x
        for i, centre in enumerate(low._centres):
            factor, shift = np.zeros(low.rank), 0.0
            if s < S:
                q = level.owner_of[s]
                factor = value(low._kernels[i][q])[j]
                shift = value(low._biases[i][q])[j]
            kernel, down, up = (value(centre[k])[j] for k in ("kernel", "down", "up"))
            # The kernel of this scenario, written out.
            y = y @ (kernel + down @ np.diag(factor) @ up)
            y = relu(y + value(centre["bias"])[j] + shift)
        found.append(y)
    return found


def gates_of(
    x: np.ndarray, e: np.ndarray, level: Any, s: int, t: int, wrong: str
) -> np.ndarray:
    """Weights of gate t, [E]; the gate of no task is the last."""
    name = f"gate/{level.tasks[t]}" if t < len(level.tasks) else "gate_shared"
    read = x
    if level.gate_units is not None:
        read = x @ value(level._projection)
    logits = np.concatenate([read, e]) @ value(level._gate_kernels[name])
    if level.priors is not None and s < S and wrong != "prior":
        column = f"cell/{SCENARIOS[s]}/{level.tasks[t]}" if t < len(level.tasks) else ""
        logits += value(level.priors._own[column or f"scenario/{SCENARIOS[s]}"])
    if level.low_rank is None and s == S and wrong != "unknown":
        last = level.num_experts - level.task_experts
        logits[level.shared : last] = -np.inf
    if wrong == "axis":
        return np.ones_like(logits)
    return softmax(logits / (1.0 if wrong == "tau" else level.temperature))


class Row(NamedTuple):
    """One row of an `Embedded`."""

    flat: np.ndarray
    fields: dict[str, np.ndarray]
    features: dict[str, np.ndarray]
    vector: np.ndarray
    scenario: int


def rows_of(embedded: Any) -> list[Row]:
    flat = embedded.flat.numpy().astype(np.float64)
    fields = {k: v.numpy() for k, v in embedded.fields.items()}
    by_name = {k: v.numpy() for k, v in embedded.features.items()}
    vector = embedded.scenario_vector
    vector = np.zeros([50, 0]) if vector is None else vector.numpy()
    return [
        Row(
            flat[b].copy(),
            {k: v[b] for k, v in fields.items()},
            {k: v[b] for k, v in by_name.items()},
            vector[b],
            int(features()["scenario"][b]),
        )
        for b in range(50)
    ]


def answer(model: Any, embedded: tuple[Row, ...], wrong: str) -> list[float]:
    """Logits of one row."""
    config, x = model.config, embedded[0]
    s, e = min(x.scenario, S), x.vector

    def of(names: tuple[str, ...]) -> np.ndarray:
        return np.concatenate([x.features[n] for n in names] or [[]])

    described = np.concatenate([e, of(config.scenario_features)])
    # Step 1.
    parts = [x.flat[: -e.size], *(own.flat for own in embedded[1:])]
    if model.field_gate is not None:
        read = np.concatenate(parts)
        if model.field_projection is not None:
            read = dense(read, model.field_projection)
        top = 1.0 if wrong == "half" else 2.0
        delta = unit(np.concatenate([described, read]), model.field_gate, 0, top)
        factor = dict(zip(x.fields, delta))
        for part, source in zip(parts, embedded):
            place = 0
            for name, field in source.fields.items():
                part[place : place + field.size] *= factor[name]
                place += field.size
    # Step 2.
    z = np.concatenate(parts)
    if model.norm is not None:
        whole = S if wrong == "whole" else s
        z = normalised(z, model.norm, whole, wrong == "additive")
    shared, *own = np.split(z, np.cumsum([p.size for p in parts])[:-1])
    by_name = sorted(TASKS)
    streams = [shared] * (len(TASKS) + 1)
    if own:
        streams = [np.concatenate([shared, own[by_name.index(t)]]) for t in TASKS]
    # Steps 3 to 5.
    for i, level in enumerate(model.levels):
        mixed = []
        for t in range(len(TASKS) + level.shared_gate):
            pool = streams[t] if own else streams[-1]
            held = experts_of(pool, level, s)
            for j in range(level.task_experts):
                member = t * level.task_experts + j
                held.append(network(streams[t], level.own, member))
            weights = gates_of(streams[t], e, level, s, t, wrong)
            assert len(held) == len(weights), i
            mixed.append(sum(w * h for w, h in zip(weights, held)))
        streams = mixed
    result = []
    for t, task in enumerate(model.tasks):
        # Step 6.
        zeta = network(streams[t], model.towers.hidden, t)
        if model.tower_gate is not None and wrong != "towers":
            zeta = zeta * unit(
                np.concatenate([e, of(model.priors)]), model.tower_gate, t
            )
        logit = dense(zeta, model.towers.head, t)[0]
        # Step 7.
        if model.auxiliary is not None:
            hidden = network(described, model.auxiliary)
            logit += dense(hidden, model.auxiliary_towers.head, t)[0]
        if model.bias_table is not None and s < S:
            logit += value(model.bias_table._own[f"cell/{SCENARIOS[s]}/{task.name}"])[0]
        result.append(logit)
    return result


def reference(model: Any, wrong: str = "") -> Truth:
    held.cache_clear()
    layers = [model.embedding, *model.task_embeddings]
    rows = zip(*(rows_of(layer(features())) for layer in layers))
    return dict(zip(OUTPUTS, np.array([answer(model, r, wrong) for r in rows]).T))


@pytest.mark.parametrize("name", VARIANTS)
def test_equals_a_loop_over_rows(name: str) -> None:
    assert set(features()["scenario"].numpy()) == set(range(S + 1))
    model = fusion(**VARIANTS[name])
    assert close(model, reference(model))


class _Graph:
    """A model as one graph, for a hundred calls."""

    def __init__(self, model: Any) -> None:
        self.variable_groups = model.variable_groups
        self._call = tf.function(lambda: model(features()), autograph=False)

    def __call__(self, _: Any) -> Any:
        return self._call()


# Clusters are the whole model with other owners.
@pytest.mark.parametrize("name", sorted({*MAIN} - {"clusters"}))
def test_any_perturbed_weight_breaks_parity(name: str) -> None:
    model = fusion(**MAIN[name])
    check_each_weight_matters(_Graph(model), lambda _: reference(model))


@functools.cache
def warm() -> Any:
    return fusion(gate_temperature=0.5)


@pytest.mark.parametrize(
    "wrong",
    ["axis", "prior", "unknown", "half", "whole", "additive", "towers", "tau"],
)
def test_named_mistakes_do_not_pass(wrong: str) -> None:
    """Gates of ones, no prior, an unknown scenario that reads all experts, factors up
    to 1, moments of all rows, gamma + gamma_p, ungated towers, no temperature."""
    model = warm()
    assert close(model, reference(model))
    assert not close(model, reference(model, wrong))


# === Limits ===


def test_with_all_parts_off_it_is_mmoe() -> None:
    model = fusion(**OFF, scenario_features=[])
    other = make("MMoE", num_experts=2, expert_units=[6], tower_units=[4])
    for variable, value in zip(
        other.embedding.variables, model.embedding.variables, strict=True
    ):
        variable.assign(value)
    level = model.levels[0]
    kernel, bias = level.pool._shared[0]
    # MMoE's experts read the scenario's embedding too: through weights of zero here.
    blind = tf.zeros([2, model.sizes.vector, 6])
    other.experts.layers[0]._kernels[0].assign(tf.concat([kernel, blind], axis=1))
    other.experts.layers[0]._biases[0].assign(bias)
    for t, task in enumerate(TASKS):
        other.gates.dense._kernels[t].assign(level._gate_kernels[f"gate/{task}"])
    ours, theirs = model.towers.variable_groups(), other.towers.variable_groups()
    for task in ours:
        for variable, value in zip(theirs[task], ours[task], strict=True):
            variable.assign(value)
    found, truth = model(features()), other(features())
    for name in truth:
        np.testing.assert_allclose(found[name], truth[name], rtol=1e-5, atol=1e-6)
    kernel.assign_add(tf.ones_like(kernel))
    assert np.abs(model(features())["click"] - truth["click"]).max() > 0.01


@pytest.mark.parametrize("name", MAIN)
def test_all_factors_start_at_one(name: str) -> None:
    model = fresh(**MAIN[name])
    model(features())
    for factors in ("field_factors", "tower_factors"):
        np.testing.assert_array_equal(model.inspect()[factors], 1.0)


def test_gates_start_near_the_prior() -> None:
    model = fresh(prior_strength=2.0)
    model(features())
    gates, scenario = model.inspect()["gates"].numpy(), features()["scenario"].numpy()
    for s in range(S + 1):
        logits = np.array([0.0, 0.0, -2.0, -2.0, -2.0])
        logits[2:] = -np.inf if s == S else logits[2:]
        if s < S:
            logits[2 + s] = 2.0
        for weights in gates[scenario == s]:
            np.testing.assert_allclose(weights, [softmax(logits)] * 3, atol=0.02)


def test_scenarios_experts_start_as_one_with_a_little_noise() -> None:
    pool = fresh().levels[0].pool
    kernels = np.array([k.numpy() for k in pool._kernels[0]])
    noise = (kernels - kernels.mean(axis=0)).std() / kernels.std()
    assert 0.004 < noise < 0.02
    shared = pool._shared[0][0].numpy()
    assert (shared[0] - shared[1]).std() > 0.5 * shared.std()


def test_biases_start_at_the_cells_rates() -> None:
    """A cell without rows starts at the task's rate, not at a half."""
    stats = with_spec().splits["train"]
    few = {**stats.cells["like"], "live": LabelStats(rows=0, total=0)}
    none = {**stats.cells["click"], "live": LabelStats(rows=4, total=0)}
    cells = {**stats.cells, "like": few, "click": none}
    splits = {"train": stats.model_copy(update={"cells": cells})}
    model = fresh(with_spec().model_copy(update={"splits": splits}))
    start = {k: float(v[0]) for k, v in model.bias_table._own.items()}

    def log_odds(total: float, rows: float) -> float:
        return float(np.log(total / (rows - total)))

    for task in ("click", "like"):
        whole, cell = stats.tasks[task], stats.cells[task]["feed"]
        overall = log_odds(whole.total, whole.rows)
        rate = whole.total / whole.rows
        truth = log_odds(cell.total + 10 * rate, cell.rows + 10) - overall
        assert start[f"cell/feed/{task}"] == pytest.approx(truth, abs=1e-5)
    assert start["cell/live/like"] == pytest.approx(0.0, abs=1e-6)
    rate = stats.tasks["click"].total / stats.tasks["click"].rows
    truth = log_odds(10 * rate, 14) - log_odds(rate, 1)
    assert start["cell/live/click"] == pytest.approx(truth, abs=1e-5)
    cell, given = stats.cells["buy"]["feed"], stats.cells["click"]["feed"]
    rate = stats.tasks["buy"].total / stats.tasks["click"].total
    truth = log_odds(cell.total + 10 * rate, given.total + 10) - log_odds(rate, 1)
    assert start["cell/feed/buy"] == pytest.approx(truth, abs=1e-5)


def test_the_soft_tie_is_the_squared_distance_to_the_mean() -> None:
    for changes in ({}, {"levels": 2, "scenario_experts": 2}, {"low_rank": 2}):
        model, truth = fusion(soft_tie=0.1, **changes), 0.0
        for level in model.levels:
            layer = level.low_rank or level.pool
            for kernels in layer._kernels:
                members = np.array([k.numpy() for k in kernels], np.float64)
                truth += 0.1 * ((members - members.mean(axis=0)) ** 2).sum()
        assert truth > 0.01
        (penalty,) = model.aux_losses().values()
        np.testing.assert_allclose(penalty, truth, rtol=1e-5)
    assert fusion(soft_tie=0.0).aux_losses() == {}
    assert fusion(scenario_experts=0).aux_losses() == {}


# === Who moves what ===


@pytest.mark.parametrize("name", MAIN)
def test_scenarios_and_cells_are_moved_by_their_own_rows_alone(name: str) -> None:
    model, scenario = fusion(**MAIN[name]), features()["scenario"].numpy()
    groups = set(model.variable_groups())
    assert {f"scenario/{s}" for s in SCENARIOS} <= groups
    assert {f"cell/{s}/{t}" for s in SCENARIOS for t in TASKS} <= groups
    owned = [(g, v) for g, vs in model.variable_groups().items() for v in vs]
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(features(), training=True)
        sums = {
            (s, t): tf.reduce_sum(tf.boolean_mask(outputs[output], scenario == s))
            for s in range(S + 1)
            for t, output in enumerate(OUTPUTS)
        }
    for (s, t), total in sums.items():
        gradients = tape.gradient(total, [v for _, v in owned])
        found = {
            group
            for (group, _), gradient in zip(owned, gradients)
            if gradient is not None and np.any(tf.convert_to_tensor(gradient))
        }
        task, others = TASKS[t], {*TASKS} - {TASKS[t]}
        assert {"shared", "embedding", f"task/{task}", f"gate/{task}"} <= found
        assert (
            not {f"{kind}/{other}" for kind in ("task", "gate") for other in others}
            & found
        )
        own = {g for g in found if g.startswith(("scenario/", "cell/"))}
        assert own == (
            {f"scenario/{SCENARIOS[s]}", f"cell/{SCENARIOS[s]}/{task}"}
            if s < S
            else set()
        )


@pytest.mark.parametrize("changes", [{}, {"levels": 2}])
def test_foreign_experts_are_read_and_not_changed(changes: dict[str, Any]) -> None:
    """All forward, own backward: exactly, and with the same numbers as without."""
    model, open_ = fusion(**changes), fusion(isolation=False, **changes)
    for variable, value in zip(open_.variables, model.variables, strict=True):
        variable.assign(value)
    for name, value in model(features()).items():
        np.testing.assert_array_equal(value, open_(features())[name])
    scenario = features()["scenario"].numpy()
    for built, isolated in ((model, True), (open_, False)):
        for level in built.levels:
            kernels = level.pool._kernels[0]
            with tf.GradientTape(persistent=True) as tape:
                logits = built(features())["click"]
                parts = [tf.reduce_sum(logits[scenario == s]) for s in range(S + 1)]
            for s, part in enumerate(parts):
                for q, gradient in enumerate(tape.gradient(part, kernels)):
                    reached = gradient is not None and bool(np.any(gradient))
                    assert reached == (q == s or (not isolated and s < S))
    # They are read: another scenario's expert changes a row's answer.
    before = model(features())["click"].numpy()
    model.levels[0].pool._kernels[0][1].assign_add(
        tf.ones_like(model.levels[0].pool._kernels[0][1])
    )
    change = np.abs(model(features())["click"] - before)
    assert change[scenario == 0].max() > 1e-3
    assert change[scenario == S].max() == 0


def test_foreign_experts_pass_no_gradient_to_the_input() -> None:
    """The gradient at the tables is that with foreign experts' outputs held fixed."""
    model = fusion()
    level, scenario = model.levels[0], features()["scenario"].numpy()
    x = tf.random.stateless_normal([50, model.sizes.width], [1, 2])
    e = tf.zeros([50, model.sizes.vector])
    with tf.GradientTape() as tape:
        tape.watch(x)
        fused = level((x, e), scenario)
        total = tf.reduce_sum(fused.mixed)
    found = tape.gradient(total, x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        plain = level.pool(x)
        owner = np.array([-1, -1, 0, 1, 2])
        held = (owner != -1) & (owner != scenario[:, None])
        fixed = tf.where(held[..., None], plain.numpy(), plain)
        weights = level((x, e), scenario).gates
        total = tf.reduce_sum(tf.einsum("bte,beh->bth", weights, fixed))
    np.testing.assert_allclose(found, tape.gradient(total, x), rtol=1e-4, atol=1e-5)


def test_clusters_of_several_scenarios_are_shared() -> None:
    model = fusion(**MAIN["clusters"])
    kernels = model.levels[0].pool._kernels[0]
    assert len(kernels) == 2
    groups = {k: [v.ref() for v in vs] for k, vs in model.variable_groups().items()}
    assert kernels[0].ref() in groups["shared"]
    assert kernels[1].ref() in groups["scenario/search"]
    scenario = features()["scenario"].numpy()
    for s, own in ((0, 0), (1, 1), (2, 0)):
        with tf.GradientTape() as tape:
            part = tf.reduce_sum(model(features())["click"][scenario == s])
        gradients = tape.gradient(part, kernels)
        assert [g is not None and bool(np.any(g)) for g in gradients] == [
            own == 0,
            own == 1,
        ]


@pytest.mark.parametrize("name", MAIN)
def test_an_unknown_scenario_is_the_centre(name: str) -> None:
    """Nothing that a scenario owns matters to it, bit for bit; nor do clusters."""
    model = fusion(**MAIN[name])
    unknown = {**features(), "scenario": tf.fill([50], S)}
    before, known = model(unknown), model(features())
    draw = np.random.default_rng(0)
    pools = [k for level in model.levels for k in level.pool._kernels[0]]
    owned = [
        v
        for group, variables in model.variable_groups().items()
        if group.startswith(("scenario", "cell"))
        for v in variables
    ]
    for variable in {v.ref(): v for v in (*owned, *pools)}.values():
        variable.assign_add(draw.normal(0, 0.5, variable.shape))
    for output, value in model(unknown).items():
        np.testing.assert_array_equal(value, before[output])
    assert np.abs(model(features())["click"] - known["click"]).max() > 0.01


@pytest.mark.parametrize("name", MAIN)
def test_rows_do_not_depend_on_their_batch(name: str) -> None:
    model = fusion(**MAIN[name])
    whole = model(features())
    order = np.random.default_rng(0).permutation(50)
    for rows in ([7], order[:23], order):
        part = model({k: tf.gather(v, rows) for k, v in features().items()})
        for output, value in part.items():
            truth = tf.gather(whole[output], rows)
            np.testing.assert_allclose(value, truth, rtol=1e-5, atol=1e-5)


def test_a_tasks_own_tables_are_moved_by_its_loss_alone() -> None:
    model = fusion(task_embeddings=True)
    for task, output in zip(TASKS, OUTPUTS):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(features(), training=True)[output])
        tables = [e.trainable_variables[0] for e in model.task_embeddings]
        found = [
            g is not None and bool(np.any(tf.convert_to_tensor(g)))
            for g in tape.gradient(total, tables)
        ]
        assert found == [name == task for name in sorted(TASKS)]


def test_task_embeddings_split_tables_of_the_same_size() -> None:
    def numbers(model: Any) -> int:
        return sum(
            int(tf.size(v))
            for group, variables in model.variable_groups().items()
            if group.partition("/")[0] == "embedding"
            for v in variables
        )

    assert numbers(fusion(task_embeddings=True)) == numbers(fusion())
    one = fusion(with_spec(tasks=[{"name": "click", "label": "click"}]))
    both = fusion(
        with_spec(tasks=[{"name": "click", "label": "click"}]), task_embeddings=True
    )
    assert numbers(one) == numbers(both)
    assert one.sizes.width == both.sizes.width


# === Training, tasks and settings ===


def test_a_gate_loses_experts_in_training_and_sums_to_one() -> None:
    model = fusion(gate_dropout=0.5)
    model(features(), training=True)
    gates, scenario = model.inspect()["gates"].numpy(), features()["scenario"].numpy()
    np.testing.assert_allclose(gates.sum(-1), 1, rtol=1e-5)
    assert (gates[scenario < S] == 0).mean() == pytest.approx(0.5, abs=0.1)
    assert (gates[scenario == S][..., 2:] == 0).all(), "dropout reveals hidden experts"
    model(features())
    assert (model.inspect()["gates"].numpy()[scenario < S] > 0).all()


def test_a_training_batch_without_a_scenario_leaves_it_alone() -> None:
    model = fusion()
    rows = np.flatnonzero(features()["scenario"].numpy() != 1)
    batch = {k: tf.gather(v, rows) for k, v in features().items()}
    with tf.GradientTape() as tape:
        outputs = model(batch, training=True)
        total = tf.add_n([tf.reduce_sum(tf.square(v)) for v in outputs.values()])
    names = {v.ref(): g for g, vs in model.variable_groups().items() for v in vs}
    variables = model.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(total, variables)):
        values = 0.0 if gradient is None else tf.convert_to_tensor(gradient)
        assert np.isfinite(values).all(), variable.name
        if "search" in names[variable.ref()]:
            assert not np.any(values), variable.name


def test_classes_and_numbers() -> None:
    tasks = [
        {"name": "click", "label": "click"},
        {"name": "like", "label": "like", "type": "multiclass", "classes": 3},
        {"name": "buy", "label": "buy", "type": "regression"},
    ]
    model = fusion(with_spec(tasks=tasks))
    outputs = model(features())
    shapes = {"click": [50], "like": [50, 3], "buy": [50]}
    assert {k: v.shape for k, v in outputs.items()} == shapes
    alone = model({k: v[4:5] for k, v in features().items()})
    for name, value in outputs.items():
        np.testing.assert_allclose(alone[name][0], value[4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        ({"scenario": None}, {}, "dataset.scenario"),
        ({}, {"scenario_features": ["colour"]}, "colour"),
        ({}, {"prior_features": ["colour"]}, "colour"),
        ({}, {"clusters": 4}, "at most 3"),
        ({}, {"clusters": 0}, "above 0"),
        ({}, {"clusters": {"a": ["feed"]}}, "every scenario once"),
        ({}, {"clusters": {"a": ["feed", "live"], "b": ["search", "feed"]}}, "once"),
        ({}, {"task_embeddings": True, "levels": 2}, "levels: 1"),
        ({}, {"match": "mmoe"}, "match_to"),
        ({}, {"match_to": {}}, "match"),
        (
            {
                "features": [{"name": "user", "kind": "categorical", "dim": 3}],
                "vocabularies": {},
            },
            {"task_embeddings": True, "scenario_features": []},
            "at least 4",
        ),
    ],
)
def test_impossible_settings_are_refused(
    spec: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        fusion(with_spec(**spec), **changes)
