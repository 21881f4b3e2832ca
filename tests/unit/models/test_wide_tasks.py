"""Losses of several outputs a row work where multiclass does, and are refused alike."""

from __future__ import annotations

import functools
import pathlib
import tempfile
from typing import Any

import pytest

from tests.conformance.catalogue import ENTRIES
from tfmtl import build
from tfmtl.errors import ConfigError
from tfmtl.models import MODELS
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.testing.tiny import DATASET, tiny_dataset, tiny_spec

WIDE: dict[str, dict[str, Any]] = {
    "jrc": {"loss": "jrc"},
    "ziln": {"type": "regression", "loss": "ziln"},
    "ordinal": {"type": "multiclass", "classes": 5, "loss": "ordinal"},
}
CLASSES = {"type": "multiclass", "classes": 3}
REFUSES = ("DSSM", "HiNet", "M3oE", "NMTR", "RnR", "SingleScenario")
WORKS = sorted({*MODELS} - {*REFUSES})


@functools.cache
def manifest() -> DatasetManifest:
    with tempfile.TemporaryDirectory() as folder:
        return tiny_dataset(pathlib.Path(folder))


def make(name: str, *tasks: dict[str, Any]) -> Any:
    entry = ENTRIES[name]
    document = {**entry.get("dataset", {})}
    document["tasks"] = [
        *document.get("tasks", DATASET["tasks"]),
        *({"name": f"wide_{i}", "label": "z", **t} for i, t in enumerate(tasks)),
    ]
    data = manifest().model_copy(update={"dataset": tiny_spec(**document)})
    found = MODELS[name]
    model = found(data, found.Config.model_validate(entry.get("config", {})), seed=1)
    return model(build.empty_features(data))


@pytest.mark.parametrize("name", WORKS)
def test_models_of_classes_have_any_number_of_outputs(name: str) -> None:
    outputs = make(name, CLASSES, *WIDE.values())
    shapes = [outputs[f"wide_{i}"].shape.as_list() for i in range(4)]
    assert shapes == [[2, 3], [2, 2], [2, 3], [2, 4]]


@pytest.mark.parametrize("name", REFUSES)
def test_models_without_classes_refuse_all_others_too(name: str) -> None:
    with pytest.raises(ConfigError) as classes:
        make(name, CLASSES)
    for task in WIDE.values():
        with pytest.raises(ConfigError) as other:
            make(name, task)
        assert str(other.value)[:30] == str(classes.value)[:30]
