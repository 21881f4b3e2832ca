"""Functional ANOVA against sums over a grid of predictions, and analytic shares."""

import itertools

import numpy as np
import pytest

from tfmtl.tuning.axes import Axis, encode
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.importance import SCORE, fit_forest, importances, main_effects

A, B = Axis("a"), Axis("b", 0.01, 1.0, log=True)
KIND = Axis("kind", choices=("x", "y", "z"))
GOAL = Goal.parse(["click/auc"], [])


def draws(count, conditional=False, seed=0):
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        row = {
            "a": float(draw.random()),
            "b": float(0.01 ** draw.random()),
            "kind": str(draw.choice(["x", "y", "z"])),
        }
        if conditional and row["kind"] == "x":
            del row["b"]
        rows.append(row)
    return rows


def brute_force(forest, encoded, grids):
    """Shares from predictions on the product of the values of each parameter.

    Args:
        grids: Of each parameter, ([W, c] columns, [W] weights).
    """
    sizes = [len(w) for _, w in grids]
    rows = np.array(
        [
            np.concatenate([grid[i] for (grid, _), i in zip(grids, index)])
            for index in itertools.product(*map(range, sizes))
        ]
    )
    shares = []
    for tree in forest.estimators_:
        cube = tree.predict(rows).reshape(sizes)
        joint = np.ones(())
        for _, weight in grids:
            joint = np.multiply.outer(joint, weight)
        mean = (joint * cube).sum()
        variance = (joint * (cube - mean) ** 2).sum()
        effects = []
        for axis, (_, weight) in enumerate(grids):
            others = tuple(k for k in range(len(grids)) if k != axis)
            marginal = (joint * cube).sum(axis=others) / weight
            effects.append((weight * (marginal - mean) ** 2).sum())
        shares.append(np.array(effects) / variance)
    return dict(zip(encoded.names, np.mean(shares, axis=0)))


def cells(forest, place):
    """Midpoints and lengths of the cells between all thresholds of a column."""
    cuts = [t.tree_.threshold[t.tree_.feature == place] for t in forest.estimators_]
    ends = np.unique(np.concatenate([[0.0, 1.0], *cuts]))
    return (ends[1:] + ends[:-1]) / 2, np.diff(ends)


def test_main_effects_are_those_of_all_predictions():
    values = draws(24)
    target = np.array(
        [v["a"] ** 2 + (v["kind"] == "y") * (0.5 + v["b"]) - v["b"] for v in values]
    )
    encoded = encode([A, B, KIND], values)
    forest = fit_forest(encoded.matrix, target, seed=3, trees=20)
    (a, wa), (b, wb) = cells(forest, 0), cells(forest, 1)
    grids = [(a[:, None], wa), (b[:, None], wb), (np.eye(3), np.full(3, 1 / 3))]
    wanted = brute_force(forest, encoded, grids)
    found = main_effects(forest, encoded)
    assert found == pytest.approx(wanted, abs=1e-9)
    assert min(found.values()) > 0.01
    # Another measure gives other shares: the check tells them apart.
    other = brute_force(forest, encoded, [*grids[:2], (np.eye(3), [0.6, 0.2, 0.2])])
    assert found != pytest.approx(other, abs=1e-3)


def test_main_effects_of_what_is_not_always_active():
    values = draws(24, conditional=True)
    target = np.array([v["a"] + 2 * v.get("b", 0.7) for v in values])
    encoded = encode([A, B, KIND], values)
    forest = fit_forest(encoded.matrix, target, seed=3, trees=20)
    share = np.mean(["b" not in v for v in values])
    (a, wa), (b, wb) = cells(forest, 0), cells(forest, 1)
    b = np.append(np.stack([b, 0 * b], 1), [[0.5, 1.0]], axis=0)
    wb = np.append(wb * (1 - share), share)
    grids = [(a[:, None], wa), (b, wb), (np.eye(3), np.full(3, 1 / 3))]
    wanted = brute_force(forest, encoded, grids)
    assert main_effects(forest, encoded) == pytest.approx(wanted, abs=1e-9)


def trials(record, values, function):
    return [
        record(i, {"click/auc": float(function(v))}, v) for i, v in enumerate(values)
    ]


def test_shares_of_a_sum_are_those_of_its_variances(record):
    # Variances of 3 a and 1 log-uniform b: 9 to 1; the kind has no part.
    found = importances(
        trials(record, draws(300), lambda v: 3 * v["a"] + B.unit(v["b"])),
        [A, B, KIND],
        GOAL,
    )
    score = found.found[0]
    assert score.target == SCORE and score.trials == 300 and found.reason is None
    assert list(score.shares) == ["a", "b", "kind"]
    assert score.shares["a"] == pytest.approx(0.9, abs=0.03)
    assert score.shares["b"] == pytest.approx(0.1, abs=0.03)
    assert score.shares["kind"] < 0.01
    assert score.interactions < 0.05 and score.r2 > 0.95


def test_interactions_are_no_main_effects(record):
    found = importances(
        trials(record, draws(400), lambda v: (v["a"] > 0.5) != (B.unit(v["b"]) > 0.5)),
        [A, B],
        GOAL,
    )
    assert found.found[0].interactions > 0.8


def test_noise_has_no_r2_and_equal_seeds_agree(record):
    draw = np.random.default_rng(5)
    noise = trials(record, draws(60), lambda _: draw.random())
    found = importances(noise, [A, B, KIND], GOAL, seed=1)
    assert found.found[0].r2 < 0.2
    assert found == importances(noise, [A, B, KIND], GOAL, seed=1)
    assert found != importances(noise, [A, B, KIND], GOAL, seed=2)


def test_bounds_and_objectives(record):
    goal = Goal.parse(["click/auc", "like/auc"], ["like/auc >= 0.5"])
    values = draws(120)
    made = [
        record(i, {"click/auc": v["a"], "like/auc": 1 - B.unit(v["b"])}, v)
        for i, v in enumerate(values)
    ]
    by_target = {i.target: i for i in importances(made, [A, B], goal).found}
    assert list(by_target) == [SCORE, "click/auc", "like/auc"]
    assert by_target["click/auc"].shares["a"] > 0.9
    assert by_target["like/auc"].shares["b"] > 0.9
    # A broken bound is worst, but not a million times worse.
    assert 0.05 < by_target[SCORE].shares["a"] < by_target["click/auc"].shares["a"]
    assert by_target[SCORE].shares["b"] > 0.05


def test_says_why_there_is_none(record):
    few = trials(record, draws(7), lambda v: v["a"])
    found = importances(few, [A, B, KIND], GOAL)
    assert not found.found
    assert found.reason == (
        "7 usable trials are too few to tell the importance of 3 hyper-parameters: "
        "8 are needed"
    )
    assert importances([*few, record(9)], [A, B, KIND], GOAL).found == ()
    assert importances(few, [A, B], GOAL).found
    equal = importances(trials(record, draws(9), lambda _: 0.5), [A], GOAL)
    assert equal.found == () and "all trials are equal in score" in equal.reason
    broken = Goal.parse(["click/auc"], ["click/auc >= 2"])
    found = importances(few, [A, B], broken)
    assert [i.target for i in found.found] == ["click/auc"]
    assert "no trial keeps all bounds" in found.reason
