"""Searches over the tiny data set: what they leave, and what they do again."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import pyarrow.parquet as pq
import pytest

from tfmtl import workflow
from tfmtl.errors import ConfigError, TrainingError
from tfmtl.progress import Silent
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.load import dump_experiment, load_experiment
from tfmtl.testing.tiny import tiny_dataset, tiny_spec
from tfmtl.tuning.records import read_records
from tfmtl.workflow import trials as trials_module

SPACE: dict[str, Any] = {
    "balancer.config.weights.like": {"type": "float", "min": 0.1, "max": 10},
    "optimizers.default.learning_rate": {
        "type": "float",
        "min": 1e-3,
        "max": 0.1,
        "scale": "log",
    },
}


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("tune") / "dataset"
    folder.mkdir()
    tiny_dataset(folder, {"train": 200, "validation": 200, "test": 100})
    return folder


def experiment(space: dict[str, Any] = SPACE, **tuning: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "tiny",
            "dataset": tiny_spec().model_dump(),
            "model": {
                "class": "SharedBottom",
                "config": {"bottom_units": [4], "tower_units": [4]},
            },
            "training": {
                "batch_size": 50,
                "epochs": 2,
                "patience": None,
                "diagnose_every": None,
            },
            "tuning": {
                "space": space,
                "max_trials": 3,
                "controls": [],
                "rival": {"trials": 0},
                "seeds": 0,
                **tuning,
            },
        }
    )


def contents(directory: pathlib.Path) -> dict[str, tuple[bytes, int]]:
    """The records of trials that are over, with the time at which they were written."""
    paths = sorted(directory.glob("trials/*/trial.json"))
    return {p.parent.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in paths}


def test_a_search_and_the_next_one(
    dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    directory = tmp_path / "search"
    asked = experiment(
        objective="click/auc",
        constraints=["like/auc >= baseline - 0.2"],
        seeds=1,
        top=1,
        controls=["Equal"],
    )
    report = workflow.tune(asked, dataset, directory)
    records = read_records(directory)
    assert [r.trial for r in records] == ["0000", "0001", "0002"]
    # A trial is a run like any other.
    found = workflow.evaluate(directory / "trials" / "0001" / "run", "validation")
    auc = found["tasks"]["click"]["auc"]
    assert auc == pytest.approx(records[1].metrics["click/auc"], abs=2e-3)
    # The file reproduces the trial.
    best = load_experiment(directory / "best.yaml")
    assert best.tuning is None
    again = workflow.train(best, dataset, tmp_path / "again")
    winner = next(r for r in records if r.trial == report["winner"]["trial"])
    assert again.metrics == winner.metrics
    assert pq.read_table(directory / "trials.parquet").num_rows == 3
    assert "Equal" in (directory / "report.md").read_text()
    assert json.loads((directory / "report.json").read_text()) == report
    # The next search, of more trials by another oracle, has these three already.
    before = contents(directory)
    more = asked.tuning.model_copy(update={"oracle": "random", "max_trials": 4})
    notes = Notes()
    again_report = workflow.tune(
        asked.model_copy(update={"tuning": more}), dataset, directory, listener=notes
    )
    assert again_report is not None
    assert any("3 trials of this space are over" in line for line in notes.lines)
    after = contents(directory)
    assert len(after) == 4
    assert {k: after[k] for k in before} == before
    # Nothing at all is left to do for the same once more.
    workflow.tune(asked.model_copy(update={"tuning": more}), dataset, directory)
    assert contents(directory) == after
    record, path = workflow.choose(directory, "max like/auc")
    records = read_records(directory)
    assert record == max(records, key=lambda r: r.metrics["like/auc"])
    chosen = load_experiment(path)
    assert chosen.balancer.config["weights"]["like"] == pytest.approx(
        record.values["balancer.config.weights.like"]
    )


def test_another_search_in_the_folder(
    dataset: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyError("a mistake in a program")

    directory = tmp_path / "search"
    monkeypatch.setattr(trials_module, "train", stop)
    # keras-tuner would call this trial failed and return.
    with pytest.raises(KeyError, match="a mistake"):
        workflow.tune(experiment(), dataset, directory)
    assert contents(directory) == {}
    with pytest.raises(ConfigError, match="not finished: pass --resume"):
        workflow.tune(experiment(), dataset, directory)
    other = {**SPACE, "model.config.dropout": {"type": "float", "min": 0.0, "max": 0.5}}
    with pytest.raises(ConfigError, match="the space"):
        workflow.tune(experiment(other), dataset, directory, resume=True)


def test_what_diverges_fails_alone(
    dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    rates = {"type": "choice", "values": [0.01, 1e30]}
    asked = experiment(
        {"optimizers.default.learning_rate": rates}, oracle="grid", max_trials=10
    )
    report = workflow.tune(asked, dataset, tmp_path / "search")
    assert report is not None
    by_status = {r.status: r for r in read_records(tmp_path / "search")}
    assert sorted(by_status) == ["failed", "finished"]
    assert "finite" in by_status["failed"].reason
    assert report["winner"]["trial"] == by_status["finished"].trial
    only = experiment(
        {"optimizers.default.learning_rate": {**rates, "values": [1e30, 1e31]}},
        oracle="grid",
    )
    with pytest.raises(TrainingError, match=r"every trial failed.*finite"):
        workflow.tune(only, dataset, tmp_path / "failed")


def test_several_objectives_end_in_a_front(
    dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    pytest.importorskip("matplotlib")
    goals = ["click/auc", "like/auc"]
    asked = experiment(objective=goals, max_trials=8, initial_points=3)
    report = workflow.tune(asked, dataset, tmp_path / "search")
    assert report is not None
    found = [
        tuple(r.metrics[g] for g in goals) for r in read_records(tmp_path / "search")
    ]
    best = [
        p
        for p in found
        if not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in found)
    ]
    front = [tuple(p["metrics"][g] for g in goals) for p in report["front"]["points"]]
    assert sorted(front) == sorted(set(best))
    volumes = report["front"]["over_time"]
    assert len(volumes) == 8 and volumes == sorted(volumes)
    pictures = {p.name for p in (tmp_path / "search" / "plots").iterdir()}
    assert pictures == {"front.png", "history.png", "parallel.png"}


def test_hyperband_goes_on_with_runs(
    dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    asked = experiment(oracle="hyperband", hyperband={"factor": 2}, max_trials=6)
    workflow.tune(asked, dataset, tmp_path / "search")
    records = {r.trial: r for r in read_records(tmp_path / "search")}
    short = [r for r in records.values() if r.reason == "rung"]
    whole = [r for r in records.values() if r.reason == "epochs"]
    assert short and whole
    assert {r.steps for r in short} == {4} and {r.steps for r in whole} == {8}
    # One that went on is what it would have been without a stop.
    gone_on = next(r for r in whole if any(r.values == s.values for s in short))
    other = workflow.train(
        load_experiment(
            tmp_path / f"search/trials/{gone_on.trial}/run/experiment.yaml"
        ),
        dataset,
        tmp_path / "alone",
    )
    assert other.metrics == gone_on.metrics


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_killed_workers_and_a_killed_chief(
    dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    directory, file = tmp_path / "search", tmp_path / "experiment.yaml"
    asked = experiment(oracle="random", max_trials=6, seeds=1, top=1)
    slow = asked.training.model_copy(update={"epochs": 15})
    file.write_text(dump_experiment(asked.model_copy(update={"training": slow})))
    command = [sys.executable, "-m", "tfmtl", "tune", str(file)]
    command += ["--dataset", str(dataset), "--directory", str(directory)]
    command += ["--workers", "2"]
    log = (tmp_path / "log").open("w+")

    def start(*more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, *more], stdout=log, stderr=log)

    def wait_for(count: int, pattern: str) -> None:
        for _ in range(1200):
            if len(list(directory.glob(pattern))) >= count:
                return
            time.sleep(0.1)
        log.seek(0)
        raise AssertionError(log.read())

    chief = start()
    wait_for(2, "trials/*/run/checkpoints/step-*")
    children = pathlib.Path(f"/proc/{chief.pid}/task/{chief.pid}/children").read_text()
    os.kill(int(children.split()[0]), signal.SIGKILL)
    wait_for(2, "trials/*/trial.json")
    chief.kill()
    chief.wait()
    before = contents(directory)
    assert 2 <= len(before) < 6
    assert start("--resume").wait(300) == 0
    after = contents(directory)
    assert sorted(after) == [f"{i:04d}" for i in range(6)]
    assert {k: after[k] for k in before} == before
    log.seek(0)
    assert "was killed" in log.read()
    # The workers trained the best one and the experiment as it is written again, too.
    report = json.loads((directory / "report.json").read_text())
    assert [row["seeds"] for row in report["retrained"]] == [[1], [1]]
    log.seek(0)
    assert "train on other seeds, 2 at a time" in log.read()
    values = [json.dumps(r.values) for r in read_records(directory)]
    assert len(set(values)) == 6
    for name in after:
        events = (directory / "trials" / name / "run" / "metrics.jsonl").read_text()
        steps = [
            event["step"]
            for event in map(json.loads, events.splitlines())
            if event["kind"] == "validation"
        ]
        assert steps == list(range(4, 61, 4))


def test_values_that_change_the_records(
    dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Each trial trains on the data set that was made with its values."""
    rows = {0.5: 100, 1.0: 200}
    datasets = []
    for rate, train in rows.items():
        sampling = {"keep": ["click"], "rate": rate, "correction": "none"}
        datasets.append(tmp_path / f"data-{rate}")
        datasets[-1].mkdir()
        counts = {"train": train, "validation": 200, "test": 100}
        tiny_dataset(datasets[-1], counts, spec=tiny_spec(sampling=sampling))
    path = "dataset.sampling.rate"
    asked = experiment({path: {"type": "choice", "values": [0.5, 1.0]}}, oracle="grid")
    asked = asked.model_copy(update={"dataset": tiny_spec(sampling=sampling)})
    directory = tmp_path / "search"
    report = workflow.tune(asked, datasets, directory)
    assert report is not None and report["trials"]["finished"] == 2
    steps = {r.values[path]: r.steps for r in read_records(directory)}
    assert steps == {0.5: 2 * 100 // 50, 1.0: 2 * 200 // 50}
    best = load_experiment(directory / "best.yaml")
    assert best.dataset.sampling is not None
    assert best.dataset.sampling.rate == report["winner"]["values"][path]
    with pytest.raises(ConfigError, match=r"rate = 0\.5 .*no data set was made with"):
        workflow.tune(asked, [datasets[1], dataset], tmp_path / "other")
    other = tmp_path / "other-rows"
    other.mkdir()
    tiny_dataset(other, {"train": 50, "validation": 60, "test": 10})
    with pytest.raises(ConfigError, match=r"other rows .*60 and 200"):
        workflow.tune(asked, [datasets[0], other], tmp_path / "other")
    with pytest.raises(ConfigError, match="same specification"):
        workflow.tune(asked, [datasets[0], datasets[0]], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_rival_has_the_same_budget(
    dataset: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    asked = experiment(
        seeds=1,
        top=1,
        max_trials=2,
        oracle="random",
        rival={"balancers": ["PCGrad", "IMTL-G"]},
    )
    directory = tmp_path / "search"
    report = workflow.tune(asked, dataset, directory)
    assert report is not None
    rivals = read_records(directory / "rival")
    assert len(rivals) == len(read_records(directory)) == 2
    rate = "optimizers.default.learning_rate"
    for record in rivals:
        assert set(record.values) == {"balancer.class", rate}
        own = directory / "rival" / "trials" / record.trial / "run/experiment.yaml"
        trained = load_experiment(own).balancer
        assert trained.class_name == record.values["balancer.class"]
        assert trained.class_name in ("PCGrad", "IMTL-G") and not trained.config
    best = max(rivals, key=lambda r: r.metrics["mean/auc"])
    label = f"{best.values['balancer.class']}, rival {best.trial}"
    rows = {row["label"]: row for row in report["retrained"]}
    assert rows[label]["trials"] == 2 and rows[label]["kind"] == "rival"
    assert rows[label]["spent"] == sum(r.seconds for r in rivals)
    # Seed by seed against the winner, on data that neither was chosen by.
    assert report["rival"]["label"] == label
    tuned = rows[report["winner"]["label"]]["test"]["mean/auc"]["by_seed"]
    other = rows[label]["test"]["mean/auc"]["by_seed"]
    ((seed, value),) = tuned.items()
    told = report["rival"]["gain"]["test"]["mean/auc"]
    assert told["mean"] == pytest.approx(value - other[seed]) and told["seeds"] == 1
    assert "over the best gradient balancer" in (directory / "report.md").read_text()
    # Nothing of it is run again.
    before = contents(directory / "rival")
    workflow.tune(asked, dataset, directory)
    assert contents(directory / "rival") == before
