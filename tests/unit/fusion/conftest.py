"""Predictions of three tasks that pull lists in different directions."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl.fusion.table import PredictionTable
from tfmtl.schema.experiment import Experiment
from tfmtl.testing.tiny import SCENARIOS, tiny_spec


@pytest.fixture(scope="session")
def make_experiment():
    """An experiment on the tiny data set."""

    def make(**changes):
        tasks = changes.pop("tasks", None)
        spec = tiny_spec(**({} if tasks is None else {"tasks": tasks})).model_dump()
        spec.update(changes.pop("dataset", {}))
        document = {"name": "tiny", "dataset": spec, "model": {"class": "MMoE"}}
        return Experiment.model_validate({**document, **changes})

    return make


@pytest.fixture(scope="session")
def table():
    """900 rows in 150 lists; `click` and `buy` are predicted by opposite signs."""
    draw = np.random.default_rng(3)
    rows = 900
    good, taste = draw.normal(size=(2, rows))

    def outcome(logit):
        p = 1 / (1 + np.exp(-logit))
        return p.astype(np.float32).astype(float), (draw.random(rows) < p).astype(float)

    found = {
        "click": outcome(1.5 * good - 0.5),
        "like": outcome(taste - 1),
        "buy": outcome(taste - 1.2 * good - 2),
    }
    found["buy|click"] = found["buy"]
    labels = {name: label for name, (_, label) in found.items()}
    labels["like"] = np.where(draw.random(rows) < 0.2, np.nan, labels["like"])
    return PredictionTable(
        {name: p for name, (p, _) in found.items()},
        labels,
        draw.integers(0, 150, rows),
        np.array(SCENARIOS, object)[draw.integers(0, 3, rows)],
    )
