"""How much of the score each hyper-parameter decides: functional ANOVA of a forest.

A random forest learns score from values. Each of its trees is constant on boxes, so the
mean of the tree over all hyper-parameters but one, as a function of that one, and the
variance of this function are sums over boxes: exact, without sampling. The variance
over that of the whole tree is the hyper-parameter's share; the mean over trees is
reported. What all shares leave of 1 is the part of interactions.

The measure is that of the space, not of the trials, which a search draws where it is
good: numbers uniform on their scale, choices equally likely; a hyper-parameter that is
not always active is inactive as often as in the trials, independently of the others.

Source: F. Hutter, H. Hoos, K. Leyton-Brown, "An Efficient Approach for Assessing
Hyperparameter Importance", ICML 2014, sections 3 and 4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmtl.metrics.arrays import Floats
from tfmtl.tuning.axes import Axis, Encoded, encode
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.pareto import measured
from tfmtl.tuning.records import TrialRecord

SCORE = "score"
_TREES = 128
_LEAF = 2  # trials in a leaf, at least: single ones are mostly noise


@dataclasses.dataclass(frozen=True)
class Importance:
    """Of all hyper-parameters for one target.

    Attributes:
        target: `score`, or the metric of an objective.
        shares: Hyper-parameter to its share of the variance, in [0, 1], greatest first.
        interactions: What the shares leave of 1.
        r2: Of the forest on trials that each tree did not see; near or below 0 the
            forest knows nothing, and its shares say nothing.
        trials: That it learned from.
    """

    target: str
    shares: dict[str, float]
    interactions: float
    r2: float
    trials: int


@dataclasses.dataclass(frozen=True)
class Importances:
    """Of every target; `reason` says why there is none, or none of some."""

    found: tuple[Importance, ...]
    reason: str | None = None


def importances(
    records: Sequence[TrialRecord], axes: Sequence[Axis], goal: Goal, *, seed: int = 0
) -> Importances:
    """Shares of each hyper-parameter in the score, and in each objective.

    Trials that failed are left out. In the score, one that breaks a bound counts as the
    worst that keeps all. Pruned trials count with what they reached.

    Args:
        records: Of a search.
        axes: Its dimensions.
        goal: Its bounds are numbers.
        seed: Of the forests; equal seeds give equal shares.
    """
    usable = measured(records, goal)
    least = 2 * (len(axes) + 1)
    if not axes or len(usable) < least:
        return Importances(
            (),
            f"{len(usable)} usable trials are too few to tell the importance of "
            f"{len(axes)} hyper-parameters: {least} are needed",
        )
    encoded = encode(axes, [r.values for r in usable])
    targets = {o.metric: [r.metrics[o.metric] for r in usable] for o in goal.objectives}
    kept = [goal.violation(r.metrics) == 0.0 for r in usable]
    if any(kept):
        scores = np.array([goal.score(r.metrics) for r in usable])
        targets = {SCORE: np.maximum(scores, scores[kept].min()).tolist(), **targets}
    found, flat = [], []
    for name, values in targets.items():
        target = np.array(values)
        if np.ptp(target) > 0.0:
            found.append(_importance(name, encoded, target, seed))
        else:
            flat.append(name)
    said = [f"all trials are equal in {name}" for name in flat]
    if not any(kept):
        said.insert(0, "no trial keeps all bounds, so that there is no score")
    return Importances(tuple(found), "; ".join(said) or None)


def _importance(name: str, encoded: Encoded, target: Floats, seed: int) -> Importance:
    forest = fit_forest(encoded.matrix, target, seed)
    shares = main_effects(forest, encoded)
    order = sorted(shares, key=lambda key: -shares[key])
    return Importance(
        name,
        {key: shares[key] for key in order},
        max(0.0, 1.0 - sum(shares.values())),
        float(forest.oob_score_),
        len(target),
    )


def fit_forest(matrix: Floats, target: Floats, seed: int, trees: int = _TREES) -> Any:
    """A fitted RandomForestRegressor with its out-of-bag R2 in `oob_score_`."""
    # Takes a second to import, which only the end of a search has to pay.
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(
        trees,
        min_samples_leaf=_LEAF,
        oob_score=True,
        random_state=seed,
    )
    # In units of its spread: a tree stops at a fixed least variance.
    return forest.fit(matrix, (target - target.mean()) / target.std())


def main_effects(forest: Any, encoded: Encoded) -> dict[str, float]:
    """Each hyper-parameter's share of the variance, in the mean over trees.

    Args:
        forest: Fitted on `encoded.matrix`.
        encoded: What it was fitted on.

    Returns:
        Hyper-parameter to share; zeros where no tree has a split.
    """
    shares = []
    for estimator in forest.estimators_:
        low, high, value = _leaves(estimator.tree_, encoded.matrix.shape[1])
        total, effects = _variances(low, high, value, encoded)
        if total > 0.0:
            shares.append(effects / total)
    mean = np.mean(shares, axis=0) if shares else np.zeros(len(encoded.names))
    return dict(zip(encoded.names, mean.tolist()))


def _leaves(tree: Any, columns: int) -> tuple[Floats, Floats, Floats]:
    """Boxes (low, high] of a tree's leaves, [V, D] each, and their values [V]."""
    low = np.full((tree.node_count, columns), -np.inf)
    high = np.full((tree.node_count, columns), np.inf)
    # A node's number is above its parent's.
    for node in range(tree.node_count):
        left, right = tree.children_left[node], tree.children_right[node]
        if left < 0:
            continue
        low[left] = low[right] = low[node]
        high[left] = high[right] = high[node]
        column, threshold = tree.feature[node], tree.threshold[node]
        high[left, column] = low[right, column] = threshold
    leaf = tree.children_left < 0
    return low[leaf], high[leaf], tree.value[leaf, 0, 0]


def _variances(
    low: Floats, high: Floats, value: Floats, encoded: Encoded
) -> tuple[float, Floats]:
    """Variance of a tree, and of the main effect of each hyper-parameter [P]."""
    inside, weights = [], []
    for name in encoded.names:
        places = encoded.places(name)
        points, weight = _points(name, encoded, low[:, places])
        # [V, 1, c] against [W, c] -> [V, W]: which leaf a value may end in
        inside.append(
            ((low[:, None, places] < points) & (points <= high[:, None, places])).all(
                -1
            )
        )
        weights.append(weight)
    # [V, P]: how likely a hyper-parameter's value is in a leaf's box
    share = np.stack([part @ w for part, w in zip(inside, weights)], axis=1)
    probability = share.prod(axis=1)
    mean = float(probability @ value)
    total = float(probability @ (value - mean) ** 2)
    effects = []
    for place, (part, weight) in enumerate(zip(inside, weights)):
        others = np.delete(share, place, axis=1).prod(axis=1)
        marginal = (others * value) @ part  # [W]
        effects.append(float(weight @ (marginal - mean) ** 2))
    return total, np.array(effects)


def _points(name: str, encoded: Encoded, low: Floats) -> tuple[Floats, Floats]:
    """Values of a hyper-parameter that stand for all of them, and their weights.

    Args:
        name: The hyper-parameter.
        encoded: All columns.
        low: [V, c] lower bounds of the leaves in its c columns: between two of them
            nothing changes.

    Returns:
        Points [W, c] and weights [W] of sum 1.
    """
    places = encoded.places(name)
    numbers = encoded.places(name, "number")
    inactive = encoded.places(name, "inactive")
    if numbers:
        column = low[:, places.index(numbers[0])]
        inner = np.unique(column[(column > 0.0) & (column < 1.0)])
        ends = np.concatenate([[0.0], inner, [1.0]])
        points = np.zeros((len(ends) - 1, len(places)))
        points[:, places.index(numbers[0])] = (ends[1:] + ends[:-1]) / 2
        weights = np.diff(ends)
    else:
        choices = encoded.places(name, "choice")
        points = np.eye(len(choices), len(places))
        weights = np.full(len(choices), 1.0 / len(choices))
    if inactive:
        rows = encoded.matrix[encoded.matrix[:, inactive[0]] == 1.0]
        share = len(rows) / len(encoded.matrix)
        points = np.vstack([points, rows[:1][:, places]])
        weights = np.append(weights * (1.0 - share), share)
    return points, weights
