"""One task's estimate as another's input, behind a stopped gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.parity.reference import (
    OUTPUTS,
    check_each_weight_matters,
    close,
    features,
    flat,
    make,
    mlp,
    sigmoid,
)
from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.models import MODELS, MultiTaskModel
from tfmtl.models.base import ModelConfig

READS = {"like": ["click"], "buy": ["click", "like"]}
SETTINGS: dict[str, Any] = {"bottom_units": [6], "tower_units": [3], "estimates": READS}


def towers(model: Any, form: str = "logit") -> dict[str, np.ndarray]:
    """Each tower on [r; estimates], written from the formula."""
    r = mlp(flat(model), model.bottom, 0)
    done: dict[str, np.ndarray] = {}
    for stack, task in zip(model.towers.stacks, ("click", "like", "buy")):
        read = [done[s] for s in READS.get(task, ())]
        if form == "probability":
            read = [sigmoid(v) for v in read]
        x = mlp(np.column_stack([r, *read]), stack.hidden, 0)
        head = stack.head
        done[task] = (x @ head.kernel[0].numpy() + head.bias[0].numpy())[:, 0]
    return dict(zip(OUTPUTS, done.values()))


@pytest.mark.parametrize("form", ["logit", "probability"])
def test_equals_numpy(form: str) -> None:
    model = make("SharedBottom", estimate_form=form, **SETTINGS)
    assert close(model, towers(model, form))
    other = "probability" if form == "logit" else "logit"
    assert not close(model, towers(model, other))


def test_each_weight_matters() -> None:
    check_each_weight_matters(make("SharedBottom", **SETTINGS), towers)


class Plain(MultiTaskModel):
    """One linear map for all tasks: no tower of its own."""

    Config = ModelConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.linear = tf.keras.layers.Dense(3)

    def logits(self, x: Any, training: bool) -> dict[str, Any]:
        values = self.linear(x.flat)
        return {t.conditional: values[:, i] for i, t in enumerate(self.tasks)}


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(MODELS, "Plain", Plain)
    return make("Plain", estimates=READS)


def test_without_towers_estimates_are_added_to_the_logits(plain: Any) -> None:
    own = plain.linear(plain.embedding(features()).flat).numpy()
    heads = plain._estimate_heads.heads
    like = own[:, 1] + own[:, 0] * heads["like"].kernel.numpy().ravel()
    buy = (
        own[:, 2]
        + np.stack([own[:, 0], like], 1) @ heads["buy"].kernel.numpy()[0, :, 0]
    )
    assert close(plain, dict(zip(OUTPUTS, (own[:, 0], like, buy))))


@pytest.mark.parametrize("name", ["SharedBottom", "Plain"])
def test_the_reader_cannot_alter_what_it_reads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "Plain", Plain)
    if name == "SharedBottom":
        model = make("SharedBottom", **SETTINGS)
        read = model.variable_groups()["task/click"]
    else:
        model = make("Plain", estimates=READS)
        read = [model.linear.kernel]
    with tf.GradientTape() as tape:
        outputs = model(features())
    gradients = tape.gradient(outputs["like"], read)
    if name == "Plain":  # only the column of like itself
        gradients = [gradients[0][:, 0]]
    assert all(g is None or not np.any(g) for g in gradients)
    before = outputs["like"].numpy()
    for variable in read:
        shift = np.zeros(variable.shape, np.float32)
        shift[..., 0] = 0.5
        variable.assign_add(shift)
    assert np.abs(model(features())["like"] - before).max() > 1e-3


def test_the_trunk_learns_as_if_the_estimate_were_a_constant() -> None:
    model = make("SharedBottom", **SETTINGS)
    x = model.embedding(features())
    r = tf.constant(model.represent(x, False).numpy())
    constant = tf.constant(model.towers(r)[0].numpy())
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(r)
        found = model.towers(r)[1]
        given = tf.concat([r, constant[:, None]], axis=1)
        alone = model.towers.stacks[1](given)[0]
    np.testing.assert_allclose(
        tape.gradient(found, r), tape.gradient(alone, r), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("estimates", "message"),
    [
        ({"like": ["clack"]}, "clack"),
        ({"like": ["buy"], "buy": ["like"]}, "circle"),
        ({"like": ["like"]}, "circle"),
    ],
)
def test_impossible_estimates_are_refused(
    estimates: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make("SharedBottom", estimates=estimates)
