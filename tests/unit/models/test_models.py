"""What the base class promises, and the claims of the two controls."""

from __future__ import annotations

import functools
import math
import pathlib
import tempfile
from typing import Any

import numpy as np
import pytest

from tfmtl import build
from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.models import MODELS, catalogue
from tfmtl.schema.manifest import DatasetManifest, LabelStats
from tfmtl.testing.tiny import tiny_dataset, tiny_spec

SMALL = {
    "SharedBottom": {"bottom_units": [6]},
    "SingleTask": {"units": [6]},
    "SingleScenario": {"units": [6]},
    "MMoE": {"num_experts": 2, "expert_units": [6]},
}
FUNNEL = [
    {"name": "click", "label": "click"},
    {"name": "cart", "label": "cart", "given": "click"},
    {"name": "buy", "label": "buy", "given": "cart"},
]


@functools.cache
def manifest() -> DatasetManifest:
    with tempfile.TemporaryDirectory() as folder:
        return tiny_dataset(pathlib.Path(folder))


def with_spec(**changes: Any) -> DatasetManifest:
    return manifest().model_copy(update={"dataset": tiny_spec(**changes)})


def make(name: str, data: DatasetManifest | None = None, **config: Any) -> Any:
    data = data or manifest()
    found = MODELS[name]
    settings = found.Config(**{**SMALL[name], "tower_units": [], **config})
    model = found(data, settings, seed=1)
    model(build.empty_features(data))
    return model


def features(rows: int = 24, seed: int = 0) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    result = {}
    for column in manifest().columns:
        if "/" not in column.name:
            width = [column.size] if column.size else []
            if column.dtype == "int":
                value = draw.integers(0, column.rows or 3, (rows, *width))
                result[column.name] = tf.constant(value, tf.int32)
            else:
                value = draw.normal(size=(rows, *width))
                result[column.name] = tf.constant(value, tf.float32)
    return result


def test_a_funnel_of_three_multiplies_up() -> None:
    model = make("SharedBottom", with_spec(tasks=FUNNEL))
    found = {k: 1 / (1 + np.exp(-v.numpy())) for k, v in model(features()).items()}
    assert set(found) == {"click", "cart|click", "cart", "buy|cart", "buy"}
    np.testing.assert_allclose(
        found["cart"], found["click"] * found["cart|click"], rtol=1e-4
    )
    np.testing.assert_allclose(
        found["buy"], found["cart"] * found["buy|cart"], rtol=1e-4
    )


def test_the_trained_output_follows_the_config() -> None:
    for kind, output in (("conditional", "buy|click"), ("joint", "buy")):
        model = make("SharedBottom", given_loss=kind)
        assert [model.trained_output(t) for t in model.tasks] == [
            "click",
            "like",
            output,
        ]


class TestInitialBias:
    """Outputs start at the rates of the training split."""

    def _stats(self, **tasks: LabelStats) -> DatasetManifest:
        train = manifest().splits["train"].model_copy(update={"tasks": tasks})
        return with_spec().model_copy(update={"splits": {"train": train}})

    def test_rates_and_conditional_rates(self) -> None:
        data = self._stats(
            click=LabelStats(rows=100, total=20),
            like=LabelStats(rows=50, total=0),
            buy=LabelStats(rows=100, total=5),
        )
        model = make("SharedBottom", data)
        bias = model.towers.head.bias[:, 0].numpy()
        odds = [0.2 / 0.8, 1e-6, 0.25 / 0.75]
        np.testing.assert_allclose(bias, np.log(odds), rtol=1e-5)

    def test_no_labels_start_at_0(self) -> None:
        data = self._stats(click=LabelStats(rows=0, total=0))
        assert (make("SharedBottom", data).towers.head.bias.numpy() == 0).all()

    def test_regression_starts_at_the_mean_of_what_it_is_fitted_to(self) -> None:
        stats = LabelStats(rows=10, total=70)
        for transform, start in (("none", 7.0), ("log1p", math.log(8))):
            task = {"name": "time", "label": "time", "type": "regression"}
            spec = tiny_spec(tasks=[{**task, "transform": transform}])
            data = self._stats(time=stats).model_copy(update={"dataset": spec})
            (bias,) = make("SharedBottom", data).towers.head.bias[:, 0].numpy()
            assert bias == pytest.approx(start)

    def test_networks_of_a_scenario_start_at_its_rate(self) -> None:
        model = make("SingleScenario")
        cells = manifest().splits["train"].cells["click"]
        for name, (_, bias) in model.heads.variable_groups().items():
            _, scenario, task = name.split("/")
            if task == "click":
                rate = cells[scenario].mean
                assert float(bias[0, 0]) == pytest.approx(
                    math.log(rate / (1 - rate)), rel=1e-4
                )


def test_multiclass_beside_binary() -> None:
    tasks = [
        {"name": "kind", "label": "kind", "type": "multiclass", "classes": 4},
        {"name": "click", "label": "click"},
    ]
    for name in ("SharedBottom", "MMoE", "SingleTask"):
        found = make(name, with_spec(tasks=tasks))(features())
        assert {k: v.shape.as_list() for k, v in found.items()} == {
            "kind": [24, 4],
            "click": [24],
        }
    with pytest.raises(ConfigError, match=r"no multiclass task.*such tasks \['kind'\]"):
        make("SingleScenario", with_spec(tasks=tasks))


def test_single_scenario_needs_scenarios() -> None:
    with pytest.raises(ConfigError, match=r"needs `dataset.scenario`"):
        make("SingleScenario", with_spec(scenario=None))


def test_data_without_scenarios() -> None:
    data = with_spec(scenario=None)
    columns = tuple(c for c in data.columns if c.name != "scenario")
    data = data.model_copy(update={"columns": columns})
    without = {k: v for k, v in features().items() if k != "scenario"}
    for name in ("SharedBottom", "MMoE", "SingleTask"):
        model = make(name, data)
        assert all(np.isfinite(v).all() for v in model(without).values())


def test_groups_need_a_built_model() -> None:
    found = MODELS["SharedBottom"]
    with pytest.raises(ValueError, match="call the model on a batch"):
        found(manifest(), found.Config()).variable_groups()


def test_cut_holds_every_way_into_the_heads() -> None:
    for name, count in (("SharedBottom", 1), ("MMoE", 2)):
        model = make(name)
        model(features())
        model(features())
        assert len(model.cut()) == count, "of the last call alone"


def _moved(model: Any, total: Any, tape: Any) -> set[str]:
    variables = model.trainable_variables
    return {
        v.name
        for v, g in zip(variables, tape.gradient(total, variables))
        if g is not None and np.abs(tf.convert_to_tensor(g)).max() > 0
    }


def test_tasks_of_single_task_share_nothing() -> None:
    model = make("SingleTask")
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(features())
        totals = [tf.reduce_sum(outputs[t.conditional]) for t in model.tasks]
    moved = [_moved(model, total, tape) for total in totals]
    assert moved[0] and moved[1] and moved[2]
    assert not (moved[0] & moved[1] | moved[0] & moved[2] | moved[1] & moved[2])


def test_scenarios_of_single_scenario_share_nothing() -> None:
    """A step on one scenario's rows leaves the others' answers as they were."""
    sequence = {**tiny_spec().model_dump()["features"][3], "pooling": "attention"}
    others = [f for f in tiny_spec().model_dump()["features"] if f["name"] != "hist"]
    data = with_spec(features=[*others, {**sequence, "query": "item"}])
    model, x = make("SingleScenario", data), features()
    scenario = x["scenario"].numpy()
    before = model(x)
    mine = {k: tf.gather(v, np.flatnonzero(scenario == 1)) for k, v in x.items()}
    with tf.GradientTape() as tape:
        total = tf.add_n([tf.reduce_sum(v) for v in model(mine).values()])
    variables = model.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(total, variables)):
        if gradient is not None:
            variable.assign_sub(0.1 * tf.convert_to_tensor(gradient))
    after = model(x)
    for output in before:
        change = np.abs(after[output] - before[output])
        assert (change[scenario != 1] == 0).all(), output
        assert (change[scenario == 1] > 1e-4).all(), output


def test_unknown_rows_train_no_network_of_single_scenario() -> None:
    model = make("SingleScenario")
    x = dict(features(), scenario=tf.fill([24], 3))
    with tf.GradientTape() as tape:
        total = tf.add_n([tf.reduce_sum(v) for v in model(x).values()])
    assert _moved(model, total, tape) == set()


def test_catalogue_names_every_model() -> None:
    entries = {e["name"]: e for e in catalogue()}
    assert set(entries) == set(MODELS)
    assert all(e["summary"] and e["citation"] for e in entries.values())
