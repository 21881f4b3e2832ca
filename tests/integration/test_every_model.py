"""Every architecture trains from an experiment file and answers over REST."""

from __future__ import annotations

import copy
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from serving.client import Client
from serving.server import running
from tests.integration.small import EXPERIMENT
from tfmtl import workflow
from tfmtl._keras import tf
from tfmtl.models import MODELS
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.manifest import read_dataset, served_inputs

ROWS = 1_500
OUTPUTS = {"click", "intent", "intent|click", "buy", "buy|click", "like"}
TASKS = [
    {"name": "click", "label": "click"},
    {"name": "intent", "label": "cart == 1 or favourite == 1", "given": "click"},
    {"name": "buy", "label": "buy", "given": "click"},
    {"name": "like", "label": "like"},
]
FEATURES = [
    {"name": "position", "kind": "categorical", "dim": 4},
    {"name": "user_device", "kind": "categorical", "side": "user", "dim": 4},
]
CONFIGS: dict[str, dict[str, Any]] = {
    "AITM": {"step_units": [8]},
    "DBMTL": {"bottom_units": [8], "specific_units": [6], "relation_units": [4]},
    "ESM2": {"through": {"buy": "intent"}, "tower_units": [8]},
    "ESMM": {"tower_units": [8]},
    "MMoE+ESMM": {"num_experts": 2, "expert_units": [8], "tower_units": [4]},
    "NMTR": {"user": "user_id", "item": "item_id", "tower_units": [8]},
    "CGC": {"expert_units": [8], "tower_units": [4]},
    "CNNMax": {
        "windows": [1, 3],
        "kernels": 2,
        "behaviour_units": 4,
        "user_units": 4,
        "item_units": 4,
        "tower_units": [4],
    },
    "CrossStitch": {"units": [8], "tower_units": [4]},
    "DSSM": {"shared_units": [8], "tower_units": [4]},
    "DUPN": {
        "lstm_units": 4,
        "attention_units": [4, 4],
        "heads": {"like": "ppp", "intent": "l2r"},
        "ranking_features": ["item_price"],
        "ranking_bias": True,
        "user_tower_units": [4],
        "user_units": 4,
        "item_units": 4,
        "tower_units": [4],
    },
    "ExpertFusion": {
        "match": "mmoe",
        "match_to": {"num_experts": 6, "expert_units": [48], "tower_units": [8]},
        "gate_units": 8,
        "gate_hidden_units": 4,
        "auxiliary_units": [4],
        "prior_features": ["user_device"],
    },
    "DeepMCP": {
        "units": [8],
        "matching_units": [8],
        "correlation_units": [8],
        "task": "click",
    },
    "HiNet": {
        "sub_experts": 2,
        "shared_sub_experts": 2,
        "sub_expert_units": [8],
        "task_experts": 1,
        "shared_experts": 1,
        "expert_units": [8],
        "tower_units": [4],
    },
    "M3oE": {
        "star_units": 8,
        "representation_units": [8],
        "shared_experts": 2,
        "expert_units": 8,
        "tower_units": [4],
    },
    "MMoE": {"num_experts": 2, "expert_units": [8], "tower_units": [4]},
    "MRAN": {"width": 8, "heads": 2, "tower_units": [4]},
    "MoE": {"num_experts": 3, "expert_units": [8], "tower_units": [4]},
    "OMoE": {"num_experts": 2, "expert_units": [8], "tower_units": [4]},
    "PLE": {"expert_units": [[8], [8]], "tower_units": [4]},
    "PEPNet": {"units": [8, 4], "gate_units": 4},
    "RnR": {"user": "user_id", "rating": ["like"], "units": 4},
    "STAR": {
        "star_units": [8],
        "tower_units": [4],
        "auxiliary_features": ["position"],
    },
    "STEM": {"expert_units": [8], "gate_units": [4], "tower_units": [4]},
    "SharedBottom": {"bottom_units": [8], "tower_units": [4]},
    "SingleScenario": {"units": [8], "tower_units": [4]},
    "SingleTask": {"units": [8], "tower_units": [4]},
    "SoftSharing": {"units": [8], "tower_units": [4]},
    "WatchNext": {
        "bias_features": ["user_device"],
        "shared_units": [8],
        "num_experts": 2,
        "expert_units": [8],
        "tower_units": [4],
    },
    "Wide": {},
    "WideDeep": {"deep_units": [8]},
}
"""Name in `tfmtl.models.MODELS` to settings small enough for a test."""


def document(model: str) -> dict[str, Any]:
    """An experiment file that trains the model for three steps."""
    result = copy.deepcopy(EXPERIMENT)
    result["dataset"]["tasks"] = TASKS
    result["dataset"]["features"] += FEATURES
    result["model"] = {"class": model, "config": CONFIGS[model]}
    result["training"] |= {"steps": 3, "evaluate_every": 3}
    return result


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the raw logs, and the data set that all models train on."""
    from pipeline.preprocess import run as preprocess
    from tfmtl.adapters.simulate import simulate

    root = tmp_path_factory.mktemp("every_model")
    simulate(root / "raw", rows=ROWS, seed=5, users=100, items=200)
    experiment = Experiment.model_validate(document("MMoE"))
    logs = str(root / "raw" / "logs" / "*.parquet")
    preprocess(experiment, logs, root / "dataset", block_rows=128)
    return root


@pytest.fixture(scope="module")
def rows(data: pathlib.Path) -> list[dict[str, Any]]:
    """Raw rows as a client sends them."""
    inputs = served_inputs(read_dataset(data / "dataset").dataset)
    table = pq.read_table(data / "raw" / "logs").slice(0, 20).to_pydict()
    return [{i.name: table[i.column][n] for i in inputs} for n in range(20)]


@pytest.fixture(autouse=True)
def quick_graphs() -> Iterator[None]:
    """Graphs that run three times are not worth optimizing."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


def test_every_model_is_here() -> None:
    assert set(CONFIGS) == set(MODELS)


@pytest.mark.parametrize("model", sorted(CONFIGS))
def test_trains_exports_and_answers(
    model: str, data: pathlib.Path, rows: list[dict[str, Any]], tmp_path: pathlib.Path
) -> None:
    experiment = Experiment.model_validate(document(model))
    result = workflow.train(experiment, data / "dataset", tmp_path / "run")
    assert result.steps == 3
    card = workflow.export(tmp_path / "run", tmp_path / "models" / "small")
    assert card.model == model
    with (
        running(tmp_path / "models" / "small") as url,
        Client(url, "small") as client,
    ):
        answers = client.predict(rows)
        (alone,) = client.predict(rows[7:8])
    assert {*answers[0]} == OUTPUTS
    for name in OUTPUTS:
        values = np.array([a[name] for a in answers])
        assert ((values > 0) & (values < 1)).all(), name
        assert np.ptp(values) > 0, f"{name} is a constant"
        np.testing.assert_allclose(alone[name], values[7], rtol=1e-5)
    for task in ("intent", "buy"):
        for answer in answers:
            product = answer["click"] * answer[f"{task}|click"]
            np.testing.assert_allclose(answer[task], product, rtol=1e-3)
