import pytest

from tests.unit.tuning.oracles.drive import (
    CONDITIONAL,
    KINDS,
    conditional,
    end,
    oracle,
    plain,
    plane,
    search,
)


def _auc(values):
    return {"click/auc": 0.5}


@pytest.mark.parametrize("kind", KINDS)
def test_a_conditional_space_has_values_of_what_is_active_alone(kind, tmp_path):
    made = oracle(tmp_path, kind, conditional(), max_trials=None)
    ran = search(made, _auc)
    first = [plain(values) for values in ran if values.get("tuner/round", 0) == 0]
    # The space is exhausted, and ends the search.
    assert sorted(map(str, first)) == sorted(map(str, CONDITIONAL))


@pytest.mark.parametrize("kind", KINDS)
def test_max_trials_is_kept(kind, tmp_path):
    assert len(search(oracle(tmp_path, kind, max_trials=3), _auc)) == 3


def test_the_grid_with_two_workers_and_failures(tmp_path):
    made = oracle(tmp_path, "grid", conditional(), max_trials=None)
    ran, going = [], {}
    for turn in range(40):
        tuner = f"tuner{turn % 2}"
        if tuner in going:
            end(made, going.pop(tuner), None if turn % 3 else {"click/auc": 0.5})
        trial = made.create_trial(tuner)
        if trial.status == "STOPPED":
            break
        if trial.status == "IDLE":  # Nothing is left but what the other one has.
            continue
        going[tuner] = trial
        ran.append(dict(trial.hyperparameters.values))
    assert ran[0] == {"kind": "rank", "model": "mmoe", "experts": 2}
    assert len(ran) == len(CONDITIONAL)
    assert sorted(map(str, ran)) == sorted(map(str, CONDITIONAL))


def test_a_range_without_a_step_has_ten_levels_beside_the_default(tmp_path):
    ran = search(oracle(tmp_path, "grid", plane(1), max_trials=None), _auc)
    assert [values["x0"] for values in ran] == pytest.approx(
        [0.5, *(0.05 + 0.1 * i for i in range(10))]
    )


def test_a_grid_over_two_log_ratios_is_whole(tmp_path):
    space = plane(0)
    for name in ("like", "share"):
        space.Float(name, 0.1, 10.0, step=10**0.25, sampling="log", default=1.0)
    ran = search(oracle(tmp_path, "grid", space, max_trials=None), _auc)
    pairs = {(round(v["like"], 6), round(v["share"], 6)) for v in ran}
    assert len(pairs) == 81
