"""Faults planted in tiny runs are found, and said in words."""

from __future__ import annotations

import importlib
import json
import pathlib
import shutil
from typing import Any

import pytest
import yaml

from tfmtl import build
from tfmtl._keras import tf
from tfmtl.cli.main import main
from tfmtl.errors import ConfigError, TrainingError
from tfmtl.layers.gate import Gates
from tfmtl.schema.calibration import (
    Calibration,
    Calibrator,
    CellCalibration,
    OutputCalibration,
    write_calibration,
)
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.task import TaskSpec
from tfmtl.testing.tiny import tiny_dataset, tiny_spec
from tfmtl.workflow.diagnose import diagnose, validation_losses
from tfmtl.workflow.evaluate import evaluate
from tfmtl.workflow.restore import restore
from tfmtl.workflow.train import train

workflow_diagnose = importlib.import_module("tfmtl.workflow.diagnose")


def asked(**changes: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "tiny",
            "seed": 5,
            "dataset": tiny_spec().model_dump(),
            "model": {
                "class": "MMoE",
                "config": {"num_experts": 3, "expert_units": [8], "tower_units": []},
            },
            "training": {
                "batch_size": 32,
                "steps": 8,
                "evaluate_every": 4,
                "diagnose_every": 4,
                "task_snapshots": True,
            },
            **changes,
        }
    )


@pytest.fixture(scope="module")
def planted(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[pathlib.Path, pathlib.Path]:
    """A run with frozen equal experts, a gate stuck by +20, and a task of weight 1000.

    Returns:
        The data set and the run.
    """
    folder = tmp_path_factory.mktemp("planted")
    tiny_dataset(folder / "data", {"train": 200, "validation": 80, "test": 80})
    made = build.make_model
    mixed = Gates.call

    def with_faults(*args: Any) -> Any:
        model = made(*args)
        for dense in model.experts.layers:
            for variable in dense.trainable_variables:
                values = variable.numpy()
                values[1] = values[0]
                variable.assign(values)
        return model

    def with_bias(self: Any, inputs: Any, experts: Any, training: bool = False) -> Any:
        bias = tf.constant([[0.0, 0, 0], [0, 0, 20.0], [0, 0, 0]])  # of like
        logits = tf.cast(self.dense(inputs), tf.float32) + bias
        weights = tf.nn.softmax(logits, axis=-1)
        return tf.einsum("bte,beh->bth", weights, experts), weights

    patch = pytest.MonkeyPatch()
    patch.setattr(build, "make_model", with_faults)
    patch.setattr(Gates, "call", with_bias)
    try:
        experiment = asked(
            balancer={"class": "Fixed", "config": {"weights": {"buy": 1000.0}}},
            optimizers={"default": {}, "shared": {"learning_rate": 0.0}},
        )
        train(experiment, folder / "data", folder / "run")
        yield folder / "data", folder / "run"
    finally:
        patch.undo()
    assert Gates.call is mixed


def test_planted_faults_are_found_and_nothing_else_of_their_kind(planted: Any) -> None:
    found = diagnose(planted[1])
    kinds = {(f.kind, f.subject) for f in found.findings}
    assert ("identical_experts", "experts/experts 0 and 1") in kinds
    assert ("stuck_gate", "gates/like") in kinds
    assert ("dominant_task", "buy on shared") in kinds
    assert not [k for k, s in kinds if k == "stuck_gate" and s != "gates/like"]
    assert not [s for k, s in kinds if k == "dominant_task" and "buy" not in s]
    assert found.looked_at["diagnostics"] == 3 and found.looked_at["rows"] == 80
    assert not found.notes
    by_kind = {f.kind: f for f in found.findings}
    assert by_kind["identical_experts"].number == pytest.approx(1.0, abs=1e-6)
    assert by_kind["stuck_gate"].number > 0.999


@pytest.fixture
def unfinished(planted: Any, tmp_path: pathlib.Path) -> pathlib.Path:
    """The run as it was before its end, without its model."""
    for name in ("experiment.yaml", "run.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes((planted[1] / name).read_bytes())
    return tmp_path


def test_the_command_says_it_in_words_and_in_json(
    unfinished: Any, capsys: pytest.CaptureFixture[str], unchanged_logging: None
) -> None:
    run = str(unfinished)
    assert main(["diagnose", run]) == 0
    text = capsys.readouterr().out
    assert "the gate like of gates gives expert 2 a mean weight of 1.000" in text
    assert text.count("  try: ") == text.count("\n- ")
    assert main(["diagnose", run, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"findings", "notes", "looked_at"} == set(document)
    assert all(f["threshold"] is not None for f in document["findings"])
    log = pathlib.Path(run) / "metrics.jsonl"
    log.write_text("")
    assert main(["diagnose", run]) == 0
    assert capsys.readouterr().out.endswith("no finding\n")


def test_snapshots_are_other_steps_of_the_run(planted: Any) -> None:
    run = planted[1]
    chosen = restore(run)
    for task, facts in chosen.result["tasks"].items():
        found = restore(run, snapshot=task)
        assert int(found.model.step) == found.step == facts["step"]
        report = evaluate(run, "validation", snapshot=task)
        auc = report["tasks"][task]["auc"]
        assert auc == pytest.approx(facts["value"], abs=2e-3)
    with pytest.raises(ConfigError, match=r"`snapshot` must be one of \['buy'"):
        restore(run, snapshot="by")


def test_a_snapshot_is_not_calibrated_by_the_chosen_models_calibrators(
    planted: Any, tmp_path: pathlib.Path
) -> None:
    run = shutil.copytree(planted[1], tmp_path / "run")
    cell = CellCalibration(
        source="task", rows=9, positives=3, calibrator=Calibrator(y=(-2.0,))
    )
    made = Calibration(
        method="bias",
        by="task",
        min_positives=1,
        min_negatives=1,
        step=4,
        outputs={"click": OutputCalibration(all=cell)},
    )
    write_calibration(made, run)
    logits = {n: tf.zeros([2]) for n in ("click", "like", "buy", "buy|click")}
    features = {"scenario": tf.zeros([2], tf.int32)}
    chosen, snapshot = restore(run), restore(run, snapshot="click")
    assert chosen.calibration == made and snapshot.calibration is None
    moved = {n: v.numpy()[0] for n, v in chosen.finish(logits, features).items()}
    assert moved == {"click": -2.0, "like": 0.0, "buy": 0.0, "buy|click": 0.0}
    assert snapshot.finish(logits, features) == logits


def test_a_run_that_goes_on_is_told_from_its_log(unfinished: Any) -> None:
    found = diagnose(unfinished)
    assert any("not finished" in note for note in found.notes)
    assert {f.kind for f in found.findings} >= {"stuck_gate", "dominant_task"}
    (unfinished / "metrics.jsonl").unlink()
    found = diagnose(unfinished)
    assert not found.findings and "diagnose_every" in found.notes[1]


def test_losses_are_those_between_evaluations() -> None:
    task = TaskSpec(name="buy", label="buy", given="click")
    log = [
        {"kind": "train", "steps": 1, "loss": {"buy": 4.0}},
        {"kind": "train", "steps": 3, "loss": {"buy": 2.0}},
        {"kind": "validation", "metrics": {"buy|click/logloss": 0.5}},
        {"kind": "train", "steps": 3, "loss": {"buy": None}},
        {"kind": "validation", "metrics": {"buy|click/logloss": 0.4}},
    ]
    metric, found = validation_losses(task, log)
    assert metric == "buy|click/logloss"
    assert found == [(2.5, 0.5), (None, 0.4)]


def test_a_refitted_run_is_looked_at_before_its_refit(
    planted: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refitted model has seen the validation split. Here it is not even there."""
    run = shutil.copytree(planted[1], tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "refit": True}))
    asked: list[dict[str, Any]] = []

    def measured(*args: Any, **settings: Any) -> Any:
        asked.append(settings)
        return evaluate(*args, **settings)

    monkeypatch.setattr(workflow_diagnose, "evaluate", measured)
    found = diagnose(run)
    assert not found.notes and found.looked_at["rows"] == 80
    assert asked[0]["resamples"] == 0  # intervals are not read
    with pytest.raises(TrainingError):
        evaluate(run, "validation", resamples=0)


def test_calibrators_that_saw_the_split_are_told(
    planted: Any, tmp_path: pathlib.Path
) -> None:
    run = shutil.copytree(planted[1], tmp_path / "run")
    made = Calibration(
        method="bias", by="task", min_positives=1, min_negatives=1, step=4
    )
    write_calibration(made, run)
    (note,) = diagnose(run).notes
    assert "fitted on the validation split" in note and "--split test" in note


@pytest.mark.parametrize("pointwise", [0.0, 1.0])
def test_scores_without_a_level_are_neither_miscalibrated_nor_overfit(
    planted: Any,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    pointwise: float,
) -> None:
    run = shutil.copytree(planted[1], tmp_path / "run")
    document = yaml.safe_load((run / "experiment.yaml").read_text())
    (click,) = (t for t in document["dataset"]["tasks"] if t["name"] == "click")
    click["loss"] = {"name": "bpr", "within": "batch", "pointwise": pointwise}
    (run / "experiment.yaml").write_text(yaml.safe_dump(document))
    lines = [
        line
        for step, loss, metric in ((1, 3.0, 0.5), (2, 2.0, 0.4), (3, 1.0, 0.9))
        for line in (
            {"kind": "train", "steps": 1, "loss": {"click": loss, "like": loss}},
            {
                "kind": "validation",
                "step": step,
                "metrics": {"click/logloss": metric, "like/logloss": metric},
            },
        )
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "metrics.jsonl").write_text(text)
    facts = {"kind": "binary", "rows": 10**5, "positives": 10**4, "pcoc": 3.0, "ece": 0}
    names = ("click", "like", "buy", "buy|click")
    report = {"rows": 10**5, "calibration": None, "tasks": dict.fromkeys(names, facts)}
    monkeypatch.setattr(workflow_diagnose, "evaluate", lambda *_, **__: report)
    monkeypatch.setattr(workflow_diagnose, "_look", lambda *_: None)
    found = {(f.kind, f.subject) for f in diagnose(run).findings}
    wanted = {("miscalibrated", n) for n in ("like", "buy|click")}
    wanted |= {("overfitting", "like")}
    if pointwise:  # the product `buy` has a level only where its step `click` has one
        wanted |= {("miscalibrated", n) for n in ("click", "buy")}
        wanted |= {("overfitting", "click")}
    assert found == wanted
