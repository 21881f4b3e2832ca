"""Runs: resumed ones equal whole ones, the best step is chosen, errors say where."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tfmtl import build
from tfmtl._keras import tf
from tfmtl.errors import ConfigError, TrainingError
from tfmtl.progress import Silent
from tfmtl.schema.load import dump_experiment
from tfmtl.schema.manifest import DATASET_FILE, write_manifest
from tfmtl.testing.records import write_records
from tfmtl.testing.tiny import COLUMNS, tiny_columns, tiny_spec
from tfmtl.training.checkpoint import Progress, restore_model
from tfmtl.training.loop import Interrupted, Loop
from tfmtl.training.rundir import RunDirectory
from tfmtl.training.trainer import Trainer
from tfmtl.workflow.restore import restore
from tfmtl.workflow.train import TrainResult, train

ROOT = pathlib.Path(__file__).resolve().parents[3]


class StopAt(Silent):
    """Sends this process a signal when so many steps are done."""

    def __init__(self, step: int, signum: int = signal.SIGTERM) -> None:
        self.step, self.signum, self.done = step, signum, 0

    def advance(self, n: int) -> None:
        self.done += n
        if self.done >= self.step:
            os.kill(os.getpid(), self.signum)


def events(run: pathlib.Path) -> list[dict[str, Any]]:
    """The log without its clock."""
    found = RunDirectory(run).events()
    for event in found:
        event.pop("rows_per_second", None)
    return found


def final_state(run: pathlib.Path) -> dict[str, np.ndarray]:
    """Every tensor of the last checkpoint, optimizer slots included."""
    (folder,) = (run / "checkpoints").glob("step-*")
    loaded = tf.train.load_checkpoint(str(folder / "state"))
    return {
        n: loaded.get_tensor(n)
        for n in loaded.get_variable_to_shape_map()
        if n != "_CHECKPOINTABLE_OBJECT_GRAPH"
    }


def assert_same_run(run: pathlib.Path, other: pathlib.Path) -> None:
    assert events(run) == events(other)
    mine, theirs = final_state(run), final_state(other)
    assert set(mine) == set(theirs)
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)


@pytest.fixture(scope="module")
def whole(
    dataset: Any, experiment: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pathlib.Path, TrainResult]:
    """The run that was never interrupted."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    return run, train(experiment(), dataset[0], run)


def test_log_tells_every_step_once(whole: Any) -> None:
    run, result = whole
    logged = [e for e in events(run) if e["kind"] == "train"]
    ends = np.cumsum([e["steps"] for e in logged]).tolist()
    assert [e["step"] for e in logged] == ends
    # log_every 2, evaluate_every 5, checkpoint_every 3, epochs of 7.
    assert ends == [2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14]
    assert [e["epoch"] for e in logged] == [0] * 6 + [1] * 5
    assert all(v > 0 for e in logged for v in e["loss"].values())
    assert all(e["penalty"] > 0 for e in logged)
    rates = [e["learning_rate"]["default"] for e in logged]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 1e-3
    validated = [e["step"] for e in events(run) if e["kind"] == "validation"]
    assert validated == [5, 10, 14]
    assert result.reason == "epochs" and result.steps == 14


def test_the_best_step_is_chosen_and_kept(whole: Any) -> None:
    run, result = whole
    values = {
        e["step"]: e["metrics"]["mean/auc"]
        for e in events(run)
        if e["kind"] == "validation"
    }
    assert result.value == max(values.values())
    assert values[result.step] == result.value
    assert result.metrics["mean/auc"] == result.value
    kept = sorted(p.name for p in (run / "checkpoints").iterdir())
    assert kept == [f"best-{result.step:010d}", "step-0000000014"]
    assert int(restore(run).model.step) == result.step


def test_one_seed_repeats_bit_for_bit(
    whole: Any, dataset: Any, experiment: Any, tmp_path: pathlib.Path
) -> None:
    train(experiment(), dataset[0], tmp_path / "again")
    assert_same_run(tmp_path / "again", whole[0])


@pytest.mark.parametrize("step", [4, 7])
def test_sigterm_saves_first_and_resume_goes_on_exactly(
    whole: Any, dataset: Any, experiment: Any, tmp_path: pathlib.Path, step: int
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=r"SIGTERM after step .*--resume") as caught:
        train(experiment(), dataset[0], tmp_path / "run", listener=StopAt(step))
    assert caught.value.exit_code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is handler
    (saved,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    assert saved.name == f"step-{step:010d}"
    assert not RunDirectory(tmp_path / "run").finished
    result = train(experiment(), dataset[0], tmp_path / "run", resume=True)
    assert (result.step, result.value) == (whole[1].step, whole[1].value)
    assert_same_run(tmp_path / "run", whole[0])


def test_a_killed_process_resumes_exactly(
    whole: Any, dataset: Any, experiment: Any, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "e.yaml").write_text(dump_experiment(experiment()))
    script = (
        "import sys; from tfmtl.schema.load import load_experiment; "
        "from tfmtl.workflow.train import train; "
        "train(load_experiment(sys.argv[1]), sys.argv[2], sys.argv[3])"
    )
    paths = [str(tmp_path / "e.yaml"), str(dataset[0]), str(tmp_path / "run")]
    # The tenth chunk ends at step 12; the last checkpoint is of step 9.
    killed = subprocess.run(
        [sys.executable, "-c", script, *paths],
        cwd=ROOT,
        env={**os.environ, "TFMTL_FAILPOINT": "train/mid-step:10"},
        timeout=300,
    )
    assert killed.returncode == -signal.SIGKILL
    (saved,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    assert saved.name == "step-0000000009"
    logged = len(events(tmp_path / "run"))
    train(experiment(), dataset[0], tmp_path / "run", resume=True)
    assert logged < len(events(tmp_path / "run"))
    assert_same_run(tmp_path / "run", whole[0])


def test_resume_of_a_finished_run_does_nothing(
    whole: Any, dataset: Any, experiment: Any
) -> None:
    before = sorted(whole[0].rglob("*"))
    assert train(experiment(), dataset[0], whole[0], resume=True) == whole[1]
    assert sorted(whole[0].rglob("*")) == before


def test_resume_refuses_another_experiment(
    whole: Any, dataset: Any, experiment: Any
) -> None:
    with pytest.raises(ConfigError, match=r"\['training'\] of the experiment"):
        train(experiment(epochs=3), dataset[0], whole[0], resume=True)


def test_patience_stops_and_the_first_of_equals_is_chosen(
    dataset: Any, experiment: Any, tmp_path: pathlib.Path
) -> None:
    still = experiment(patience=2, epochs=9, evaluate_every=3, learning_rate=1e-12)
    result = train(still, dataset[0], tmp_path / "run")
    assert (result.reason, result.step, result.steps) == ("patience", 3, 9)


def test_a_monitor_that_is_undefined_is_named(
    dataset: Any, experiment: Any, tmp_path: pathlib.Path
) -> None:
    wrong = experiment(monitor="mean/rmse", steps=1)
    with pytest.raises(ConfigError, match=r"'mean/rmse' is undefined.*'click/auc'"):
        train(wrong, dataset[0], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_names_its_batch_and_keeps_the_checkpoint(
    experiment: Any, tmp_path: pathlib.Path
) -> None:
    columns = {s: tiny_columns(200, i) for i, s in enumerate(("train", "validation"))}
    columns["train"]["price"][20] = np.inf
    folder = tmp_path / "data"
    manifest = write_records(folder, tiny_spec(), COLUMNS, columns)
    asked = experiment(checkpoint_every=1)
    reader = build.make_reader(asked, manifest, folder, "train", train=True)
    prices = [b.features["price"].numpy() for b in reader.epoch()]
    (bad,) = [i for i, p in enumerate(prices) if np.isinf(p).any()]
    assert bad > 0
    message = (
        rf"not finite at step {bad + 1} \(batch {bad} of epoch 0; tasks: \['click'"
    )
    with pytest.raises(TrainingError, match=message) as caught:
        train(asked, folder, tmp_path / "run")
    assert f"kept: step-{bad:010d}" in str(caught.value)
    state = final_state(tmp_path / "run")
    assert all(np.isfinite(v).all() for v in state.values() if v.dtype == np.float32)


def test_refit_trains_on_both_splits_for_the_chosen_steps(
    dataset: Any, experiment: Any, tmp_path: pathlib.Path
) -> None:
    run = tmp_path / "run"
    result = train(experiment(steps=6), dataset[0], run, refit=True)
    assert result.refit and result.reason == "steps"
    again = RunDirectory(run / "refit")
    logged = [e for e in again.events() if e["kind"] == "train"]
    assert sum(e["steps"] for e in logged) == result.step
    model = restore(run).model
    assert int(model.step) == result.step
    first = build.make_model(experiment(), dataset[1], dataset[0])
    restore_model(first, run / "checkpoints", result.step)
    assert np.abs(model.towers.head.kernel - first.towers.head.kernel).max() > 1e-4


@pytest.mark.parametrize(
    ("monitor", "value", "better"),
    [
        ("mean/auc", 0.8, True),
        ("mean/auc", 0.7, False),
        ("mean/auc", 0.6, False),
        ("click/logloss", 0.8, False),
        ("click/logloss", 0.6, True),
    ],
)
def test_better_knows_the_direction(
    experiment: Any, monitor: str, value: float, better: bool
) -> None:
    loop = Loop.__new__(Loop)
    loop.spec = experiment(monitor=monitor).training
    loop.progress = Progress(best_value=0.7)
    assert loop._better(value) is better
    loop.progress = Progress()
    assert loop._better(value)


def test_the_reason_of_a_run_resumed_at_its_end(
    whole: Any, dataset: Any, experiment: Any, tmp_path: pathlib.Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    (run / "result.json").unlink()  # as a kill just before it was written leaves it
    result = train(experiment(), dataset[0], run, resume=True)
    assert result == dataclasses.replace(whole[1], run=str(run))


def test_resume_with_refit_refits_a_finished_run(
    dataset: Any, experiment: Any, tmp_path: pathlib.Path
) -> None:
    asked, run = experiment(steps=6), tmp_path / "run"
    first = train(asked, dataset[0], run)
    assert not first.refit and not (run / "refit").exists()
    before = events(run)
    result = train(asked, dataset[0], run, resume=True, refit=True)
    assert result == dataclasses.replace(first, refit=True)
    assert events(run) == before, "the choice is not made again"
    logged = [e for e in events(run / "refit") if e["kind"] == "train"]
    assert sum(e["steps"] for e in logged) == first.step
    assert restore(run).result["refit"]
    # Straight through, it is the same model.
    train(asked, dataset[0], tmp_path / "whole", refit=True)
    assert_same_run(run / "refit", tmp_path / "whole" / "refit")
    files = sorted(run.rglob("*"))
    assert train(asked, dataset[0], run, resume=True, refit=True) == result
    assert sorted(run.rglob("*")) == files


def test_resume_refuses_other_rows(
    dataset: Any, experiment: Any, tmp_path: pathlib.Path
) -> None:
    asked, folder, run = experiment(steps=2), tmp_path / "data", tmp_path / "run"
    shutil.copytree(dataset[0], folder)

    def with_content(content: str) -> None:
        manifest = dataset[1].model_copy(update={"content_id": content})
        write_manifest(manifest, folder / DATASET_FILE)

    with_content("one")
    train(asked, folder, run)
    with_content("two")
    for refit in (False, True):
        with pytest.raises(ConfigError, match=r"`--resume` .*other rows"):
            train(asked, folder, run, resume=True, refit=refit)
    with_content("")
    train(asked, folder, run, resume=True)


def test_variables_are_checked_once_a_step(
    dataset: Any, experiment: Any, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    checked: list[int] = []
    real = Trainer.all_finite

    def count(trainer: Trainer) -> bool:
        checked.append(int(trainer.model.step))
        return real(trainer)

    monkeypatch.setattr(Trainer, "all_finite", count)
    train(experiment(), dataset[0], tmp_path / "run")
    # Evaluations at 5, 10 and 14, checkpoints at 3, 6, 9, 12 and 14.
    assert checked == [3, 5, 6, 9, 10, 12, 14]
