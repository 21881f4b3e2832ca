"""A search of two hyper-parameters and a choice, and pictures one can look into."""

import pytest

from tfmtl.tuning.axes import Axis
from tfmtl.tuning.plots import front, history, parallel
from tfmtl.tuning.retrained import Retrained, SeedRun

pytest.importorskip("matplotlib")


@pytest.fixture
def axes():
    return [
        Axis("optimizers.shared.learning_rate", 0.001, 0.1, log=True),
        Axis("optimizers.embedding.learning_rate", 0.0, 8.0),
        Axis("model.class", choices=("MMoE", "PLE", "SharedBottom")),
    ]


@pytest.fixture
def trials(record):
    """Trial 3 has a poor `like`, 4 was pruned, 5 failed, 6 learned nothing."""

    def values(rate, other, kind):
        found = {"optimizers.shared.learning_rate": rate, "model.class": kind}
        if other is not None:
            found["optimizers.embedding.learning_rate"] = other
        return found

    def metrics(click, like):
        return {"click/auc": click, "like/auc": like}

    return [
        record(1, metrics(0.70, 0.62), values(0.01, 4.0, "PLE")),
        record(2, metrics(0.72, 0.61), values(0.1, None, "SharedBottom")),
        record(3, metrics(0.73, 0.40), values(0.001, 8.0, "MMoE")),
        record(4, metrics(0.71, 0.63), values(0.01, 0.0, "MMoE"), status="pruned"),
        record(5, None, values(0.1, 8.0, "MMoE")),
        record(6, metrics(0.10, 0.60), values(0.1, 8.0, "PLE")),
    ]


@pytest.fixture
def retrained():
    def runs(*points):
        return [
            SeedRun(seed, {"click/auc": x, "like/auc": y}, {}, 1.0)
            for seed, (x, y) in enumerate(points)
        ]

    return [
        Retrained("trial 0002", "tuned", "0002", runs((0.71, 0.61), (0.73, 0.63))),
        Retrained("trial 0001", "tuned", "0001", runs((0.70, 0.60), (0.70, 0.61))),
        Retrained("Equal", "control", None, runs((0.69, 0.60), (0.70, 0.60))),
        Retrained("PCGrad", "control", None, runs((0.70, 0.59))),
    ]


@pytest.fixture
def look(monkeypatch):
    """The figure in place of the file."""
    for module in (front, history, parallel):
        monkeypatch.setattr(module, "png", lambda figure: figure)
