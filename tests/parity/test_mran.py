"""MRAN against NumPy, and its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.parity.reference import (
    OUTPUTS,
    Truth,
    check_each_weight_matters,
    close,
    features,
    make,
    softmax,
    tower,
)
from tfmtl._keras import tf
from tfmtl.layers.self_attention import SelfAttention

SETTINGS: dict[str, Any] = {"width": 6, "heads": 2, "tower_units": [3]}


def mran(**changes: Any) -> Any:
    return make("MRAN", **{**SETTINGS, **changes})


def norm(x: np.ndarray, layer: Any) -> np.ndarray:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3)
    return x * layer.gamma.numpy() + layer.beta.numpy()


def attend(x: np.ndarray, layer: Any) -> np.ndarray:
    """Self-attention of each head over tokens [B, N, k], with residual and norm."""
    q, k, v = (x @ layer.project.kernel[i].numpy() for i in range(3))
    size = x.shape[-1] // layer.heads
    heads = []
    for h in range(layer.heads):
        part = slice(h * size, (h + 1) * size)
        scores = q[..., part] @ k[..., part].swapaxes(-1, -2) / np.sqrt(size)
        heads.append(softmax(scores) @ v[..., part])
    return norm(x + np.concatenate(heads, axis=-1), layer.norm)


def feature_tokens(model: Any) -> np.ndarray:
    x = model.embedding(features())
    vectors = [v.numpy() for v in (*x.features.values(), x.scenario_vector)]
    sizes = list(dict.fromkeys(v.shape[1] for v in vectors))
    tokens = []
    for size in sizes:
        layer = model.tokens._maps[f"from_{size}"]
        members = [v for v in vectors if v.shape[1] == size]
        for n, vector in enumerate(members):
            tokens.append(vector @ layer.kernel[n].numpy() + layer.bias[n].numpy())
    return np.stack(tokens, axis=1)


def outputs(model: Any, axis: int = -1) -> Truth:
    q = attend(model.task_tokens.stack().numpy()[None], model.between_tasks)[0]
    x = attend(feature_tokens(model), model.between_features)
    query, own = (q @ layer.kernel[0].numpy() for layer in (model.query, model.own))
    key, value = (x @ layer.kernel[0].numpy() for layer in (model.key, model.value))
    result = {}
    for t, output in enumerate(OUTPUTS):
        weights = softmax(key @ query[t] / np.sqrt(6), axis=axis)  # [B, F]
        z = norm(own[t] + (weights[..., None] * value).sum(1), model.norm)
        result[output] = tower(z, model, t)
    return result


def test_equals_numpy() -> None:
    model = mran()
    assert close(model, outputs(model))
    assert not close(model, outputs(model, axis=0)), "softmax over the batch passes too"
    check_each_weight_matters(model, outputs)


def test_every_attention_sums_to_one() -> None:
    model = mran()
    model(features())
    seen = model.inspect()
    np.testing.assert_allclose(seen["alignment"].numpy().sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(seen["task_attention"].numpy().sum(-1), 1, rtol=1e-5)


def test_attention_knows_no_order() -> None:
    layer = SelfAttention(2, seed=1)
    tokens = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    order = [3, 0, 4, 1, 2]
    np.testing.assert_allclose(
        layer(tokens[:, order])[0], layer(tokens)[0].numpy()[:, order], atol=1e-5
    )


def test_without_values_the_input_is_not_seen() -> None:
    model = mran()
    model.value._kernels[0].assign(tf.zeros_like(model.value._kernels[0]))
    for output, value in model(features()).items():
        if output in OUTPUTS:
            assert np.ptp(value.numpy()) < 1e-5, output


def test_the_penalty_is_the_norm_of_the_task_attention() -> None:
    model = mran(attention_l2=0.5)
    model(features(), training=True)
    weights = model.inspect()["task_attention"].numpy()  # [heads, T, T]
    found = model.aux_losses()["task_attention"]
    np.testing.assert_allclose(found, 0.5 * (weights**2).sum((1, 2)).mean(), rtol=1e-5)
    model(features())
    assert model.aux_losses() == {}


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="heads"):
        mran(width=6, heads=4)
