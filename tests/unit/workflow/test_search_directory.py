"""What a search directory holds, when another search comes to it."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tfmtl.errors import ConfigError, DataError
from tfmtl.schema.experiment import Experiment
from tfmtl.testing.tiny import tiny_spec
from tfmtl.tuning.records import TrialRecord, read_records
from tfmtl.workflow.search_directory import SearchDirectory

EXPERIMENT = Experiment.model_validate(
    {
        "name": "tiny",
        "dataset": tiny_spec().model_dump(),
        "model": {"class": "SharedBottom"},
    }
)
ASKED: dict[str, Any] = {
    "space": "a",
    "schema_hash": ["b"],
    "content_id": ["c"],
    "seed": 0,
    "oracle": {"oracle": "random"},
}


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> SearchDirectory:
    made = SearchDirectory(tmp_path / "search")
    made.begin(EXPERIMENT, ASKED, resume=False, overwrite=False)
    for name in ("0000", "0001"):
        TrialRecord(
            trial=name,
            values={},
            status="finished",
            reason="epochs",
            metrics={"click/auc": 0.5},
            step=1,
            steps=1,
            seconds=1.0,
            seed=0,
            experiment=name,
        ).write(made.path / "trials" / name)
    return made


def names(directory: SearchDirectory, part: str = "trials") -> list[str]:
    return [r.trial for r in read_records(directory.path, part)]


def test_a_search_that_goes_on_is_not_ready_nor_over(
    directory: SearchDirectory,
) -> None:
    directory.write(ready=True, over=True, finished=True, baseline={"click/auc": 0.4})
    assert directory.ready and directory.over
    directory.begin(EXPERIMENT, ASKED, resume=False, overwrite=False)
    assert not directory.ready and not directory.over
    assert directory.asked()["baseline"] == {"click/auc": 0.4}
    assert names(directory) == ["0000", "0001"]


def test_another_search_is_refused(directory: SearchDirectory) -> None:
    with pytest.raises(ConfigError, match="not finished"):
        directory.begin(EXPERIMENT, ASKED, resume=False, overwrite=False)
    for key in ("space", "schema_hash", "content_id", "seed"):
        with pytest.raises(ConfigError, match="is not the one of that search"):
            directory.begin(
                EXPERIMENT, {**ASKED, key: "other"}, resume=True, overwrite=False
            )
    directory.begin(EXPERIMENT, ASKED, resume=False, overwrite=True)
    assert names(directory) == []


def test_trials_of_another_search_move_aside(directory: SearchDirectory) -> None:
    directory.keep_only({"0001"})
    assert names(directory) == ["0001"]
    assert names(directory, "earlier") == ["0000"]
    notes: list[str] = []

    class Notes:
        def stage(self, name: str, total: int | None = None) -> None: ...
        def advance(self, amount: int = 1) -> None: ...
        def note(self, text: str) -> None:
            notes.append(text)

    directory.begin_anew(EXPERIMENT, {**ASKED, "space": "z"}, Notes())
    assert names(directory) == [] and "1 trials" in notes[0]
    assert names(directory, "earlier") == ["0000", "0001"]
    directory.check_same({**ASKED, "space": "z"})


def test_a_damaged_file(directory: SearchDirectory) -> None:
    (directory.path / "search.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        directory.asked()
