"""ESM2 against NumPy, its tree of outcomes path by path, and its limits."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tests.parity.funnels import (
    FORK,
    cross_entropy,
    labels,
    log_odds,
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
    flat,
    make,
    mlp,
    sigmoid,
    with_spec,
)
from tfmtl._keras import tf
from tfmtl.errors import ConfigError

SETTINGS: dict[str, Any] = {"through": {"buy": "like"}, "tower_units": [6, 4]}


def esm2(tasks: Any = FORK, **changes: Any) -> Any:
    return make("ESM2", with_spec(tasks=tasks), **{**SETTINGS, **changes})


def head(model: Any, towers: Any, t: int) -> np.ndarray:
    x = mlp(flat(model), towers.hidden, t)
    return (x @ towers.head.kernel[t].numpy() + towers.head.bias[t].numpy())[:, 0]


def steps(model: Any) -> tuple[np.ndarray, ...]:
    """y1 click, y2 like (the action), y3 buy after it, y4 buy without."""
    logits = [head(model, model.towers, t) for t in range(3)]
    return tuple(sigmoid(s) for s in (*logits, head(model, model.otherwise, 0)))


def reference(model: Any) -> Truth:
    y1, y2, y3, y4 = steps(model)
    p_cvr = y2 * y3 + (1 - y2) * y4
    found = {"click": y1, "like|click": y2, "like": y1 * y2}
    found |= {"buy|click": p_cvr, "buy": y1 * p_cvr}
    return {k: log_odds(v) for k, v in found.items()}


def test_equals_numpy() -> None:
    model = esm2()
    truth = reference(model)
    assert close(model, truth)
    y1, y2, y3, y4 = steps(model)
    for wrong in (y2 * y3 + (1 - y2 * y3) * y4, y2 * y4 + (1 - y2) * y3, y2 * y3):
        assert not close(model, {**truth, "buy": log_odds(y1 * wrong)})


def test_each_weight_matters() -> None:
    check_each_weight_matters(esm2(), reference)


def test_total_probability_lies_between_its_two_ways() -> None:
    model = esm2()
    _, _, y3, y4 = steps(model)
    p = probabilities(model)["buy|click"]
    assert (p >= np.minimum(y3, y4) - 1e-6).all()
    assert (p <= np.maximum(y3, y4) + 1e-6).all()


def test_where_both_ways_are_alike_the_action_does_not_matter() -> None:
    model = esm2()
    for layer, other in (
        *zip(model.otherwise.hidden.layers, model.towers.hidden.layers),
        (model.otherwise.head, model.towers.head),
    ):
        layer._kernels[0].assign(other._kernels[2])
        layer._biases[0].assign(other._biases[2])
    _, _, y3, _ = steps(model)
    for shift in (-3.0, 0.0, 3.0):
        model.towers.head._biases[1].assign([shift])
        np.testing.assert_allclose(probabilities(model)["buy|click"], y3, rtol=1e-4)


@pytest.mark.parametrize("always", [True, False])
def test_a_sure_action_is_a_chain_and_an_impossible_one_is_esmm(always: bool) -> None:
    model = esm2()
    switch = model.towers.head
    switch._kernels[1].assign(tf.zeros_like(switch._kernels[1]))
    switch._biases[1].assign([60.0 if always else -60.0])
    y1, _, y3, y4 = steps(model)
    p = probabilities(model)
    np.testing.assert_allclose(p["buy"], y1 * (y3 if always else y4), rtol=1e-4)
    np.testing.assert_allclose(p["like"], y1 if always else 0 * y1, atol=1e-5)


def test_the_paths_of_the_tree() -> None:
    model = esm2()
    y1, y2, y3, y4 = steps(model)
    total, of = 0.0, {"click": 0.0, "like": 0.0, "buy": 0.0}
    for c, a, b in itertools.product([0, 1], repeat=3):
        path = y1 if c else 1 - y1
        # Nothing follows an impression without a click.
        path = path * ((y2 if a else 1 - y2) if c else 1 - a)
        bought = y3 if a else y4
        path = path * ((bought if b else 1 - bought) if c else 1 - b)
        total = total + path
        for name, happened in zip(of, (c, a, b)):
            of[name] = of[name] + happened * path
    np.testing.assert_allclose(total, np.ones(50))
    p = probabilities(model)
    for name, probability in of.items():
        np.testing.assert_allclose(p[name], probability, rtol=1e-4, err_msg=name)


def test_neither_action_nor_purchase_is_likelier_than_the_click() -> None:
    p = probabilities(esm2())
    assert (p["like"] <= p["click"]).all()
    assert (p["buy"] <= p["click"]).all()


def test_three_losses_over_all_rows_and_none_on_the_two_ways() -> None:
    model = esm2()
    y, a = random_funnel(2)
    b = y * (np.random.default_rng(9).random(50) < 0.5)
    assert (b > a).any(), "bought without the action"
    p = probabilities(model)
    with tf.GradientTape(persistent=True) as tape:
        found = losses(model, model(features()), labels(y, a, b))
        of_buy, of_action = found[2], found[1]
    truth = [cross_entropy(v, p[n]) for v, n in ((y, "click"), (a, "like"), (b, "buy"))]
    np.testing.assert_allclose(found, truth, rtol=1e-5)
    ways = [*model.otherwise.trainable_variables]
    ways += model.towers.variable_groups()["task/buy"]
    assert all(reaches(of_buy, tape, ways))
    assert not any(reaches(of_action, tape, ways))


def test_the_action_is_trained_by_the_purchase_too() -> None:
    groups = esm2().variable_groups()
    assert {g for g in groups if "/" in g} == {"task/buy"}
    assert len(groups["task/buy"]) == 12, "both ways, of three layers each"


def test_an_action_may_lead_through_another() -> None:
    tasks = [*FORK, {"name": "wish", "label": "like", "given": "click"}]
    model = esm2(tasks, through={"buy": "like", "like": "wish"})
    y1, y2, y3, wish = (sigmoid(head(model, model.towers, t)) for t in range(4))
    without = [sigmoid(head(model, model.otherwise, i)) for i in range(2)]
    like = wish * y2 + (1 - wish) * without[0]
    buy = like * y3 + (1 - like) * without[1]
    truth = {"like|click": like, "buy": y1 * buy}
    assert close(model, {k: log_odds(v) for k, v in truth.items()})


def test_steps_may_follow() -> None:
    tasks = [*FORK, {"name": "again", "label": "buy", "given": "buy"}]
    model = esm2(tasks)
    p = probabilities(model)
    np.testing.assert_allclose(
        p["again"], p["click"] * p["buy|click"] * p["again|buy"], rtol=1e-4
    )
    assert {g for g in model.variable_groups() if "/" in g} == {"task/again"}


NUMBER = {"name": "time", "label": "time", "type": "regression", "given": "click"}


@pytest.mark.parametrize(
    ("through", "tasks", "message"),
    [
        ({"buy": "cart"}, FORK, r"must name tasks. Received: \['cart'\]"),
        (
            {"buy": "click"},
            FORK,
            r"buy: binary, given click.*click: binary, given None",
        ),
        ({"buy": "time"}, [*FORK, NUMBER], "time: regression, given click"),
        ({"buy": "like", "like": "buy"}, FORK, "circle"),
        ({"buy": "buy"}, FORK, "circle"),
    ],
)
def test_impossible_actions_are_refused(
    through: dict[str, str], tasks: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        esm2(tasks, through=through)


def test_a_tree_is_needed() -> None:
    with pytest.raises(ValueError, match="through"):
        esm2(through={})


def test_classes_and_numbers_beside_the_tree() -> None:
    kind = {"name": "kind", "label": "kind", "type": "multiclass", "classes": 3}
    outputs = esm2([kind, *FORK, NUMBER])(features())
    assert outputs["kind"].shape == [50, 3]
    assert outputs["time"].shape == [50]
