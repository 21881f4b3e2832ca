"""ESMM against NumPy, its loss over all impressions and where its gradient goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydantic
import pytest

from tests.parity.funnels import (
    CHAIN,
    FORK,
    cross_entropy,
    labels,
    losses,
    probabilities,
    product,
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
    sigmoid,
    tower,
    with_spec,
)
from tfmtl import build
from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.models import MODELS
from tfmtl.schema.experiment import ComponentSpec

SETTINGS: dict[str, Any] = {"tower_units": [6, 4]}


def esmm(model: Any) -> Truth:
    """click, like | click, buy | like: a chain of three."""
    click, like, buy = (tower(flat(model), model, t) for t in range(3))
    return {
        "click": click,
        "like|click": like,
        "like": product(click, like),
        "buy|like": buy,
        "buy": product(click, like, buy),
    }


def chain(**changes: Any) -> Any:
    return make("ESMM", with_spec(tasks=CHAIN), **{**SETTINGS, **changes})


def two() -> Any:
    tasks = [CHAIN[0], FORK[2]]
    return make("ESMM", with_spec(tasks=tasks), **SETTINGS)


def test_equals_numpy() -> None:
    model = chain()
    truth = esmm(model)
    assert close(model, truth)
    short = {**truth, "buy": product(truth["like|click"], truth["buy|like"])}
    assert not close(model, short), "the click is left out of the product"
    assert not close(model, {**truth, "buy": truth["buy|like"]})


def test_each_weight_matters() -> None:
    check_each_weight_matters(chain(), esmm)


def test_no_step_is_likelier_than_those_it_multiplies() -> None:
    p = probabilities(chain())
    assert (p["like"] <= np.minimum(p["click"], p["like|click"])).all()
    assert (p["buy"] <= np.minimum(p["like"], p["buy|like"])).all()


def test_the_loss_is_that_of_click_and_of_click_times_buy_over_all_rows() -> None:
    model, (y, z) = two(), random_funnel(2)
    p = probabilities(model)
    found = losses(model, model(features()), labels(y, z))
    truth = cross_entropy(y, p["click"]), cross_entropy(y * z, p["buy"])
    np.testing.assert_allclose(found, truth, rtol=1e-5)
    on_clicks = cross_entropy(z[y == 1], p["buy|click"][y == 1])
    assert abs(found[1] - on_clicks) > 0.01, "the loss of the rows with a click"


def test_a_buy_without_a_click_is_not_bought() -> None:
    model, (y, z) = two(), random_funnel(2)
    logits = model(features())
    noise = np.where(y == 1, z, 1.0)
    np.testing.assert_allclose(
        losses(model, logits, labels(y, z)), losses(model, logits, labels(y, noise))
    )


def test_gradient_at_the_buy_without_a_click() -> None:
    model = two()
    with tf.GradientTape() as tape:
        tower_outputs = model.logits(model.embedding(features()), training=True)
        tape.watch(tower_outputs)
        joined = model._with_joints(dict(tower_outputs))
        found = losses(model, joined, tf.zeros([50, 2]))
        total = 50 * tf.reduce_sum(found)
    click, buy = tape.gradient(
        total, [tower_outputs["click"], tower_outputs["buy|click"]]
    )
    p_click, p_buy = (
        sigmoid(np.float64(tower_outputs[n])) for n in ("click", "buy|click")
    )
    q = p_click * p_buy
    np.testing.assert_allclose(buy, q * (1 - p_buy) / (1 - q), rtol=1e-4)
    assert (buy.numpy() > 0).all()
    both = p_click + q * (1 - p_click) / (1 - q)
    np.testing.assert_allclose(click, both, rtol=1e-4)


def test_a_sure_buy_leaves_the_click_compared_with_both_labels() -> None:
    model, (y, z) = two(), random_funnel(2)
    head = model.towers.head
    head._kernels[1].assign(tf.zeros_like(head._kernels[1]))
    head._biases[1].assign([60.0])
    p = probabilities(model)["click"]
    found = losses(model, model(features()), labels(y, z))
    truth = cross_entropy(y, p), cross_entropy(y * z, p)
    np.testing.assert_allclose(found, truth, rtol=1e-5)


def test_towers_share_one_embedding_and_nothing_else() -> None:
    model = two()
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(features())
        each = [tf.reduce_sum(outputs[n]) for n in ("click", "buy|click")]
    tables = model.embedding.trainable_variables
    towers = [v.ref() for v in model.towers.trainable_variables]
    rest = {v.ref() for v in model.trainable_variables} - set(towers)
    assert rest == {v.ref() for v in tables}
    for value in each:
        assert all(reaches(value, tape, tables))
    claimed = model.towers.variable_groups()
    assert not any(reaches(each[0], tape, claimed["task/buy"]))
    assert not any(reaches(each[1], tape, claimed["task/click"]))


@pytest.mark.parametrize("detach", [False, True])
def test_the_joint_loss_moves_the_towers_above_unless_detached(detach: bool) -> None:
    model = chain(detach_given=detach)
    assert close(model, esmm(model)), "forward it is the same"
    claimed = model.towers.variable_groups()
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(features())
        buy = tf.reduce_sum(outputs["buy"])
    assert all(reaches(buy, tape, claimed["task/buy"]))
    for above in ("task/click", "task/like"):
        assert any(reaches(buy, tape, claimed[above])) == (not detach)
    own = {g for g in model.variable_groups() if g.startswith("task/")}
    assert own == ({"task/click", "task/like", "task/buy"} if detach else {"task/buy"})


@pytest.mark.parametrize("name", ["AITM", "ESM2", "ESMM", "MMoE+ESMM", "NMTR"])
def test_a_loss_on_the_conditional_is_refused_with_a_reason(name: str) -> None:
    config = MODELS[name].Config
    more = {"through": {"buy": "like"}} if name == "ESM2" else {}
    assert config(**more).given_loss == "joint"
    with pytest.raises(pydantic.ValidationError, match=r"must be 'joint'.*: \w+ "):
        config(given_loss="conditional", **more)


def test_the_experiment_says_why_the_conditional_is_refused() -> None:
    wrong = ComponentSpec.model_validate(
        {"class": "ESMM", "config": {"given_loss": "conditional"}}
    )
    with pytest.raises(ConfigError, match="no loss on the rows with a click alone"):
        build.resolve_config(wrong, MODELS["ESMM"], "model")
