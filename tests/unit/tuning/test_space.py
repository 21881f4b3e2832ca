"""Dotted paths <-> keras-tuner's parameters <-> the documents of trials."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest

from tfmtl import build
from tfmtl.errors import ConfigError
from tfmtl.schema.load import parse_experiment
from tfmtl.schema.tuning import TuningSpec
from tfmtl.testing.tiny import tiny_spec
from tfmtl.tuning.space import Space

LIKE, BUY = "balancer.config.weights.like", "balancer.config.weights.buy"
RATE = "optimizers.default.learning_rate"
EXPERTS, UNITS = "model.config.num_experts", "model.config.expert_units"
WEIGHT = {"type": "float", "min": 0.1, "max": 10}
WIDE: dict[str, Any] = {
    LIKE: WEIGHT,
    RATE: {"type": "float", "min": 1e-4, "max": 1e-2, "scale": "log"},
    "regularization.id_dropout": {"type": "float", "min": 0, "max": 0.5, "step": 0.1},
    "training.batch_size": {"type": "int", "min": 8, "max": 64, "scale": "pow2"},
    "training.epochs": {"type": "int", "min": 1, "max": 7, "step": 3},
    "optimizers.default.class": {"type": "choice", "values": ["Adam", "SGD"]},
    "training.patience": {"type": "choice", "values": [None, 2]},
    "training.deterministic": {"type": "boolean"},
    "training.task_snapshots": {"type": "choice", "values": [True, False]},
    UNITS: {"type": "choice", "values": [[64], [128, 64]]},
    EXPERTS: {
        "type": "choice",
        "values": [1, 2, 4],
        "when": {"training.deterministic": [True], "training.epochs": [4, 7]},
    },
    "dataset.features.item.dim": {"type": "int", "min": 2, "max": 5},
}


def document(**changes: Any) -> dict[str, Any]:
    """A resolved experiment."""
    given = {
        "name": "tiny",
        "dataset": tiny_spec().model_dump(),
        "model": {"class": "MMoE", "config": {"num_experts": 3}},
    }
    found = parse_experiment(given | changes)
    return found.model_dump(mode="json", by_alias=True)


def space(dimensions: dict[str, Any], **changes: Any) -> Space:
    """A space over the tiny experiment."""
    return Space(TuningSpec.model_validate({"space": dimensions}), document(**changes))


def parse(trial: dict[str, Any]) -> None:
    """What a trial's document has to pass."""
    build.check(parse_experiment(trial))


def sampled(found: Space, count: int) -> list[Any]:
    """keras-tuner's parameters with random values, as its oracles draw them."""
    drawn = []
    generator = np.random.default_rng(0)
    for _ in range(count):
        hp = found.hyperparameters()
        hp.values = {}
        for one in hp.space:
            if hp.is_active(one):
                hp.values[one.name] = one.random_sample(int(generator.integers(1e9)))
        drawn.append(hp)
    return drawn


def test_every_value_survives_the_wire() -> None:
    from keras_tuner import HyperParameters

    found = space(WIDE)
    seen: dict[str, set[str]] = {path: set() for path in WIDE}
    inactive = 0
    for hp in sampled(found, 60):
        values = found.values(hp)
        assert found.values(HyperParameters.from_proto(hp.to_proto())) == values
        assert found.values(HyperParameters.from_config(hp.get_config())) == values
        assert found.encode(values).keys() == hp.values.keys()
        active = values["training.deterministic"] and values["training.epochs"] > 1
        assert (EXPERTS in values) == active
        inactive += not active
        for path, value in values.items():
            assert found.spec.space[path].has(value)
            seen[path].add(repr(value))
    assert 0 < inactive < 60
    expected = {
        "regularization.id_dropout": ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"],
        "training.batch_size": ["8", "16", "32", "64"],
        "training.epochs": ["1", "4", "7"],
        "optimizers.default.class": ["'Adam'", "'SGD'"],
        "training.patience": ["None", "2"],
        "training.deterministic": ["False", "True"],
        "training.task_snapshots": ["False", "True"],
        UNITS: ["[64]", "[128, 64]"],
        EXPERTS: ["1", "2", "4"],
        "dataset.features.item.dim": ["2", "3", "4", "5"],
    }
    assert {path: seen[path] for path in expected} == {
        path: set(values) for path, values in expected.items()
    }


def test_a_condition_may_say_1_for_a_float() -> None:
    share = {"type": "choice", "values": [0.5, 1.0, 0.0]}
    asked = {"training.deterministic": {"type": "boolean", "when": {
        "regularization.id_dropout": [1, 0.5]}}}  # fmt: skip
    found = space({"regularization.id_dropout": share, **asked})
    for value, active in ((0.5, True), (1.0, True), (0.0, False)):
        hp = found.hyperparameters()
        hp.values = {"regularization.id_dropout": value}
        assert hp.is_active("training.deterministic") == active


def test_keras_tuner_enumerates_the_steps() -> None:
    ranges = [
        {"type": "float", "min": 0, "max": 1, "step": 0.1},
        {"type": "float", "min": 0.3, "max": 1.25, "step": 0.3},
        {"type": "float", "min": 1e-3, "max": 5, "step": 10, "scale": "log"},
        {"type": "int", "min": 1, "max": 12, "step": 4},
        {"type": "int", "min": 3, "max": 50, "scale": "pow2"},
        {"type": "int", "min": 2, "max": 60, "scale": "log", "step": 5},
    ]
    for given in ranges:
        found = space({"training.x": given})
        dimension = found.spec.space["training.x"]
        hp = found.hyperparameters()
        listed = []
        for value in hp.space[0].values:
            hp.values = {"training.x": value}
            listed.append(found.values(hp)["training.x"])
        assert listed == [dimension.at(i) for i in range(dimension.count)], given
        assert listed[-1] <= given["max"] and len(listed) > 2


def test_a_wire_adds_values_that_are_not_active() -> None:
    """keras-tuner's own trap: `values` must not believe what it finds."""
    from keras_tuner import HyperParameters

    found = space(
        {
            "model.class": {"type": "choice", "values": ["MMoE", "SharedBottom"]},
            UNITS: {
                "type": "choice",
                "values": [[2], [3]],
                "when": {"model.class": ["MMoE"]},
            },
        }
    )
    hp = found.hyperparameters()
    hp.values = {"model.class": "SharedBottom"}
    arrived = HyperParameters.from_proto(hp.to_proto())
    assert UNITS in arrived.values, "the trap is gone"
    assert found.values(arrived) == {"model.class": "SharedBottom"}


def test_defaults_are_the_experiments_own() -> None:
    found = space(
        {
            RATE: {"type": "float", "min": 1e-4, "max": 1e-2, "scale": "log"},
            "optimizers.embedding.learning_rate": {
                "type": "float",
                "min": 1e-1,
                "max": 10,
                "scale": "log",
            },
            LIKE: WEIGHT,
            BUY: WEIGHT,
            "training.batch_size": {"type": "int", "min": 8, "max": 9},
            "training.epochs": {"type": "int", "min": 1, "max": 100, "step": 3},
            "dataset.features.item.dim": {"type": "choice", "values": [2, 4]},
            UNITS: {"type": "choice", "values": [[5], [6]]},
            "training.deterministic": {"type": "boolean"},
        },
        balancer={"class": "Fixed", "config": {"weights": {"like": 3.0}}},
    )
    assert found.defaults == {
        RATE: 1e-3,
        "optimizers.embedding.learning_rate": pytest.approx(1.0),
        LIKE: 3.0,
        BUY: 1.0,
        "training.batch_size": 8,
        "training.epochs": 10,
        "dataset.features.item.dim": 4,
        UNITS: [5],
        "training.deterministic": False,
    }
    assert found.values(found.hyperparameters()) == found.defaults


def test_a_trial_is_the_experiment_with_some_settings_replaced() -> None:
    given = document(tuning={"space": {LIKE: WEIGHT}})
    before = copy.deepcopy(given)
    found = Space(TuningSpec.model_validate({"space": WIDE}), given)
    values = {RATE: 0.5, UNITS: [7], "dataset.features.item.dim": 2}
    trial = found.apply(values)
    assert given == before
    expected = copy.deepcopy(before)
    expected["tuning"] = None
    expected["optimizers"]["default"]["learning_rate"] = 0.5
    expected["model"]["config"]["expert_units"] = [7]
    expected["dataset"]["features"][1]["dim"] = 2
    assert trial == expected
    trial["model"]["config"]["expert_units"].append(8)
    assert values[UNITS] == [7]


@pytest.mark.parametrize(
    ("balancer", "after"),
    [
        ({"class": "Equal"}, {"class": "Fixed", "config": {"weights": {"like": 2.0}}}),
        (
            {"class": "Fixed", "config": {"weights": {"buy": 3.0, "like": 4.0}}},
            {"class": "Fixed", "config": {"weights": {"buy": 3.0, "like": 2.0}}},
        ),
        (
            {"class": "DWA"},
            {"class": "DWA", "config": {"weights": {"like": 2.0}}},
        ),
    ],
)
def test_searched_weights_are_of_a_fixed_balancer(balancer, after) -> None:
    trial = space({LIKE: WEIGHT}, balancer=balancer).apply({LIKE: 2.0})
    assert trial["balancer"] == after


def test_the_config_of_the_file_is_of_the_files_own_class() -> None:
    found = space(
        {
            "model.class": {"type": "choice", "values": ["MMoE", "SharedBottom"]},
            UNITS: {
                "type": "choice",
                "values": [[2], [3]],
                "when": {"model.class": ["MMoE"]},
            },
            "model.config.tower_units": {"type": "choice", "values": [[4], [5]]},
        }
    )
    own = found.apply({"model.class": "MMoE", UNITS: [2]})["model"]
    assert own == {"class": "MMoE", "config": {"num_experts": 3, "expert_units": [2]}}
    other = found.apply({"model.class": "SharedBottom", "model.config.tower_units": []})
    assert other["model"] == {"class": "SharedBottom", "config": {"tower_units": []}}
    found.check(parse)


def test_probes_try_every_dimension_within_its_conditions() -> None:
    found = space(WIDE)
    tried: dict[str, list[Any]] = {path: [] for path in WIDE}
    for path, value, values in found._probed():
        tried[path].append(value)
        assert all(found.is_active(p, values) for p in values)
        assert set(values) == {path, *found.conditions[path]}
    assert tried[LIKE] == [0.1, 10.0]
    assert tried["regularization.id_dropout"] == [0.0, 0.5]
    assert tried["training.epochs"] == [1, 7]
    assert tried[UNITS] == [[64], [128, 64]]
    assert tried[EXPERTS] == [1, 2, 4]
    assert [path for path, _ in found.probes()] == [
        path for path in found.names for _ in tried[path]
    ]
    found.check(parse)


BAD = [
    ("training.lerning_rate", WEIGHT, r"= 0\.1 .*unknown key; legal keys"),
    ("training.epoch", {"type": "int", "min": 1, "max": 3}, "did you mean 'epochs'"),
    ("model.config.num_expert", {"type": "int", "min": 1, "max": 3}, "'num_experts'"),
    (EXPERTS, {"type": "choice", "values": ["a", "b"]}, r"= 'a' .*valid integer"),
    (EXPERTS, {"type": "int", "min": 0, "max": 3}, r"= 0 .*greater than or equal"),
    ("training.epochs.x", {"type": "int", "min": 1, "max": 3}, "plain value"),
    ("dataset.tasks.lke.role", {"type": "choice", "values": ["main", "auxiliary"]},
     r"names no item of the list; items: \['click', 'like', 'buy'\]"),
    ("model.class", {"type": "choice", "values": ["MMoE", "MMOE"]}, "'MMOE' .*one of"),
    ("training.batch_size", {"type": "float", "min": 1, "max": 3.5}, "= 3.5 .*integer"),
    ("dataset.tasks.buy.loss.gamma", WEIGHT, "plain value"),
    ("dataset.features.hist.columns.item.dim", {"type": "int", "min": 0, "max": 9},
     "= 0 .*greater than or equal to 1"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "dimension", "message"), BAD)
def test_paths_that_lead_nowhere_are_found_before_a_trial(path, dimension, message):
    found = space({LIKE: WEIGHT, path: dimension, BUY: WEIGHT})
    with pytest.raises(ConfigError, match=message) as caught:
        found.check(parse)
    assert str(caught.value).startswith(f"`tuning.space`: {path} = ")
    assert caught.value.places == (("tuning", "space", path),)
    assert "\n" not in str(caught.value)


def test_the_dimension_that_is_at_fault_is_blamed() -> None:
    """A class that cannot do without a setting is tried together with it."""
    dimensions = {
        "balancer.class": {"type": "choice", "values": ["Equal", "Fixed"]},
        LIKE: WEIGHT | {"when": {"balancer.class": ["Fixed"]}},
    }
    space(dimensions).check(parse)
    dimensions["balancer.config.wights"] = {
        "type": "boolean",
        "when": {"balancer.class": ["Fixed"]},
    }
    with pytest.raises(ConfigError, match=r"config\.wights = False .*unknown key"):
        space(dimensions).check(parse)
    lone = {"balancer.class": {"type": "choice", "values": ["Equal", "Fixed"]}}
    with pytest.raises(ConfigError, match=r"class = 'Fixed' .*weights: Field required"):
        space(lone).check(parse)


def test_every_combination_of_what_changes_the_records_is_probed() -> None:
    """Each is a data set that has to be there; of others the ends are enough."""
    transform = "dataset.features.price.transform"
    width = "dataset.features.price.buckets"
    found = space(
        {
            transform: {"type": "choice", "values": ["none", "log1p"]},
            width: {"type": "int", "min": 100, "max": 300, "step": 100},
            RATE: {"type": "float", "min": 1e-3, "max": 0.1},
        }
    )
    assert set(found.spec.record_paths) == {transform, width}
    seen: list[tuple[Any, ...]] = []

    def note(trial: dict[str, Any]) -> None:
        price = next(f for f in trial["dataset"]["features"] if f["name"] == "price")
        seen.append((price["transform"], price["buckets"]))
        if seen[-1] == ("log1p", 200):
            raise ConfigError("no data set")

    with pytest.raises(ConfigError, match=r"buckets = 200 .*no data set"):
        found.check(note)
    every = {(kind, rows) for kind in ("none", "log1p") for rows in (100, 200)}
    assert every <= set(seen)


def test_the_fingerprint_is_of_what_is_searched() -> None:
    def of(spec: dict[str, Any], **changes: Any) -> str:
        return Space(TuningSpec.model_validate(spec), document(**changes)).fingerprint()

    base: dict[str, Any] = {"space": {LIKE: WEIGHT, BUY: WEIGHT}}
    same = of(base)
    turned = {"space": {BUY: WEIGHT, LIKE: WEIGHT}, "seed": 3, "max_trials": 5}
    assert of(turned, seed=8, tuning=base) == same
    others = [
        of({"space": {LIKE: WEIGHT}}),
        of({"space": {LIKE: WEIGHT, BUY: WEIGHT | {"max": 9}}}),
        of(base, training={"epochs": 3}),
    ]
    assert len({same, *others}) == 4


def test_log_dimensions_are_drawn_by_factors() -> None:
    found = space({LIKE: WEIGHT})
    hp = found.hyperparameters()
    drawn = [hp.space[0].prob_to_value(p) for p in (0.25, 0.5, 0.75)]
    ratios = [b / a for a, b in itertools.pairwise([0.1, *drawn, 10])]
    assert ratios == pytest.approx([math.sqrt(10)] * 4)
