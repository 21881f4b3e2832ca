import collections

import pytest

from tests.unit.tuning.oracles.drive import end, oracle, plane, search
from tfmtl.errors import ConfigError
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.oracles.make import make_oracle


def _run(made, fails):
    """Rounds as (bracket, round) -> [(values, failed)]."""
    rounds = collections.defaultdict(list)

    def toy(values):
        failed = fails(values)
        rounds[values["tuner/bracket"], values["tuner/round"]].append((values, failed))
        return None if failed else {"click/auc": values["x0"]}

    search(made, toy, most=500)
    return rounds


def test_the_best_of_each_round_go_on(tmp_path):
    rounds = _run(oracle(tmp_path, "hyperband", max_trials=None, epochs=4), lambda v: 0)
    # max_epochs 4, factor 2: brackets 2, 1 and 0 of sizes 4-2-1, 3-2 (1.5 up), 3.
    assert {k: len(v) for k, v in rounds.items()} == {
        (2, 0): 4,
        (2, 1): 2,
        (2, 2): 1,
        (1, 0): 3,
        (1, 1): 2,
        (0, 0): 3,
    }
    (last,) = rounds[2, 2]
    assert last[0]["x0"] == max(v["x0"] for v, _ in rounds[2, 0])
    assert (last[0]["tuner/epochs"], last[0]["tuner/initial_epoch"]) == (4, 2)
    top = sorted((v["x0"] for v, _ in rounds[2, 0]), reverse=True)[:2]
    assert sorted((v["x0"] for v, _ in rounds[2, 1]), reverse=True) == top


@pytest.mark.parametrize(
    "fails",
    [
        lambda v: v["x0"] > 0.5,
        lambda v: v["tuner/round"] == 1,
        lambda v: v["tuner/round"] == 0 and v["tuner/bracket"] == 2,
        lambda v: True,
    ],
)
def test_it_ends_whatever_fails_and_whoever_is_left_goes_on(fails, tmp_path):
    rounds = _run(oracle(tmp_path, "hyperband", max_trials=None, epochs=8), fails)
    sizes = {k: len(v) for k, v in rounds.items()}
    full = _sizes(epochs=8)
    for (bracket, number), size in full.items():
        left = size
        if number:
            past = rounds[bracket, number - 1]
            left = min(size, sum(not failed for _, failed in past))
        assert sizes.get((bracket, number), 0) == left, (bracket, number)


def _sizes(epochs):
    """Round sizes by the formula of keras-tuner, brackets from the greatest."""
    made = make_oracle(
        "hyperband",
        plane(),
        Goal.parse(["click/auc"], []),
        max_trials=None,
        seed=0,
        epochs=epochs,
        factor=2,
    )
    brackets = range(made._get_num_brackets())
    return {(b, r): made._get_size(b, r) for b in brackets for r in range(b + 1)}


def test_two_workers_wait_for_each_other(tmp_path):
    made = oracle(tmp_path, "hyperband", max_trials=None, epochs=2)
    trials, idle = {}, 0
    for turn in range(100):
        tuner = f"tuner{turn % 2}"
        # The second worker is slow.
        if tuner in trials and (tuner == "tuner0" or turn % 7 == 0):
            end(made, trials.pop(tuner), {"click/auc": turn / 100})
        if tuner in trials:
            continue
        trial = made.create_trial(tuner)
        idle += trial.status == "IDLE"
        if trial.status == "STOPPED":
            break
        if trial.status == "RUNNING":
            trials[tuner] = trial
    assert trial.status == "STOPPED" and idle and not made.ongoing_trials
    assert len(made.end_order) == sum(_sizes(epochs=2).values())


def test_iterations_and_the_same_seed(tmp_path):
    one = search(
        oracle(tmp_path / "1", "hyperband", max_trials=None, epochs=2), lambda v: None
    )
    two = search(
        oracle(tmp_path / "2", "hyperband", max_trials=None, epochs=2, iterations=2),
        lambda v: None,
    )
    assert two[: len(one)] == one and len(two) == 2 * len(one)


def test_settings_that_do_not_go_together(tmp_path):
    with pytest.raises(ConfigError, match="epochs"):
        oracle(tmp_path, "hyperband", epochs=None)
    both = Goal.parse(["click/auc", "like/auc"], [])
    with pytest.raises(ConfigError, match="one objective"):
        oracle(tmp_path, "hyperband", goal=both)
