"""Shared variables reach the losses through the cut alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.conformance.catalogue import ENTRIES
from tfmtl._keras import tf
from tfmtl.models import MODELS
from tfmtl.testing.conformance import ModelConformance

FUNNELS: dict[str, dict[str, Any]] = {
    "AITM": {},
    "DBMTL": {},
    "ESM2": {},
    "ESMM": {},
    "ExpertFusion": {},
    "ExpertFusion of two levels": {"levels": 2},
    "ExpertFusion of low rank": {"low_rank": 2},
    "ExpertFusion with task embeddings": {"task_embeddings": True},
    "HiNet": {},
    "M3oE": {},
    "MMoE+ESMM": {},
    "MMoE": {"given_loss": "joint"},
    "NMTR": {},
    "PEPNet": {},
    "STEM": {},
    "SharedBottom": {"given_loss": "joint"},
}


def moved(model: Any, features: Any, hold: bool) -> dict[str, bool]:
    """Shared variable to whether a loss moves it, with the cut held fixed or not."""
    shared = [
        v
        for g, vs in model.variable_groups().items()
        if g.partition("/")[0] in ("shared", "embedding")
        for v in vs
    ]

    @tf.function(autograph=False)
    def gradients() -> list[Any]:
        outputs = model(features)
        total = tf.add_n(
            [tf.reduce_sum(outputs[model.trained_output(t)]) for t in model.tasks]
        )
        cut = model.cut() if hold else None
        found = tf.gradients(total, shared, stop_gradients=cut)
        return [tf.zeros([]) if g is None else tf.convert_to_tensor(g) for g in found]

    return {v.name: bool(np.any(g)) for v, g in zip(shared, gradients())}


@pytest.mark.parametrize("name", FUNNELS)
def test_the_cut_is_complete(name: str) -> None:
    model_name = name.partition(" ")[0]
    entry: dict[str, Any] = {"model": MODELS[model_name], **ENTRIES[model_name]}
    suite: Any = type("Suite", (ModelConformance,), entry)
    model, features = suite.make(**FUNNELS[name]), suite.tiny().batch.features
    draw = np.random.default_rng(0)
    # Off the start: a gate that starts at 1 keeps what is below it from moving.
    for variable in model.trainable_variables:
        variable.assign_add(draw.normal(0, 0.1, variable.shape))
    assert all(moved(model, features, hold=False).values())
    assert not any(moved(model, features, hold=True).values())
