import itertools

import pytest

from tests.unit.tuning.oracles.drive import (
    KINDS,
    conditional,
    end,
    hill,
    oracle,
    plain,
    search,
    stairs,
)
from tfmtl.errors import DataError
from tfmtl.files import atomic_write
from tfmtl.tuning.oracles import stored


class Killed(Exception):
    """The process is gone."""


def _until_killed(folder, kind, ran, killed_at, monkeypatch):
    """Searches; the write of number `killed_at` never happens, nor anything after."""
    count = itertools.count()

    def write(path, data):
        if next(count) == killed_at:
            raise Killed
        atomic_write(path, data)

    monkeypatch.setattr(stored, "atomic_write", write)
    made = oracle(folder, kind, conditional(), max_trials=6)
    try:
        while True:
            trial = made.create_trial("tuner0")
            if trial.status == "STOPPED":
                return made, True
            ran.append((trial.trial_id, plain(trial.hyperparameters.values)))
            end(made, trial, stairs(trial.hyperparameters.values))
    except Killed:
        return made, False


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_at_any_write_neither_loses_nor_repeats(kind, tmp_path, monkeypatch):
    whole = []
    done, _ = _until_killed(tmp_path / "whole", kind, whole, None, monkeypatch)
    assert len(done.trials) == 6 == len(done.end_order)

    # Five writes a trial at most: created (2), reported, ended (2).
    for killed_at in range(0, 30, 1 if kind == "grid" else 4):
        folder = tmp_path / str(killed_at)
        ran = []
        made, ended = _until_killed(folder, kind, ran, killed_at, monkeypatch)
        assert not ended or killed_at >= 26
        over = {n for n in made.end_order if made.trials[n].status != "RUNNING"}
        before = len(ran)

        again, ended = _until_killed(folder, kind, ran, None, monkeypatch)

        assert ended
        # What was over on disk is not run again; of the rest each once.
        later = [name for name, _ in ran[before:]]
        assert len(set(later)) == len(later)
        assert not over - {ran[before - 1][0]} & set(later)
        assert again.start_order == done.start_order
        assert sorted(again.end_order) == sorted(done.end_order)
        for name, trial in again.trials.items():
            assert (
                trial.hyperparameters.values == done.trials[name].hyperparameters.values
            )
            assert trial.score == done.trials[name].score


def test_a_trial_whose_file_is_ahead_is_over(tmp_path, monkeypatch):
    made = oracle(tmp_path)
    first = made.create_trial("tuner0")
    made.update_trial(first.trial_id, {"click/auc": 0.7}, step=2)
    monkeypatch.setattr(made, "save", lambda: (_ for _ in ()).throw(Killed))
    first.status = "COMPLETED"
    with pytest.raises(Killed):
        made.end_trial(first)

    again = oracle(tmp_path)

    assert again.end_order == ["0000"] and again.trials["0000"].score == 0.7
    assert again.create_trial("tuner0").trial_id == "0001"


def test_a_trial_that_ran_runs_again_without_its_old_metrics(tmp_path):
    made = oracle(tmp_path)
    first = made.create_trial("tuner0")
    made.update_trial(first.trial_id, {"click/auc": 0.9}, step=3)

    again = oracle(tmp_path)
    trial = again.create_trial("tuner0")
    assert trial.trial_id == "0000"
    assert trial.hyperparameters.values == first.hyperparameters.values
    end(again, trial, {"click/auc": 0.5})

    assert again.trials["0000"].score == 0.5
    assert again.create_trial("tuner0").trial_id == "0001"


def test_reloading_twice_is_reloading_once(tmp_path):
    made = oracle(tmp_path)
    made.create_trial("tuner0")
    made.reload()
    made.reload()
    assert made._retry_queue == ["0000"] and not made.ongoing_trials


def test_a_damaged_file_is_an_error(tmp_path):
    search(oracle(tmp_path), hill)
    (tmp_path / "trial_0002" / "trial.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        oracle(tmp_path)
