"""Runs that differ in numbers alone share graphs, and are what they would be alone."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from tfmtl.schema.experiment import Experiment
from tfmtl.schema.manifest import read_dataset
from tfmtl.testing.tiny import tiny_dataset, tiny_spec
from tfmtl.workflow.session import Session
from tfmtl.workflow.train import train


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("session") / "dataset"
    folder.mkdir()
    tiny_dataset(folder, {"train": 60, "validation": 60, "test": 20})
    return folder


def experiment(
    weight: float = 2.0, rate: float = 0.01, units: int = 4, **training: Any
) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "tiny",
            "dataset": tiny_spec().model_dump(),
            "model": {
                "class": "SharedBottom",
                "config": {"bottom_units": [units], "tower_units": [4]},
            },
            "balancer": {"class": "Fixed", "config": {"weights": {"click": weight}}},
            "optimizers": {"default": {"class": "Adam", "learning_rate": rate}},
            "training": {
                "batch_size": 20,
                "epochs": 2,
                "monitor": "click/logloss",
                "diagnose_every": 3,
                **training,
            },
        }
    )


def said(run: pathlib.Path) -> list[dict[str, Any]]:
    events = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    for event in events:
        event.pop("rows_per_second", None)
    return events


def test_other_numbers_train_in_the_graph_that_is_there(
    dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    session = Session(keep=True)
    first = experiment()
    train(first, dataset, tmp_path / "first", session=session)
    traced = session.prepared.trainer.train_chunk.experimental_get_tracing_count()
    second = experiment(weight=0.25, rate=0.05)
    train(second, dataset, tmp_path / "second", session=session)
    assert session.prepared.reused
    chunk = session.prepared.trainer.train_chunk
    assert chunk.experimental_get_tracing_count() == traced == 1
    train(second, dataset, tmp_path / "alone")
    assert said(tmp_path / "second") == said(tmp_path / "alone")
    # The numbers matter, and nothing is left of the run between.
    assert said(tmp_path / "second") != said(tmp_path / "first")
    train(first, dataset, tmp_path / "again", session=session)
    assert said(tmp_path / "again") == said(tmp_path / "first")


@pytest.mark.parametrize(
    "changed",
    [
        {"units": 5},
        {"epochs": 1},
        {"rate": 0.0},
    ],
)
def test_what_the_graph_is_made_of_is_made_anew(
    dataset: pathlib.Path, changed: dict[str, Any]
) -> None:
    session = Session(keep=True)
    manifest = read_dataset(dataset)
    for asked, same in ((experiment(), False), (experiment(rate=0.1), True)):
        assert session.prepare(asked, manifest, dataset).reused == same
    assert not session.prepare(experiment(**changed), manifest, dataset).reused


def test_a_task_that_stopped_in_one_run_begins_the_next(
    dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    session = Session(keep=True)
    asked = experiment(epochs=3, patience=None, tasks={"like": {"patience": 1}})
    stopped = asked.optimizers["default"].model_copy(update={"learning_rate": 0.5})
    wild = asked.model_copy(update={"optimizers": {"default": stopped}})
    first = train(wild, dataset, tmp_path / "first", session=session)
    assert first.tasks["like"]["stopped"] is not None
    train(asked, dataset, tmp_path / "second", session=session)
    train(asked, dataset, tmp_path / "alone")
    assert said(tmp_path / "second") == said(tmp_path / "alone")


def test_a_watcher_ends_a_run_which_then_can_go_on(
    dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    told: list[float] = []
    until = 1.0

    def watcher(epochs_done: float, metrics: dict[str, float]) -> str:
        told.append(epochs_done)
        assert "click/logloss" in metrics
        return "rung" if epochs_done >= until else ""

    run, whole = tmp_path / "run", tmp_path / "whole"
    asked = experiment(patience=None, epochs=3)
    session = Session(keep=True)
    result = train(asked, dataset, run, session=session, watcher=watcher)
    assert (result.reason, result.steps) == ("rung", 3)
    # Killed before its result was written, it ends where it ended.
    (run / "result.json").unlink()
    result = train(asked, dataset, run, watcher=watcher, resume=True)
    assert (result.reason, result.steps) == ("rung", 3)
    (run / "result.json").unlink()
    until = 9.0
    result = train(asked, dataset, run, session=session, watcher=watcher, resume=True)
    assert (result.reason, result.steps) == ("epochs", 9)
    assert told == [1.0, 1.0, 1.0, 2.0, 3.0]
    train(asked, dataset, whole)
    assert said(run) == said(whole)
