"""NMTR against NumPy, and what its cascade lets through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.parity.funnels import (
    CHAIN,
    cross_entropy,
    labels,
    losses,
    probabilities,
    random_funnel,
    reaches,
)
from tests.parity.reference import (
    Truth,
    check_each_weight_matters,
    close,
    features,
    make,
    manifest,
    mlp,
    sigmoid,
    single_task,
    with_spec,
)
from tfmtl import build
from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.models import MODELS
from tfmtl.schema.manifest import LabelStats
from tfmtl.testing.tiny import DATASET

PLAIN = [{"name": n, "label": n} for n in ("click", "like", "buy")]
KINDS = ("gmf", "mlp", "neumf")
FORMS = ("sum", "mean")


def nmtr(tasks: Any = PLAIN, **changes: Any) -> Any:
    return make("NMTR", with_spec(tasks=tasks), **{"tower_units": [5], **changes})


def own(model: Any, kind: str) -> list[np.ndarray]:
    """f of each behaviour, in order."""
    fields = model.embedding(features()).fields
    p, q = fields["user"].numpy(), fields["item"].numpy()
    parts = [] if kind == "gmf" else [p, q]
    parts += [] if kind == "mlp" else [p * q]
    x, towers = np.concatenate(parts, axis=1), model.networks
    return [
        (
            mlp(x, towers.hidden, r) @ towers.head.kernel[r].numpy()
            + towers.head.bias[r].numpy()
        )[:, 0]
        for r in range(len(model.order))
    ]


def biases(model: Any) -> list[np.ndarray]:
    columns = model.popularity._columns
    found = [c.numpy()[features()["item"].numpy()] for c in columns]
    return found if len(found) > 1 else found * len(model.order)


def reference(model: Any, kind: str, form: str) -> Truth:
    scores: list[np.ndarray] = []
    for f, b in zip(own(model, kind), biases(model)):
        if not scores:
            scores.append(f + b)
        elif form == "sum":
            scores.append(f + scores[-1] + b)
        else:
            scores.append((f + scores[-1]) / 2 + b)
    return dict(zip(model.order, scores))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_numpy(kind: str, form: str) -> None:
    model = nmtr(kind=kind, cascade=form)
    assert close(model, reference(model, kind, form))
    other = "mean" if form == "sum" else "sum"
    assert not close(model, reference(model, kind, other))
    apart = dict(zip(model.order, map(np.add, own(model, kind), biases(model))))
    assert not close(model, apart), "there is no cascade"


@pytest.mark.parametrize("form", FORMS)
def test_each_weight_matters(form: str) -> None:
    check_each_weight_matters(
        nmtr(cascade=form), lambda model: reference(model, "neumf", form)
    )


def test_the_embedding_matters_for_every_behaviour() -> None:
    model = nmtr()
    before = model(features())
    (table,) = model.embedding.trainable_variables
    table.assign_add(tf.random.stateless_normal(table.shape, [1, 2]))
    for name, value in model(features()).items():
        assert np.abs(value - before[name]).max() > 0.1, name


def test_one_behaviour_is_neural_collaborative_filtering() -> None:
    for form in FORMS:
        model = make("NMTR", single_task(), tower_units=[5], cascade=form)
        truth = own(model, "neumf")[0] + biases(model)[0]
        assert close(model, {"click": truth})
        groups = model.variable_groups()
        assert set(groups) == {"embedding", "task/click"}


@pytest.mark.parametrize(("form", "ratio"), [("sum", 1.0), ("mean", 0.5)])
def test_behaviours_that_add_nothing_repeat_the_first(form: str, ratio: float) -> None:
    model = nmtr(cascade=form, item_bias=False)
    head = model.networks.head
    for r in (1, 2):
        head._kernels[r].assign(tf.zeros_like(head._kernels[r]))
        head._biases[r].assign([0.0])
    found = model(features())
    for r, name in enumerate(model.order):
        truth = found["click"] * ratio**r
        np.testing.assert_allclose(found[name], truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_a_loss_moves_the_behaviours_before_it_alone(form: str) -> None:
    model = nmtr(cascade=form)
    networks = model.networks.variable_groups()
    truth = labels(*random_funnel(3))
    with tf.GradientTape(persistent=True) as tape:
        found = tf.unstack(losses(model, model(features()), truth))
    for r, value in enumerate(found):
        for before, variables in enumerate(networks.values()):
            assert any(reaches(value, tape, variables)) == (before <= r)
    assert {g for g in model.variable_groups() if "/" in g} == {"task/buy"}


@pytest.mark.parametrize("form", FORMS)
def test_item_biases(form: str) -> None:
    owners = nmtr(cascade=form).popularity.owners
    each = ("shared/click", "shared/like", "task/buy")
    assert owners == (each if form == "sum" else ("shared/all",))
    bare = nmtr(cascade=form, item_bias=False)
    assert not hasattr(bare, "popularity")
    truth = np.cumsum(own(bare, "neumf"), axis=0)
    if form == "sum":
        assert close(bare, dict(zip(bare.order, truth)))


def test_the_order_is_the_configs() -> None:
    model = nmtr(order=["buy", "click", "like"])
    assert close(model, reference(model, "neumf", "sum"))
    assert model.order == ("buy", "click", "like")
    assert {g for g in model.variable_groups() if "/" in g} == {"task/like"}


def test_a_funnels_behaviours_are_over_all_rows() -> None:
    model = nmtr(CHAIN)
    assert close(model, reference(model, "neumf", "sum"))
    p, truth = probabilities(model), random_funnel(3)
    found = losses(model, model(features()), labels(*truth))
    expected = [cross_entropy(y, p[n]) for y, n in zip(truth, model.order)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert set(p) == {"click", "like", "like|click", "buy", "buy|like"}


@pytest.mark.parametrize("form", FORMS)
def test_every_score_starts_at_its_behaviours_rate(form: str) -> None:
    train = manifest().splits["train"]
    stats = {
        name: LabelStats(rows=1000, total=total)
        for name, total in (("click", 400), ("like", 100), ("buy", 10))
    }
    data = with_spec(tasks=CHAIN).model_copy(
        update={"splits": {"train": train.model_copy(update={"tasks": stats})}}
    )
    found = MODELS["NMTR"]
    model = found(data, found.Config(cascade=form), seed=1)
    model(build.empty_features(data))
    for kernel in model.networks.head._kernels:
        kernel.assign(tf.zeros_like(kernel))
    outputs = model(features())
    for name, rate in (("click", 0.4), ("like", 0.1), ("buy", 0.01)):
        np.testing.assert_allclose(sigmoid(outputs[name].numpy()), rate, rtol=1e-4)


def features_of(**changes: Any) -> list[dict[str, Any]]:
    """The tiny data set's features, one of them changed or one more."""
    name = changes["name"]
    kept = [f for f in DATASET["features"] if f["name"] != name]
    old = next((f for f in DATASET["features"] if f["name"] == name), {})
    return [*kept, {**old, **changes}]


TWO_USERS = features_of(name="position", kind="categorical", dim=4, side="user")


def test_ids_are_named_where_they_are_ambiguous() -> None:
    data = with_spec(features=TWO_USERS, tasks=PLAIN)
    with pytest.raises(ConfigError, match=r"`model.config.user` .*'user', 'position'"):
        make("NMTR", data)
    model = make("NMTR", data, user="user", tower_units=[5])
    assert close(model, reference(model, "neumf", "sum"))


@pytest.mark.parametrize(
    ("changes", "features", "message"),
    [
        ({"user": "price"}, None, r"`model.config.user`.*'price'"),
        ({"item": "nobody"}, None, r"`model.config.item`.*'nobody'"),
        ({"item": "user"}, None, "two features"),
        ({"order": ["click", "like"]}, None, r"order` must name every task once"),
        ({"order": ["click", "like", "like", "buy"]}, None, "every task once"),
        ({}, features_of(name="user", dim=3), r"dim` must be equal.*'user': 3"),
    ],
)
def test_impossible_settings_are_refused(
    changes: Any, features: Any, message: str
) -> None:
    more = {"features": features} if features else {}
    with pytest.raises(ConfigError, match=message):
        make("NMTR", with_spec(tasks=PLAIN, **more), **changes)


def test_widths_may_differ_where_nothing_is_multiplied() -> None:
    data = with_spec(tasks=PLAIN, features=features_of(name="user", dim=3))
    model = make("NMTR", data, kind="mlp", tower_units=[5, 3])
    assert close(model, reference(model, "mlp", "sum"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "gmf", "tower_units": [4, 4]},
        {"kind": "gmf", "tower_units": []},
        {"interaction": "dot"},
    ],
)
def test_settings_without_effect_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"tower_units|interaction"):
        MODELS["NMTR"].Config(**wrong)


@pytest.mark.parametrize(
    "task",
    [
        {"name": "time", "label": "time", "type": "regression"},
        {"name": "kind", "label": "kind", "type": "multiclass", "classes": 3},
    ],
)
def test_behaviours_are_binary(task: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match=rf"binary tasks with one output. Received: .*{task['name']}"
    ):
        nmtr([*PLAIN, task])
