import time

import keras_tuner
import numpy as np
import pytest

from tests.unit.tuning.oracles.drive import end, hill, oracle, plane, search
from tests.unit.tuning.oracles.test_hypervolume import area
from tfmtl.tuning.goals import Goal

SEEDS = range(2)


def _best(folder, kind, toy, goal, seed, trials):
    made = oracle(
        folder / f"{kind}{seed}", kind, goal=goal, seed=seed, max_trials=trials
    )
    search(made, toy)
    return made.get_best_trials()[0]


def test_it_finds_the_optimum_and_random_search_does_not(tmp_path):
    goal = Goal.parse(["click/auc"], [])
    best = {
        kind: np.mean(
            [_best(tmp_path, kind, hill, goal, seed, 16).score for seed in SEEDS]
        )
        for kind in ("bayesian", "random")
    }
    assert best["bayesian"] > 1.0 - 1e-3 > best["random"]


def test_with_noise_the_mean_is_followed(tmp_path):
    rng = np.random.default_rng(0)
    made = oracle(tmp_path, "bayesian", max_trials=25)
    search(made, lambda v: {"click/auc": hill(v)["click/auc"] + rng.normal(0, 0.05)})
    late = [made.trials[name].hyperparameters.values for name in made.end_order[-8:]]
    assert np.median([hill(v)["click/auc"] for v in late]) > 0.97


def test_the_defaults_come_first_then_sobol(tmp_path):
    ran = search(oracle(tmp_path, "bayesian", max_trials=6), hill)
    assert ran[0] == {"x0": 0.5, "x1": 0.5}
    points = np.array([[v["x0"], v["x1"]] for v in ran[1:5]])
    # One in each half of each axis at least twice: what four Sobol points do.
    assert ((points > 0.5).sum(axis=0) == 2).all()


def test_a_constrained_optimum(tmp_path):
    """Best where it is allowed: x0 + x1 <= 0.8 leaves (0.15, 0.65)."""

    def toy(v):
        return {**hill(v), "like/auc": 0.9 - v["x0"] - v["x1"]}

    goal = Goal.parse(["click/auc"], ["like/auc >= 0.1"])
    best = [_best(tmp_path, "bayesian", toy, goal, seed, 18) for seed in SEEDS]
    exact = 1.0 - 2 * 0.15**2
    # A score above 0 keeps the bound.
    assert exact - 0.01 < np.mean([b.score for b in best]) <= exact + 1e-9


def test_without_a_feasible_point_it_goes_where_one_may_be(tmp_path):
    """A corner of 1 % of the square is allowed; the objective pulls away from it."""

    def toy(v):
        return {"click/auc": -v["x0"], "like/auc": min(v["x0"], v["x1"])}

    goal = Goal.parse(["click/auc"], ["like/auc >= 0.9"])
    found = [_best(tmp_path, "bayesian", toy, goal, seed, 14).score for seed in SEEDS]
    assert min(found) > -1.0


def test_two_objectives_reach_more_than_random(tmp_path):
    def toy(v):
        x, y = v["x0"], v["x1"]
        return {
            "a": 1.0 - x**2 - (y - 0.5) ** 2,
            "b": 1.0 - (x - 1) ** 2 - (y - 0.5) ** 2,
        }

    def volume(kind, seed):
        folder = tmp_path / f"{kind}{seed}"
        goal = Goal.parse(["a", "b"], [])
        made = oracle(folder, kind, goal=goal, seed=seed, max_trials=16)
        ran = search(made, toy)
        return area([tuple(toy(v).values()) for v in ran], (0.0, 0.0))

    ours = np.mean([volume("bayesian", seed) for seed in SEEDS])
    assert ours > np.mean([volume("random", seed) for seed in SEEDS])
    # The whole front: y = 0.5, x in [0, 1]; area is 2/3 + 1/6 by integration.
    assert ours > 0.9 * 5 / 6


def test_two_objectives_within_a_bound(tmp_path):
    def toy(v):
        return {"a": 1.0 - v["x0"], "b": v["x0"], "c": v["x1"]}

    goal = Goal.parse(["a", "b"], ["c <= 0.3"])
    made = oracle(tmp_path, "bayesian", goal=goal, max_trials=18)
    ran = search(made, toy)
    assert sum(v["x1"] <= 0.35 for v in ran[8:]) >= 8
    kept = [v["x0"] for v in ran if v["x1"] <= 0.3]
    assert max(kept) > 0.9 and min(kept) < 0.1


def test_a_region_that_fails_is_left(tmp_path):
    """Right of 0.6 trials diverge, and what was seen promises more there."""

    def toy(v):
        return None if v["x0"] > 0.6 else {"click/auc": 1.0 - (v["x0"] - 0.7) ** 2}

    made = oracle(tmp_path, "bayesian", max_trials=18)
    ran = search(made, toy)
    # All of them, where nothing is learnt from failures.
    assert sum(v["x0"] > 0.7 for v in ran[6:]) <= 6
    assert made.get_best_trials()[0].score > 1.0 - 0.15**2


def test_workers_beside_each_other_try_different_points(tmp_path):
    made = oracle(tmp_path, "bayesian", max_trials=20)
    search(made, hill, most=8)
    going = [made.create_trial(f"tuner{n}") for n in range(4)]
    points = np.array([list(t.hyperparameters.values.values()) for t in going])
    apart = np.linalg.norm(points[:, None] - points, axis=-1) + np.eye(4)
    assert apart.min() > 0.02
    for trial in going:
        end(made, trial, hill(trial.hyperparameters.values))


def test_choices_and_conditions(tmp_path):
    space = keras_tuner.HyperParameters()
    space.Choice("model", ["a", "b", "c", "d"])
    with space.conditional_scope("model", ["c"]):
        space.Float("x0", 0.0, 1.0)

    def toy(v):
        return {"click/auc": 0.5 + (0.4 - (v["x0"] - 0.7) ** 2 if "x0" in v else 0.0)}

    made = oracle(tmp_path, "bayesian", space, max_trials=16)
    ran = search(made, toy)
    assert made.get_best_trials()[0].score > 0.9 - 1e-3
    # The others have one point each.
    assert sum(v["model"] != "c" for v in ran) <= 3


def test_a_hundred_trials_in_six_dimensions(tmp_path, monkeypatch):
    made = oracle(tmp_path, "bayesian", plane(6), max_trials=None, initial_points=100)
    search(made, hill, most=100)
    spent = time.process_time()
    trial = made.create_trial("tuner0")
    print(f"proposed in {time.process_time() - spent:.2f} s of one core")
    assert hill(trial.hyperparameters.values)["click/auc"] > 0.9


@pytest.mark.parametrize("least", [None, 2, 11])
def test_how_many_points_come_first(least, tmp_path):
    made = oracle(tmp_path, "bayesian", plane(3), initial_points=least)
    assert made.initial_points == (least or 8)
