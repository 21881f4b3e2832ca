"""A run on another data set of the same schema: said in a report, refused elsewhere."""

from __future__ import annotations

import pathlib
import shutil
from typing import Any

import pytest

from tfmtl import workflow
from tfmtl.errors import DataError
from tfmtl.progress import Silent
from tfmtl.schema.load import parse_experiment
from tfmtl.schema.manifest import DATASET_FILE, read_dataset, write_manifest
from tfmtl.testing.tiny import DATASET, tiny_dataset
from tfmtl.workflow.restore import restore

EXPERIMENT: dict[str, Any] = {
    "name": "tiny",
    "dataset": DATASET,
    "model": {"class": "SharedBottom", "config": {"bottom_units": [4]}},
    "training": {"batch_size": 64, "steps": 2, "monitor": "click/auc"},
}


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def _with_content(source: pathlib.Path, target: pathlib.Path, content: str) -> None:
    shutil.copytree(source, target)
    manifest = read_dataset(source).model_copy(update={"content_id": content})
    write_manifest(manifest, target / DATASET_FILE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """`run`, trained on `mine`; beside it `moved`, `other` and `unknown`."""
    folder = tmp_path_factory.mktemp("other")
    tiny_dataset(folder / "raw")
    contents = {"mine": "one", "moved": "one", "other": "two", "unknown": ""}
    for name, content in contents.items():
        _with_content(folder / "raw", folder / name, content)
    workflow.train(parse_experiment(EXPERIMENT), folder / "mine", folder / "run")
    return folder


@pytest.mark.parametrize(
    ("dataset", "same"),
    [(None, True), ("moved", True), ("other", False), ("unknown", None)],
)
def test_a_report_says_whose_rows_it_is_on(
    folder: pathlib.Path, dataset: str | None, same: bool | None
) -> None:
    listener = Notes()
    where = None if dataset is None else folder / dataset
    report = workflow.evaluate(folder / "run", dataset=where, listener=listener)
    assert report["same_dataset"] is same
    told = [n for n in listener.notes if "another one than the run's" in n]
    assert len(told) == (same is False)
    assert all("'" + str(folder / "other") in n for n in told)


def test_an_export_is_of_the_runs_own_data(folder: pathlib.Path) -> None:
    with pytest.raises(DataError, match=r"other.*content id differs.*vocabularies"):
        workflow.export(folder / "run", folder / "model", dataset=folder / "other")
    assert not (folder / "model").exists()


def test_restore_leaves_the_judgement_to_its_caller(folder: pathlib.Path) -> None:
    restored = restore(folder / "run", folder / "other")
    assert restored.same_dataset is False
    with pytest.raises(DataError, match="content id differs"):
        restore(folder / "run", folder / "other", same_dataset=True)
    assert restore(folder / "run", same_dataset=True).same_dataset is True
