"""One way to make any oracle."""

from __future__ import annotations

from typing import Literal

import keras_tuner

from tfmtl.errors import ConfigError
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.oracles.bayesian import BayesianOracle
from tfmtl.tuning.oracles.durable import DurableOracle
from tfmtl.tuning.oracles.hyperband import HyperbandOracle
from tfmtl.tuning.oracles.random_search import GridOracle, RandomOracle

Kind = Literal["random", "grid", "bayesian", "hyperband"]


def make_oracle(
    kind: Kind,
    hyperparameters: keras_tuner.HyperParameters,
    goal: Goal,
    *,
    max_trials: int | None,
    seed: int,
    initial_points: int | None = None,
    epochs: int | None = None,
    factor: int = 3,
    iterations: int = 1,
) -> DurableOracle:
    """An oracle of keras-tuner's protocol.

    Args:
        kind: Which.
        hyperparameters: The space.
        goal: Every bound is a number. Several objectives: `bayesian` seeks their front;
            random and grid search do not look at results.
        max_trials: Trials in all, those of `start` included. None: until every
            combination (grid, or a finite space) or bracket (hyperband) is done.
        seed: From 0.
        initial_points: Of `bayesian`, see `BayesianOracle`.
        epochs: Of `hyperband`: what the trials that go furthest are trained for.
        factor: Of `hyperband`: of so many trials one goes on, to so many times the
            epochs.
        iterations: Of `hyperband`: times to go through all brackets.

    Raises:
        ConfigError: Settings that do not go together.
    """
    if kind == "hyperband":
        if epochs is None or epochs < 1 or factor < 2 or iterations < 1:
            raise ConfigError(
                "hyperband needs `epochs` >= 1, `factor` >= 2 and `iterations` >= 1. "
                f"Received: epochs={epochs}, factor={factor}, iterations={iterations}"
            )
        if len(goal.objectives) > 1:
            raise ConfigError(
                "hyperband keeps the best of a round, so it takes one objective. "
                f"Received: {[o.metric for o in goal.objectives]}. Search for several "
                "with `bayesian`"
            )
        return HyperbandOracle(
            hyperparameters,
            goal,
            max_trials=max_trials,
            seed=seed,
            epochs=epochs,
            factor=factor,
            iterations=iterations,
        )
    if kind == "bayesian":
        return BayesianOracle(
            hyperparameters,
            goal,
            max_trials=max_trials,
            seed=seed,
            initial_points=initial_points,
        )
    oracle = GridOracle if kind == "grid" else RandomOracle
    return oracle(hyperparameters, goal, max_trials=max_trials, seed=seed)
