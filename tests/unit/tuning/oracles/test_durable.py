import json
import threading

import numpy as np
import pytest

from tests.unit.tuning.oracles.drive import (
    AUC,
    CONDITIONAL,
    KINDS,
    conditional,
    end,
    hill,
    oracle,
    plain,
    plane,
    search,
    stairs,
)
from tfmtl.errors import ConfigError
from tfmtl.tuning.goals import INFEASIBLE, Goal
from tfmtl.tuning.records import TrialRecord


def test_a_tuner_gets_its_own_back_and_others_last(tmp_path):
    made = oracle(tmp_path, max_trials=3)
    zero, one = made.create_trial("tuner0"), made.create_trial("tuner1")

    again = oracle(tmp_path, max_trials=3)
    assert again.create_trial("tuner1").trial_id == one.trial_id
    end(again, one, {"click/auc": 0.5})
    # Nobody knows that tuner0 is dead, so its trial waits while there is another.
    assert again.create_trial("tuner1").trial_id == "0002"
    end(again, again.trials["0002"], None)
    assert again.create_trial("tuner1").trial_id == zero.trial_id
    end(again, zero, {"click/auc": 0.6})
    assert again.create_trial("tuner1").status == "STOPPED"
    assert sorted(again.end_order) == ["0000", "0001", "0002"]


def test_what_is_ended_late_by_its_worker_is_not_handed_out(tmp_path):
    made = oracle(tmp_path, max_trials=2)
    trial = made.create_trial("tuner0")

    again = oracle(tmp_path, max_trials=2)
    end(again, trial, {"click/auc": 0.5})
    trial.status = "COMPLETED"
    again.end_trial(trial)

    assert again.end_order == ["0000"]
    assert again.create_trial("tuner1").trial_id == "0001"


def test_a_worker_that_does_not_come_back_gives_its_trial_to_the_next(tmp_path):
    made = oracle(tmp_path)
    lost = made.create_trial("tuner0")
    made.release("tuner0")
    assert not made.ongoing_trials and "tuner0" not in made.tuner_ids
    assert oracle(tmp_path)._retry_queue == [lost.trial_id]

    assert made.create_trial("tuner1").trial_id == lost.trial_id


def test_who_has_nothing_left_waits_for_what_others_have(tmp_path):
    """Who was told STOPPED leaves; then nobody could take what another leaves."""
    made = oracle(tmp_path, max_trials=2)
    lost = made.create_trial("tuner0")
    end(made, made.create_trial("tuner1"), {"click/auc": 0.5})
    assert made.create_trial("tuner1").status == "IDLE"
    made.release("tuner0")
    again = made.create_trial("tuner1")
    assert (again.status, again.trial_id) == ("RUNNING", lost.trial_id)
    end(made, again, {"click/auc": 0.6})
    assert made.create_trial("tuner1").status == "STOPPED"
    assert made.end_order == ["0001", "0000"] and not made.tuner_ids


def test_a_call_that_raises_leaves_no_lock(tmp_path):
    made = oracle(tmp_path)
    with pytest.raises(KeyError):
        made.update_trial("0007", {"click/auc": 0.5})
    other = threading.Thread(target=made.create_trial, args=("tuner0",), daemon=True)
    other.start()
    other.join(20)
    assert not other.is_alive()


def test_any_number_of_trials_may_fail_and_nothing_is_printed(tmp_path, capsys):
    made = oracle(tmp_path, max_trials=5)
    assert len(search(made, lambda values: None)) == 5
    assert {trial.status for trial in made.trials.values()} == {"FAILED"}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("metrics", [{"click/auc": np.nan}, {"buy/auc": 0.5}])
def test_a_trial_without_its_metrics_failed(metrics, tmp_path):
    made = oracle(tmp_path, max_trials=1)
    search(made, lambda values: metrics)
    assert made.trials["0000"].status == "FAILED"
    assert "click/auc" in made.trials["0000"].message


def test_the_score_is_the_goal_at_the_best_step(tmp_path):
    goal = Goal.parse(["click/logloss"], ["like/auc >= 0.6"])
    made = oracle(tmp_path, goal=goal)
    trial = made.create_trial("tuner0")
    for step, loss, auc in ((1, 0.2, 0.5), (2, 0.5, 0.7), (3, 0.4, 0.7), (4, 0.6, 0.7)):
        metrics = {"click/logloss": loss, "like/auc": auc, "other": 1.0}
        made.update_trial(trial.trial_id, metrics, step=step)
    trial.status = "COMPLETED"
    made.end_trial(trial)
    assert (made.trials["0000"].score, made.trials["0000"].best_step) == (-0.4, 3)
    assert made.trials["0000"].metrics.get_best_value("score") == -0.4
    assert made.get_best_trials()[0].trial_id == "0000"

    bad = made.create_trial("tuner0")
    end(made, bad, {"click/logloss": 0.1, "like/auc": 0.5})
    assert made.trials["0001"].score == pytest.approx(INFEASIBLE - 0.1)


def test_values_over_the_wire_do_not_replace_the_oracles_own(tmp_path):
    made = oracle(tmp_path)
    trial = made.create_trial("tuner0")
    copy = type(trial).from_state(json.loads(json.dumps(trial.get_state())))
    copy.hyperparameters.values["x0"] = 0.123
    end(made, copy, {"click/auc": 0.5})
    assert made.trials["0000"].hyperparameters.values["x0"] != 0.123


def test_a_relative_bound_is_an_error(tmp_path):
    goal = Goal.parse(["click/auc"], ["like/auc >= baseline - 0.001"])
    with pytest.raises(ConfigError, match="numbers"):
        oracle(tmp_path, goal=goal)


def test_seeds_from_nought(tmp_path):
    runs = {}
    for number, seed in enumerate([0, 0, 1, 2]):
        made = oracle(tmp_path / str(number), seed=seed, max_trials=20)
        assert made.seed == seed
        runs[number] = search(made, hill)
    assert runs[0] == runs[1]
    # keras-tuner's seeds 0 and 2 would share all but one trial in two dimensions.
    every = [v["x0"] for number in (0, 2, 3) for v in runs[number]]
    assert len(set(every)) == 60


@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_or_not_the_proposals_are_the_same(kind, tmp_path):
    space = conditional if kind != "bayesian" else plane
    toy = stairs if kind != "bayesian" else hill
    whole = search(oracle(tmp_path / "a", kind, space(), max_trials=8), toy)
    parts = []
    for _ in range(8):
        made = oracle(tmp_path / "b", kind, space(), max_trials=8)
        parts += search(made, toy, most=1)
    assert parts == whole and len(whole) == 8


def _records(made):
    for name, trial in made.trials.items():
        usable = trial.status == "COMPLETED"
        yield TrialRecord(
            trial=name,
            values=json.loads(json.dumps(plain(trial.hyperparameters.values))),
            status="finished" if usable else "failed",
            reason="epochs" if usable else "diverged",
            metrics={"click/auc": trial.score} if usable else {},
            step=3,
            steps=3,
            seconds=1.0,
            seed=0,
            experiment="",
        )


@pytest.mark.parametrize("kind", ["random", "grid", "bayesian"])
def test_a_second_search_does_not_run_the_first_ones_trials(kind, tmp_path):
    first = oracle(tmp_path / "a", "random", conditional(), max_trials=4)
    ran = search(first, stairs)
    records = list(_records(first))

    second = oracle(tmp_path / "b", kind, conditional(), max_trials=4)
    assert second.start(records) == records
    assert search(second, stairs) == []
    assert second.get_best_trials()[0].score == first.get_best_trials()[0].score

    more = oracle(tmp_path / "b", kind, conditional(), max_trials=None, seed=5)
    assert more.start(records) == []
    later = search(more, stairs)
    assert len(later) == 6 and not [v for v in later if v in ran]
    assert sorted(map(str, ran + later)) == sorted(map(str, CONDITIONAL))
    assert list(more.trials)[4] == "0004"


def test_records_that_do_not_fit_the_space_are_passed_over(tmp_path):
    first = oracle(tmp_path / "a", "grid", conditional(), max_trials=1)
    search(first, stairs)
    (record,) = _records(first)
    second = oracle(tmp_path / "b", "grid", plane())
    assert second.start([record]) == [] and not second.trials


def test_a_record_ends_the_trial_that_was_cut_off_before_it_was_told(tmp_path):
    made = oracle(tmp_path)
    trial = made.create_trial("tuner0")
    values = dict(trial.hyperparameters.values)
    record = TrialRecord(
        "0000", values, "pruned", "median", {"click/auc": 0.6}, 2, 2, 1.0, 0, ""
    )

    again = oracle(tmp_path)
    assert again.start([record]) == [record]
    assert again.trials["0000"].score == 0.6
    assert again.create_trial("tuner0").trial_id == "0001"
    assert oracle(tmp_path).end_order == ["0000"]
    assert AUC.metrics == ("click/auc",)
