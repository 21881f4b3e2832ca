"""One trial of a search, with training replaced."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from tfmtl.errors import TrainingError
from tfmtl.schema.experiment import Experiment
from tfmtl.testing.tiny import tiny_spec
from tfmtl.training.loop import Interrupted
from tfmtl.training.rundir import RunDirectory
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.oracles.pruning import MedianRule
from tfmtl.tuning.records import read_record, read_records
from tfmtl.workflow import trials as module
from tfmtl.workflow.attempts import MOST_ATTEMPTS, Attempts
from tfmtl.workflow.train import TrainResult
from tfmtl.workflow.trials import Trials

GOAL = Goal.parse(["click/auc"], [])
BASE = Experiment.model_validate(
    {
        "name": "tiny",
        "dataset": tiny_spec().model_dump(),
        "model": {"class": "SharedBottom"},
    }
).model_dump(mode="json", by_alias=True)

EPOCHS = BASE["training"]["epochs"]


def apply(values: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(BASE))
    document["optimizers"]["default"]["learning_rate"] = values["rate"]
    return document


class Trained:
    """Stands for `train`: each run reaches the scores that it is given."""

    def __init__(self, *scores: list[float] | Exception) -> None:
        self.scores = list(scores)
        self.runs: list[pathlib.Path] = []

    def __call__(
        self, experiment: Any, dataset: Any, run: pathlib.Path, **settings: Any
    ) -> TrainResult:
        self.runs.append(run)
        scores = self.scores.pop(0)
        if isinstance(scores, Exception):
            raise scores
        directory = RunDirectory(run)
        run.mkdir(parents=True, exist_ok=True)
        done, reason = 0, "epochs"
        for step, score in enumerate(scores, 1):
            metrics = {"click/auc": score}
            directory.log({"kind": "validation", "step": step, "metrics": metrics})
            done, stop = step, settings["watcher"](float(step), metrics)
            if stop:
                reason = stop
                break
        best = max(scores[:done])
        directory.finish({})
        return TrainResult(
            str(run), 1, "click/auc", best, done, reason, 1, {"click/auc": best}
        )


@pytest.fixture
def made(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(*scores: list[float] | Exception, **settings: Any) -> Any:
        trained = Trained(*scores)
        monkeypatch.setattr(module, "train", trained)
        return Trials(apply, GOAL, lambda _: tmp_path, tmp_path, **settings), trained

    return make


def test_a_trial_that_is_over_is_not_run_again(made: Any) -> None:
    trials, trained = made([0.6, 0.7])
    first = trials.run("0000", {"rate": 0.1})
    assert (first.status, first.metrics, first.steps) == (
        "finished",
        {"click/auc": 0.7},
        2,
    )
    assert trials.run("0000", {"rate": 0.1}) == first
    assert len(trained.runs) == 1


def test_an_equal_trial_has_the_result_of_the_first(made: Any) -> None:
    trials, trained = made([0.6], [0.8])
    trials.run("0000", {"rate": 0.1})
    equal = trials.run("0001", {"rate": 0.1})
    assert equal.reused == "0000" and equal.metrics == {"click/auc": 0.6}
    assert trials.run("0002", {"rate": 0.1}).reused == "0000"
    assert trials.run("0003", {"rate": 0.2}).reused is None
    assert len(trained.runs) == 2


def test_failures_are_written_down(made: Any, tmp_path: pathlib.Path) -> None:
    trials, _ = made(TrainingError("the loss is not finite"), MemoryError("no"), [])
    assert "finite" in trials.run("0000", {"rate": 0.1}).reason
    assert "MemoryError" in trials.run("0001", {"rate": 0.2}).reason
    # Values that make no experiment.
    assert "learning_rate" in trials.run("0002", {"rate": -1.0}).reason
    records = read_records(tmp_path)
    assert [r.status for r in records] == ["failed"] * 3
    assert not any(r.usable for r in records)


def test_a_mistake_is_none_of_the_trials(made: Any, tmp_path: pathlib.Path) -> None:
    trials, _ = made(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        trials.run("0000", {"rate": 0.1})
    assert read_record(tmp_path / "trials" / "0000") is None


def test_processes_that_die_without_a_word(made: Any) -> None:
    stops = [Interrupted(3, 15)] * 5
    trials, trained = made(*stops, [0.6], [0.7])
    for _ in stops:  # It could say that it stopped: these do not count.
        with pytest.raises(Interrupted):
            trials.run("0000", {"rate": 0.1})
    folder = trials.folder("0000")
    for _ in range(MOST_ATTEMPTS - 1):
        Attempts(folder).begin()
    assert trials.run("0000", {"rate": 0.1}).status == "finished"
    for _ in range(MOST_ATTEMPTS):
        Attempts(trials.folder("0001")).begin()
    record = trials.run("0001", {"rate": 0.2})
    assert record.status == "failed" and "memory" in record.reason
    assert len(trained.runs) == len(stops) + 1


def test_kills_count_between_two_checkpoints(tmp_path: pathlib.Path) -> None:
    for step in (10, 30, 20):
        for _ in range(MOST_ATTEMPTS):
            assert not Attempts(tmp_path).hopeless
            Attempts(tmp_path).begin()
        assert Attempts(tmp_path).hopeless
        # It came further: not the same place that kills it.
        (tmp_path / f"run/checkpoints/step-{step:010d}").mkdir(parents=True)
        assert Attempts(tmp_path).hopeless == (step == 20)
    Attempts.forget(tmp_path)
    assert not Attempts(tmp_path).hopeless


def test_a_name_that_an_earlier_search_used(made: Any, tmp_path: pathlib.Path) -> None:
    trials, _ = made([0.6], [0.7], [0.8])
    trials.run("0000", {"rate": 0.1})
    other = trials.run("0000", {"rate": 0.2})
    assert other.metrics == {"click/auc": 0.7}
    assert [r.values for r in read_records(tmp_path)] == [{"rate": 0.2}]
    (aside,) = read_records(tmp_path, "earlier")
    assert aside.values == {"rate": 0.1}
    # What is aside still has its result, for whatever name.
    for name in ("0001", "0000"):
        found = trials.run(name, {"rate": 0.1})
        assert (found.metrics, found.reused) == ({"click/auc": 0.6}, "earlier/0000")
    # Half a run of another experiment does not stand in the way.
    RunDirectory(trials.folder("0002") / "run").begin(
        Experiment.model_validate(apply({"rate": 0.9})), {}
    )
    assert trials.run("0002", {"rate": 0.3}).metrics == {"click/auc": 0.8}
    assert not (trials.folder("0002") / "run" / "run.json").exists()


def test_a_rung_of_another_length_is_another_trial(made: Any) -> None:
    """Another search's brackets may give the same values fewer epochs."""
    trials, trained = made([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], [0.5, 0.6, 0.7, 0.8])
    assert trials.run("0000", {"rate": 0.1}, epochs=1).steps == 1
    assert trials.run("0000", {"rate": 0.1}, epochs=2).steps == 2
    # As many as the experiment has are all of them: equal to a trial without rungs.
    whole = trials.run("0000", {"rate": 0.1}, epochs=EPOCHS)
    assert (whole.reason, whole.steps, whole.epochs) == ("epochs", 4, None)
    assert trials.run("0001", {"rate": 0.1}).reused == "0000"
    assert len(trained.runs) == 3


def test_the_median_rule_ends_a_trial(made: Any) -> None:
    good = [[0.7, 0.8], [0.6, 0.9]]
    rule = MedianRule(warmup_evaluations=1, least_trials=2)
    trials, _ = made(*good, [0.1, 0.2], [0.1, 0.95], [0.75, 0.5], rule=rule)
    for number in range(2):
        trials.run(f"000{number}", {"rate": 0.1 + number})
    poor = trials.run("0002", {"rate": 0.3})
    assert (poor.status, poor.steps) == ("pruned", 2)
    assert poor.metrics == {"click/auc": 0.2} and poor.usable
    assert trials.run("0003", {"rate": 0.4}).status == "finished"
    # The best value until now counts, not the last.
    assert trials.run("0004", {"rate": 0.5}).status == "finished"


def test_a_rung(made: Any, tmp_path: pathlib.Path) -> None:
    trials, trained = made([0.5, 0.6, 0.7], [0.7, 0.8])
    first = trials.run("0000", {"rate": 0.1}, epochs=2)
    assert (first.reason, first.steps) == ("rung", 2)
    assert trials.run("0000", {"rate": 0.1}, epochs=2) == first
    second = trials.run("0001", {"rate": 0.1}, epochs=9, parent="0000")
    assert (second.reason, second.reused) == ("epochs", None)
    # The run was copied, its result apart, and was gone on with.
    log = (trained.runs[1] / "metrics.jsonl").read_text()
    assert log.count("validation") == 4
    assert (tmp_path / "trials" / "0000" / "run" / "result.json").exists()
